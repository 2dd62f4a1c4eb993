"Bad input, command by command: exit code 2, one line that says what is wrong, and nothing is written"
import shutil

import pytest, torch

from alexnet_nb.tools import commands
from conftest import call, refused, script, start

bench = '--device cpu --batch-size 2 --repeats 1 --steps 1 --width .25 --size 64 --threads 1'
doctor = '--width .25 --size 56 --batch-size 16 --device cpu --seconds 4'

# Command, arguments, what the line must say. The words in capitals are folders and files of `place`.
table = [
    ('prepare', 'NONE x', 'NONE: no such folder'),
    ('prepare', 'EMPTY x', 'EMPTY: no images'),
    ('prepare', 'ONE x', 'ONE: only one class'),
    ('prepare', 'PAGE.tar x', 'PAGE.tar: '),
    ('prepare', 'FLAT x', 'LOC_val_solution.csv'),
    ('prepare', 'FLAT', 'DST is missing'),
    ('prepare', 'FLAT --verify', 'not a pack'),
    ('prepare', 'PICTURES PACK', 'exists already'),
    ('prepare', 'PICTURES x --storage png', "storage png", "raw|jpeg"),
    ('prepare', 'PICTURES x --workers 0', 'workers 0'),
    ('prepare', 'PICTURES x --val 2', 'val 2.0'),
    ('prepare', 'PICTURES x --max_bad 7', 'max_bad 7'),
    ('prepare', 'PICTURES x --size 99999999999999999999', 'size 99999999999999999999: expected int <= '),
    ('prepare', 'PICTURES x --size 1.5', "invalid int value: '1.5'"),
    ('prepare', 'PICTURES x --val nan', 'val nan'),
    ('prepare', 'PICTURES x --quality 101', 'quality 101'),
    ('prepare', 'PICTURES PICTURE/x', 'PICTURE/x: cannot be written'),
    ('train', 'PACK --run r --seed -1', 'seed -1: expected int >= 0'),
    ('train', 'PACK --run r --seed 1180591620717411303424', 'seed 1180591620717411303424: expected int'),
    ('train', 'PACK --run r --epochs nan', 'epochs nan: expected float'),
    ('train', 'PACK --run r --epochs inf', 'epochs inf: expected float'),
    ('train', 'PACK --run r --lr inf', 'lr inf: expected float'),
    ('train', 'PACK --run r --width 0', 'width 0.0: expected float > 0'),
    ('train', 'PACK --run r --width 60', 'width 60.0: must be'),
    ('train', 'PACK --run r --batch_size 1000000000000', 'batch_size 1000000000000: expected int'),
    ('train', 'PACK --run r --workers 0', 'workers 0: expected int >= 1'),
    ('train', 'PACK --run r --rates conv1=nan', 'rates'),
    ('train', 'PACK --run r --device meta', "device 'meta'"),
    ('train', 'PACK --run PICTURE/r', 'PICTURE/r', 'Not a directory'),
    ('train', 'PACK --run PICTURES', 'PICTURES', 'is not a run'),
    # without a pack: before the demo pictures are drawn
    ('train', '--spec nonsense', "spec 'nonsense' is unknown"),
    ('train', '--run PICTURE/r', 'PICTURE/r', 'Not a directory'),
    ('train', '--run PICTURE', 'PICTURE: is no folder'),
    ('train', '--run PICTURES', 'PICTURES', 'is not a run'),
    ('train', '--time_budget nonsense', "time_budget 'nonsense'"),
    ('train', '--size 200', 'size 200'),
    ('train', '--steps 0', 'steps 0'),
    ('train', '--init_from NONE', 'NONE: '),
    ('train', '--columns --device cpu --spec one_column', 'cannot be split'),
    ('doctor', '--spec nonsense', "'nonsense' is unknown"),
    ('doctor', '--json PICTURE/d.json', 'PICTURE/d.json', 'Not a directory'),
    ('doctor', '--seconds inf', 'seconds inf'),
    ('doctor', '--batch_size 999999999999', 'batch_size 999999999999'),
    ('eval', 'RUN', '--pack is missing'),
    ('eval', 'RUN --pack PACK --split none', "split 'none' is unknown; there are train, val"),
    ('eval', 'RUN --pack PACK --card PICTURES', 'PICTURES: is a folder'),
    ('eval', 'RUN --pack PACK --card PICTURE/c.json', 'PICTURE/c.json', 'Not a directory'),
    ('predict', 'RUN PICTURE --views 3', '--views 3: must be 1 or 10'),
    ('predict', 'NONE PICTURE', 'NONE: '),
    ('bench', f'lrn {bench} --out PICTURE/b.json', 'PICTURE/b.json', 'Not a directory'),
    ('bench', f'lrn {bench} --width nan', 'width nan'),
    ('reproduce', 'autopsy PACK --size 200', 'size 200'),
    ('reproduce', 'autopsy PACK --only nothing', 'nothing'),
    ('reproduce', 'figure1 --out PICTURE/c.json', 'PICTURE/c.json', 'Not a directory'),
    ('reproduce', 'figure1 --only swish', 'swish'),
    ('train', 'OLD --run r', 'format 99', 'format 1'),
    ('train', 'NONE --run r', 'not a pack'),
    ('train', 'PACK --spec resnet', "'resnet' is unknown", 'code2012'),
    ('train', 'PACK --run RUN --lr .02', 'lr 0.01 (now 0.02)'),
    ('train', 'PACK --run r --steps -1', 'steps -1'),
    ('train', 'PACK --run r --lr -1', 'lr -1'),
    ('train', 'PACK --run r --device cuda:77', 'cuda:77'),
    ('train', 'PACK --run r --device cpu,nowhere', 'nowhere'),
    ('train', 'PACK --run r --device cpu,cpu', 'add --columns'),
    ('train', 'PACK --run r --device cpu,cpu,cpu', '3 named'),
    ('train', 'PACK --run r --device cpu --columns --spec one_column', 'cannot be split'),
    ('train', 'PACK --run r --device cpu --columns --spec torchvision', 'cannot be split'),
    ('train', 'PACK --run r --device cpu --columns --compile', 'not possible with columns'),
    ('train', 'PACK --run r --init_from RUN --width .5', 'init_from: a network of width 0.25, not 0.5'),
    ('train', 'PACK --run r --init_from RUN --rates conv9=1', 'no layer conv9'),
    ('train', 'PACK --run r --precision fp8', "precision 'fp8' is unknown"),
    ('train', 'PACK --run r --time_budget soon', "time_budget 'soon'"),
    ('train', 'PACK --run r --schedule cosine', "schedule 'cosine' is unknown; there are constant, short, small, paper"),
    ('eval', 'EMPTY --pack PACK', 'no weights in this folder'),
    ('eval', 'RUN --pack PACK --batch_size 0', 'batch_size 0'),
    ('predict', 'RUN PICTURE --out PICTURE/p.png', 'PICTURE/p.png', 'Not a directory'),
    ('predict', 'RUN PICTURE --out p.txt', 'p.txt', 'png'),
    ('predict', 'RUN PICTURE --out PICTURES', 'is a folder'),
    ('bench', f'lnr {bench}', "alexnet_bench: measurement 'lnr' is unknown; there are train"),
    ('bench', f'lrn data12 {bench}', "'data12' is unknown"),
    ('bench', f'{bench} --batch-size 0', 'batch_size 0'),
    ('bench', f'{bench} --repeats 0', 'repeats 0'),
    ('bench', f'{bench} --size 8', 'size 8: too small'),
    ('bench', f'{bench} --device cuda:77', 'cuda:77'),
    ('bench', f'step {bench} --compile-mode fast', "compile_mode 'fast' is unknown"),
    ('bench', f'lrn lrn {bench} --out x.json', 'one file for 2 cards'),
    ('doctor', f'NONE {doctor}', 'alexnet_doctor: ', 'not a pack'),
    ('doctor', f'PACK {doctor} --spec resnet', "'resnet' is unknown"),
    ('doctor', f'PACK {doctor} --workers 0', 'workers 0'),
    ('doctor', f'PACK {doctor} --size 200', 'size 200'),
    ('doctor', f'PACK {doctor} --device cuda:77', 'cuda:77'),
    ('doctor', f'ODD {doctor}', 'meta.json', 'damaged'),
    ('reproduce', 'figure1 NONE', 'NONE', 'no such folder'),
    ('reproduce', 'figure1 PICTURES --lr -1', 'lr -1', 'expected float > 0'),
    ('reproduce', 'figure1 PICTURES --max_epochs 0', 'max_epochs 0'),
    ('reproduce', 'figure1 PICTURES --size 64', 'no such option'),
    ('reproduce', 'figure1 PICTURES --device cuda:9', 'cuda:9')]
