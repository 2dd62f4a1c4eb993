"Parquet shards and CIFAR as people have them: every type of label, every kind of column, pickles that ask for too much"
import io, json, pickle, resource, struct, tarfile
from decimal import Decimal

import numpy as np, pytest
from PIL import Image

from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.pictures import open_picture
from alexnet_nb.engine.shards import find_cifar, is_cifar, read_batch, read_footer, unpickle
from alexnet_nb.engine.sources import find_source
from archives import cifar

n = 12
numbers = [i%3 for i in range(n)]
animals = [('cat','dog','emu')[i] for i in numbers]

def png(i):
    Image.fromarray(np.full((20,20,3), i*8, np.uint8)).save(f := io.BytesIO(), 'PNG')
    return f.getvalue()

images = [dict(bytes=png(i), path=f'{i}.png') for i in range(n)]

def message(f, *args):
    with pytest.raises(Refusal) as e: f(*args)
    assert '\n' not in str(e.value) and 'fault' not in str(e.value)
    return str(e.value)

def put_shards(folder, *tables, names=None, meta=None, **kw):
    "Write tables as shards; bytes are written as they are"
    pa,parquet = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    for i,t in enumerate(tables):
        path = folder/(names[i] if names else f'train-{i:05d}-of-{len(tables):05d}.parquet')
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(t, bytes):
            path.write_bytes(t)
            continue
        t = t if isinstance(t, pa.Table) else pa.table(t)
        if meta is not None: t = t.replace_schema_metadata({'huggingface':meta})
        parquet.write_table(t, path, **kw)
    return folder

def taken(folder):
    "{class: numbers of its pictures}, by their grey, of what is found; and the notes"
    s = find_source(folder)
    found = {}
    for split,t in s.splits.items():
        for i,raw in s.stream(split):
            found.setdefault(s.classes[t['cls'][i]], []).append(open_picture(raw)[0].getpixel((0,0))[0]//8)
    return {k:sorted(v) for k,v in found.items()}, s

thirds = {c:[i for i in range(n) if i%3==k] for k,c in enumerate('012')}
by_name = dict(zip(('cat','dog','emu'), thirds.values()))

def good_labels():
    pa = pytest.importorskip('pyarrow')
    yield animals, by_name
    yield [str(i) for i in numbers], thirds
    yield [float(i) for i in numbers], thirds
    yield pa.array(animals).dictionary_encode(), by_name
    yield pa.array(animals, pa.large_string()), by_name
    yield [Decimal(i) for i in numbers], thirds
    for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.uint64()): yield pa.array(numbers, kind), thirds
    yield [i>0 for i in numbers], {'0':thirds['0'], '1':sorted(thirds['1']+thirds['2'])}
    yield [-1 if i==0 else i for i in numbers], {k:thirds[k] for k in '12'}
    yield [None if i==0 else i for i in numbers], {k:thirds[k] for k in '12'}
    yield [float('nan') if i==0 else float(i) for i in numbers], {k:thirds[k] for k in '12'}
    yield ['' if o=='cat' else o for o in animals], {k:by_name[k] for k in ('dog','emu')}
    yield [('$a$','b\n\u202ec','../d')[i] for i in numbers], dict(zip(('$a$','b\n\u202ec','../d'), thirds.values()))

def test_labels(tmp_path):
    for i,(labels,want) in enumerate(good_labels()):
        found,s = taken(put_shards(tmp_path/str(i), dict(image=images, label=labels)))
        assert found==want, (i, found)
        lost = n-sum(map(len, want.values()))
        assert bool(lost)==any(f'{lost} rows have no label' in o for o in s.notes)

def test_labels_that_are_none(tmp_path):
    pa = pytest.importorskip('pyarrow')
    bad = [[i+.5 for i in numbers], [float('inf')]*n, [[int(i==j) for j in range(3)] for i in numbers], pa.nulls(n),
           pa.array([1]*n, pa.date32()), [b'a']*n, [dict(a=1)]*n, ['x'*300]*n, pa.array([[('a', 1)]]*n, pa.map_(pa.string(), pa.int64()))]
    for i,labels in enumerate(bad):
        said = message(find_source, put_shards(tmp_path/str(i), dict(image=images, label=labels)))
        assert 'train-00000-of-00001.parquet: column label: ' in said, said
    assert 'no row has a label' in message(find_source, put_shards(tmp_path/'neg', dict(image=images, label=[-1]*n)))
    assert 'no row has a label' in message(find_source, put_shards(tmp_path/'none', pa.table(dict(image=images, label=numbers)).slice(0, 0)))

