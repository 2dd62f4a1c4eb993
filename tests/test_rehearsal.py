"The tutorial 'ILSVRC from tars to table' on archives of ILSVRC's true structure: every command, to a filled table"
import hashlib, io, json, os, re, signal, sys, threading
from multiprocessing.connection import Client, Listener
import numpy as np, pytest
import rehearsal
from alexnet_nb.data import Pack, prepare, read_square
from alexnet_nb.engine.sources import read_synsets
from alexnet_nb.model import load_weights
from alexnet_nb.results import evaluate, in_percent
from alexnet_nb.tools import commands
from alexnet_nb.tools.cards import Card, table
from archives import meta_mat
from conftest import call, fine, load, script, slow, start

small = '--width .05 --size 56 --epochs 1 --batch_size 128 --device cpu'.split()

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A folder with the archives"
    d = tmp_path_factory.mktemp('rehearsal')
    rehearsal.challenge().archives(d/'archives')
    return d

@pytest.fixture(scope='module')
def typed(made):
    "Type a command in that folder; its output"
    def f(line):
        name,*args = line.split()
        return fine(call(getattr(commands, name), *args, cwd=made)).stdout
    return f

@pytest.fixture(scope='module')
def pack(typed, made):
    "The pack of the archives, and what its command said"
    return made/'imagenet', typed('alexnet_prepare archives imagenet --size 64')

def sums(pack): return json.loads((pack/'meta.json').read_text())['sha256']

def test_meta_mat():
    "The table of classes is a MATLAB file: our reader finds every class, and scipy, where it is there, every field"
    rows = rehearsal.challenge().synsets()
    data = meta_mat(rows)
    assert read_synsets(data)=={o['ILSVRC2012_ID']:(o['WNID'], o['words']) for o in rows}
    io_ = pytest.importorskip('scipy.io')
    for a,b in zip(rows, io_.loadmat(io.BytesIO(data), squeeze_me=True)['synsets'], strict=True):
        assert list(a)==list(b.dtype.names)
        for k,v in a.items(): assert np.array_equal(v, b[k]), (k, v, b[k])

def test_archives(pack):
    "Recognised, counted, every label as the tables have it, every odd file listed"
    path,said = pack
    assert 'archives of ILSVRC-2012' in said and '3,000 train + 1,000 val images of 1,000 classes' in said
    assert 'fewer than the 1,281,167 published' in said and 'fewer than the 50,000 published' in said
    train,val = rehearsal.files()
    wnids = [c for c,_ in json.loads((path/'meta.json').read_text())['classes']]
    assert wnids==sorted(train) and len(wnids)==1000
    truth = {f'val/{name}':w for name,w,_ in val} | {f'train/{w}/{o}':w for w,fs in train.items() for o in fs}
    for split in ('train','val'):
        names,labels = (path/f'{split}_names.txt').read_text().splitlines(),np.load(path/f'{split}_labels.npy')
        assert [truth.pop(o) for o in names]==[wnids[c] for c in labels]
    assert not truth
    notes = [json.loads(o) for o in (path/'repairs.jsonl').read_text().splitlines()]
    assert {o['file'].split('/')[-1][:-5] for o in notes}=={*rehearsal.cmyk, *rehearsal.png}
    assert {o['action'] for o in notes}=={'repaired'}

def test_pixels(pack):
    "A few rows of the pack are the squares of the files that they are named after"
    path,_ = pack
    x,names = np.load(path/'train_images.npy', mmap_mode='r'),(path/'train_names.txt').read_text().splitlines()
    for i in range(0, 3000, 271):
        _,w,name = names[i].split('/')
        assert np.array_equal(x[i], read_square(rehearsal.files()[0][w][name], 64)[0]), names[i]

