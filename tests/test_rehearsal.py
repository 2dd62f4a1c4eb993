"The tutorial 'ILSVRC from tars to table' on archives of ILSVRC's true structure: every command, to a filled table"
import hashlib, io, json, signal
import numpy as np, pytest
import rehearsal
from alexnet_nb.data import Pack, prepare, read_square
from alexnet_nb.engine.sources import read_synsets
from alexnet_nb.tools import commands
from alexnet_nb.tools.cards import Card, table
from archives import meta_mat
from conftest import call, fine, script, start

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
