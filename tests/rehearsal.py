"""ImageNet in small, for a rehearsal: the archives of ILSVRC-2012 and what else it comes as, with all 1000 classes

python tests/rehearsal.py FOLDER makes all layouts in FOLDER. Names, nesting and tables are as published; the pictures
are crops of tiny-imagenet-25 (in the folder that ALEXNET_NB_DATA names), or of drawn ones where it is absent. The same
files are in each layout, so that each must give the same pack. 22 files are CMYK and one is a PNG, under the names that
such files have in ILSVRC."""
import csv, io, os, struct, sys, tarfile, zlib
from functools import cache
from pathlib import Path
import numpy as np
from PIL import Image
from alexnet_nb.sources import ilsvrc_words

cmyk = '''n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 n03018349_4028 n03062245_4620
n03347037_9675 n03467068_12171 n03529860_11437 n03544143_17228 n03633091_5218 n03710637_5125 n03961711_5286
n04033995_2932 n04258138_17003 n04264628_27969 n04336792_7448 n04371774_5854 n04596742_4225 n07583066_647
n13037406_4650'''.split()
png = ['n02105855_2933']

@cache
def pictures():
    "Some hundred small pictures"
    f = Path(os.environ.get('ALEXNET_NB_DATA', ''))/'tiny-imagenet-25.tar.xz'
    if not f.is_file():
        from alexnet_nb.demo import draw
        return [draw(i%10, np.random.default_rng([7,i])).convert('RGB') for i in range(200)]
    with tarfile.open(f) as t:
        ms = (m for m in t if m.name.endswith('.JPEG'))
        return [Image.open(io.BytesIO(t.extractfile(m).read())).convert('RGB') for i,m in enumerate(ms) if i%25==0]

def blob(rng, stem):
    "The bytes of one file: a crop of a picture, perhaps mirrored"
    im = pictures()[rng.integers(len(pictures()))]
    w,h = (int(o*rng.uniform(.6, 1)) for o in im.size)
    l,t = (rng.integers(a-b+1) for a,b in zip(im.size, (w,h)))
    im = im.crop((l,t,l+w,t+h))
    if rng.random()<.5: im = im.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random()<.02: im = im.convert('L')
    if stem in cmyk: im = im.convert('CMYK')
    im.save(f := io.BytesIO(), 'PNG' if stem in png else 'JPEG')
    return f.getvalue()

@cache
def files(train=3, val=1, seed=0):
    "({wnid: {name: bytes}} of the training images, [(name, wnid, bytes)] of the validation images in their order)"
    rng,wnids = np.random.default_rng(seed),list(ilsvrc_words())
    odd = {o.split('_')[0]:int(o.split('_')[1]) for o in cmyk+png}
    def numbers(w):
        n = rng.choice(30_000, train, replace=False).tolist()
        return [*n[1:], odd[w]] if w in odd and odd[w] not in n else n
    tr = {w:{f'{w}_{i}.JPEG':blob(rng, f'{w}_{i}') for i in numbers(w)} for w in wnids}
    order = rng.permutation(wnids*val).tolist()
    return tr, [(f'ILSVRC2012_val_{i:08d}.JPEG', w, blob(rng, '')) for i,w in enumerate(order, 1)]

# --- meta.mat: a MATLAB file of format 5, as scipy.io.loadmat and MATLAB read it

def element(kind, data):
    "A tagged piece of data; up to four bytes stand in the tag itself"
    if 0<len(data)<=4: return struct.pack('<HH', kind, len(data)) + data.ljust(4, b'\0')
    return struct.pack('<II', kind, len(data)) + data + b'\0'*(-len(data)%8)

def matrix(cls, dims, *rest, name=b''):
    "An array of MATLAB's class `cls`; the first of a file has a name"
    head = element(6, struct.pack('<II', cls, 0)) + element(5, struct.pack(f'<{len(dims)}i', *dims)) + element(1, name)
    body = head + b''.join(rest)
    return struct.pack('<II', 14, len(body)) + body

def value(o):
    "A number, a row of numbers or a text"
    if isinstance(o, str): return matrix(4, (min(len(o), 1), len(o)), element(4, o.encode('utf-16-le')))
    x = np.atleast_1d(np.asarray(o))
    small = x.size and x.max()<256
    return matrix(6, (1,x.size) if x.size else (0,0), element(2 if small else 4, x.astype('<u1' if small else '<u2').tobytes()))

def mat(rows):
    "The bytes of a file that holds `synsets`, a struct array of the dicts `rows`"
    keys,k = list(rows[0]),32
    names = element(5, struct.pack('<i', k)) + element(1, b''.join(o.encode().ljust(k, b'\0') for o in keys))
    data = matrix(2, (len(rows),1), names, *(value(r[o]) for r in rows for o in keys), name=b'synsets')
    data = zlib.compress(data)
    head = b'MATLAB 5.0 MAT-file, Platform: GLNXA64'.ljust(116) + bytes(8) + struct.pack('<H2s', 0x100, b'IM')
    return head + struct.pack('<II', 15, len(data)) + data

