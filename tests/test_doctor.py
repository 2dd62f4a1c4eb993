"`alexnet_doctor`, called as its script does: that it finds what is wrong. Times of the wall clock are not tested."
import json, resource, shutil, time
import numpy as np, pytest
from alexnet_nb import data
from alexnet_nb.tools.commands import alexnet_doctor
from conftest import call, fine, slow

small = '--width .25 --size 56 --batch-size 16 --device cpu --seconds 2'.split()

@pytest.fixture
def doctor(tmp_path, same_threads):
    "Run `alexnet_doctor` in an empty folder"
    (tmp_path/'work').mkdir()
    return lambda *args: call(alexnet_doctor, *args, cwd=tmp_path/'work')

@pytest.fixture
def pack(demo_pack): return demo_pack/'pack'

def test_alone(doctor, tmp_path, temp_dir):
    "Without a pack: one is drawn and gone afterwards; one screen, one line for each probe, less than a minute of one core"
    def used(): u = resource.getrusage(resource.RUSAGE_SELF); return u.ru_utime+u.ru_stime
    t = used()
    r = fine(doctor('--seconds', 8, '--json', 'r.json'))
    assert used()-t<60, 'seconds of one core'
    lines = r.stdout.splitlines()
    assert len(lines)<=50 and any(o.startswith('The limit is the training step,') for o in lines), r.stdout
    said = r.stderr.splitlines()
    for o in ('reading','augmentation','training step','disk','full network'):
        assert sum(l.startswith(o+':') for l in said)==1, r.stderr
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert [o['name'] for o in rep['checks']][:2]==['pack','versions'] and len(rep['forecast'])==9
    assert [o.name for o in (tmp_path/'work').iterdir()]==['r.json']
    assert not list(temp_dir.glob('alexnet*')) # PyTorch may leave a folder of its own

@slow
def test_slow_reader(doctor, pack, tmp_path, monkeypatch):
    "A reader that sleeps is the limit, and more threads are the advice"
    read = data.Loader.read
    def slow(self, idx): time.sleep(.3); return read(self, idx)
    monkeypatch.setattr(data.Loader, 'read', slow)
    r = fine(doctor(pack, *small, '--json', 'r.json'))
    assert 'The limit is the reading' in r.stdout and '--workers 4' in r.stdout, r.stdout
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert rep['limit']=='reading' and any(o['text'].startswith('--workers') for o in rep['advice'])

@slow
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
    assert any(o.startswith('broken   pack: ') and name in o for o in r.stdout.splitlines()), r.stdout
    assert 'Traceback' not in r.stderr
    rep = json.loads((tmp_path/'work/r.json').read_text())
    assert not {'reading','augmentation','disk'} & {o['name'] for o in rep['figures'] if o['value']}
    assert all(o['raw'] is None and o['jpeg'] is None for o in rep['forecast']) and rep['storages']==[]

def test_plain_lrn(doctor, pack, monkeypatch):
    "No compiler: a warning; still exit code 0"
    monkeypatch.setenv('ALEXNET_NB_PLAIN', '1')
    r = doctor(pack, *small, '--seconds', 1)
    assert r.returncode==0 and 'warning  LRN: operation by operation; a C compiler helps' in r.stdout, r.stdout+r.stderr