def test_columns_of_pictures(tmp_path):
    "Only bytes are pictures, and a name decides where several columns hold some"
    pa = pytest.importorskip('pyarrow')
    raw = [o['bytes'] for o in images]
    good = [dict(img=images), dict(picture=raw), dict(photo=raw), dict(image=images, mask=raw), dict(thumbnail=[b'x']*n, image=images),
            dict(image=pa.array(raw, pa.large_binary())), dict(image=pa.array(raw).dictionary_encode()),
            dict(image=[dict(inner=o) for o in images])]
    for i,columns in enumerate(good):
        assert taken(put_shards(tmp_path/f'good{i}', columns | dict(label=numbers)))[0]==thirds, i
    assert taken(put_shards(tmp_path/'inside', dict(row=[dict(image=o, label=i) for o,i in zip(images, numbers)])))[0]==thirds
    secret = tmp_path/'secret.png'
    secret.write_bytes(png(1))
    bad = [dict(image=[str(secret)]*n), dict(image=[dict(bytes=str(secret), path='x')]*n), dict(image=[dict(path=str(secret))]*n),
           dict(image=[[o] for o in images]), dict(image=[list(o[:9]) for o in raw]), dict(image=[str(secret)]*n, thumbnail=raw)]
    for i,columns in enumerate(bad):
        assert 'column image: not bytes' in message(find_source, put_shards(tmp_path/f'bad{i}', columns | dict(label=numbers)))
    assert 'expected one column of pictures' in message(find_source, put_shards(tmp_path/'two', dict(a=raw, b=raw, label=numbers)))
    assert 'there are: image, x' in message(find_source, put_shards(tmp_path/'no', dict(image=images, x=numbers)))
    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    some = pa.array([dict(bytes=None, path=str(secret)), None, *images[2:]], kind)
    s = find_source(put_shards(tmp_path/'null', dict(image=some, label=numbers)))
    values = {k:v for split in s.splits for k,v in [(s.name(split, i), v) for i,v in s.stream(split)]}
    for name in ('train/0/secret.png', 'train/1/train-00000-of-00001_000001'):
        with pytest.raises(ValueError, match='not bytes'): open_picture(values[name])

def test_metadata(tmp_path):
    "Names of classes come from the metadata; damaged metadata costs the names only, and that is said"
    def about(names): return json.dumps(dict(info=dict(features=dict(label=dict(names=names, _type='ClassLabel')))))
    table = dict(image=images, label=numbers)
    found,s = taken(put_shards(tmp_path/'good', table, meta=about(['a','b','c'])))
    assert found==thirds and s.words=={'0':'a', '1':'b', '2':'c'} and not s.notes
    bad = ['{{{', about([1,2,3]), '{"info":[1]}', '['*100_000, about('X').replace('"X"', '['*20_000+']'*20_000), b'\xff\xfe', '[]',
           '{"info":{"features":"x"}}']
    for i,meta in enumerate(bad):
        found,s = taken(put_shards(tmp_path/str(i), table, meta=meta))
        assert found==thirds and not s.words and 'names of its labels cannot be read' in s.notes[0], (i, s.notes)
    found,s = taken(put_shards(tmp_path/'few', table, meta=about(['a'])))
    assert found==thirds and s.words=={'0':'a'} and 'names 1 classes, but there is a label 2' in s.notes[0]

def test_shards_together(tmp_path):
    pa = pytest.importorskip('pyarrow')
    t = dict(image=images, label=numbers)
    assert taken(put_shards(tmp_path/'int', t, t | dict(label=pa.array(numbers, pa.int8()))))[0].keys()==thirds.keys()
    for i,other in enumerate((t | dict(label=animals), dict(img=images, label=numbers), dict(image=images, label=[float(i) for i in numbers]))):
        if i==2: taken(put_shards(tmp_path/'float', t, other)); continue
        said = message(find_source, put_shards(tmp_path/str(i), t, other))
        assert 'train-00001-of-00002.parquet: ' in said and ', but ' in said, said
    _,s = taken(put_shards(tmp_path/'test', t, t, names=['train-0.parquet', 'test-0.parquet']))
    assert {k:len(v) for k,v in s.splits.items()}==dict(train=n, val=n) and 'used for validation' in s.notes[0]
    _,s = taken(put_shards(tmp_path/'blind', t, t | dict(label=[-1]*n), names=['train-0.parquet', 'test-0.parquet']))
    assert sum(map(len, s.splits.values()))==n
    for names in (('default/train/0.parquet', 'default/validation/0.parquet'), ('TRAIN.parquet', 'valid.parquet')):
        _,s = taken(put_shards(tmp_path/names[0][:5], t, t, names=names))
        assert {k:len(v) for k,v in s.splits.items()}==dict(train=n, val=n)
    assert 'the name of more.parquet says no split' in message(find_source, put_shards(tmp_path/'mixed', t, t, names=['train.parquet', 'more.parquet']))
    assert 'shards of 2 data sets' in message(find_source, put_shards(tmp_path/'sets', t, t, names=['a/train.parquet', 'b/train.parquet']))
    assert 'no training shards' in message(find_source, put_shards(tmp_path/'only', t, names=['test.parquet']))

