"Data as it comes: archives, odd files, kills, memory. What needs no process of its own runs in this one."
import io, itertools, json, os, pickle, random, shutil, signal, sys, tarfile, threading, time
from pathlib import Path

import numpy as np, pytest
from PIL import Image, ImageOps

from alexnet_nb.data import Loader, Pack, prepare, read_square
from alexnet_nb.engine import packing
from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.demo import draw
from alexnet_nb.engine.packing import ArrayWriter, Decoded, FileWriter, Journal
from alexnet_nb.engine.pictures import open_picture
from alexnet_nb.engine.lists import ilsvrc_words
from alexnet_nb.engine.sources import find_source, read_synsets
from alexnet_nb.tools.commands import alexnet_prepare
from conftest import fine, later, root, slow, start
from archives import cifar, fake, meta_mat, put, synsets, tar
from malformed import files, orientation, photo, saved, ycck

wnids = list(ilsvrc_words())

def test_close_waits_for_nobody(tmp_path, monkeypatch):
    "What is left unread is closed whenever the garbage is collected, perhaps while a thread starts: it must not join one"
    folder = tmp_path/'pictures'
    for split,name,i in itertools.product(('train', 'val'), 'ab', range(4)):
        (folder/split/name).mkdir(parents=True, exist_ok=True)
        draw(i, np.random.default_rng(i)).convert('RGB').resize((40,40)).save(folder/split/name/f'{i}.png')
    loader = Loader(prepare(folder, tmp_path/'pack', size=32), bs=1)
    go,read = threading.Event(),loader.read
    calls = itertools.count()
    def slow_after_the_first(idx):
        if next(calls): go.wait(60)
        return read(idx)
    monkeypatch.setattr(loader, 'read', slow_after_the_first)
    batches = iter(loader)
    next(batches)
    closing = threading.Thread(target=batches.close, daemon=True)
    closing.start()
    closing.join(20)
    waited = closing.is_alive()
    go.set()
    assert not waited

def pictures(folder=None):
    "A function that returns another JPEG at each call: real photographs if there are any, else drawn ones"
    if folder and (folder/'ilsvrc-sample').is_dir():
        paths = sorted((folder/'ilsvrc-sample').glob('*.JPEG'), key=lambda o: o.stat().st_size)
        found = itertools.cycle([o.read_bytes() for o in paths[:8]])
        return lambda: next(found)
    n = itertools.count()
    small = [saved(draw(i%10, np.random.default_rng(i)).convert('RGB').resize((40,30+i%7)), 'JPEG') for i in range(50)]
    return lambda: small[next(n)%50]

def same(a, b): return a.meta['sha256']==b.meta['sha256'] and [o[0] for o in a.meta['classes']]==[o[0] for o in b.meta['classes']]
def contents(folder): return {o.relative_to(folder).as_posix():o.read_bytes() for o in folder.rglob('*') if o.is_file()}
def message(f, *args, **kw):
    with pytest.raises(Refusal) as e: f(*args, **kw)
    assert '\n' not in str(e.value)
    return str(e.value)

@pytest.fixture(scope='module')
def few(): return fake(pictures(), random.Random(0).sample(wnids, 12), n_train=5, n_val=3)

@pytest.fixture(scope='module')
def want(few, tmp_path_factory):
    "The pack of the pictures in plain folders"
    d = tmp_path_factory.mktemp('want')
    return prepare(few.folders(d/'folders'), d/'pack', size=32)

def packed(src, tmp_path, **kw):
    said = []
    return prepare(src, tmp_path/'pack', size=32, tell=said.append, **kw), said

# --- Forms

@pytest.mark.parametrize('zipped', [True,False])
def test_ilsvrc_2012(few, want, tmp_path, zipped):
    "A tar of tars, labels in the order of ILSVRC's numbers: the same pack as from folders"
    p,said = packed(few.archives(tmp_path/'src', zipped), tmp_path)
    assert same(p, want) and 'ILSVRC-2012' in said[0] and '60 train + 36 val images of 12 classes' in said[0]
    assert '1,281,107 fewer than the 1,281,167 published' in said[1] and '49,964 fewer' in said[2]
    assert p.names[0]==f'word of {p.wnids[0]}'
    assert same(prepare(tmp_path/'src/ILSVRC2012_img_train.tar', tmp_path/'p2', size=32), want)

