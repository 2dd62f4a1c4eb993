"Archives and folders of the true structure of ILSVRC, Kaggle, Hugging Face and CIFAR-10, made of small pictures"
import csv, io, pickle, struct, tarfile, zlib
from pathlib import Path
import numpy as np
from PIL import Image

# --- MATLAB's format 5, as much as a development kit needs

def _element(kind, data): return struct.pack('<II', kind, len(data)) + data + b'\0'*(-len(data)%8)
def _matrix(cls, dims, name, *parts):
    head = _element(6, struct.pack('<II', cls, 0)) + _element(5, struct.pack(f'<{len(dims)}i', *dims))
    name = struct.pack('<HH', 1, len(name))+name.encode().ljust(4, b'\0') if 0<len(name)<5 else _element(1, name.encode())
    return _element(14, head+name+b''.join(parts))

def _value(v):
    if isinstance(v, str): return _matrix(4, (1,len(v)), '', _element(4, v.encode('utf-16-le')))
    if 0<=v<256: return _matrix(6, (1,1), '', struct.pack('<HHBxxx', 2, 1, v))  # MATLAB stores numbers small
    return _matrix(6, (1,1), '', _element(4, struct.pack('<H', v)))

def meta_mat(synsets, year, packed=True):
    "meta.mat for [(number, wnid, words)]"
    rows = [{f'ILSVRC{year}_ID':i, 'WNID':w, 'words':o, 'gloss':'a thing', 'num_children':0, 'num_train_images':1300}
            for i,w,o in synsets]
    names = b''.join(o.encode().ljust(32, b'\0') for o in rows[0])
    vals = [_value(v) for r in rows for v in r.values()]
    m = _matrix(2, (len(rows),1), 'synsets', struct.pack('<HHi', 5, 4, 32), _element(1, names), *vals)
    if packed: m = (lambda z: struct.pack('<II', 15, len(z))+z)(zlib.compress(m))
    return b'MATLAB 5.0 MAT-file'.ljust(116) + bytes(8) + struct.pack('<H', 0x0100) + b'IM' + m

# --- Tars

def put(t, name, data):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    t.addfile(m, io.BytesIO(data))

def tar(path, files, mode='w'):
    "A tar of {name: bytes}"
    with tarfile.open(path, mode) as t:
        for k,v in files.items(): put(t, k, v)

def tar_bytes(files):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w') as t:
        for k,v in files.items(): put(t, k, v)
    return f.getvalue()

