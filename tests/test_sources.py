"Folders and archives as people have them: which folder is for what, odd names, what cannot be read, what is too large"
import io, json, os, stat, tarfile, zipfile
from pathlib import Path

import numpy as np, pytest
from PIL import Image

from alexnet_nb.data import prepare
from alexnet_nb.engine import archives
from alexnet_nb.engine.archives import LARGEST
from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.lists import load_source
from alexnet_nb.engine.sources import Folder, find_source, read_table
from archives import put, tar
from malformed import saved

def picture(i): return saved(Image.fromarray(np.random.default_rng(i).integers(0, 255, (20,20,3), dtype=np.uint8)), 'PNG')

def files(text, n=3):
    "{path: bytes} of `n` pictures in each of the folders"
    return {f'{o}/{i}.png':picture([len(o), i]) for o in text.split() for i in range(n)}

def zipped(files, **kw):
    with zipfile.ZipFile(f := io.BytesIO(), 'w', **kw) as z:
        for name,data in files.items(): z.writestr(name, data)
    return f.getvalue()

def forms(folder, text):
    "The same files in a folder, a tar, a compressed tar and a zip"
    found = files(text)
    put(folder/'set', found)
    put(folder, {'set.tar':tar(found), 'set.tgz':tar(found, 'w:gz'), 'set.zip':zipped(found)})
    return [folder/o for o in ('set', 'set.tar', 'set.tgz', 'set.zip')]

def names(source): return {k:{os.fsdecode(o).rsplit('/', 1)[0] for o in t['name'].tolist()} for k,t in source.splits.items()}

def message(src, **kw):
    with pytest.raises(Refusal) as e: find_source(src, **kw)
    assert '\n' not in str(e.value)
    return str(e.value)

# --- Which folder is for what

both = [('Training/cat Training/dog Testing/cat Testing/dog', 'Training', 'Testing', 'Testing: used for validation'),
        ('Train/cat Train/dog Test/cat Test/dog', 'Train', 'Test', 'Test: used for validation'),
        ('train_set/cat train_set/dog dev/cat dev/dog', 'train_set', 'dev', ''),
        ('trainset/cat trainset/dog validation/cat validation/dog test/cat test/dog', 'trainset', 'validation', 'test: left out'),
        ('images_train/cat images_train/dog images_val/cat images_val/dog', 'images_train', 'images_val', ''),
        ('set/TRAIN/cat set/TRAIN/dog set/EVAL/cat', 'TRAIN', 'EVAL', ''),
        ('pets/train/cat pets/train/dog pets/val/cat notes', 'train', 'val', ''),
        ('seg_train/seg_train/cat seg_train/seg_train/dog seg_test/seg_test/cat seg_pred', 'seg_train/seg_train',
         'seg_test/seg_test', 'seg_pred: left out')]

@pytest.mark.parametrize('text,train,val,said', both)
def test_splits(tmp_path, text, train, val, said):
    for src in forms(tmp_path, text):
        s = find_source(src)
        assert s.classes==['cat','dog'] and any(said in o for o in s.notes+[said]), (src, s.notes)
        assert names(s)['train']=={f'{train}/cat', f'{train}/dog'} and names(s)['val']<={f'{val}/cat', f'{val}/dog'}, src

@pytest.mark.parametrize('text,classes,said', [
    ('bus car train', ['bus','car','train'], 'train: taken for a class'),
    ('bus car bullet_train', ['bullet_train','bus','car'], 'bullet_train: taken for a class'),
    ('train/train train/test train/bus', ['bus','test','train'], ''),
    ('cat dog', ['cat','dog'], ''),
    ('train/cat train/dog test', ['cat','dog'], 'test: left out, its images have no classes'),
    ('train/cat train/dog test/images', ['cat','dog'], 'test: left out, its images have no classes'),
    ('train.X1/a train.X2/b train.X3/c', ['a','b','c'], 'taken together')])
def test_held_out(tmp_path, text, classes, said):
    "Without validation images a share of the training images is held out, and none of a folder for testing"
    for src in forms(tmp_path, text):
        s = find_source(src)
        assert s.classes==classes and any(said in o for o in s.notes+[said]), (src, s.notes)
        assert not any(o.startswith('test') for k in names(s).values() for o in k)

