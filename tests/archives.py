"Archives and folders of the true structure of ILSVRC, Kaggle, Hugging Face and CIFAR-10, made of small pictures"
import csv, io, json, pickle, shutil, struct, tarfile, zipfile, zlib
from pathlib import Path
import numpy as np

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

def meta_mat(rows, packed=True):
    "The bytes of a file that holds `synsets`, a struct array of the dicts `rows`"
    keys,k = list(rows[0]),32
    names = element(5, struct.pack('<i', k)) + element(1, b''.join(o.encode().ljust(k, b'\0') for o in keys))
    data = matrix(2, (len(rows),1), names, *(value(r[o]) for r in rows for o in keys), name=b'synsets')
    if packed: data = (lambda z: struct.pack('<II', 15, len(z))+z)(zlib.compress(data))
    return b'MATLAB 5.0 MAT-file, Platform: GLNXA64'.ljust(116) + bytes(8) + struct.pack('<H2s', 0x100, b'IM') + data

def synsets(classes, year='2012'):
    "The rows of meta.mat for classes (number, wnid, words, images), then those of nodes above them, ten to a node"
    def row(i, w, name, n, kids=()):
        return {f'ILSVRC{year}_ID':i, 'WNID':w, 'words':name, 'gloss':f'what {name} is', 'num_children':len(kids),
                'children':list(kids), 'wordnet_height':int(bool(kids)), 'num_train_images':n}
    m = len(classes)
    above = [row(m+1+i, f'n9{i:07d}', f'group {i}', 0, range(1+10*i, min(11+10*i, m+1))) for i in range(-(-m//10))]
    return [row(*o) for o in classes] + above

# --- Tars and files

def tar(files, mode='w'):
    "The bytes of a tar of {name: bytes}"
    with tarfile.open(fileobj=(f := io.BytesIO()), mode=mode) as t:
        for name,data in files.items():
            m = tarfile.TarInfo(name)
            m.size = len(data)
            t.addfile(m, io.BytesIO(data))
    return f.getvalue()

def put(folder, files):
    "Write {path: bytes or text} into a folder"
    for k,v in files.items():
        p = Path(folder)/k
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(v if isinstance(v, bytes) else v.encode())
    return Path(folder)

# --- A year of the challenge

class Challenge:
    "Pictures of ILSVRC in each layout they come in: `train` {wnid: {name: bytes}}, `val` and `test` [(name, wnid, bytes)]"
    def __init__(self, train, val, test=(), number=None, words=None, year='2012'):
        self.train,self.val,self.test,self.year,self.wnids = train,val,test,year,sorted(train)
        self.number = number or dict(zip(self.wnids, range(1, len(train)+1)))  # ILSVRC's own number of a class
        self.words = words or {w:f'word of {w}, other word' for w in self.wnids}

    def synsets(self):
        "The rows of meta.mat, by number"
        ws = sorted(self.wnids, key=self.number.get)
        return synsets([(self.number[w], w, self.words[w], len(self.train[w])) for w in ws], self.year)

    def archives(self, folder, packed=True):
        "The archives of the challenge"
        y,old = self.year,self.year=='2010'
        name = lambda split: f'ILSVRC{y}_images_{split}.tar' if old else f'ILSVRC{y}_img_{split}.tar'
        truth = lambda rows: ''.join(f'{self.number[w]}\n' for _,w,_ in rows).encode()
        files = {name('train'): tar({f'{w}.tar':tar(o) for w,o in self.train.items()})}
        for split,rows in ('val',self.val), ('test',self.test):
            if rows: files[name(split)] = tar({(f'{split}/' if old else '')+n:b for n,_,b in rows})
        root = 'devkit-1.0' if old else 'ILSVRC2012_devkit_t12'
        files['ILSVRC2010_devkit-1.0.tar.gz' if old else f'{root}.tar.gz'] = tar({
            f'{root}/readme.txt':b'A rehearsal of the development kit of ILSVRC\n',
            f'{root}/data/ILSVRC{y}_validation_ground_truth.txt':truth(self.val),
            f'{root}/data/meta.mat':meta_mat(self.synsets(), packed)}, 'w:gz')
        if old and self.test: files['ILSVRC2010_test_ground_truth.txt'] = truth(self.test)
        return put(folder, files)

    def folders(self, folder):
        "torchvision's folders: train/ and val/, each with a folder for each class"
        res = {f'train/{w}/{n}':b for w,o in self.train.items() for n,b in o.items()}
        return put(folder, res | {f'val/{w}/{n}':b for n,w,b in self.val})

    def kaggle(self, folder):
        "Kaggle's layout: the validation images in one heap, and two tables, one in an order of its own"
        files = {f'train/{w}/{n}':b for w,o in self.train.items() for n,b in o.items()}
        files |= {f'val/{n}':b for n,_,b in self.val} | {'test/ILSVRC2012_test_00000001.JPEG':self.val[0][2]}
        put(Path(folder)/'ILSVRC/Data/CLS-LOC', files)
        boxes = lambda i,w: f'{w} 85 1 499 272 ' + f'{w} 1 2 3 4 '*(i%2)
        rows = [(n[:-5], boxes(i, w)) for i,(n,w,_) in enumerate(self.val)]
        csv.writer(f := io.StringIO()).writerows(
            [('ImageId','PredictionString'), *(rows[i] for i in np.random.default_rng(0).permutation(len(rows)))])
        words = ''.join(f'{w} {self.words[w]}\n' for w in self.wnids)
        return put(folder, {'LOC_val_solution.csv':f.getvalue(), 'LOC_synset_mapping.txt':words})

    def kaggle_zip(self, folder):
        "Kaggle's one zip, as it is downloaded"
        src = self.kaggle(Path(folder)/'inside')
        path = Path(folder)/'imagenet-object-localization-challenge.zip'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
            for o in sorted(src.rglob('*')):
                if o.is_file(): z.write(o, o.relative_to(src))
        shutil.rmtree(src)
        return path

    def parquet(self, folder, shards=3):
        "Shards as on Hugging Face, in an order of their own; needs pyarrow"
        import pyarrow as pa, pyarrow.parquet as pq
        label = {w:i for i,w in enumerate(self.wnids)}
        row = lambda n,w,b: dict(image=dict(bytes=b, path=f'{n[:-5]}_{w}.JPEG'), label=label[w])
        train = [row(n, w, b) for w,o in self.train.items() for n,b in o.items()]
        train = [train[i] for i in np.random.default_rng(1).permutation(len(train))]
        val = [row(*o) for o in self.val]
        test = [dict(image=dict(bytes=self.val[0][2], path='ILSVRC2012_test_00000001.JPEG'), label=-1)]
        kind = pa.schema([('image', pa.struct([('bytes', pa.binary()), ('path', pa.string())])), ('label', pa.int64())])
        names = dict(names=[self.words[w] for w in self.wnids], _type='ClassLabel')
        info = dict(info=dict(features=dict(image=dict(_type='Image'), label=names)))
        kind = kind.with_metadata({'huggingface':json.dumps(info)})
        for split,rows,n in ('train',train,shards), ('validation',val,1), ('test',test,1):
            for i in range(n):
                pq.write_table(pa.Table.from_pylist(rows[i::n], kind), f := io.BytesIO(), row_group_size=7)
                put(folder, {f'data/{split}-{i:05d}-of-{n:05d}.parquet':f.getvalue()})
        return Path(folder)

def fake(picture, wnids, n_train=2, n_val=1, n_test=0, year='2012', seed=0, words=None):
    "A challenge of some classes; `picture()` gives the bytes of another picture at each call"
    rng,wnids = np.random.default_rng(seed),sorted(wnids)
    train = {w:{f'{w}_{i*7}.JPEG':picture() for i in rng.permutation(range(1, n_train+1))} for w in wnids}
    def heap(split, n):
        labels = rng.permutation(np.repeat(wnids, n)).tolist()
        return [(f'ILSVRC{year}_{split}_{i:08d}.JPEG', w, picture()) for i,w in enumerate(labels, 1)]
    val,test = heap('val', n_val),heap('test', n_test)
    return Challenge(train, val, test, dict(zip(rng.permutation(wnids).tolist(), range(1, len(wnids)+1))), words, year)

def cifar(folder, n=20, binary=False, seed=0):
    "CIFAR-10 as published, with `n` images in a file; returns the pixels and labels"
    folder.mkdir(parents=True)
    rng,out = np.random.default_rng(seed),{}
    words = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
    for f in [f'data_batch_{i}' for i in range(1, 6)]+['test_batch']:
        x,y = rng.integers(0, 256, (n,3072), dtype=np.uint8),(np.arange(n)%10)
        out[f] = x,y
        if binary: (folder/f'{f}.bin').write_bytes(np.concatenate([y[:,None].astype(np.uint8), x], 1).tobytes())
        else:
            d = {b'batch_label':f.encode(), b'labels':y.tolist(), b'data':x, b'filenames':[b'%03d.png'%i for i in range(n)]}
            (folder/f).write_bytes(pickle.dumps(d, protocol=2))
    if binary: (folder/'batches.meta.txt').write_text('\n'.join(words)+'\n')
    else: (folder/'batches.meta').write_bytes(pickle.dumps({b'label_names':[o.encode() for o in words]}, protocol=2))
    return out