def test_damaged_shards(tmp_path):
    "Each damage of a footer or a page is one line; a small file that speaks of gigabytes is refused before it is read"
    t = dict(image=images, label=numbers)
    whole = (put_shards(tmp_path/'whole', t, write_page_checksum=True, compression='none')/'train-00000-of-00001.parquet').read_bytes()
    middle = bytearray(whole)
    middle[whole.find(png(5))+20] ^= 1
    bad = [b'', b'PAR1', whole[:-1], whole[:500], whole[:500]+whole[-500:], b'PARE'+bytes(99)+b'PARE', whole[:-8]+b'\xff'*4+b'PAR1',
           whole[:-300]+bytes(292)+whole[-8:]]
    for i,data in enumerate(bad):
        assert 'train-00000-of-00001.parquet: ' in message(find_source, put_shards(tmp_path/str(i), data)), i
    s = find_source(put_shards(tmp_path/'middle', bytes(middle)))
    assert 'CRC checksum' in message(lambda: [dict(s.stream(o)) for o in s.splits])
    big = put_shards(tmp_path/'big', t | dict(image=[bytes(100<<20), *(o['bytes'] for o in images[1:])]), compression='zstd')
    assert 'that become' in message(read_footer, big/'train-00000-of-00001.parquet')
    long = put_shards(tmp_path/'long', t | dict(image=[dict(bytes=png(i), path='x'*100_000) for i in range(n)]))
    assert max(len(o) for t in find_source(long).splits.values() for o in t['name'].tolist())<200

# --- CIFAR

rng = np.random.default_rng(0)
batch = {b'data':rng.integers(0, 256, (n,3072), dtype=np.uint8), b'labels':[i%10 for i in range(n)],
         b'filenames':[f'{i}.png'.encode() for i in range(n)]}

def read(tmp_path, data):
    (tmp_path/'data_batch_1').write_bytes(data)
    return read_batch(tmp_path/'data_batch_1')

def test_pickles_of_people(tmp_path):
    "Every protocol, keys of text, labels as arrays or as NumPy's numbers, columns before rows"
    want = batch[b'data'].reshape(n,3,32,32).transpose(0,2,3,1)
    good = [pickle.dumps(batch, o) for o in range(6)]
    good += [pickle.dumps(batch | more, 2) for more in ({b'labels':np.arange(n)%10}, {b'labels':[np.int64(i%10) for i in range(n)]},
             {b'data':np.asfortranarray(batch[b'data'])}, {b'data':batch[b'data'].astype(int)}, {b'filenames':[]})]
    good.append(pickle.dumps({k.decode():v for k,v in batch.items()}))
    for data in good:
        x,y,names = read(tmp_path, data)
        assert (x==want).all() and y==batch[b'labels'] and len(names)==n

def put_array(shape, code, raw=b'abcd'):
    "A pickle with an array of which anything is said"
    shape = pickle.dumps(shape, 2)[2:-1]
    return (b'\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'+shape+b'U\x01b\x87R(K\x01'+shape+b'cnumpy\ndtype\nU'
            +bytes([len(code)])+code+b'K\x00K\x01\x87R\x89U'+bytes([len(raw)])+raw+b'tbsU\x06labels]K\x01as.')