@pytest.mark.parametrize('text,said', [
    ('cat dog test', 'is it a class, or for test?'), ('cat dog val', 'is it a class, or for val?'),
    ('cat dog test/cat test/dog', 'is it a class, or for test?'), ('test/cat test/dog', 'no folder for training'),
    ('train test', 'no class folders in it'), ('train/cat train/dog trainval/cat', 'means train and val'),
    ('train/cat train/dog train_small/cat', 'both mean train'), ('train/cat Train/cat', 'both mean train'),
    ('train/a train/b val/c', 'a class without training images'), ('train/Cat train/Dog val/cat', 'rename it to Cat'),
    ('cat/train cat/test dog/train dog/test', 'images for testing inside of a class'),
    ('train/steam train/diesel bus car', 'is it a class, beside a folder for training'), ('cat', 'only one class')])
def test_ambiguous(tmp_path, text, said):
    for src in forms(tmp_path, text): assert said in message(src), src

def test_split_with_several_folders(tmp_path):
    "Each folder of the training images has classes of its own, as a data set on Kaggle has them"
    s = find_source(put(tmp_path/'s', files('train.X1/a train.X2/b train.X10/c val.X/a val.X/b val.X/c')))
    assert s.classes==['a','b','c'] and len(s.splits['train'])==9 and len(s.splits['val'])==9
    assert 'taken together' in s.notes[0]

def test_what_is_said(tmp_path):
    "Empty classes, images in no class, names that differ in capitals only: all of it comes before the work"
    src = put(tmp_path/'s', files('train/cat train/dog train/Dog val/cat') | {'train/loose.png':picture(9)})
    (src/'train/emu').mkdir()
    said = []
    prepare(src, tmp_path/'p', size=16, tell=said.append)
    said = '\n'.join(said)
    for o in ('1 class folders without images, left out: emu', '1 images in no class folder', 'Dog and dog: two classes'):
        assert o in said
    put(tmp_path, {'s.zip':zipped(files('cat dog')|{'emu/':''})})
    assert 'left out: emu' in find_source(tmp_path/'s.zip').notes[0]

def test_numbers(tmp_path):
    "Class folders that are numbers have the order of numbers"
    for src in forms(tmp_path, ' '.join(map(str, range(12)))):
        assert find_source(src).classes==[str(i) for i in range(12)]

# --- Names

odd = ['caf\udce9', 'Ba$$in', 'two\nlines', '\u202eturned', 'x'*255, 'grüße', '\x1b[31mred', 'a b', '猫', "it's", '%s{0}', '0', '*']

def test_odd_names(tmp_path, monkeypatch):
    "Classes and files of any name are the same from a folder and from archives; messages show them escaped"
    found = {f'{o}/{p[:251]}.png':picture([i, j]) for i,o in enumerate(odd) for j,p in enumerate(odd[:5])}
    put(tmp_path/'set', found)
    (tmp_path/'set.tar').write_bytes(tar(found))
    want = prepare(tmp_path/'set', tmp_path/'p', size=16)
    other = prepare(tmp_path/'set.tar', tmp_path/'q', size=16)
    assert want.meta['sha256']==other.meta['sha256'] and want.wnids==other.wnids and len(want.wnids)==len(odd)
    unicode = {k:v for k,v in found.items() if '\udce9' not in k}
    (tmp_path/'set.zip').write_bytes(zipped(unicode))
    assert len(find_source(tmp_path/'set.zip').classes)==len(odd)-1
    with tarfile.open(tmp_path/'one.tar', 'w') as t: t.add(tmp_path/'set/two\nlines', 'two\nlines')
    assert 'two\\nlines' in message(tmp_path/'one.tar')
    s = find_source(tmp_path/'set')
    (tmp_path/'work').mkdir()
    s.save(tmp_path/'work')
    again = load_source(tmp_path/'work')
    assert again.classes==s.classes and again.parts==s.parts

@pytest.mark.parametrize('encoding', ['utf-8','utf-8-sig','utf-16','utf-16-be','latin-1'])
def test_tables(tmp_path, encoding):
    text = 'n1\tcrème, brûlée\r\nn2 dog house\r\n'
    data = text.encode(encoding)
    if encoding=='utf-16-be': data = b'\xfe\xff'+data
    src = put(tmp_path/'s', files('train/n1 train/n2') | {'val/a.JPEG':picture(1), 'val/b.JPEG':picture(2), 'words.txt':data,
              'val/val_annotations.txt':'a.JPEG\tn1\t0\t0\r\nb.JPEG\tn2\t0\t0\r\n'.encode(encoding if encoding!='utf-16-be' else 'utf-16')})
    s = find_source(src)
    assert s.words==dict(n1='crème, brûlée', n2='dog house') and len(s.splits['val'])==2
    assert {Path(o).name for o in s.files}=={'words.txt', 'val_annotations.txt'}
    (tmp_path/'s.zip').write_bytes(zipped({str(o.relative_to(src)):o.read_bytes() for o in src.rglob('*') if o.is_file()}))
    assert find_source(tmp_path/'s.zip').words==s.words

