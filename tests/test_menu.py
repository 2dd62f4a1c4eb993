"`alexnet`, which lists the commands and calls them, and `--json`, which makes answers of them"
import json, re, sys
from pathlib import Path

import pytest

from alexnet_nb.data import prepare
from alexnet_nb.engine.demo import demo
from alexnet_nb.engine.locks import lock_folder
from alexnet_nb.tools import commands, doctor
from alexnet_nb.tools.caches import list_kept
from alexnet_nb.tools.cards import Card
from alexnet_nb.tools.commands import alexnet_bench, alexnet_doctor, alexnet_eval, alexnet_predict
from alexnet_nb.tools.menu import alexnet, list_commands
from conftest import call, entry_points, fine, refused, root, run

def test_list():
    "Each command is installed, and is listed with its own first line, whatever way help is asked for"
    names = {name.removeprefix('alexnet_') for name,*_ in entry_points()}-{'alexnet'}
    assert list_commands()=={o:getattr(commands, f'alexnet_{o}').__doc__ for o in names}
    said = fine(call(alexnet)).stdout
    assert said==fine(call(alexnet, '--help')).stdout==fine(call(alexnet, 'help')).stdout
    assert all(re.search(rf'^  {o} +\S', said, re.M) for o in names)

def test_cheap():
    "The list and `--version` import neither PyTorch nor NumPy"
    code = "import sys; from alexnet_nb.tools.menu import alexnet; sys.argv = ['alexnet', sys.argv[1]]; alexnet(); "
    code += "assert not {'torch', 'numpy', 'fastcore'} & {*sys.modules}"
    assert 'alexnet train' not in fine(run(sys.executable, '-c', code, '--help')).stderr

@pytest.mark.parametrize('way', [('train',), ('alexnet_train',), ('help', 'train')])
def test_same_command(way):
    "`alexnet train --help` is `alexnet_train --help`"
    args = way if way[0]=='help' else (*way, '--help')
    assert fine(call(alexnet, *args)).stdout==fine(call(commands.alexnet_train, '--help')).stdout

def test_bad_words():
    "One line and exit code 2, from here and from the command"
    refused(call(alexnet, 'trian', 'pack'), "alexnet: 'trian' is no command; did you mean train?")
    refused(call(alexnet, '\x1b[31m'), r"'\x1b[31m' is no command")
    refused(call(alexnet, 'eval', 'none'), 'alexnet_eval: --pack is missing')

# --- Answers

def answer(r, code=0):
    "The document on standard output: one, and what JSON allows"
    def odd(word): raise AssertionError(f'{word} is no JSON')
    assert r.returncode==code, r.stderr
    return json.loads(r.stdout, parse_constant=odd)

@pytest.fixture(scope='module')
def documented():
    "{command: keys that the page names}"
    cells = json.loads((root/'nbs/tools/commands.ipynb').read_text())['cells']
    page = next(o for o in map(''.join, (c['source'] for c in cells)) if o.startswith('## JSON for programs'))
    return {name:re.findall(r'`(\w+)`', text) for name,text in re.findall(r'^\| `(alexnet_\w+)` \| (.*) \|$', page, re.M)}

@pytest.fixture(scope='module')
def network(demo_pack, tmp_path_factory):
    from alexnet_nb.data import Pack
    from alexnet_nb.model import AlexNet, save_weights
    d = tmp_path_factory.mktemp('json')
    net = AlexNet('code2012', 10, .02, 56, seed=0)
    net.names = Pack(demo_pack/'pack').names
    save_weights(net, d/'w.safetensors')
    return d/'w.safetensors'

def test_eval(demo_pack, network, documented, tmp_path):
    args = network, network, '--pack', demo_pack/'pack', '--device', 'cpu', '--json'
    found = answer(call(alexnet_eval, *args, cwd=tmp_path))
    assert {*found, *found['results'][0]}==set(documented['alexnet_eval'])-{'differences'} and found['n']==50
    assert [(o['network'], o['views']) for o in found['results']][-2:]==[('average', 1), ('average', 10)]
    assert all(0<=o['top5']<=o['top1']<=1 for o in found['results'])
    found = answer(call(alexnet_eval, *args, '--compare', cwd=tmp_path))
    assert {*found['results'][0]}=={'network', 'differences'} and not list(tmp_path.iterdir())

def test_predict(demo_pack, network, documented, tmp_path):
    picture = next((demo_pack/'pictures').rglob('*.JPEG'))
    args = network, picture, 'none.jpg', '--views', 1, '--device', 'cpu', '--json'
    found = answer(call(alexnet_predict, *args, cwd=tmp_path), 2)
    assert {*found, *found['predictions'][0]}==set(documented['alexnet_predict'])
    assert found['predictions'][0]['image']==str(picture) and 'none.jpg' in found['not_read'][0]
    assert not list(tmp_path.iterdir())

