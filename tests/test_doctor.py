"`alexnet_doctor` in processes of its own: that it finds what is wrong. Times of the wall clock are not tested."
import json, resource, shutil
import numpy as np, pytest
from conftest import root
from test_bench import refused

small = '--width .25 --size 56 --batch-size 16 --device cpu --seconds 4'.split()
slow = """import time
from alexnet_nb import data
read = data.Loader.read
def wait(self, idx): time.sleep(.3); return read(self, idx)
data.Loader.read = wait
"""

@pytest.fixture
def doctor(py, tmp_path):
    "Run `alexnet_doctor` in an empty folder; `before` is code that is run first"
    def run(*args, before='', **env):
        (tmp_path/'bin').mkdir(exist_ok=True); (tmp_path/'work').mkdir(exist_ok=True)
        f = tmp_path/'bin'/'alexnet_doctor'
        f.write_text(before+'from alexnet_nb.doctor import alexnet_doctor\nalexnet_doctor()\n')
        return py(f, *args, cwd=tmp_path/'work', PYTHONPATH=str(root), **env)
    return run

@pytest.fixture(scope='module')
def pack(tmp_path_factory):
    from alexnet_nb.data import demo, prepare
    d = tmp_path_factory.mktemp('doctor')
    return prepare(demo(d/'pictures', n_train=24, n_val=3), d/'pack', size=64).path

def test_alone(doctor, tmp_path, monkeypatch):
    "Without a pack: one is drawn and gone afterwards; one screen, one line for each probe, less than a minute of one core"
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    def used(): u = resource.getrusage(resource.RUSAGE_CHILDREN); return u.ru_utime+u.ru_stime
    t = used()
    r = doctor('--seconds', 15, '--json', 'r.json')
    assert r.returncode==0, r.stderr
    assert used()-t<60, 'seconds of one core'
    lines = r.stdout.splitlines()
    assert len(lines)<=50 and any(o.startswith('The limit is the training step') for o in lines), r.stdout
    said = r.stderr.splitlines()
    for o in ('reading, cold','reading, warm','augmentation','training step','all together','disk','the full network'):
        assert sum(l.startswith(o+':') for l in said)==1, r.stderr
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert [o['name'] for o in rep['checks']][:2]==['pack','versions'] and len(rep['forecast'])==9
    assert [o.name for o in (tmp_path/'work').iterdir()]==['r.json']
    assert not list(tmp_path.glob('alexnet_doctor*'))

def test_slow_reader(doctor, pack, tmp_path):
    "A reader that sleeps is the limit, and more threads are the advice"
    r = doctor(pack, *small, '--json', 'r.json', before=slow)
    assert r.returncode==0, r.stderr
    assert 'The limit is reading' in r.stdout and '--workers 4' in r.stdout, r.stdout
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert rep['limit']=='reading' and rep['advice'][0]['text'].startswith('--workers')

def test_slow_step(doctor, pack):
    "The same pack read as it comes: the step of a wider network is the limit"
    r = doctor(pack, *small, '--width', 1)
    assert r.returncode==0 and 'The limit is the training step' in r.stdout, r.stdout+r.stderr

def truncated(d):
    with open(d/'train_images.npy', 'r+b') as f: f.truncate(50_000)
def missing(d): (d/'val_labels.npy').unlink()
def changed(d):
    x = np.load(d/'val_images.npy', mmap_mode='r+')
    x[0,0,0,0] ^= 1
    x.flush()

@pytest.mark.parametrize('spoil, name, args', [(truncated,'train',[]), (missing,'val_labels.npy',[]),
                                               (changed,'val_images.npy',['--verify'])])
def test_broken_pack(doctor, pack, tmp_path, spoil, name, args):
    "Named with its file, exit code 1; what needs the pack is not measured, and not made up either"
    shutil.copytree(pack, tmp_path/'bad')
    spoil(tmp_path/'bad')
    r = doctor(tmp_path/'bad', *small, '--seconds', 1, '--json', 'r.json', *args)
    assert r.returncode==1, r.stderr
    assert any(o.startswith('!! pack: ') and name in o for o in r.stdout.splitlines()), r.stdout
    assert 'Traceback' not in r.stderr
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert not {'reading, warm','reading, cold','all together'} & {o['name'] for o in rep['figures'] if o['value']}
    assert all(o['raw'] is None and o['jpeg'] is None for o in rep['forecast']) and not any(o['reading'] for o in rep['storages'])

def test_plain_lrn(doctor, pack):
    "No compiler: a warning and an advice without a number; still exit code 0"
    r = doctor(pack, *small, '--seconds', 1, ALEXNET_NB_PLAIN='1')
    assert r.returncode==0 and ' ! LRN: operation by operation' in r.stdout, r.stdout+r.stderr
    assert '  ?    install a C compiler' in r.stdout

def test_refuses(doctor, pack, tmp_path):
    refused(doctor(tmp_path/'none', *small), 'alexnet_doctor: ', 'not a pack')
    refused(doctor(pack, *small, '--spec', 'resnet'), "'resnet' is unknown")
    refused(doctor(pack, *small, '--workers', 0), 'workers 0')
    refused(doctor(pack, *small, '--size', 200), 'size 200')
    refused(doctor(pack, *small, '--device', 'cuda:77'), 'cuda:77')
    (tmp_path/'odd').mkdir()
    (tmp_path/'odd/meta.json').write_text('{"format": 1}')
    refused(doctor(tmp_path/'odd', *small), 'meta.json', 'damaged')