def test_pickles_that_ask_for_too_much(tmp_path):
    "A few bytes never cost much memory or time, and nothing that they name is called"
    p2 = b'\x80\x02'
    bad = [p2+b'Nr'+struct.pack('<I', 10**8)+b'.', p2+b'Np-5\n.', p2+b'Np99999999999999999999\n.', p2+b'N'*2_000_000+b'.', p2+b'N2.', b'', b'.',
           b'\x80\x04\x8e'+struct.pack('<Q', 1<<62)+b'x.', b'\x80\x05\x96'+struct.pack('<Q', 1<<40)+b'x.', b'\x80\x04\x95'+struct.pack('<Q', 1<<60)+b'N.',
           p2+b'\x8b'+struct.pack('<i', 2**31-1)+b'x.', p2+b'L'+b'9'*1_000_000+b'\n.', p2+b']'*300_000+b'a'*299_999+b'.', p2+b')'+b'\x85'*300_000+b'.',
           p2+b'cnumpy\nndarray\nJ'+struct.pack('<i', 10**9)+b'U\x01O\x86R.', p2+b'cos\nsystem\nU\x04echo\x85R.', p2+b'(ios\nsystem\n.', p2+b'Pabc\n.',
           p2+b'cnumpy\nload\nU\x01x\x85R.', p2+b'}q\x00h\x00h\x00s.', pickle.dumps([1]), pickle.dumps(batch | {b'labels':[10**300]*n}, 2),
           pickle.dumps(batch | {b'labels':[-1]*n}, 2), pickle.dumps(batch | {b'data':np.array([None], object)}, 2)]
    bad += [put_array(shape, b'u1') for shape in ((-1,), (10**12,), (2**31, 2**31), (0,)*70, ('a',), (1.5,))]
    bad += [put_array((4,), code) for code in (b'O', b'O8', b'V999999999', b'S2000000000', b'M8[ns]', b'c16', b'x'*99)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i,data in enumerate(bad):
        assert 'data_batch_1: not a' in message(read, tmp_path, data), (i, data[:40])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before
    assert grown<200_000, f'{grown>>10} MB'
    assert np.asarray(unpickle(pickle.dumps({b'a':np.eye(2)}))[b'a']).tolist()==[[1,0],[0,1]]

@pytest.mark.parametrize('binary', [False,True])
def test_cifar100(tmp_path, binary):
    "The finer labels, from a folder and from a tar"
    d = tmp_path/('cifar-100-binary' if binary else 'cifar-100-python')
    d.mkdir()
    names = [f'class {i:02d}' for i in range(100)]
    for part in ('train', 'test'):
        x,y = rng.integers(0, 256, (200,3072), dtype=np.uint8),[i%100 for i in range(200)]
        if binary: (d/f'{part}.bin').write_bytes(np.hstack([np.zeros((200,1), np.uint8), np.array(y, np.uint8)[:,None], x]).tobytes())
        else: (d/part).write_bytes(pickle.dumps({b'data':x, b'fine_labels':y, b'coarse_labels':[0]*200, b'filenames':[b'a.png']*200}, 2))
    if binary: (d/'fine_label_names.txt').write_text('\n'.join(o.replace(' ', '_') for o in names))
    else: (d/'meta').write_bytes(pickle.dumps({b'fine_label_names':[o.encode() for o in names], b'coarse_label_names':[]}, 2))
    with tarfile.open(tmp_path/'c.tar.gz', 'w:gz') as t: t.add(d, d.name)
    for src in (d, tmp_path, tmp_path/'c.tar.gz'):
        if src==tmp_path: (tmp_path/'c.tar.gz').rename(tmp_path/'away')
        s = find_source(src)
        if src==tmp_path: (tmp_path/'away').rename(tmp_path/'c.tar.gz')
        assert s.kind.startswith('CIFAR-100 as published') and {k:len(v) for k,v in s.splits.items()}==dict(train=200, val=200)
        found = dict(s.stream('val'))
        where = int(s.name('val', 5).split('/')[1][:5])
        assert np.asarray(found[5]).tolist()==x[where].reshape(3,32,32).transpose(1,2,0).tolist()
    assert is_cifar([f'x/{o.name}' for o in d.iterdir()]) and not is_cifar(['train', 'test'])

def test_damaged_cifar(tmp_path):
    cifar(tmp_path/'c')
    def broken(name, data):
        old = (tmp_path/'c'/name).read_bytes()
        (tmp_path/'c'/name).write_bytes(data)
        try: return message(find_cifar, tmp_path/'c')
        finally: (tmp_path/'c'/name).write_bytes(old)
    assert 'data_batch_2: not a' in broken('data_batch_2', b'')
    assert 'batches.meta' in broken('batches.meta', pickle.dumps([1])) and 'batches.meta' in broken('batches.meta', b'\xff')
    assert 'labels that are unknown' in broken('batches.meta', pickle.dumps({b'label_names':[b'a', b'b']}))
    (tmp_path/'c/data_batch_4').unlink()
    assert 'without data_batch_4' in message(find_cifar, tmp_path/'c')
