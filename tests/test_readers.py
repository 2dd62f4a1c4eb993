"""One contract for every reader: whatever a file holds, an object or a `Refusal` of one line that names the file

EXAMPLES has a good file of each kind that `READERS` knows: {kind: (name, function that makes it at a path, what else
the reader is given …)}."""
import hashlib, importlib, json, os, pkgutil, re, resource, shutil, time
from dataclasses import asdict

import numpy as np, pytest, torch

import alexnet_nb, archives
from alexnet_nb import relu
from alexnet_nb.engine import packing
from alexnet_nb.engine.building import describe_files
from alexnet_nb.engine.core import READERS, Refusal, sha256_file, write_text
from alexnet_nb.engine.sources import find_source
from alexnet_nb.model import AlexNet, export_onnx
from alexnet_nb.tools import doctor
from conftest import root
from fuzz.damage import change_json, nodes, parts
from fuzz.samples import caffemodel, field
from malformed import photo, saved

for room in pkgutil.walk_packages(alexnet_nb.__path__, 'alexnet_nb.'):
    importlib.import_module(room.name)

v1 = root/'tests/fixtures/v1'
DIGEST = hashlib.sha256(b'').hexdigest()

# --- A good file of each kind: functions of its path

def parquet(path):
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    rows = [dict(image=dict(bytes=b'...', path='a.png'), label=i%2) for i in range(4)]
    info = dict(info=dict(features=dict(label=dict(names=['cat','dog'], _type='ClassLabel'))))
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({'huggingface':json.dumps(info)}), path)

def source(path):
    files = {f'{c}/{i}.png':saved(photo(9, 9), 'PNG') for c in ('cat','dog') for i in range(2)}
    find_source(archives.put(path.parent/'pictures', files), .5).save(path.parent)

def journal(path):
    j = packing.Journal(path.parent, 'train', 3)
    j.add(packing.Decoded([0,1,2], [0,2], [b'abc', b'de'], dict(total=[5]), {1:('refused', 'no picture')}))
    j.write(j.snapshot())

def kept(path):
    text(maker='alexnet_nb')(path.parent/'a.json')
    sums = {'a.json':sha256_file(path.parent/'a.json')}
    write_text(path, json.dumps(dict(seal='0'*32, files=sums, others=describe_files([]), places=[])))

def sums(path): write_text(path, ''.join(f'{DIGEST}  {o.name}\n' for o in sorted((v1/'pack').iterdir())))

def batch(path):
    archives.cifar(path.parent/'c', n=2)
    shutil.copy(path.parent/'c/data_batch_1', path)

def cifar(path):
    archives.cifar(path.parent/'c', n=2)
    path.write_bytes(archives.tar({f'c/{o.name}':o.read_bytes() for o in (path.parent/'c').iterdir()}))

def training(path):
    row = dict(loss=2.3, error=.9, grads=[.1], seconds=1.)
    torch.save(dict(setting=asdict(relu.Setting()), data=DIGEST, net=dict(w=torch.ones(2)), opt={}, rows=[row]), path)

def report(path): doctor.Report('pack', [], None, '', [], [], [], [], 1.).save(path)
def onnx(path):
    pytest.importorskip('onnx')
    export_onnx(AlexNet('code2012', 2, .02, 64), path, lrn='plain')

def caffe(path): path.write_bytes(caffemodel(AlexNet('caffe', 2, 1/12), old=False))
def binaryproto(path):
    head = b''.join(field(i, n) for i,n in enumerate((1, 3, 9, 9), 1))
    path.write_bytes(head+field(5, np.full((3,9,9), 99, '<f4').tobytes()))

def series(path):
    signal = dict(logits=.1, common=.2, grad=.3, layers=dict(conv1=[1., 2.]))
    settings = dict(steps=2, width=.5, size=64, n_classes=3)
    run = dict(variant='code', seed=0, pack=DIGEST, **settings, signal=signal, losses=[1., .5])
    write_text(path, (json.dumps(run)+'\n')*2)

