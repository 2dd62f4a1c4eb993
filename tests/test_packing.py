"Preparations that are interrupted, damaged, in the way of each other; folders of others; file systems that lack something"
import errno, io, itertools, json, os, pathlib, random, shutil, tarfile, threading, time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np, pytest
from PIL import Image

from alexnet_nb import data
from alexnet_nb.data import Pack, prepare
from alexnet_nb.engine import locks, packing
from alexnet_nb.engine.building import building
from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.locks import FolderLock, lock_folder
from alexnet_nb.engine.packing import FileWriter
from alexnet_nb.engine.demo import demo
from alexnet_nb.engine.lists import Source, ilsvrc_words
from archives import fake
from test_old_files import v1

def contents(folder): return {o.relative_to(folder).as_posix():o.read_bytes() for o in folder.rglob('*') if o.is_file()}

def listing(folder):
    "Whatever lies in a folder: names, links, contents"
    return {o.relative_to(folder).as_posix():os.readlink(o) if o.is_symlink() else o.read_bytes() if o.is_file() else None
            for o in sorted(folder.rglob('*'))}

def refusal(f, *args, **kw):
    with pytest.raises(Refusal) as e: f(*args, **kw)
    assert '\n' not in str(e.value)
    return str(e.value)

def draw(folder, n=9, bad=True):
    "Two classes of small pictures, and a file in each that is none"
    for c in ('cat', 'dog'):
        (folder/c).mkdir(parents=True)
        for i in range(n):
            x = np.random.default_rng([i, c=='cat']).integers(0, 255, (20,24,3), dtype=np.uint8)
            Image.fromarray(x).save(folder/c/f'{i}.png')
        if bad: (folder/c/'0no.jpg').write_text('no image')
    return folder

@pytest.fixture(scope='module')
def src(tmp_path_factory):
    "The same data set as folders and as a compressed archive"
    d = tmp_path_factory.mktemp('src')
    draw(d/'folders')
    with tarfile.open(d/'tar.gz', 'w:gz') as t:
        for i in (3, 1, 7, 0, 8, 2, 5, 4, 6):
            for c in ('dog', 'cat'): t.add(d/f'folders/{c}/{i}.png', f'x/{c}/{i}.png')
        for c in ('dog', 'cat'): t.add(d/f'folders/{c}/0no.jpg', f'x/{c}/0no.jpg')
    return d

thorough = 'ALEXNET_NB_LONG' in os.environ
how = dict(size=16, val=.3, max_bad=.5, workers=1)

@pytest.fixture
def small_steps(monkeypatch):
    "Jobs of two images, and the state on the disk after each of them"
    monkeypatch.setattr(packing, 'SAVE_EVERY', 0)
    monkeypatch.setattr(packing, 'CHUNK', 2)
    monkeypatch.setattr(os, 'fsync', lambda f: None) # nobody pulls the plug here

def interrupt(src, dst, at, error=KeyboardInterrupt, **kw):
    "Begin a preparation, and stop it after so many jobs"
    n,add = itertools.count(),FileWriter.add
    def stopping(self, made):
        if next(n)==at: raise error
        add(self, made)
        self.save()
    with pytest.MonkeyPatch.context() as m:
        m.setattr(FileWriter, 'add', stopping)
        with pytest.raises((KeyboardInterrupt,Refusal)) as e: prepare(src, dst, **how|kw)
    return str(e.value)

# --- What is damaged is found