class Fake:
    "Pictures of ILSVRC's classes: `train` {wnid: {name: bytes}}, `val` and `test` [(name, wnid, bytes)]"
    def __init__(self, picture, wnids, n_train=2, n_val=1, n_test=0, year='2012', seed=0):
        rng = np.random.default_rng(seed)
        self.wnids,self.year = sorted(wnids),year
        nums = [*range(1, n_train+1)]
        self.train = {w:{f'{w}_{i*7}.JPEG':picture() for i in rng.permutation(nums)} for w in self.wnids}
        def heap(split, n):
            labels = rng.permutation(np.repeat(self.wnids, n)).tolist()
            return [(f'ILSVRC{year}_{split}_{i:08d}.JPEG', w, picture()) for i,w in enumerate(labels, 1)]
        self.val,self.test = heap('val', n_val),heap('test', n_test)
        self.number = dict(zip(rng.permutation(self.wnids).tolist(), range(1, len(self.wnids)+1)))  # ILSVRC's own order

    def archives(self, folder, packed=True):
        "The archives of the challenge"
        folder.mkdir(parents=True)
        y,old = self.year,self.year=='2010'
        inner = {f'{w}.tar':tar_bytes(o) for w,o in self.train.items()}
        tar(folder/(f'ILSVRC{y}_images_train.tar' if old else f'ILSVRC{y}_img_train.tar'), inner)
        where = lambda split: folder/(f'ILSVRC{y}_images_{split}.tar' if old else f'ILSVRC{y}_img_{split}.tar')
        for split,rows in ('val',self.val), ('test',self.test):
            if rows: tar(where(split), {(f'{split}/' if old else '')+n:b for n,_,b in rows})
        truth = lambda rows: ''.join(f'{self.number[w]}\n' for _,w,_ in rows).encode()
        synsets = [(i,w,f'word of {w}, other word') for w,i in self.number.items()]
        synsets = sorted(synsets) + [(len(synsets)+1, 'n00001740', 'entity')]  # nodes above the classes follow them
        root = 'devkit-1.0' if old else 'ILSVRC2012_devkit_t12'
        kit = {f'{root}/readme.txt':b'hello', f'{root}/data/meta.mat':meta_mat(synsets, y, packed),
               f'{root}/data/ILSVRC{y}_validation_ground_truth.txt':truth(self.val)}
        tar(folder/('ILSVRC2010_devkit-1.0.tar.gz' if old else 'ILSVRC2012_devkit_t12.tar.gz'), kit, 'w:gz')
        if old and self.test: (folder/'ILSVRC2010_test_ground_truth.txt').write_bytes(truth(self.test))
        return folder

    def files(self):
        "{path: bytes} of folders as torchvision wants them"
        res = {f'train/{w}/{n}':b for w,o in self.train.items() for n,b in o.items()}
        return res | {f'val/{w}/{n}':b for n,w,b in self.val}

    def folders(self, folder):
        for k,v in self.files().items():
            (folder/k).parent.mkdir(parents=True, exist_ok=True)
            (folder/k).write_bytes(v)
        return folder

    def kaggle(self, folder):
        base = folder/'ILSVRC/Data/CLS-LOC'
        files = {f'train/{w}/{n}':b for w,o in self.train.items() for n,b in o.items()}
        files |= {f'val/{n}':b for n,_,b in self.val} | {'test/ILSVRC2012_test_00000001.JPEG':self.val[0][2]}
        for k,v in files.items():
            (base/k).parent.mkdir(parents=True, exist_ok=True)
            (base/k).write_bytes(v)
        rows = [('ImageId','PredictionString')] + [(n[:-5], f'{w} 85 1 499 272 {w} 1 2 3 4') for n,w,_ in self.val[::-1]]
        with open(folder/'LOC_val_solution.csv', 'w', newline='') as f: csv.writer(f).writerows(rows)
        (folder/'LOC_synset_mapping.txt').write_text(''.join(f'{w} word of {w}, other word\n' for w in self.wnids))
        return folder

    def parquet(self, folder, shards=3, names=None):
        "Shards as on Hugging Face, in an order of their own; needs pyarrow"
        import json, pyarrow as pa, pyarrow.parquet as pq
        (folder/'data').mkdir(parents=True)
        rng = np.random.default_rng(1)
        label = {w:i for i,w in enumerate(self.wnids)}
        train = [(f'{n[:-5]}_{w}.JPEG', w, b) for w,o in self.train.items() for n,b in o.items()]
        val = [(f'{n[:-5]}_{w}.JPEG', w, b) for n,w,b in self.val]
        info = {'info':{'features':{'label':{'names':names or [f'word of {w}' for w in self.wnids]}}}}
        for split,rows,k in ('train',train,shards), ('validation',val,1), ('test',val,1):
            for s,part in enumerate(np.array_split(rng.permutation(len(rows)), k)):
                o = [rows[i] for i in part]
                t = pa.table({'image': [dict(bytes=b, path=n) for n,_,b in o],
                              'label': [-1 if split=='test' else label[w] for _,w,_ in o]})
                t = t.replace_schema_metadata({'huggingface': json.dumps(info)})
                pq.write_table(t, folder/f'data/{split}-{s:05d}-of-{k:05d}.parquet', row_group_size=7)
        return folder

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