def trials(path):
    values = dict(loss=[2., 1.], top1=[.9, .5])
    line = dict(variant='base', seed=0, settings=json.loads((v1/'run/config.json').read_text()), val=values, train=values,
                top1=.5, top5=.2, top1_ten=.4, top5_ten=.1, top1_train=.3, n=10, right='ffc0', seconds=9., date='2026-11-26',
                commit=['0123456789'], machine=['here'], versions=[dict(torch='2.9')])
    write_text(path, (json.dumps(line)+'\n')*2)

def tried(): # of a recipe, as a file has it
    recipe = dict(coder='llc', patches=dict(kind='sift', cells=[4], step=5), words=9, grids=[[1,1]], dims=0)
    return dict(recipe=recipe, decay=1e-5, top1=60., top5=30., seconds=9.)

def baselines(path):
    settings = dict(pack='pack', pack_sha256=DIGEST, parts=dict(sift=dict(recipe=tried()['recipe'], decay=1e-5)))
    line = dict(variant='sparse_coding', seed=0, settings=settings, tried=[tried()], parts=dict(sift=dict(top1=60., top5=30.)),
                top1=60., top5=30., n=10, right='ffc0', right5='ffc0', seconds=9., date='2026-11-26',
                commit=['0123456789'], machine=['here'], versions=[dict(torch='2.9')])
    write_text(path, (json.dumps(line)+'\n')*2)

def text(**kw): return lambda path: write_text(path, json.dumps(kw))
def said(o): return lambda path: write_text(path, o)
def copy(name): return lambda path: shutil.copy(v1/name, path)

EXAMPLES = {
    '.npy':('x.npy', copy('pack/val_labels.npy')),
    'CIFAR batch':('data_batch_1', batch),
    'CIFAR-10':('cifar.tar', cifar),
    'SHA256SUMS':('SHA256SUMS', sums),
    'baselines':('baselines.jsonl', baselines),
    'binaryproto':('mean.binaryproto', binaryproto),
    'caffemodel':('net.caffemodel', caffe),
    'checkpoint':('last.safetensors', copy('unfinished/last.safetensors')),
    'config.json':('config.json', copy('run/config.json')),
    'ground truth of ILSVRC':('truth.txt', said('7\n12\n999\n')),
    'job.json':('job.json', text(maker='alexnet_nb', seal='0'*32, job=dict(size=64))),
    'kept.json':('kept.json', kept),
    'labels.npy':('train_labels.npy', copy('pack/train_labels.npy')),
    'lock':('lock', text(program='training', host='here', pid=7, since=1e9, began=5, flock=True)),
    'log.jsonl':('log.jsonl', copy('unfinished/log.jsonl')),
    'mean.npy':('mean.npy', copy('pack/mean.npy')),
    'meta.json':('meta.json', copy('jpeg/meta.json')),
    'names.txt':('train_names.txt', copy('pack/train_names.txt')),
    'notes of a journal':('notes.jsonl', said('[3, "refused", "no picture"]\n')),
    'offsets.npy':('train_offsets.npy', copy('jpeg/train_offsets.npy'), 4, 6573),
    'onnx':('net.onnx', onnx),
    'origin.json':('origin.json', text(commit=['0123456789'], machine=['here'], versions=[dict(torch='2.9')])),
    'parquet footer':('train.parquet', parquet),
    'pca.json':('pca.json', copy('pack/pca.json')),
    'picture':('a.png', lambda path: photo(9, 9).save(path)),
    'repairs.jsonl':('repairs.jsonl', copy('pack/repairs.jsonl')),
    'report of alexnet_doctor':('report.json', report),
    'result card':('card.json', lambda path: shutil.copy(root/'nbs/cards/demo.json', path)),
    'runs.jsonl':('runs.jsonl', series),
    'safetensors':('w.safetensors', copy('weights.safetensors')),
    'source.json':('source.json', source),
    'state of a journal':('train_state', journal, 'train', 3),
    'table of names':('words.txt', said('n01440764\ttench, Tinca tinca\nn01443537 goldfish\n')),
    'torch':('w.pth', lambda path: torch.save(dict(state_dict=dict(w=torch.ones(3)), epoch=3), path)),
    'training of Figure 1':('relu.pt', training),
    'trial of a recipe':('tried.json', lambda path: write_text(path, json.dumps([tried()]*2))),
    'trials':('trials.jsonl', trials),
    'weights':('w.safetensors', copy('weights.safetensors')),
}
VALUES = [float('nan'), 1e308, 1<<63, -1, 'a string', None, [], {}]
INNER = 'NoneType|has no attribute|subscriptable|unhashable|unsupported (format|operand)|positional arg|not iterable'
READ = sorted(READERS.keys() & EXAMPLES.keys())