def test_ilsvrc_2010(tmp_path):
    "The set of the paper's Table 1: a third split, with its labels, and the archive of patches"
    f = fake(pictures(), wnids[5:9], n_train=3, n_val=2, n_test=4, year='2010')
    src = f.archives(tmp_path/'src')
    name,w,_ = f.test[3]
    red = {f'patch_images/test/{name}': saved(Image.new('RGB', (9,9), (255,0,0)), 'PNG')}
    put(src, {'patch_images.tar':tar(red)})
    p,said = packed(src, tmp_path)
    assert p.counts==dict(train=12, val=8, test=16) and '1,261,406' in said[1] and '150,000' in said[3]
    for k,rows in ('val',f.val), ('test',f.test):
        names = (p.path/f'{k}_names.txt').read_text().split()
        assert {n.split('/')[-1]:p.wnids[c] for n,c in zip(names, p.labels(k))}=={n:w for n,w,_ in rows}
    assert (p.images('test')[names.index('test/'+name)]==[255,0,0]).all()
    assert len(Loader(p, 'test', bs=5))==4

def test_pack_inside_of_its_source(few, tmp_path, monkeypatch):
    "`alexnet_prepare . pack` does not take its own beginnings for a class"
    few.folders(tmp_path/'src')
    monkeypatch.chdir(tmp_path/'src/train')
    assert prepare('.', 'pack', size=32).n_classes==12
    shutil.rmtree('pack')
    monkeypatch.chdir(tmp_path/'src')
    assert prepare('.', 'pack', size=32).n_classes==12

def test_kaggle(few, want, tmp_path):
    src = few.kaggle(tmp_path/'src')
    for i,o in enumerate(('', 'ILSVRC', 'ILSVRC/Data/CLS-LOC')):
        p = prepare(src/o, tmp_path/f'p{i}', size=32)
        assert same(p, want) and 'Kaggle' in p.meta['kind']

@pytest.mark.parametrize('end', ['tar','tar.gz','tar.xz','tar.bz2'])
def test_tars(few, want, tmp_path, end):
    with tarfile.open(tmp_path/f'a.{end}', 'w:'+end.split('.')[-1] if '.' in end else 'w') as t:
        t.add(want.path.parent/'folders', 'some/where')
    for storage in ('raw','jpeg'):
        p = prepare(tmp_path/f'a.{end}', tmp_path/storage, size=32, storage=storage)
        if storage=='raw': assert same(p, want)
    assert same(p, prepare(want.path.parent/'folders', tmp_path/'jpeg2', size=32, storage='jpeg'))

def test_parquet(few, want, tmp_path):
    "Shards in an order of their own, all thousand names in their metadata: WordNet ids come back"
    pytest.importorskip('pyarrow')
    f = fake(pictures(), wnids, n_train=1, n_val=1, words=ilsvrc_words())
    src = f.parquet(tmp_path/'src')
    p = prepare(src, tmp_path/'p', size=16)
    assert same(p, prepare(f.folders(tmp_path/'folders'), tmp_path/'p2', size=16)) and 'of ImageNet' in p.meta['kind']
    p = prepare(few.parquet(tmp_path/'few'), tmp_path/'p3', size=32)
    assert p.counts==want.counts and p.names[3]==f'word of {want.wnids[3]}' and p.wnids[3]=='03'
    assert (p.labels()==want.labels()).all() and (p.images()[:]==want.images()[:]).all()

def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path/'train-00000-of-00001.parquet').write_bytes(b'PAR1')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    assert 'pip install pyarrow' in message(find_source, tmp_path)