if torch.cuda.device_count()<2: table.insert(0, ('train', 'PACK --run r --columns --device cuda', 'need 2 GPUs'))

@pytest.fixture(scope='module')
def place(demo_pack, tmp_path_factory):
    "A folder of good and bad things, to be in"
    d = tmp_path_factory.mktemp('place')
    shutil.copytree(demo_pack/'pictures/val', d/'PICTURES')
    shutil.copytree(demo_pack/'pack', d/'PACK')
    picture = shutil.copy(next((d/'PICTURES').rglob('*.JPEG')), d/'PICTURE')
    (d/'EMPTY').mkdir()
    (d/'PAGE.tar').write_text('<html>')
    for o in 'ONE/cat/1.jpg FLAT/train/a/1.jpg FLAT/train/b/1.jpg FLAT/val/1.jpg'.split():
        (d/o).parent.mkdir(parents=True)
        shutil.copy(picture, d/o)
    (d/'OLD').mkdir()
    (d/'OLD/meta.json').write_text((d/'PACK/meta.json').read_text().replace('"format": 1', '"format": 99'))
    (d/'ODD').mkdir()
    (d/'ODD/meta.json').write_text('{"format": 1}')
    r = call(commands.alexnet_train, 'PACK', '--run', 'RUN', '--epochs', 1, '--width', .25, '--size', 56,
             '--precision', 'fp32', cwd=d)
    assert r.returncode==0, r.stderr
    return d