def test_doctor(documented, tmp_path, monkeypatch):
    "What was examined is made up here; test_doctor.py examines"
    found = doctor.Report('a pack', [doctor.Figure('reading', float('nan'))], None, '', [], [], [], [], 1.)
    monkeypatch.setattr(doctor, 'doctor', lambda *args, **kw: found)
    r = call(alexnet_doctor, '--json', cwd=tmp_path)
    assert [*answer(r), 'removed', 'stays']==documented['alexnet_doctor'] and 'a pack' in r.stderr
    assert answer(r)['figures'][0]['value'] is None and not list(tmp_path.iterdir())
    fine(call(alexnet_doctor, '--json', 'r.json', cwd=tmp_path))
    assert json.loads((tmp_path/'r.json').read_text())==answer(r)

def test_bench(tmp_path, monkeypatch):
    "What was measured is made up here; test_bench.py measures"
    def measure(what, out, *args, **kw):
        print('a table')
        assert out is None
        return {what[0]:Card('bench lrn', {'ours':1.5}, '(medians)', 1, spread=[float('inf')])}
    monkeypatch.setattr('alexnet_nb.tools.bench.bench', measure)
    r = call(alexnet_bench, 'lrn', '--json', cwd=tmp_path)
    assert answer(r)['lrn']['value']=={'ours':1.5} and answer(r)['lrn']['spread']==[None] and 'a table' in r.stderr

# --- What is kept

@pytest.fixture
def kept(tmp_path, monkeypatch):
    "A folder to be in, with something of each kind that is kept, and what looks like it"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path/'torch'))
    prepare(demo(tmp_path/'alexnet_demo/pictures', 2, 1), tmp_path/'alexnet_demo/demo', size=64)
    for o in (f"cache/alexnet_nb/kernels/lrn-{'0'*16}-{'1'*64}.so", f"torch/hub/checkpoints/alexnet_nb/{'2'*12}/a b.pth",
              'cache/alexnet_nb/kernels/notes.txt', 'cache/alexnet_nb/npm/x.so', 'torch/hub/checkpoints/theirs.pth',
              'alexnet_demo/pictures/train/d00000000/mine.JPEG', 'alexnet_demo/run/model.safetensors', 'theirs/words.txt',
              f"theirs/lrn-{'0'*16}-{'1'*64}.so"):
        (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/o).write_bytes(b'12345')
    (tmp_path/'alexnet_demo/pictures/val/d00000001/d00000001_7.JPEG').symlink_to(tmp_path/'theirs/words.txt')
    (tmp_path/'alexnet_demo/pictures/val/d00000042').symlink_to(tmp_path/'theirs')
    return tmp_path

def files(d): return {o.relative_to(d).as_posix() for o in d.rglob('*') if o.is_file() or o.is_symlink()}

def test_clear(kept):
    "Says what and how much; a file of the user, a link and what it leads to stay; the second time there is nothing"
    before = list_rows(kept)
    r = answer(call(alexnet_doctor, '--clear', '--json', cwd=kept))
    assert r['removed']==before and r['stays']==[]
    assert [o['what'] for o in before]==['compiled functions', 'fetched weights', 'demo pictures', 'demo pack']
    assert [o['bytes'] for o in before[:2]]==[5, 5] and before[2]['files']==31
    assert files(kept)=={'cache/alexnet_nb/kernels/notes.txt', 'cache/alexnet_nb/npm/x.so',
        'torch/hub/checkpoints/theirs.pth', 'alexnet_demo/pictures/train/d00000000/mine.JPEG',
        'alexnet_demo/pictures/val/d00000001/d00000001_7.JPEG', 'alexnet_demo/pictures/val/d00000042',
        'alexnet_demo/run/model.safetensors', 'theirs/words.txt', f"theirs/lrn-{'0'*16}-{'1'*64}.so"}
    assert 'nothing is kept' in fine(call(alexnet_doctor, '--clear', cwd=kept)).stdout

def list_rows(folder):
    with pytest.MonkeyPatch.context() as m:
        m.chdir(folder)
        return list_kept()

def test_clear_links(kept):
    "A folder that is a link is somebody else's"
    for o in ('alexnet_demo/demo', 'alexnet_demo/pictures', 'cache/alexnet_nb'):
        (kept/o).rename(kept/f'moved-{Path(o).name}')
        (kept/o).symlink_to(kept/f'moved-{Path(o).name}')
    before = files(kept)
    assert [o['what'] for o in list_rows(kept)]==['fetched weights']
    fine(call(alexnet_doctor, '--clear', cwd=kept))
    assert {Path(o).name for o in before-files(kept)}=={'a b.pth'}

def test_clear_at_work(kept):
    "What a training or a download works with stays, and a line says so; other packs that are called demo stay"
    with lock_folder(kept/'alexnet_demo/run', 'training'), lock_folder(kept/f"torch/hub/checkpoints/alexnet_nb/{'2'*12}", 'download'):
        r = fine(call(alexnet_doctor, '--clear', cwd=kept))
    assert r.stderr.count('is at work in this folder')==3 and 'compiled functions' in r.stdout
    assert (kept/'alexnet_demo/demo/meta.json').exists()
    meta = kept/'alexnet_demo/demo/meta.json'
    meta.write_text(meta.read_text().replace('"d00000003"', '"n00000003"'))
    (kept/'alexnet_demo/pictures/words.txt').write_text('others')
    assert {o['what'] for o in list_rows(kept)}=={'fetched weights'}