def test_table_that_is_none(tmp_path):
    (tmp_path/'words.txt').write_bytes(bytes(100))
    with pytest.raises(Refusal, match='words.txt: holds zero bytes'): read_table(tmp_path/'words.txt')

# --- What cannot be read

def test_links(tmp_path):
    "Links that lead nowhere, to themselves or upwards are left out and listed; links to pictures are followed"
    src = put(tmp_path/'s', files('cat dog', n=12))
    put(tmp_path, {'elsewhere/1.png':picture(99)})
    for name,to in (('cat/loop','loop'), ('cat/none.png','nowhere'), ('dog/up','..'), ('dog/far','../../elsewhere'), ('emu','emu')):
        os.symlink(to, src/name)
    os.mkfifo(src/'dog/pipe.png')
    s = find_source(src)
    refused = dict(s.refused)
    assert set(refused)=={'cat/loop', 'cat/none.png', 'dog/pipe.png', 'dog/up/', 'emu'}
    assert refused['dog/pipe.png']=='not a regular file' and 'symbolic links' in refused['cat/loop']
    assert b'dog/far/1.png' in {*s.splits['train']['name'].tolist(), *s.splits['val']['name'].tolist()}
    p = prepare(src, tmp_path/'p', size=16)
    assert {o['file'] for o in map(json.loads, (p.path/'repairs.jsonl').open())}==set(refused)

@pytest.mark.parametrize('error', [PermissionError(13, 'Permission denied'), FileNotFoundError(2, 'No such file or directory'),
                                   OSError(5, 'Input/output error')])