@cache
def numbers(seed=0):
    "{wnid: ILSVRC's own number of the class}, which is not its place in the sorted list"
    ws = list(ilsvrc_words())
    return dict(zip(np.random.default_rng([seed,1]).permutation(ws).tolist(), range(1, len(ws)+1)))

def synsets(train):
    "The rows of meta.mat: the thousand classes by number, then the nodes above them"
    words = ilsvrc_words()
    def row(i, w, name, n, kids=()):
        return dict(ILSVRC2012_ID=i, WNID=w, words=name, gloss=f'what {name} is', num_children=len(kids), children=list(kids),
                    wordnet_height=int(bool(kids)), num_train_images=n)
    leaves = [row(i, w, words[w], len(train[w])) for w,i in numbers().items()]
    above = [row(1001+i, f'n9{i:07d}', f'group {i}', 0, range(1+10*i, 11+10*i)) for i in range(100)]
    return leaves + above

# --- The layouts

def add(tar, name, data):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    tar.addfile(m, io.BytesIO(data))

def tar(named, **kw):
    "The bytes of a tar of (name, bytes)"
    with tarfile.open(fileobj=(f := io.BytesIO()), mode='w', **kw) as t:
        for o in named: add(t, *o)
    return f.getvalue()

def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())

def archives(dst, **kw):
    "The three archives of ILSVRC-2012"
    (train,val),dst = files(**kw),Path(dst)
    put(dst/'ILSVRC2012_img_train.tar', tar((f'{w}.tar', tar(fs.items())) for w,fs in train.items()))
    put(dst/'ILSVRC2012_img_val.tar', tar((name,b) for name,_,b in val))
    kit,truth = 'ILSVRC2012_devkit_t12',''.join(f'{numbers()[w]}\n' for _,w,_ in val)
    with tarfile.open(dst/f'{kit}.tar.gz', 'w:gz') as t:
        add(t, f'{kit}/readme.txt', b'A rehearsal of the development kit of ILSVRC-2012\n')
        add(t, f'{kit}/data/ILSVRC2012_validation_ground_truth.txt', truth.encode())
        add(t, f'{kit}/data/meta.mat', mat(synsets(train)))
    return dst

def kaggle(dst, **kw):
    "Kaggle's layout: the validation images in one heap, and two tables"
    (train,val),dst = files(**kw),Path(dst)
    data = dst/'ILSVRC/Data/CLS-LOC'
    for w,fs in train.items():
        for name,b in fs.items(): put(data/'train'/w/name, b)
    for name,_,b in val: put(data/'val'/name, b)
    put(data/'test/ILSVRC2012_test_00000001.JPEG', val[0][2])
    rows = [[name.split('.')[0], f'{w} 85 1 499 272 '] for name,w,_ in val]
    with open(dst/'LOC_val_solution.csv', 'w', newline='') as f:
        csv.writer(f).writerows([['ImageId','PredictionString'], *(rows[i] for i in np.random.default_rng(0).permutation(len(rows)))])
    put(dst/'LOC_synset_mapping.txt', ''.join(f'{w} {n}\n' for w,n in ilsvrc_words().items()))
    return dst

def folders(dst, **kw):
    "torchvision's folders: train/ and val/, each with a folder for each class"
    (train,val),dst = files(**kw),Path(dst)
    for w,fs in train.items():
        for name,b in fs.items(): put(dst/'train'/w/name, b)
    for name,w,b in val: put(dst/'val'/w/name, b)
    return dst

def parquet(dst, shards=3, **kw):
    "Shards as on Hugging Face; needs pyarrow"
    import json, pyarrow as pa, pyarrow.parquet as pq
    (train,val),dst = files(**kw),Path(dst)
    words = ilsvrc_words()
    label = {w:i for i,w in enumerate(words)}
    tr = [(b, f'{n[:-5]}_{w}.JPEG', label[w]) for w,fs in train.items() for n,b in fs.items()]
    tr = [tr[i] for i in np.random.default_rng(1).permutation(len(tr))]
    va = [(b, f'{n[:-5]}_{w}.JPEG', label[w]) for n,w,b in val]
    kind = pa.schema([('image', pa.struct([('bytes', pa.binary()), ('path', pa.string())])), ('label', pa.int64())])
    info = dict(info=dict(features=dict(image=dict(_type='Image'), label=dict(names=list(words.values()), _type='ClassLabel'))))
    kind = kind.with_metadata({'huggingface':json.dumps(info)})
    (dst/'data').mkdir(parents=True)
    for split,rows,n in (('train',tr,shards), ('validation',va,1), ('test',[(va[0][0], 'ILSVRC2012_test_00000001.JPEG', -1)],1)):
        for i in range(n):
            table = pa.Table.from_pylist([dict(image=dict(bytes=b, path=p), label=c) for b,p,c in rows[i::n]], kind)
            pq.write_table(table, dst/f'data/{split}-{i:05d}-of-{n:05d}.parquet', row_group_size=100)
    return dst

layouts = dict(archives=archives, kaggle=kaggle, folders=folders, parquet=parquet)

if __name__=='__main__':
    if len(sys.argv)!=2: sys.exit(__doc__)
    for name,make in layouts.items():
        try: print(make(Path(sys.argv[1])/name))
        except ImportError as e: print(f'{name}: left out ({e})')