@pytest.mark.parametrize('layout', ['kaggle','kaggle_zip','folders','parquet'])
def test_same_pack(pack, layout, tmp_path):
    "Whatever the layout: the same images, the same labels, the same mean, the same colours"
    if layout=='parquet': pytest.importorskip('pyarrow')
    said = []
    p = prepare(rehearsal.layouts[layout](rehearsal.challenge(), tmp_path/'src'), tmp_path/'pack', size=64, tell=said.append)
    assert {'kaggle':'Kaggle', 'kaggle_zip':"zip of ImageNet in Kaggle's layout", 'folders':'torchvision', 'parquet':'Hugging Face'}[layout] in said[0]
    assert p.meta['sha256']==sums(pack[0])
    assert (tmp_path/'pack/pca.json').read_bytes()==(pack[0]/'pca.json').read_bytes()
    assert p.meta['classes']==json.loads((pack[0]/'meta.json').read_text())['classes']

def test_2010(tmp_path):
    "The set of Table 1, with the labels of its test images: three splits, each label as the tables have it, and its errors"
    f = rehearsal.challenge2010()
    f.archives(tmp_path/'src')
    said = fine(call(commands.alexnet_prepare, 'src', 'pack', '--size', 64, cwd=tmp_path)).stdout
    assert 'archives of ILSVRC-2010' in said and '300 train + 100 val + 200 test images of 100 classes' in said
    assert 'test: 200 images, 149,800 fewer than the 150,000 published' in said
    p = Pack(tmp_path/'pack')
    for split,rows in ('val',f.val), ('test',f.test):
        names = (p.path/f'{split}_names.txt').read_text().splitlines()
        truth = {f'{split}/{name}':w for name,w,_ in rows}
        assert [truth.pop(o) for o in names]==[p.wnids[c] for c in p.labels(split)] and not truth
    assert p.names[0]==f.words[p.wnids[0]].split(',')[0]
    (tmp_path/'src/ILSVRC2010_test_ground_truth.txt').write_text('1\n2\n')
    r = call(commands.alexnet_prepare, 'src', 'other', '--size', 64, cwd=tmp_path)
    assert r.returncode==2 and 'is not among the 2 of the ground truth' in r.stderr

def test_killed(pack, typed, made):
    "Killed in the middle, the same command makes the same pack"
    p = start(script('alexnet_prepare'), *'archives again --size 64 --workers 1'.split(), cwd=made)
    p.wait_for((made/'again.partial/pack/train_images.npy').exists)
    p.send(signal.SIGKILL)
    assert p.wait(60).returncode==-signal.SIGKILL and (made/'again.partial').exists() and not (made/'again').exists()
    typed('alexnet_prepare archives again --size 64')
    Pack(made/'again').verify()
    assert sums(made/'again')==sums(pack[0]) and not (made/'again.partial').exists()

def test_to_table(pack, typed, made):
    "Train, stopped and resumed; errors with one and ten views; predictions; a table of the cards"
    train = ' '.join(['alexnet_train imagenet --run run', *small])
    assert 'stopped as asked' in typed(train+' --steps 5') and not (made/'run/model.safetensors').exists()
    said = typed(train)
    assert 'going on at step 5' in said and 'guessing: 100%; 1000 images' in said
    one = Card.load(made/'run/card.json')
    assert one.n==1000 and set(one.value)=={f'top-{k} ({w})' for k in (1,5) for w in ('10 views','centre')}
    assert one.pack_sha256==hashlib.sha256(json.dumps(sums(pack[0]), sort_keys=True).encode()).hexdigest()
    typed('alexnet_eval run run --pack imagenet --card average.json')
    assert Card.load(made/'average.json').value==one.value # of twice the same network
    name,w,b = rehearsal.files()[1][0]
    (made/name).write_bytes(b)
    assert name in typed(f'alexnet_predict run {name} --out p.png') and (made/'p.png').stat().st_size>5000
    rows = repr(table([made/'run/card.json', made/'average.json']))
    assert 'imagenet: code2012' in rows and 'imagenet: average' in rows and rows.count('top-1 (10 views)')==2
    print(rows)

def shell_lines(repo):
    "The commands of the page 'Tables 1 and 2, in full', as they stand there, one block after the other"
    cells = load(repo/'nbs/tutorials/full_size.ipynb').cells
    blocks = [o for c in cells if c.type=='markdown' for o in re.findall('```sh\n(.*?)```', c.source, re.S)]
    assert len(blocks)>7
    return '\n'.join(blocks)