def test_class_folder_that_cannot_be_read(tmp_path, monkeypatch, error):
    "It is left out, listed and said; the other classes are a pack"
    src,scan = put(tmp_path/'s', files('cat dog emu', n=12)),os.scandir
    def scandir(path):
        if not isinstance(path, int) and Path(path).name=='emu': raise error
        return scan(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    found = Folder(src)
    assert [o[0] for o in found.find('emu')]==[] and found.refused=={'emu/':error.strerror}
    if not isinstance(error, PermissionError): return # vanished, or a disk that fails, while the form was looked for
    said = []
    p = prepare(src, tmp_path/'p', size=16, tell=said.append)
    assert p.wnids==['cat','dog'] and f'emu/: {error.strerror}' in '\n'.join(said)
    assert json.loads((p.path/'repairs.jsonl').read_text())==dict(file='emu/', action='refused', reason=error.strerror)

def test_split_that_cannot_be_read(tmp_path, monkeypatch):
    "A folder for training or validation is not passed over; and a class that is missing is blamed on its folder"
    src,scan,bad = put(tmp_path/'s', files('train/cat train/dog val/cat val/dog')),os.scandir,set()
    def scandir(path):
        if not isinstance(path, int) and Path(path) in bad: raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    for name in ('train', 'val'):
        bad.add(src/name)
        assert message(src)==f'{src/name}: Permission denied'
        bad.clear()
    bad.add(src/'train/dog')
    assert message(src).endswith('left out: train/dog/, Permission denied')

def test_source_that_cannot_be_read(tmp_path, monkeypatch):
    def scandir(path): raise PermissionError(13, 'Permission denied', str(path))
    (tmp_path/'s').mkdir()
    monkeypatch.setattr(os, 'scandir', scandir)
    assert message(tmp_path/'s')==f'{tmp_path}/s: Permission denied'
    monkeypatch.undo()
    assert 'no such folder' in message(tmp_path/'none') and 'too long' in message(tmp_path/('x'*300))
    os.mkfifo(tmp_path/'pipe')
    assert 'not a regular file' in message(tmp_path/'pipe')

def test_file_that_vanishes(tmp_path):
    src = put(tmp_path/'s', files('cat dog', n=20))
    s = find_source(src)
    (src/'cat/3.png').unlink()
    k,i = next((k, i) for k,t in s.splits.items() for i in range(len(t)) if s.name(k, i)=='cat/3.png')
    with pytest.raises(FileNotFoundError): s.read(k, i)
    (src/'cat/3.png').write_bytes(b'')
    assert s.read(k, i)==b''

# --- Zips

def test_zip(tmp_path):
    "Read in place: stored, deflated, from a stream, with large numbers; the same pack as from the folder"
    found = files('pets/train/cat pets/train/dog pets/val/cat pets/val/dog')
    want = prepare(put(tmp_path/'set', found)/'pets', tmp_path/'p', size=16)
    class Stream:
        "Written to, never rewound"
        def __init__(self): self.data = []
        def write(self, b): self.data.append(bytes(b)); return len(b)
        def flush(self): pass
    with zipfile.ZipFile(stream := Stream(), 'w', zipfile.ZIP_DEFLATED) as z:
        for k,v in found.items(): z.writestr(k, v)
    with zipfile.ZipFile(large := io.BytesIO(), 'w') as z:
        for k,v in found.items():
            with z.open(k, 'w', force_zip64=True) as f: f.write(v)
    kinds = dict(stored=zipped(found), deflated=zipped(found, compression=zipfile.ZIP_DEFLATED), large=large.getvalue(),
                 stream=b''.join(stream.data), behind=b'#!/bin/sh\n'+zipped(found))
    kinds['windows'] = zipped(found).replace(b'pets/', b'pets\\').replace(b'val/', b'val\\').replace(b'train/', b'train\\') \
        .replace(b'cat/', b'cat\\').replace(b'dog/', b'dog\\').replace(b'PK\1\2\x14\3', b'PK\1\2\x14\0')
    for name,data in kinds.items():
        (tmp_path/f'{name}.zip').write_bytes(data)
        p = prepare(tmp_path/f'{name}.zip', tmp_path/name, size=16)
        assert p.meta['sha256']==want.meta['sha256'] and p.meta['kind'].startswith('zip of'), name
    assert not list(tmp_path.glob('pets'))

def test_zip_members_that_are_left_out(tmp_path):
    found = files('cat dog', n=12)
    data = zipped(found)
    with zipfile.ZipFile(f := io.BytesIO(data), 'a') as z:
        z.writestr('../../out.png', picture(1))
        z.writestr('/etc/out.png', picture(1))
        z.writestr('cat/odd.png', picture(1), zipfile.ZIP_LZMA)
        for name,mode in (('cat/link.png', stat.S_IFLNK|0o777), ('cat/pipe.png', stat.S_IFIFO|0o600)):
            m = zipfile.ZipInfo(name)
            m.external_attr = mode<<16
            z.writestr(m, '/etc/passwd')
    data = f.getvalue()
    at = data.rindex(b'PK\1\2', 0, data.rindex(b'dog/3.png'))
    data = data[:at+8]+b'\1'+data[at+9:]
    (tmp_path/'s.zip').write_bytes(data)
    s = find_source(tmp_path/'s.zip')
    assert {k:v.split()[0] for k,v in s.refused}=={'../../out.png':'its', '/etc/out.png':'its', 'cat/odd.png':'packed',
        'cat/link.png':'a', 'cat/pipe.png':'not', 'dog/3.png':'encrypted'}
    assert sum(map(len, s.splits.values()))==23 and '6 files or folders are left out' in s.notes[-1]

def test_damaged_zips(tmp_path):
    data = zipped(files('cat dog', n=12))
    def found(data):
        (tmp_path/'s.zip').write_bytes(data)
        return message(tmp_path/'s.zip')
    for n in (4, 100, len(data)//2, len(data)-10): assert 'damaged or incomplete' in found(data[:n])
    assert 'no files in this archive' in found(zipped({}))
    assert 'damaged or incomplete' in found(data.replace(b'PK\1\2', b'PK\1\3', 1))
    (tmp_path/'s.zip').write_bytes(data)
    s = find_source(tmp_path/'s.zip')
    (tmp_path/'s.zip').write_bytes(data.replace(picture([3,0]), bytes(len(picture([3,0]))), 1))
    bad = []
    for i in range(len(s.splits['train'])):
        try: s.read('train', i)
        except ValueError as e: bad.append(str(e))
    assert set(bad)<={'differs from its checksum in the zip'}

def test_archives_in_archives(tmp_path):
    inner = tar(files('cat dog'))
    for name,data in (('a.zip', zipped({'set/train.tar':inner})), ('a.tar', tar({'n1.tar':inner, 'n2.tar':inner})),
                      ('b.zip', zipped({'x/a.zip':b'', 'x/readme.txt':b''}))):
        (tmp_path/name).write_bytes(data)
        assert 'holds archives, such as' in message(tmp_path/name)
    put(tmp_path, {'downloads/pets.zip':zipped(files('cat dog'))})
    assert 'such as pets.zip' in message(tmp_path/'downloads')

@pytest.mark.parametrize('name,data,said', [
    ('s.7z', b'7z\xbc\xaf\x27\x1c', '7z is not read; unpack it'), ('s.rar', b'Rar!\x1a\x07', 'rar is not read'),
    ('s.tar.zst', b'\x28\xb5\x2f\xfd', 'zstd is not read'), ('s.zip.001', b'PK\3\4', 'join them'), ('s.z01', b'PK\3\4', 'join them'),
    ('s.tar.gz.partaa', b'\x1f\x8b', 'join them'), ('s.tar', b'<html>404</html>', 'damaged or incomplete'),
    ('s.tar', b'', 'no files'), ('s.zip', b'', 'damaged or incomplete')])
def test_other_archives(tmp_path, name, data, said):
    (tmp_path/name).write_bytes(data)
    assert said in message(tmp_path/name)

# --- What is too large

def test_large_members(tmp_path):
    "A member that no image can be is left out, and so are sparse ones, devices and links; nothing of them is read"
    with tarfile.open(tmp_path/'s.tar.gz', 'w:gz', compresslevel=1) as t:
        for name,data in files('cat dog', n=12).items():
            m = tarfile.TarInfo(name)
            m.size = len(data)
            t.addfile(m, io.BytesIO(data))
        for name,kind,size in (('cat/huge.png', tarfile.REGTYPE, LARGEST+1), ('cat/dev', tarfile.CHRTYPE, 0),
                               ('cat/hard', tarfile.LNKTYPE, 0), ('cat/fifo', tarfile.FIFOTYPE, 0)):
            m = tarfile.TarInfo(name)
            m.type,m.size,m.linkname = kind,size,'/etc/passwd'
            t.addfile(m, open('/dev/zero', 'rb') if size else None)
    s = find_source(tmp_path/'s.tar.gz')
    assert {k for k,_ in s.refused}=={'cat/huge.png', 'cat/dev', 'cat/hard', 'cat/fifo'}
    assert dict(s.refused)['cat/huge.png']=='a file of 134,217,729 bytes, more than 134,217,728'
    assert len(list(s.stream('train')))==22
    src = put(tmp_path/'f', files('cat dog', n=3))
    with open(src/'cat/0.png', 'wb') as f: f.truncate(LARGEST+1)
    f = find_source(src)
    bad = [i for k,t in f.splits.items() for i in range(len(t)) if f.name(k, i)=='cat/0.png' and not pytest.raises(
        ValueError, f.read, k, i).match('more than')]
    assert bad==[]

def header(name, size, kind=b'0'):
    m = tarfile.TarInfo(name)
    m.size,m.type = size,kind
    return m.tobuf(tarfile.GNU_FORMAT)

def bombs():
    yield 'a header of 1,073,741,824 bytes', header('x', 1<<30, b'x')+bytes(1<<20)
    yield 'a header of 1,073,741,824 bytes', header('x', 1<<30, b'L')+bytes(1<<20)
    yield 'members in', b''.join(header(f'{"ab"[i%2]}/{i}.png', 0) for i in range(20_010))
    yield 'ends too early', header('a/1.png', 1<<40)+bytes(1000)
    yield 'damaged', header('x', 1000, b'x')+b'5 a=1\n'*80
    yield 'damaged', header('x', 30, b'x')+b'20 size=-99999999999\n'.ljust(512, b'\0')+header('a', 0)

@pytest.mark.parametrize('said,data', list(bombs()))
def test_bombs(tmp_path, said, data):
    "A small file that asks for much is refused with what it asks for"
    import lzma
    (tmp_path/'s.tar.xz').write_bytes(lzma.compress(data+bytes(1024), preset=0))
    assert said in message(tmp_path/'s.tar.xz')

def test_growth(tmp_path, monkeypatch):
    "What is compressed may grow, but not without end"
    import gzip
    monkeypatch.setattr(archives, '_FREE', 1<<20)
    (tmp_path/'s.tar.gz').write_bytes(gzip.compress(header('a/1.png', 8<<20)+bytes(9<<20)))
    assert 'grows to more than 200 times its size' in message(tmp_path/'s.tar.gz')

def test_beside_image_folder(tmp_path):
    "For plain folders the classes and images are those of torchvision's ImageFolder; numbers have another order"
    from torchvision.datasets import ImageFolder
    src = put(tmp_path/'s', files('train/dog train/cat train/B train/a/b val/dog val/cat val/B val/a'))
    s = find_source(src)
    for split in ('train', 'val'):
        there = ImageFolder(src/split)
        assert there.classes==s.classes
        assert [(str(src/s.name(split, i)), c) for i,c in enumerate(s.splits[split]['cls'].tolist())]==there.samples
    src = put(tmp_path/'n', files('train/10 train/9 val/10 val/9'))
    assert (ImageFolder(src/'train').classes, find_source(src).classes)==(['10','9'], ['9','10'])