def files(folder):
    "Names, and when files were written; a name is tried in a folder before it is used, which changes only the folder's time"
    return {o.relative_to(folder).as_posix():o.is_file() and o.stat().st_mtime_ns for o in folder.rglob('*')}

@pytest.mark.parametrize('name,args,parts', [(k, args, parts) for k,args,*parts in table])
def test_refused(place, name, args, parts):
    "In this process, which saves the imports"
    before = files(place)
    command = getattr(commands, f'alexnet_{name}')
    more = ['--epochs', '1', '--width', '.25', '--size', '56'] if '--run RUN' in args else []
    r = call(command, *args.split(), *more, cwd=place)
    written = files(place)!=before
    shutil.rmtree(place/'r', ignore_errors=True) # for the tests that follow
    refused(r, *parts)
    assert not written

@pytest.mark.parametrize('name,args', [('train', 'PACK --run r --device cpu'), ('train', '--device cpu'), ('bench', f'lrn {bench}')])
def test_no_compiler(place, monkeypatch, name, args):
    "`--compile` where PyTorch has nothing to compile with"
    monkeypatch.setenv('CXX', '/no/such/g++')
    before = files(place)
    refused(call(getattr(commands, f'alexnet_{name}'), *args.split(), '--compile', cwd=place), '/no/such/g++', 'leave --compile away')
    assert files(place)==before

def test_refused_in_the_shell(place):
    "The last of each command, started by its script"
    last = {name:(args.split(), parts) for name,args,*parts in table}
    ps = {name:start(script(f'alexnet_{name}'), *args, cwd=place) for name,(args,_) in last.items()}
    for name,(_,parts) in last.items(): refused(ps[name].wait(), *parts)

def test_several_lines(place):
    "Settings that differ from those of the run are on lines of their own"
    r = call(commands.alexnet_train, *'PACK --run RUN --epochs 1 --width .25 --size 56 --precision bf16 --seed 4'.split(), cwd=place)
    assert r.returncode==2 and r.stderr.splitlines()[1:]==['  seed 0 (now 4)','  precision fp32 (now bf16)'], r.stderr
