"""ImageNet in small, for a rehearsal: the archives of ILSVRC-2012 and what else it comes as, with all 1000 classes

python tests/rehearsal.py FOLDER makes all layouts in FOLDER. Names, nesting and tables are as published; the pictures
are crops of tiny-imagenet-25 (in the folder that ALEXNET_NB_DATA names), or of drawn ones where it is absent. The same
files are in each layout, so that each must give the same pack. 22 files are CMYK and one is a PNG, under the names that
such files have in ILSVRC."""
import io, os, sys, tarfile
from functools import cache
from pathlib import Path
import numpy as np
from PIL import Image
from alexnet_nb.engine.lists import ilsvrc_words
from archives import Challenge, put, tar

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
        from alexnet_nb.engine.demo import draw
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

@cache
def challenge(classes=1000):
    "The same as a challenge whose numbers of the classes are not their places in the sorted list; or its first classes"
    train,val = files()
    train = dict(list(train.items())[:classes])
    heap = [(w, b) for _,w,b in val if w in train]
    ws = np.random.default_rng([0,1]).permutation(list(train)).tolist()
    return Challenge(train, [(f'ILSVRC2012_val_{i:08d}.JPEG', *o) for i,o in enumerate(heap, 1)],
                     number=dict(zip(ws, range(1, len(ws)+1))), words=ilsvrc_words())

@cache
def challenge2010(classes=100, test=2):
    """The first classes as ILSVRC-2010, the set of the paper's Table 1: its development kit as published (`devkit-1.0/`
    inside), images below `val/` and `test/`, test labels in a file of their own, and an archive of patches"""
    train,_ = files()
    rng,ws = np.random.default_rng(2010),list(train)[:classes]
    def heap(split, n):
        return [(f'ILSVRC2010_{split}_{i:08d}.JPEG', w, blob(rng, '')) for i,w in enumerate(rng.permutation(ws*n).tolist(), 1)]
    number = dict(zip(rng.permutation(ws).tolist(), range(1, len(ws)+1)))
    return Challenge({w:train[w] for w in ws}, heap('val', 1), heap('test', test), number, ilsvrc_words(), '2010')

def fall2011(folder, extra=8, n=6):
    "All of ImageNet as it was in the fall of 2011, in small: one tar of a tar for each class, some of them not of ILSVRC"
    rng,ws = np.random.default_rng(2011),[*list(files()[0])[:12], *(f'n0{i}0000000'[:9] for i in range(1, extra+1))]
    classes = {f'{w}.tar':tar({f'{w}_{i}.JPEG':blob(rng, '') for i in range(n)}) for w in ws}
    return put(folder, {'fall11_whole.tar':tar(classes)})

layouts = {o:getattr(Challenge, o) for o in 'archives kaggle kaggle_zip folders parquet'.split()}

if __name__=='__main__':
    if len(sys.argv)!=2: sys.exit(__doc__)
    for name,make in layouts.items():
        try: print(make(challenge(), Path(sys.argv[1])/name))
        except ImportError as e: print(f'{name}: left out ({e})')