def damages(file, others, rng):
    "Things that happen to a file: (what, function that does it)"
    data = file.read_bytes()
    def put(new): return lambda: file.write_bytes(new)
    def flip(i): return put(data[:i]+bytes([data[i]^(1<<rng.randrange(8))])+data[i+1:])
    yield 'deleted', file.unlink
    yield 'longer', put(data+b'\0'*100)
    if not data: return
    yield 'empty', put(b'')
    yield 'zeros', put(bytes(len(data)))
    yield 'cut in half', put(data[:len(data)//2])
    yield 'cut by one', put(data[:-1])
    yield 'end of zeros', put(data[:len(data)//2]+bytes(len(data)-len(data)//2))
    for i in (0, len(data)//2, len(data)-1, rng.randrange(len(data))): yield f'flipped at {i}', flip(i)
    for other in others:
        if other.exists(): yield f'replaced by {other.parent.parent.parent.name}/{other.name}', put(other.read_bytes())

moments = [('folders','raw',4), ('folders','jpeg',8), ('tar.gz','raw',5), ('tar.gz','jpeg',9), ('tar.gz','raw',99)]

@pytest.mark.parametrize('form,storage,at', moments)
def test_damaged_state(src, tmp_path, small_steps, monkeypatch, form, storage, at):
    "Each file of an interrupted preparation is damaged in many ways: the pack is the one made in one go, or refused"
    want = contents(prepare(src/form, tmp_path/'want', storage=storage, **how).path)
    def begin(dst, **kw):
        if at<99: return interrupt(src/form, dst, at, storage=storage, **kw)
        with pytest.MonkeyPatch.context() as m: # at the very end, when gaps are closed
            m.setattr('alexnet_nb.data.write_sums', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt): prepare(src/form, dst, storage=storage, **how|kw)
    begin(tmp_path/'p')
    begin(tmp_path/'q')                # the same request, another attempt
    begin(tmp_path/'r', val=.4)        # another request
    left = tmp_path/'p.partial'
    kept = shutil.copytree(left, tmp_path/'kept')
    rng,n = random.Random(at),{'equal':0, 'refused':0, 'begun anew':0}
    for file in sorted(o for o in left.rglob('*') if o.is_file()):
        name = file.relative_to(left)
        others = [tmp_path/f'{o}.partial'/name for o in 'qr']
        swap = str(name).replace('train', 'val') if 'train' in str(name) else str(name).replace('val', 'train')
        if swap!=str(name): others.append(kept/swap)
        for what,do in damages(file, others, rng):
            if not thorough and rng.random()<.7: continue
            do()
            said = []
            try:
                got = contents(prepare(src/form, tmp_path/'p', storage=storage, tell=said.append, **how).path)
                differing = [o for o in want if got.get(o)!=want[o]]
                assert got==want, (str(name), what, differing, said)
                n['begun anew' if any('beginning anew' in o for o in said) else 'equal'] += 1
                shutil.rmtree(tmp_path/'p')
            except Refusal as e:
                assert '\n' not in str(e) and left.exists() and not (tmp_path/'p').exists()
                n['refused'] += 1
            shutil.rmtree(left, ignore_errors=True)
            shutil.copytree(kept, left)
    print(form, storage, at, n)
    assert sum(n.values())>25

# --- The source has changed meanwhile

def add(src): shutil.copy(src/'cat/1.png', src/'dog/new.png')
def add_class(src): shutil.copytree(src/'cat', src/'emu')
def remove(src): (src/'dog/3.png').unlink()
def change(src): (src/'dog/3.png').write_bytes((src/'cat/1.png').read_bytes())
def rename(src): (src/'dog/3.png').rename(src/'dog/33.png')

@pytest.mark.parametrize('f', [add, add_class, remove, change, rename])
def test_changed_source(src, tmp_path, small_steps, f):
    "Files of a class folder are added, removed, changed: it is said, and the pack is that of the files that are there"
    mine = shutil.copytree(src/'folders', tmp_path/'src')
    interrupt(mine, tmp_path/'p', 4)
    f(mine)
    said = []
    p = prepare(mine, tmp_path/'p', tell=said.append, **how)
    assert 'p.partial: the source has changed since; beginning anew' in said[1], said
    assert contents(p.path)==contents(prepare(mine, tmp_path/'want', **how).path)

def test_changed_archive(src, tmp_path, small_steps):
    mine = shutil.copy(src/'tar.gz', tmp_path/'src.tar.gz')
    interrupt(mine, tmp_path/'p', 4)
    os.utime(mine, ns=(0,0))
    said = []
    prepare(mine, tmp_path/'p', tell=said.append, **how)
    assert 'the source has changed' in said[1]

def test_changed_beside(tmp_path, small_steps):
    "A part of the source that is not in what was named, such as the archive of validation images beside it"
    n = itertools.count()
    def picture():
        Image.new('RGB', (20,20), (next(n)%256,)*3).save(f := io.BytesIO(), 'JPEG')
        return f.getvalue()
    mine = fake(picture, list(ilsvrc_words())[:3], n_train=6, n_val=3).archives(tmp_path/'src')
    for name in ('*val*', '*devkit*'):
        interrupt(mine/'ILSVRC2012_img_train.tar', tmp_path/'p', 4)
        os.utime(next(mine.glob(name)), ns=(0,0))
        said = []
        prepare(mine/'ILSVRC2012_img_train.tar', tmp_path/'p', tell=said.append, **how)
        assert 'a file of the source has changed; beginning anew' in said[0], said
        shutil.rmtree(tmp_path/'p')

def test_unchanged_source(src, tmp_path, small_steps, monkeypatch):
    "What is written into the folder of the source meanwhile, by the preparation itself or hidden, is no change"
    mine = shutil.copytree(src/'folders', tmp_path/'src')
    monkeypatch.chdir(mine)
    interrupt('.', 'p', 4)
    (mine/'.DS_Store').touch()
    said = []
    p = prepare('.', 'p', tell=said.append, **how)
    assert said==['going on with what is there']
    want = contents(prepare(src/'folders', tmp_path/'want', **how).path)
    assert {k for k,v in contents(p.path).items() if v!=want[k]}<={'meta.json','SHA256SUMS'} # the name of the source

def test_other_settings(src, tmp_path, small_steps):
    "What is asked for now, and was not before, is said"
    interrupt(src/'folders', tmp_path/'p', 4)
    said = []
    prepare(src/'folders', tmp_path/'p', tell=said.append, **how|dict(quality=90))
    assert 'quality 95 (now 90); beginning anew' in said[1]

# --- Folders of others

def thesis(o):
    o.mkdir()
    (o/'thesis.txt').write_text('thesis')
    (o/'docs').mkdir()
    (o/'docs/key').write_text('key')

def link_to_folder(o):
    thesis(o.with_name('home'))
    o.symlink_to('home')

def marked(o, job=None):
    o.mkdir()
    (o/'job.json').write_text(json.dumps(dict(maker='alexnet_nb', seal='0'*32, job=job or {})))

def marked_with_file(o):
    marked(o)
    (o/'thesis.txt').write_text('thesis')

def marked_with_link(name, to):
    def make(o):
        thesis(o.with_name('home'))
        marked(o)
        (o/name).parent.mkdir(exist_ok=True)
        (o/name).symlink_to(o.with_name('home')/to)
    return make

def marked_with_hard_link(o):
    thesis(o.with_name('home'))
    marked(o)
    (o/'pack').mkdir()
    os.link(o.with_name('home')/'thesis.txt', o/'pack/train_images.npy')

def fifo_as_lock(o):
    marked(o)
    os.mkfifo(o/'lock')

places = dict(thesis=thesis, empty=lambda o: o.mkdir(), file=lambda o: o.write_text('thesis'), link=link_to_folder,
    dangling=lambda o: o.symlink_to('nowhere'), itself=lambda o: o.symlink_to(o.name), fifo=os.mkfifo,
    old=lambda o: (o.mkdir(), (o/'job.json').write_text('{"size": 16}')), marked_with_file=marked_with_file,
    hard=marked_with_hard_link, fifo_as_lock=fifo_as_lock,
    lock=marked_with_link('lock', 'thesis.txt'), work=marked_with_link('work', 'docs'), pack=marked_with_link('pack', 'docs'),
    job=lambda o: (thesis(o.with_name('home')), o.mkdir(), (o/'job.json').symlink_to('../home/thesis.txt')),
    array=marked_with_link('pack/train_images.npy', 'thesis.txt'), state=marked_with_link('work/train_state', 'thesis.txt'))

@pytest.mark.parametrize('name', places)
def test_folders_of_others(src, tmp_path, name):
    "An X.partial that is not ours is left as it is, whether the source is there or not"
    places[name](tmp_path/'x.partial')
    before = listing(tmp_path)
    for o in (src/'folders', tmp_path/'no_such_source', tmp_path):
        assert refusal(prepare, o, tmp_path/'x', **how)
        assert listing(tmp_path)==before
    if not name.startswith(('fifo','itself')): # a folder that stands does not change this
        draw(tmp_path/'x')
        before = listing(tmp_path)
        assert 'exists already' in refusal(prepare, src/'folders', tmp_path/'x', **how)
        assert listing(tmp_path)==before

def test_folder_of_another_user(src, tmp_path, small_steps, monkeypatch):
    interrupt(src/'folders', tmp_path/'p', 4)
    for o in (tmp_path/'p.partial').rglob('*'): os.utime(o, (0,0))
    try: os.chown(tmp_path/'p.partial', 12345, -1)
    except PermissionError: pytest.skip('only root gives a folder away')
    before = listing(tmp_path)
    assert 'belongs to another user' in refusal(prepare, src/'folders', tmp_path/'p', **how)
    assert listing(tmp_path)==before

@pytest.mark.parametrize('make,said', [
    (lambda d: (d/'x').symlink_to('nowhere'), 'exists already'), (lambda d: (d/'x').mkdir(), 'exists already'),
    (lambda d: (d/'x').write_text(''), 'exists already'), (lambda d: (d/'x').symlink_to('x'), 'exists already'),
    (lambda d: (d/'x').symlink_to(d), 'exists already')])
def test_names_that_are_taken(src, tmp_path, make, said):
    make(tmp_path)
    before = listing(tmp_path)
    assert said in refusal(prepare, src/'folders', tmp_path/'x', **how)
    assert listing(tmp_path)==before

def test_places(src, tmp_path, small_steps):
    "Missing parents are made; a file as a parent, a name that is too long, a place that cannot be written are refused"
    assert prepare(src/'folders', tmp_path/'new/deep/x', **how).n_classes==2
    (tmp_path/'file').touch()
    for dst in (tmp_path/'file/x', tmp_path/('x'*250), Path('/proc/x'), tmp_path/'nowhere/..'):
        assert refusal(prepare, src/'folders', dst, **how)
    assert sorted(os.listdir(tmp_path))==['file', 'new'], os.listdir(tmp_path)
    mine = shutil.copytree(src/'folders', tmp_path/'src')
    interrupt(mine, tmp_path/'y', 4)
    assert 'not of an unfinished' in refusal(prepare, shutil.copytree(mine, tmp_path/'y.partial/src'), tmp_path/'y', **how)
    assert (tmp_path/'y.partial/src/cat/1.png').exists()
    p = prepare(mine, mine/'cat/pack', **how) # inside of a class
    assert p.counts==dict(train=12, val=6)

def test_no_room(src, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda o: shutil._ntuple_diskusage(10, 10, 0))
    assert 'disk too small' in refusal(prepare, src/'folders', tmp_path/'x', **how)
    def unknown(o): raise OSError(errno.ENOSYS, 'Function not implemented')
    monkeypatch.setattr(shutil, 'disk_usage', unknown)
    assert prepare(src/'folders', tmp_path/'x', **how).n_classes==2

def test_drawn_pictures(tmp_path):
    "The demo data leaves folders of others alone, too"
    link_to_folder(tmp_path/'d.partial')
    before = listing(tmp_path)
    assert len(list(demo(tmp_path/'d', n_train=1, n_val=1).rglob('*.JPEG')))==20
    shutil.rmtree(tmp_path/'d')
    (tmp_path/'e').symlink_to('nowhere')
    assert 'exists already' in refusal(demo, tmp_path/'e')
    (tmp_path/'e').unlink()
    assert 'cannot be written' in refusal(demo, Path('/proc/d'), n_train=1)
    assert listing(tmp_path)==before

# --- File systems

def failing(number, real=None, when=lambda *args: True):
    def f(*args, **kw):
        if when(*args): raise OSError(number, os.strerror(number), *([str(args[0])] if isinstance(args[0], (str,os.PathLike)) else []))
        return real(*args, **kw)
    return f

lacking = errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EOPNOTSUPP
@pytest.mark.parametrize('number', lacking)
def test_file_systems_that_lack_something(src, tmp_path, monkeypatch, number):
    "Without flock, posix_fallocate and fsync it works all the same"
    want = contents(prepare(src/'tar.gz', tmp_path/'want', **how).path)
    monkeypatch.setattr('os.posix_fallocate', failing(number))
    monkeypatch.setattr('fcntl.flock', failing(number))
    if number!=errno.EOPNOTSUPP: monkeypatch.setattr('os.fsync', failing(number))
    assert contents(prepare(src/'tar.gz', tmp_path/'p', **how).path)==want
    assert sorted(os.listdir(tmp_path))==['p', 'want']

def test_without_fcntl(src, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'fcntl', None)
    monkeypatch.delattr('os.posix_fallocate')
    monkeypatch.delattr('os.O_NOFOLLOW')
    assert prepare(src/'folders', tmp_path/'p', **how).n_classes==2

@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize('call', ['os.fsync', 'os.posix_fallocate', 'os.replace', 'os.mkdir'])
def test_failing_disk(src, tmp_path, monkeypatch, small_steps, number, call):
    "The line names the place; what was done before counts, and the same command ends with the same pack"
    want = contents(prepare(src/'folders', tmp_path/'want', **how).path)
    for first in (0, 1, 4, 9):
        n,real = itertools.count(),getattr(os, call.split('.')[1])
        with pytest.MonkeyPatch.context() as m:
            m.setattr(call, failing(number, real, lambda *args: next(n)>=first))
            try: prepare(src/'folders', tmp_path/'p', **how)
            except Refusal as e: assert str(tmp_path/'p') in str(e) and os.strerror(number) in str(e), e
        left = tmp_path/'p.partial'
        assert (tmp_path/'p').exists()!=left.exists() or not left.exists()
        if not (tmp_path/'p').exists(): prepare(src/'folders', tmp_path/'p', **how)
        assert contents(tmp_path/'p')==want
        shutil.rmtree(tmp_path/'p')

@pytest.mark.parametrize('call', ['rename', 'unlink', 'rmdir'])
def test_open_files_of_others(src, tmp_path, monkeypatch, small_steps, call):
    "As on Windows, where a file that another program has open can be neither removed nor renamed"
    want = contents(prepare(src/'folders', tmp_path/'want', **how).path)
    real = getattr(os, call)
    def is_inside(o, *args, **kw): return any(f'p.partial/{part}' in str(o) for part in ('pack', 'work'))
    with pytest.MonkeyPatch.context() as m:
        fails = failing(errno.EACCES, real, is_inside)
        m.setattr('os.'+call, fails)
        if hasattr(pathlib, '_normal_accessor'): m.setattr(pathlib._normal_accessor, call, fails) # Python 3.10
        try: said = prepare(src/'folders', tmp_path/'p', **how)
        except Refusal as e: said = str(e)
    if call=='rename':
        assert 'p.partial' in said and 'the same command goes on' in said
        prepare(src/'folders', tmp_path/'p', **how)
    assert contents(tmp_path/'p')==want
    if (tmp_path/'p.partial').exists():
        assert 'exists already' in refusal(prepare, src/'folders', tmp_path/'p', **how)
    assert not (tmp_path/'p.partial').exists()

def test_unreadable_source(src, tmp_path, small_steps, monkeypatch):
    "A disk of the source that goes away is no fault of single files: it stops, and what is done is kept"
    n,read = itertools.count(),Source.read
    with pytest.MonkeyPatch.context() as m:
        m.setattr(Source, 'read', failing(errno.ESTALE, read, lambda *args: next(n)>8))
        said = refusal(prepare, src/'folders', tmp_path/'p', **how)
    assert 'Stale file handle' in said or os.strerror(errno.ESTALE) in said
    assert 'the same command goes on' in said
    assert contents(prepare(src/'folders', tmp_path/'p', **how).path)==contents(prepare(src/'folders', tmp_path/'want', **how).path)

# --- Two at once

def test_wait(src, tmp_path, small_steps, monkeypatch):
    "The second of two waits, and finds the pack of the first"
    second,has_asked = threading.current_thread(),threading.Event()
    acquire,write = FolderLock.acquire,data._write_meta
    def acquiring(self, wait=False):
        mine = acquire(self, wait)
        if threading.current_thread() is second: has_asked.set()
        return mine
    monkeypatch.setattr(FolderLock, 'acquire', acquiring)
    monkeypatch.setattr(data, '_write_meta', lambda *args: has_asked.wait(60) and write(*args)) # the first goes on now
    with ThreadPool(1) as pool:
        first = pool.apply_async(prepare, (src/'folders', tmp_path/'p'), dict(how, wait=True))
        while not (tmp_path/'p.partial/lock').exists(): time.sleep(.001)
        b = prepare(src/'folders', tmp_path/'p', **how, wait=True)
        assert first.get(60).sha256==b.sha256
    assert os.listdir(tmp_path)==['p']

def test_folder_goes(tmp_path, monkeypatch):
    "A folder is removed just before a lock is made in it: it is made again; if it goes each time, that is said"
    make = locks._make_lock
    def making(path, program):
        if next(left)>0: path.parent.rmdir()
        return make(path, program)
    monkeypatch.setattr(locks, '_make_lock', making)
    left = iter(range(3, -9, -1))
    with lock_folder(tmp_path/'p', 'maker'): assert os.listdir(tmp_path/'p')==['lock']
    left = itertools.count(1)
    assert 'cannot be written' in refusal(lock_folder(tmp_path/'q', 'maker').__enter__)

def test_crowd(tmp_path):
    "Many make the same folder at once, and some of them fail: one makes it, the others learn why they do not"
    def fill(seed):
        rng = random.Random(seed)
        time.sleep(rng.random()*.006)
        try:
            with building(tmp_path/'p', dict(files=''), 'maker', 'file', print) as site:
                (site.pack/'file').touch()
                if rng.random()<.3: raise Refusal('bad input')
                return 'made'
        except Refusal as e: return str(e)
    said = 'made', 'bad input', 'another maker is at work', 'exists already'
    with ThreadPool(4) as pool:
        for n in range(60):
            found = pool.map(fill, range(4*n, 4*n+4))
            assert all(any(o in line for o in said) for line in found), found
            assert found.count('made')<2 and os.listdir(tmp_path)==['p']*('made' in found), found
            if 'made' in found: shutil.rmtree(tmp_path/'p')

# --- The same bytes

def test_same_bytes(src, tmp_path, monkeypatch):
    "The pack depends neither on threads, nor on the time, nor on how the source is called"
    a = contents(prepare(src/'folders', tmp_path/'a', **how).path)
    monkeypatch.chdir(src)
    b = contents(prepare('folders', tmp_path/'b', **how|dict(workers=4)).path)
    monkeypatch.chdir('folders')
    c = contents(prepare('.', tmp_path/'c', **how|dict(workers=3)).path)
    assert a==b==c

# --- Damaged packs

@pytest.mark.parametrize('kind', ['v1/pack', 'v1/jpeg', 'raw', 'jpeg'])
def test_damaged_packs(src, tmp_path, kind):
    "Whatever is damaged: one line; `verify` finds each damage in packs that have all checksums"
    old = kind.startswith('v1')
    made = v1/kind.split('/')[-1] if old else prepare(src/'folders', tmp_path/'made', storage=kind, **how).path
    rng,found,n = random.Random(kind),0,0
    def use(path):
        pack = Pack(path)
        pack.check()
        for split in pack.counts: pack.images(split)[:], pack.labels(split)
        _ = pack.repairs
        pack.verify()
    use(made)
    for file in sorted(made.iterdir()):
        copy = shutil.copytree(made, tmp_path/'p')
        data = file.read_bytes()
        for what,do in damages(copy/file.name, [], rng):
            if what.startswith('flipped') and not data: continue
            do()
            n += 1
            try: use(copy)
            except Refusal as e:
                found += 1
                assert '\n' not in str(e) and str(copy) in str(e)
            else:
                unsummed = old and file.suffix in ('.txt','.json','.jsonl') or file.name=='SHA256SUMS' and what=='deleted'
                assert unsummed or (copy/file.name).exists() and (copy/file.name).read_bytes()==data, (file.name, what)
            (copy/file.name).write_bytes(data)
        shutil.rmtree(copy)
    print(kind, found, 'of', n)

def test_pack_that_moved(src, tmp_path):
    "A pack has one checksum wherever it lies; another one under its name has another"
    a = prepare(src/'folders', tmp_path/'a', **how)
    digest = a.sha256
    a.path.rename(tmp_path/'b')
    assert Pack(tmp_path/'b').sha256==digest
    draw(tmp_path/'other', n=8)
    assert prepare(tmp_path/'other', tmp_path/'a', **how).sha256!=digest

meta = json.loads((v1/'pack/meta.json').read_text())
@pytest.mark.parametrize('change', [
    [], None, 3, '', dict(counts=None), dict(counts={}), dict(counts=dict(train=-1, val=3)), dict(counts=dict(train=1e9, val=3)),
    dict(counts=dict(meta['counts'], extra=3)), dict(counts={'../x':5}), dict(classes=[]), dict(classes=[['a']]), dict(classes=3),
    dict(classes=[['a', 5]]), dict(classes=[['a','b'],['a','c']]), dict(size=0), dict(size=-5), dict(size=20.5), dict(size='20'),
    dict(size=1e308), dict(size=2**63), dict(storage='png'), dict(storage=None), dict(sha256={}), dict(sha256=None),
    dict(sha256={'../../etc/passwd':'0'*64}), dict(sha256=dict(meta['sha256'], **{'mean.npy':'x'})), dict(format=99), dict(format='1'),
    dict(repairs=-1), dict(repairs='many')])
def test_wrong_meta(tmp_path, change):
    p = shutil.copytree(v1/'pack', tmp_path/'p')
    (p/'meta.json').write_text(json.dumps(dict(meta, **change) if isinstance(change, dict) else change))
    assert str(p) in refusal(lambda: Pack(p).check())