# --- The contract

def json_texts(data):
    "(text, function that puts another in its place) of each JSON text in a file: all of it, a part, a line"
    for text,put in [(data, lambda new: new), *parts(data)]:
        try:
            if isinstance(json.loads(text), (dict, list)):
                yield text, put
        except ValueError:
            pass

def damaged(data):
    "(how, bytes) of many files that are none"
    yield 'empty', b''
    yield 'zeros', bytes(len(data))
    for n in [*range(min(100, len(data))), *range(1000, len(data), max(1000, len(data)//100))]:
        yield f'cut after {n} bytes', data[:n]
    deep = b'['*100_000, b'{"a":'*100_000, b'[1'+b',1'*200_000+b']'
    for text in (b'null', b'[]', b'{}', b'1', b'"x"', b'\xff\xfe{}', b'\n\n', *deep):
        yield f'{text[:9]} and no more', text
        for part,put in parts(data)[:1]:
            yield f'{text[:9]} in its first part', put(text)
    yield 'not UTF-8', data[:1]+b'\xff'+data[1:]
    for text,put in json_texts(data):
        for i in range(len([*nodes(json.loads(text))])):
            yield f'JSON without its part {i}', put(change_json(text, i+1, 'remove', 0))
            for value in VALUES:
                yield f'JSON with {value} as its part {i}', put(change_json(text, i+1, 'replace', value))

def check(kind, path, *args):
    "Read a file: an object (None for an empty lock) or one line, within a second"
    start = time.process_time()
    try:
        assert READERS[kind](path, *args) is not None or kind=='lock'
    except Refusal as e:
        assert len(str(e).splitlines())==1 and path.name in str(e) and not re.search(INNER, str(e)), e
    assert time.process_time()-start<1

def test_every_kind_has_an_example():
    assert sorted(READERS)==sorted(EXAMPLES)

@pytest.mark.parametrize('kind', READ)
def test_good(kind, tmp_path):
    name,make,*args = EXAMPLES[kind]
    make(tmp_path/name)
    assert READERS[kind](tmp_path/name, *args) is not None

@pytest.mark.parametrize('kind', READ)
def test_damaged(kind, tmp_path):
    name,make,*args = EXAMPLES[kind]
    path = tmp_path/name
    make(path)
    data = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for how,other in damaged(data):
        path.write_bytes(other)
        try:
            check(kind, path, *args)
        except Exception as e:
            raise AssertionError(how) from e
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before<300<<10, 'memory'

@pytest.mark.parametrize('kind', READ)
def test_no_file(kind, tmp_path, monkeypatch):
    "A pipe, a folder, a link to nothing or to itself, a device without end, more bytes than memory, no permission"
    name,make,*args = EXAMPLES[kind]
    path = tmp_path/name
    make(path)
    data = path.read_bytes()
    path.unlink()
    def link(to): return lambda: path.symlink_to(to)
    for make in (lambda: os.mkfifo(path), path.mkdir, link('none'), link(path), link('/dev/zero')):
        make()
        with pytest.raises(Refusal) as e:
            READERS[kind](path, *args)
        assert len(str(e.value).splitlines())==1 and name in str(e.value)
        path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(data)
    with open(path, 'r+b') as f:
        f.truncate(3<<30)
    check(kind, path, *args)
    path.write_bytes(data)
    def forbid(file, *args, **kw): raise PermissionError(13, 'Permission denied', file)
    monkeypatch.setattr(os, 'open', forbid)
    check(kind, path, *args)