@pytest.mark.parametrize('binary', [False,True])
def test_cifar(tmp_path, binary):
    name = 'cifar-10-batches-' + ('bin' if binary else 'py')
    made = cifar(tmp_path/name, binary=binary)
    with tarfile.open(tmp_path/'c.tar.gz', 'w:gz') as t: t.add(tmp_path/name, name)
    a,b = prepare(tmp_path/name, tmp_path/'a', size=32),prepare(tmp_path/'c.tar.gz', tmp_path/'b', size=32)
    assert same(a, b) and a.counts==dict(train=100, val=20) and a.names[3]=='cat' and 'CIFAR-10' in a.meta['kind']
    x,y = made['test_batch']
    want = x.reshape(-1,3,32,32).transpose(0,2,3,1)[np.argsort(y, kind='stable')]
    assert (a.images('val')[:]==want).all() and (a.labels('val')==np.sort(y)).all()

@slow # the same structure is in test_cifar
def test_real_cifar(data_dir, tmp_path):
    s = find_source(data_dir/'cifar10.tar.xz')
    assert {k:len(v) for k,v in s.splits.items()}==dict(train=50_000, val=10_000) and len(s.classes)==10

def test_real_photographs(data_dir, tmp_path):
    "A thousand classes in archives of the true structure, of real pictures: the labels are torchvision's"
    f = fake(pictures(data_dir), wnids, n_train=1, n_val=1)
    p = prepare(f.archives(tmp_path/'src'), tmp_path/'pack', size=16)
    assert p.wnids==wnids and p.names[:2]==['word of n01440764','word of n01443537']
    assert (p.labels()==np.arange(1000)).all() and (p.labels('val')==np.arange(1000)).all()
    names = [o.split('/')[-1] for o in (p.path/'val_names.txt').read_text().split()]
    assert {n:wnids[i] for i,n in enumerate(names)}=={n:w for n,w,_ in f.val}

# --- What is wrong is said

def test_pickles_do_not_run(tmp_path):
    cifar(tmp_path/'c')
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/ran',)
    (tmp_path/'c/data_batch_3').write_bytes(pickle.dumps(Evil()))
    assert 'data_batch_3: not a plain pickle' in message(find_source, tmp_path/'c')
    assert not (tmp_path/'ran').exists()

