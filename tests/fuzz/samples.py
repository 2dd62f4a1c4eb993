"Good files of each kind that people bring, as small as they can be"
import io, json, os, shutil, sys, zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import archives
from archives import put, tar
from malformed import orientation, saved
from .damage import varint

WNIDS = ['n01440764', 'n01443537', 'n01484850']
TRAIN = '--width .02 --size 64 --batch_size 6 --device cpu'

def picture(i, size=40):
    y,x = np.mgrid[:size,:size]*(5+i%3)
    return Image.fromarray(np.stack([x+i*9, y, x*y//9], -1).astype(np.uint8))

def name_classes(files, ending='png'):
    "{path: bytes} of eight pictures of two classes"
    return {f'{"cat" if i%2 else "dog"}/{i}.{ending}':o for i,o in enumerate(files)}

def pngs(n=8): return name_classes(saved(picture(i), 'PNG') for i in range(n))

def make_pictures():
    "{kind of picture: files}"
    ims = [picture(i) for i in range(8)]
    deep = [Image.fromarray(np.asarray(o)[...,0].astype(np.uint16)*257) for o in ims]
    makes = dict(
        png=lambda o: saved(o, 'PNG'), jpeg=lambda o: saved(o, 'JPEG'), bmp=lambda o: saved(o, 'BMP'),
        progressive=lambda o: saved(o, 'JPEG', progressive=True), cmyk=lambda o: saved(o.convert('CMYK'), 'JPEG'),
        turned=lambda o: orientation(o, 6), webp=lambda o: saved(o, 'WEBP'), tiff=lambda o: saved(o, 'TIFF'),
        packed=lambda o: saved(o, 'TIFF', compression='tiff_lzw'), gif=lambda o: saved(o.quantize(16), 'GIF'),
        palette=lambda o: saved(o.quantize(16), 'PNG', transparency=3),
        animated=lambda o: saved(o.quantize(16), 'GIF', save_all=True, append_images=ims[:2]))
    found = {k:name_classes(map(f, ims), k) for k,f in makes.items()}
    found['deep'] = name_classes((saved(o, 'PNG') for o in deep), 'png')
    return {k:{f'in/{n}':b for n,b in o.items()} for k,o in found.items()}

def zipped(files):
    with zipfile.ZipFile(f := io.BytesIO(), 'w', zipfile.ZIP_DEFLATED) as z:
        for name,data in files.items():
            z.writestr(name, data)
    return f.getvalue()

def make_archives():
    files = {f'{split}/{k}':b for split in ('train','val') for k,b in pngs().items()}
    modes = {'tar':'w', 'tar.gz':'w:gz', 'tar.xz':'w:xz', 'tar.bz2':'w:bz2'}
    return {k:{f'in/a.{k}':tar(files, mode)} for k,mode in modes.items()}|dict(zip={'in/a.zip':zipped(files)})

def make_folders():
    "Layouts of folders, with names from the field"
    files = pngs()
    def under(*names): return {f'in/{n}/{k}':b for n in names for k,b in files.items()}
    return dict(plain=under('.'), splits=under('train', 'val', 'test'), words=under('Training', 'Validation'),
                flat={**under('train'), 'in/test/1.png':files['dog/0.png']},
                deep=under('set/seg_train/seg_train', 'set/seg_test/seg_test'),
                numbers={f'in/{i%4}/{i}.png':b for i,b in enumerate(files.values())})

def challenge(**kw):
    numbers = iter(range(99))
    return archives.fake(lambda: saved(picture(next(numbers)), 'JPEG'), WNIDS, **kw)

def make_ilsvrc(folder):
    challenge(n_train=3).archives(folder/'2012/in')
    challenge(n_train=3, n_test=1, year='2010').archives(folder/'2010/in')

def make_kaggle(folder): challenge(n_train=3).kaggle(folder/'kaggle/in')

def make_parquet(folder):
    import pyarrow as pa, pyarrow.parquet as pq
    challenge(n_train=3).parquet(folder/'huggingface/in')
    rows = [dict(image=dict(bytes=b, path=k), label=k[:3]) for k,b in pngs().items()]
    for name in ('texts', 'numbers'):
        (folder/name/'in').mkdir(parents=True)
        own = [o if name=='texts' else {**o, 'label':i%2} for i,o in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(own), folder/name/'in/train-0.parquet')

PNGS = list(pngs().values())
COLUMNS = dict(
    struct=lambda i: dict(bytes=PNGS[i%8], path=f'{i}.png'), bytes=lambda i: PNGS[i%8], broken=lambda i: b'no picture',
    deep=lambda i: dict(a=dict(bytes=PNGS[i%8])), path=lambda i: f'../{i}.png', number=lambda i: i%3, one=lambda i: 7,
    digits=lambda i: str(i%3), text=lambda i: 'ab'[i%2], float=lambda i: i%2+.0, half=lambda i: i%2+.5,
    flag=lambda i: i%2==0, none=lambda i: None, some=lambda i: i%3 or None, list=lambda i: [i%2, 1-i%2],
    below=lambda i: i%3-1, large=lambda i: 1<<62, long=lambda i: 'x'*5000, empty=lambda i: '', many=lambda i: i*997,
    label=lambda i: dict(label=i%2), odd=lambda i: ['a\nb', '$x$', '\u202e', 'train'][i%4])

def make_table(folder, name, columns, rows, metadata):
    "A shard with these columns"
    import pyarrow as pa, pyarrow.parquet as pq
    table = pa.table({k:[COLUMNS[v](i) for i in range(rows)] for k,v in columns.items()})
    if metadata is not None:
        table = table.replace_schema_metadata({'huggingface':json.dumps(metadata)})
    (folder/name).parent.mkdir(exist_ok=True)
    pq.write_table(table, folder/name)

def make_no_table(folder):
    import pyarrow
    make_empty(folder)

def make_cifar(folder):
    for name,binary in ('python',False), ('binary',True):
        archives.cifar(folder/name/'in', n=10, binary=binary)
    files = {f'in/cifar-10-batches-py/{o.name}':o.read_bytes() for o in (folder/'python/in').iterdir()}
    put(folder/'below', files)

# --- Weights of others

def field(k, v):
    if isinstance(v, int):
        return varint(k<<3)+varint(v)
    v = v.encode() if isinstance(v, str) else v
    return varint(k<<3|2)+varint(len(v))+v

def caffe_blob(t, old):
    dims = [1]*(4-t.ndim)+list(t.shape)
    old_head = b''.join(field(i, n) for i,n in enumerate(dims, 1))
    new_head = field(7, field(1, b''.join(map(varint, t.shape))))
    return (old_head if old else new_head)+field(5, t.detach().numpy().tobytes())

def caffemodel(model, old):
    "A network as a .caffemodel, in the layout of 2014 or the one before"
    data = field(1, 'AlexNet')
    for l in model.spec.layers:
        layer = getattr(model, l.name)
        blobs = [caffe_blob(t, old) for t in (layer.weight, layer.bias)]
        if old:
            kind = 4 if l.kernel else 14
            data += field(2, field(4, l.name)+field(5, kind)+b''.join(field(6, o) for o in blobs))
        else:
            kind = 'Convolution' if l.kernel else 'InnerProduct'
            data += field(100, field(1, l.name)+field(2, kind)+b''.join(field(7, o) for o in blobs))
    return data

def state_dict(model):
    "The names of torchvision"
    places = 'features.0 features.3 features.6 features.8 features.10 classifier.1 classifier.4 classifier.6'.split()
    layers = {p:getattr(model, l.name) for p,l in zip(places, model.spec.layers)}
    return {f'{p}.{k}':getattr(o, k).detach().clone() for p,o in layers.items() for k in ('weight','bias')}

def make_weights(folder):
    import torch
    from alexnet_nb.model import AlexNet, export_onnx, save_weights
    def small(spec, **kw): return AlexNet(spec, 3, dict(caffe=1/12, torchvision=1/8).get(spec, .02), **kw)
    def at(name):
        (folder/name/'in').mkdir(parents=True)
        return folder/name/'in'
    own = small('code2012', size=64)
    own.names = ['cat', 'dog', 'emu']
    own.mean = torch.full((72,72,3), 100.)
    own.side = 72
    save_weights(own, at('own')/'w.safetensors')
    own.mean = None
    try:
        export_onnx(own, at('onnx')/'w.onnx', lrn='plain')
    except Exception: # no onnx here
        pass
    sd = state_dict(small('torchvision', size=224))
    def under(prefix): return {prefix+k:v for k,v in sd.items()}
    forms = dict(
        plain=sd, half={k:v.half() for k,v in sd.items()}, model=dict(model=sd, epoch=3, optimizer={}),
        compiled=under('_orig_mod.'),
        lightning={'pytorch-lightning_version':'2.5.0', 'state_dict':under('model.'), 'hyper_parameters':{}},
        parallel=dict(epoch=90, arch='alexnet', best_acc1=torch.tensor(56.5), state_dict=under('module.')))
    for k,v in forms.items():
        torch.save(v, at(k)/'w.pth')
    torch.save(sd, at('legacy')/'w.pth', _use_new_zipfile_serialization=False)
    caffe = small('caffe', size=227)
    for name,old in ('caffe',False), ('caffe_v1',True):
        (at(name)/'w.caffemodel').write_bytes(caffemodel(caffe, old))
    mean = field(1, 1)+field(2, 3)+field(3, 256)+field(4, 256)+field(5, np.full((1,3,256,256), 99, '<f4').tobytes())
    (at('mean')/'w.caffemodel').write_bytes(caffemodel(caffe, False))
    (folder/'mean/in/z.binaryproto').write_bytes(mean)

# --- What this package makes

def shell(line, cwd):
    "A command that has to succeed"
    from conftest import call, fine
    from alexnet_nb.tools import commands
    name,*args = line.split()
    return fine(call(getattr(commands, name), *args, cwd=cwd))

def make_common(folder):
    "A pack, a run and a picture that other samples use, and a pack of more pictures than a batch"
    put(folder/'pictures', pngs(16))
    put(folder/'many', pngs(150))
    put(folder, {'picture.png':saved(picture(1), 'PNG')})
    shell('alexnet_prepare pictures pack --size 72 --workers 1', folder)
    shell('alexnet_prepare many manypack --size 64 --workers 1', folder)
    shell(f'alexnet_train pack --run run --epochs 1 {TRAIN}', folder)

def make_packs(folder):
    common = folder.parent/'common'
    for name,options in dict(raw='', jpeg='--storage jpeg').items():
        (folder/name).mkdir(parents=True)
        shell(f'alexnet_prepare {common}/pictures in --size 72 --workers 1 {options}', folder/name)

def make_runs(folder):
    common = folder.parent/'common'
    for name,options in dict(begun='--steps 3', done='').items():
        (folder/name).mkdir(parents=True)
        shell(f'alexnet_train {common}/pack --run in --epochs 2 {TRAIN} {options}', folder/name)

AUTOPSY = ('alexnet_reproduce autopsy {common}/manypack --folder in --seeds 1 --steps 1 --width .02 --size 64 '
           '--only code --device cpu')

def make_series(folder):
    (folder/'autopsy').mkdir(parents=True)
    shell(AUTOPSY.format(common=folder.parent/'common'), folder/'autopsy')

def go_on(data, folder):
    "Figure 1 without its timing, which takes long"
    from alexnet_nb.relu import cifar10, figure1
    return figure1(cifar10(data), folder, ('relu',), 1, 1, rates=(.01,))

def make_figure1(folder):
    archives.cifar(folder.parent/'common/cifar', n=10)
    (folder/'relu').mkdir(parents=True)
    go_on(folder.parent/'common/cifar', folder/'relu/in')

def make_cards(folder):
    cards = Path(archives.__file__).parents[1]/'nbs/cards'
    for name in ('demo', 'bench_lrn', 'figure1', 'autopsy_small'):
        (folder/name/'in').mkdir(parents=True)
        shutil.copy(cards/f'{name}.json', folder/name/'in')

# --- Arguments

ODD = [
    '', ' ', '0', '-1', '1', '3', '64', '1.5', 'nan', '-inf', '1e308', '1e-320', '9'*25, '0x10', '1_000', '\u0663',
    'x', 'é', 'caf\udce9', 'a\nb', '\x1b[2J', '\u202e', 'none', 'picture.png', 'pictures', 'pictures/cat', 'pack',
    'pack/meta.json', 'run', 'run/model.safetensors', '.', '..', '../up', 'new/deep/er', 'fifo', 'link', 'fifo/x',
    'a'*300, '/dev/null', '/dev/full', '/dev/stdout', '/proc/none', '~', '$HOME', '*', '%s', '{}', "'", 'cpu',
    'cpu,cpu', 'cpu:7', 'cuda', 'cuda:9', 'meta', 'mps', 'xla', 'nope:0', 'http://127.0.0.1:1/x.pth',
    'file:///etc/passwd', 'file:///none', 'ftp://x/y', 'https://', 'true', 'no', 'None', '[]', 'paper', 'caffe',
    'torchvision', 'one_column', 'conv1=0', 'conv1=nan,fc8=1e999', 'conv9=1', '=', '90m', '-2h', 'bf16', 'tf32',
    'jpeg', 'val', 'train', 'relu', 'lrn', 'step', 'out.json', 'out.png', 'out.xyz', 'out.pdf']
NUMERIC = '''size quality val max_bad workers width epochs batch_size lr seed keep steps views repeats threads seconds
seeds max_epochs std1 n_classes'''.split() # options
BASE = dict(
    alexnet_prepare='pictures out --size 32 --workers 1', alexnet_train=f'pack --run new --epochs 1 --steps 1 {TRAIN}',
    alexnet_eval='run --pack pack --device cpu', alexnet_predict='run picture.png --out p.png --views 1 --device cpu',
    alexnet_bench='lrn --quick --repeats 1 --steps 0 --batch_size 2 --width .05 --size 64 --device cpu --out b.json',
    alexnet_doctor='pack --seconds 1 --width .02 --size 64 --batch_size 2 --device cpu --json d.json',
    alexnet_reproduce='figure1 pictures --folder s --seeds 1 --max_epochs 1 --lr .01 --only relu --device cpu')

def make_nothing(folder):
    "Odd arguments are given in a copy of the folder of `make_common`"
    shutil.copytree(folder.parent/'common', folder/'all', ignore=shutil.ignore_patterns('many*'))
    (folder/'all/link').symlink_to('none')
    (folder/'all/in').mkdir()

def make_empty(folder): (folder/'empty/in').mkdir(parents=True)

def make_readable(folder):
    from test_readers import EXAMPLES
    for kind,(name,make,*_) in EXAMPLES.items():
        try:
            (folder/kind/'in').mkdir(parents=True)
            make(folder/kind/'in'/name)
        except BaseException as e: # a package is missing
            shutil.rmtree(folder/kind)
            print(f'{kind}: left out ({e})', file=sys.stderr)

# --- Interrupted preparations

WRITES = 'os.rename os.remove os.mkdir os.rmdir shutil.rmtree'.split()

def interrupt(line, cwd, after):
    "Begin a command in a child, which ends itself at its thing number `after` that it does with a file; does it?"
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==9
    from alexnet_nb.engine import packing
    packing.CHUNK = 2
    packing.SAVE_EVERY = 0
    seen = [0]
    def watch(event, args):
        if event in WRITES or event=='open' and isinstance(args[2], int) and args[2]&(os.O_WRONLY|os.O_RDWR):
            seen[0] += 1
            if seen[0]==after:
                os._exit(9)
    sys.addaudithook(watch)
    try:
        shell(line, cwd)
    finally:
        os._exit(0)

PARTIAL = dict(folder='in', streamed='in/a.tar', jpeg='in --storage jpeg', streamed_jpeg='in/a.tar --storage jpeg')

def make_partial(folder):
    for name,args in PARTIAL.items():
        for number in range(8):
            box = folder/f'{name}_{number}'
            put(box/'in', {'a.tar':tar(pngs(24))} if 'tar' in args else pngs(24))
            os.utime(box/'in', (1e9, 1e9))
            if not interrupt(f'alexnet_prepare {args} out --size 32 --workers 1 --max_bad 1', box, 2+9*number):
                shutil.rmtree(box)
                break
