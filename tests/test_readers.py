"""One contract for every reader: whatever a file holds, an object or a `Refusal` of one line that names the file

EXAMPLES has a good file of each kind that `READERS` knows: {kind: (name, function that gives its bytes, what else the
reader is given …)}."""
import hashlib, importlib, io, json, os, pkgutil, resource, time

import numpy as np, pytest

import alexnet_nb
from alexnet_nb.engine.building import describe_files
from alexnet_nb.engine.core import READERS, Refusal
from conftest import root
from fuzz.damage import change_json, nodes, parts
from malformed import photo, saved

for room in pkgutil.walk_packages(alexnet_nb.__path__, 'alexnet_nb.'):
    importlib.import_module(room.name)

def parquet():
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    rows = [dict(image=dict(bytes=b'...', path='a.png'), label=i%2) for i in range(4)]
    info = dict(info=dict(features=dict(label=dict(names=['cat','dog'], _type='ClassLabel'))))
    table = pa.Table.from_pylist(rows).replace_schema_metadata({'huggingface':json.dumps(info)})
    pq.write_table(table, f := io.BytesIO())
    return f.getvalue()

def text(o): return json.dumps(o).encode()
def old(name): return lambda: (root/'tests/fixtures/v1'/name).read_bytes()

def array(x):
    np.save(f := io.BytesIO(), x)
    return f.getvalue()

def state():
    np.savez(f := io.BytesIO(), visited=np.arange(3), at=[3, 0, 0])
    return hashlib.sha256(b'seal'+f.getvalue()).digest()+f.getvalue()

EXAMPLES = {
    'lock': ('lock', lambda: text(dict(program='training', host='here', pid=7, since=1e9, began=5, flock=True))),
    'parquet footer': ('train.parquet', parquet),
    'picture': ('a.png', lambda: saved(photo(9, 9), 'PNG')),
    'meta.json': ('meta.json', old('jpeg/meta.json')),
    'pca.json': ('pca.json', old('pack/pca.json')),
    'repairs.jsonl': ('repairs.jsonl', lambda: text(dict(file='a.png', action='repaired', reason='turned'))+b'\n'),
    'names.txt': ('train_names.txt', old('pack/train_names.txt')),
    'SHA256SUMS': ('SHA256SUMS', lambda: b'0'*64+b'  mean.npy\n'),
    '.npy': ('x.npy', lambda: array(np.ones((3,4)))),
    'labels.npy': ('train_labels.npy', old('pack/train_labels.npy')),
    'mean.npy': ('mean.npy', old('pack/mean.npy')),
    'offsets.npy': ('train_offsets.npy', old('jpeg/train_offsets.npy')),
    'job.json': ('job.json', lambda: text(dict(maker='alexnet_nb', seal='0'*32, job=dict(size=64)))),
    'kept.json': ('kept.json', lambda: text(dict(seal='0'*32, files={}, others=describe_files([]), places=[]))),
    'state of a journal': ('train_state', state, 'seal'),
    'notes of a journal': ('train_notes.jsonl', lambda: b'[3, "refused", "no image"]\n'),
    'result card': ('card.json', lambda: (root/'nbs/cards/demo.json').read_bytes()),
}
VALUES = [float('nan'), 1e308, 1<<63, -1, 'a string', None, [], {}]
READ = sorted(READERS.keys() & EXAMPLES.keys())

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
    for n in [*range(min(100, len(data))), *range(1000, len(data), 1000)]:
        yield f'cut after {n} bytes', data[:n]
    for text in (b'null', b'[]', b'{}', b'1', b'"x"', b'['*100_000, b'{"a":'*100_000, b'\xff\xfe{}', b'\n\n', b'[1'+b',1'*200_000+b']'):
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
        assert len(str(e).splitlines())==1 and path.name in str(e), e
    assert time.process_time()-start<1

def test_every_kind_has_an_example():
    assert sorted(READERS)==sorted(EXAMPLES)

@pytest.mark.parametrize('kind', READ)
def test_good(kind, tmp_path):
    name,make,*args = EXAMPLES[kind]
    (tmp_path/name).write_bytes(make())
    assert READERS[kind](tmp_path/name, *args) is not None

@pytest.mark.parametrize('kind', READ)
def test_damaged(kind, tmp_path):
    name,make,*args = EXAMPLES[kind]
    data = make()
    path = tmp_path/name
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
    data = make()
    path = tmp_path/name
    makes = [lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to('none'), lambda: path.symlink_to(path), lambda: path.symlink_to('/dev/zero')]
    for make in makes:
        make()
        with pytest.raises(Refusal) as e:
            READERS[kind](path, *args)
        assert len(str(e.value).splitlines())==1 and name in str(e.value)
        path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(data)
    with open(path, 'r+b') as f:
        f.truncate(1<<40)
    check(kind, path, *args)
    path.write_bytes(data)
    def forbid(file, *args, **kw): raise PermissionError(13, 'Permission denied', file)
    monkeypatch.setattr(os, 'open', forbid)
    check(kind, path, *args)