def test_damaged_archives(few, tmp_path):
    src = few.archives(tmp_path/'src')
    train,val,kit = (next(src.glob(o)) for o in ('*train*','*val*','*devkit*'))
    def broken(f, data):
        old = f.read_bytes()
        f.write_bytes(data(old)) if data else f.unlink()
        try: return message(find_source, src)
        finally: f.write_bytes(old)
    assert 'img_val.tar: missing' in broken(val, None)
    assert 'devkit_t12.tar.gz: missing' in broken(kit, None)
    assert 'devkit_t12.tar.gz: damaged' in broken(kit, lambda o: o[:len(o)//2])
    for n in (100, 700, 20_000, 40_001, 60_000): assert 'damaged' in broken(train, lambda o: o[:n]), n
    assert 'img_val.tar' in broken(val, lambda o: o[:5000])
    assert 'damaged' in broken(train, lambda o: o[:3000]+bytes(range(256))*8+o[5048:])
    one = meta_mat(synsets([(1,'n1','one',2)]))
    ok = {'ILSVRC2012_devkit_t12/data/meta.mat':one,
          'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt':b'1\n1\n'}
    kit.unlink()
    for change,said in (({}, 'is not among the 2'), ({'ILSVRC2012_devkit_t12/data/meta.mat':b'not a table'}, 'cannot be read'),
                        ({'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt':b'9\n'*36}, 'unknown to meta.mat'),
                        ({'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt':b'a\n'}, 'expected one number')):
        kit.write_bytes(tar(ok|change, 'w:gz'))
        assert said in message(find_source, src)
    for o in (b'', one[:200]): assert 'cannot be read' in message(read_synsets, o)

# --- Files

def test_malformed(tmp_path):
    "Each file of the list is taken, repaired or refused as it should be, and the pack says so"
    odd = list(files())
    assert len(odd)>=40
    for c in 'ab':
        for s in ('train','val'):
            (tmp_path/'src'/s/c).mkdir(parents=True)
            (tmp_path/'src'/s/c/'good.png').write_bytes(saved(photo(), 'PNG'))
    for name,data,_ in odd: (tmp_path/'src/train/a'/name).write_bytes(data)
    (tmp_path/'elsewhere').write_text('no picture')
    os.symlink(tmp_path/'elsewhere', tmp_path/'src/train/a/link_out.JPEG')
    os.symlink('nowhere', tmp_path/'src/train/a/link_to_nothing.JPEG')
    os.symlink('..', tmp_path/'src/train/a/circle')
    os.symlink('good.png', tmp_path/'src/train/b/link_to_good.png')
    with open(os.fsencode(tmp_path/'src/train/a')+b'/bytes_\xff\n.JPEG', 'wb') as f: f.write(odd[0][1])
    os.mkfifo(tmp_path/'src/train/a/pipe.JPEG')
    assert 'are refused, more than 10% of all' in message(prepare, tmp_path/'src', tmp_path/'p', size=128)
    assert not list(tmp_path.glob('p*'))
    p = prepare(tmp_path/'src', tmp_path/'p', size=128, max_bad=.9)
    said = {o['file']:f"{o['action']}: {o['reason']}" for o in map(json.loads, (p.path/'repairs.jsonl').open())}
    names = (p.path/'train_names.txt').read_text().splitlines()
    assert len(names)==p.counts['train'] and 'train/a/bytes_\\udcff\\n.JPEG' in names and 'train/b/link_to_good.png' in names
    for name,_,outcome in odd:
        got,name = said.get(f'train/a/{name}', ''),f'train/a/{name}'
        if outcome is None: assert name not in said and name not in names; continue
        kind,_,why = outcome.partition(':')
        assert got.startswith(kind) and why.strip() in got and (kind or not got), (name, outcome, got)
        assert (name in names)==(kind!='refused')
    assert said['train/a/pipe.JPEG']=='refused: not a regular file'
    assert 'cannot identify' in said['train/a/link_out.JPEG'] and said['train/a/link_to_nothing.JPEG'].startswith('refused')
    assert str(tmp_path) not in json.dumps(said)
    with tarfile.open(tmp_path/'src.tar.gz', 'w:gz') as t:  # the same out of a stream: gaps where files are refused
        t.add(tmp_path/'src', 'src', filter=lambda m: m if m.isdir() or m.isreg() else None)
    for o in Path(tmp_path/'src').rglob('*'): (o.is_symlink() or o.is_fifo()) and o.unlink()
    a,b = (prepare(tmp_path/o, tmp_path/f'p_{o}', size=128, max_bad=.9) for o in ('src','src.tar.gz'))
    assert same(a, b) and (a.path/'repairs.jsonl').read_text()==(b.path/'repairs.jsonl').read_text()

def test_colours():
    "Four-colour and turned pictures look like their originals, 16 bits like 8"
    im = photo()
    for data in (saved(im.convert('CMYK'), 'JPEG', quality=95), ycck(im)):
        x = read_square(data, 64)[0].astype(int)
        assert np.abs(x-read_square(saved(im, 'PNG'), 64)[0]).mean()<3
    for i in range(1, 9):
        data = orientation(im, i)
        assert np.array_equal(open_picture(data)[0], ImageOps.exif_transpose(Image.open(io.BytesIO(data))))

# --- Going on

def begin(src, dst, storage='raw', place='never'):
    "Start a slow preparation in a process of its own; it waits for a word"
    return start(sys.executable, root/'tests/preparing.py', src, dst, storage, place)

def go(p):
    "Let it begin, once it has imported what it needs"
    p.wait_for(lambda: 'ready' in p.stdout)
    p.tell('go')

def under_way(p, dst, sign):
    "Let it begin, and wait until it has made the file `sign`"
    go(p)
    return p.wait_for((dst.with_name(dst.name+'.partial')/sign).exists)

def killed(p, dst, delay=None):
    "Let it begin, and be killed: by its own hand where it was told to, or after a delay"
    if delay is None: go(p)
    else:
        under_way(p, dst, 'job.json')
        time.sleep(delay)
        p.send(signal.SIGKILL)
    assert p.wait(60).returncode==-signal.SIGKILL, p.stderr

def photographs_and_others(tmp_path, form):
    "A data set of 297 files, of which every eleventh is no image"
    src = fake(pictures(), wnids[:9], n_train=30, n_val=3).folders(tmp_path/'src')
    for i,o in enumerate(sorted(src.rglob('*.JPEG'))):
        if i%11==5: o.write_bytes(b'no image')
    if form=='folders': return src
    with tarfile.open(tmp_path/f'src.{form}', 'w:gz' if form=='tar.gz' else 'w') as t: t.add(src, 'src')
    return tmp_path/f'src.{form}'

# Where it kills itself, see preparing.py: while images are decoded, between two files, at the last ones, at the clearing up
places = {('folders','raw'): ['train_state+4', 'val_images.npy+1'],
          ('folders','jpeg'): ['train_state+7', 'pca.json+0'],
          ('tar.gz','raw'): ['train_state+2', 'train_block_5+1'],
          ('tar.gz','jpeg'): ['train_state+9', 'train_jpeg.bin+1'],
          ('tar','raw'): ['val_state+3', 'meta.json+2']}
rounds = 4 if 'ALEXNET_NB_LONG' in os.environ else 1

# interrupted in every state without a process of its own: test_packing.py
@pytest.mark.parametrize('form,storage', [o if o==('tar.gz','raw') else later(*o) for o in places])
def test_killed(tmp_path, form, storage):
    "Killed at any moment and at two certain places, with refused files among the good ones: the same checksums"
    src,dst = photographs_and_others(tmp_path, form),tmp_path/'pack'
    want = prepare(src, tmp_path/'want', size=32, storage=storage, max_bad=.5)
    rng = random.Random(form+storage+os.environ.get('ALEXNET_NB_SEED', ''))
    for _ in range(rounds):
        kills = [('never',rng.random()), *((o,None) for o in places[form,storage])]
        waiting = [begin(src, dst, storage, place) for place,_ in kills]
        for p,(_,delay) in zip(waiting, kills):
            killed(p, dst, delay)
            assert not dst.exists() and dst.with_name('pack.partial').exists()
        said = []
        p = prepare(src, dst, size=32, storage=storage, max_bad=.5, tell=said.append)
        assert same(p, want) and said==['going on with what is there']
        assert contents(p.path)==contents(want.path)
        assert not list(tmp_path.glob('*.partial'))
        shutil.rmtree(dst)

def test_notes_cut_off(tmp_path):
    "Notes that no state knows are cut off, and the next state does not count them: nothing is filled up with zeros"
    def again(): return ArrayWriter(tmp_path/'train_images.npy', Journal(tmp_path, 'train', 60), (32,32,3))
    def note(g, i): g.add(Decoded([i], [], [], {}, {i:('refused','why')})); g.journal.notes.flush()
    note(again(), 0)  # killed before the state was saved
    again().save()   # killed before the next note
    g = again()
    note(g, 0)
    g.save()
    again()
    assert (tmp_path/'train_notes.jsonl').read_text()=='[0, "refused", "why"]\n'

@pytest.mark.parametrize('place', [later('meta.json+2'), 'pack+0'])
def test_killed_at_the_end(want, tmp_path, place):
    "Killed when all is written, or just before the folder gets its name: the same call ends it"
    src,dst = want.path.parent/'folders',tmp_path/'pack'
    killed(begin(src, dst, 'raw', place), dst)
    assert not dst.exists() and (tmp_path/'pack.partial/pack/meta.json').exists()
    assert same(prepare(src, dst, size=32), want)
    assert contents(dst)==contents(want.path) and os.listdir(tmp_path)==['pack']

def test_killed_while_clearing_up(want, tmp_path):
    "Killed when the folder has its name: it is whole, and the next call removes what is left beside it"
    src,dst = want.path.parent/'folders',tmp_path/'pack'
    killed(begin(src, dst, 'raw', 'pack+1'), dst)
    assert contents(dst)==contents(want.path) and (tmp_path/'pack.partial/work').exists()
    assert 'exists already' in message(prepare, src, dst, size=32)
    assert os.listdir(tmp_path)==['pack']

def test_interrupted_late(want, tmp_path, monkeypatch):
    "Ctrl-C, or a disk that fills up, after the state was written: what is done is kept, and the same call goes on"
    src,old = want.path.parent/'folders',FileWriter.add
    monkeypatch.setattr(packing, 'SAVE_EVERY', 0)
    monkeypatch.setattr(packing, 'CHUNK', 4)
    for e in (KeyboardInterrupt(), OSError(28, 'No space left on device')):
        n = itertools.count()
        def add(self, *a):
            if next(n)==6: raise e
            time.sleep(.02)
            old(self, *a)
        monkeypatch.setattr(FileWriter, 'add', add)
        with pytest.raises((KeyboardInterrupt,Refusal), match='the same command goes on'): prepare(src, tmp_path/'p', size=32)
        assert (tmp_path/'p.partial/work/train_state').exists() and not (tmp_path/'p').exists()
    monkeypatch.setattr(FileWriter, 'add', old)
    said = []
    p = prepare(src, tmp_path/'p', size=32, tell=said.append)
    assert same(p, want) and said==['going on with what is there']

def test_two_at_once(few, want, tmp_path):
    "A second preparation of the same pack is refused, and the first is not disturbed"
    src,dst = want.path.parent/'folders',tmp_path/'pack'
    p = under_way(begin(src, dst), dst, 'work/train_state')
    p.send(signal.SIGSTOP) # it is still at work when it is met, however slow this process is
    said = message(prepare, src, dst, size=32)
    p.send(signal.SIGCONT)
    assert 'another alexnet_prepare is at work' in said
    assert p.wait().returncode==0, p.stderr
    assert same(Pack(dst), want)

def test_other_settings_start_over(few, want, tmp_path):
    "What a kill left is used for the same settings only"
    src,dst = want.path.parent/'folders',tmp_path/'pack'
    p = under_way(begin(src, dst, 'jpeg'), dst, 'work/train_state')
    p.send(signal.SIGKILL)
    assert p.wait().returncode==-signal.SIGKILL
    p,said = packed(src, tmp_path)
    assert same(p, want) and 'going on' not in str(said)

def test_verify(want, tmp_path, monkeypatch, capsys):
    p = Pack(shutil.copytree(want.path, tmp_path/'p'))
    monkeypatch.setattr(sys, 'argv', ['alexnet_prepare', str(p.path), '--verify'])
    alexnet_prepare()
    assert 'as they were made' in capsys.readouterr().out
    with open(p.path/'train_images.npy', 'r+b') as f: f.seek(5000); f.write(b'x')
    assert 'train_images.npy: differs' in message(p.verify)
    (p.path/'train_images.npy').unlink()
    assert 'train_images.npy: No such file' in message(p.verify)

peak = """
import re, sys, alexnet_nb.data as d
def memory(what): return int(re.search(what+r':\\s+(\\d+)', open('/proc/self/status').read())[1])//1024
open('/proc/self/clear_refs', 'w').write('5')  # forget the peak of the imports
before = memory('VmRSS')
p = d.prepare(sys.argv[1], sys.argv[2], size=128, workers=2)
print(memory('VmHWM')-before)
"""

@pytest.mark.skipif(not os.path.exists('/proc/self/clear_refs'), reason='peaks of memory are measured on Linux')
@slow
def test_memory(tmp_path):
    "Ten times the images, hardly more memory: what it takes besides the list of names is a few chunks"
    data,ps = [pictures()() for _ in range(40)],{}
    for n in (40, 400):
        put(tmp_path, {f'{n}.tar':tar({f'{c}/{i:06d}.JPEG':data[(c+i)%40] for c in (1,2) for i in range(n)})})
        ps[n] = start(sys.executable, '-c', peak, tmp_path/f'{n}.tar', tmp_path/f'p{n}')
    mb = {n:int(fine(p.wait()).stdout) for n,p in ps.items()}
    print(f'peak memory above that of the imports, MB, by images per class: {mb}')
    assert mb[400]-mb[40]<15, mb  # the array of squares has 4 and 39 MB