ask = """import sys
from multiprocessing.connection import Client
with Client({address!r}) as c:
    c.send([{name!r}, *sys.argv[1:], *{more!r}])
    code,out,err = c.recv()
print(out, end='')
print(err, end='', file=sys.stderr)
sys.exit(code)
"""
share = """import os, sys
args = sys.argv[1:]
at = args.index('alexnet_train')
args = ['2' if o=='8' else o for o in args[:at]]+[{train!r}]+args[at+1:]+{more!r}
os.execv(sys.executable, [sys.executable, '-m', 'torch.distributed.run', '--standalone', *args])
"""

def make_commands(folder, address):
    "Commands for a shell that add to what is typed that all is tiny, and are run by the process that listens"
    tiny = dict(alexnet_prepare='--size 64', alexnet_eval='--device cpu',
                alexnet_train='--width .05 --size 56 --epochs .2 --device cpu')
    texts = {k:ask.format(address=address, name=k, more=v.split()) for k,v in tiny.items()}
    texts['torchrun'] = share.format(train=str(script('alexnet_train')), more=tiny['alexnet_train'].split())
    folder.mkdir()
    for name,code in texts.items():
        (folder/name).write_text(f'#!{sys.executable}\n{code}')
        (folder/name).chmod(0o755)

def run_shell(lines, cwd, tmp):
    "Run lines in a shell; the commands of this package in this process, which saves the time that imports take"
    with Listener(str(tmp/'socket')) as listener:
        make_commands(tmp/'bin', listener.address)
        path = os.pathsep.join([str(tmp/'bin'), os.path.dirname(sys.executable), os.environ['PATH']])
        shell = start('bash', '-ec', lines, cwd=cwd, env=dict(PATH=path))
        def end():
            shell.popen.wait()
            with Client(listener.address) as c: c.send(None)
        threading.Thread(target=end, daemon=True).start()
        while True:
            with listener.accept() as c:
                if not (args := c.recv()): return shell.wait()
                r = call(getattr(commands, args[0]), *args[1:], cwd=cwd)
                c.send((r.returncode, r.stdout, r.stderr))

@slow
def test_full_size(repo, tmp_path):
    "From archives to Tables 1 and 2: one network, columns, several processes, five and seven, fine-tuning, test labels of 2010"
    d = tmp_path/'work'
    rehearsal.challenge(40).archives(d/'ilsvrc2012')
    rehearsal.challenge2010(20).archives(d/'ilsvrc2010')
    rehearsal.fall2011(d)
    said = fine(run_shell(shell_lines(repo), d, tmp_path)).stdout
    cards = {o.stem:Card.load(o) for o in (d/'cards').iterdir()}
    of2012 = ['1', 'columns', 'many', '5', '1star', '7star']
    assert {k:o.n for k,o in cards.items()}=={f'ilsvrc2012_{o}':40 for o in of2012}|{'ilsvrc2010_1':40}
    assert len({o.pack_sha256 for o in cards.values()})==2 and 'errors on test, n = 40' in said
    assert Pack(d/'imagenet22k').n_classes==20
    for run in ('cnn-4', 'star-1'):
        cfg = json.loads((d/run/'config.json').read_text())
        assert (cfg['spec'], cfg['seed'])==(('conv6', 1) if run=='star-1' else ('code2012', 4))
    nets = [load_weights(d/o) for o in ('cnn-0', 'cnn-1', 'cnn-2', 'cnn-3', 'cnn-4', 'star-0', 'star-1')]
    seven = in_percent(*evaluate(nets, Pack(d/'imagenet'), (1,10)))
    assert cards['ilsvrc2012_7star'].value==seven
    rows = [o.split() for o in said.splitlines() if re.match('(Sparse|SIFT|CNN|1 CNN|5 CNNs|7 CNNs)', o)]
    assert 'ours on ILSVRC' in said and [o[-1]=='–' for o in rows]==[True, True, False, True, False, False, False, False]
