"The commands as their users meet them: whole jobs, bad input, interruptions. What must be killed or interrupted is started."
import json, os, random, resource, shutil, signal, sys, tarfile, time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest, torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from alexnet_nb import train as T
from alexnet_nb.data import Pack
from alexnet_nb.tools import commands
from alexnet_nb.engine.machine import choose_precision, get_device
from alexnet_nb.tools.commands import alexnet_eval, alexnet_predict, alexnet_prepare, alexnet_train
from conftest import call, fine, refused, run, script, slow, start

small = '--width .25 --size 56 --batch_size 64 --epochs 20'.split()

@pytest.fixture(scope='module')
def trained(demo_pack, tmp_path_factory):
    "A run that was never interrupted"
    d = tmp_path_factory.mktemp('trained')/'run'
    fine(call(alexnet_train, demo_pack/'pack', '--run', d, *small))
    return d

@contextmanager
def largest_file(size):
    "Files of this process cannot grow beyond so many bytes, as on a disk without room"
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, was[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, was)

def weights(folder, name='model'): return load_file(folder/f'{name}.safetensors')
def equal(a, b): return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def check_main_job(r, folder, n):
    "Everything that was promised is there"
    card = json.loads((folder/'card.json').read_text())
    assert card['n']==n and card['precision']=='fp32', card # the same figures on all machines
    assert 'smaller than the paper' in r.stdout or torch.cuda.is_available()
    for o in ('curve','filters','top5'): assert min(Image.open(folder/f'{o}.png').size)>100
    assert (folder/'model.safetensors').exists()
    assert 'top-1 error' in r.stdout.splitlines()[-2] and str(Path('alexnet_demo/run')) in r.stdout.splitlines()[-1]
    assert not list(folder.parent.rglob('*.partial'))
    return card['value']['top-1 (10 views)']

def test_main_job_in_small(tmp_path, monkeypatch):
    "`alexnet_train` alone, with fewer pictures and epochs"
    monkeypatch.setattr(commands, 'demo', partial(commands.demo, n_train=20, n_val=6))
    r = fine(call(alexnet_train, '--epochs', 2, cwd=tmp_path))
    check_main_job(r, tmp_path/'alexnet_demo/run', 60)
    assert 'epoch 2 of 2' in r.stdout

@slow
def test_main_job(tmp_path):
    "`alexnet_train` alone learns the demo data"
    r = fine(run(script('alexnet_train'), cwd=tmp_path, timeout=280))
    assert check_main_job(r, tmp_path/'alexnet_demo/run', 500)<=30
    assert len((tmp_path/'alexnet_demo/run/log.jsonl').read_text().splitlines())>100

def test_own_images(demo_pack, tmp_path):
    "prepare, train, eval and predict on a folder of class folders, one file of which is no image"
    src = tmp_path/'my pictures'
    shutil.copytree(demo_pack/'pictures/train', src)
    cls = sorted(src.iterdir())[2]
    (cls/'broken ü.jpg').write_text('not an image')
    r = fine(call(alexnet_prepare, 'my pictures', 'pack', '--size', 64, cwd=tmp_path))
    assert 'broken ü.jpg' in r.stdout and '1 files left out' in r.stdout
    assert json.loads((tmp_path/'pack/repairs.jsonl').read_text())['action']=='refused'
    fine(call(alexnet_train, 'pack', *small, '--epochs', 2, cwd=tmp_path))
    r = fine(call(alexnet_eval, 'runs/pack-code2012', '--pack', 'pack', '--card', 'card.json', cwd=tmp_path))
    card = json.loads((tmp_path/'card.json').read_text())
    assert f"{card['value']['top-1 (10 views)']/100:.2%}" in r.stdout and card['n']==30
    config = json.loads((tmp_path/'runs/pack-code2012/config.json').read_text())
    choice = choose_precision(get_device())
    assert str(choice) in r.stdout and choice.precision==card['precision']==config['precision'], r.stdout
    if choice.precision=='bf16': # elsewhere it is slow
        r = fine(call(alexnet_eval, 'runs/pack-code2012', '--pack', 'pack', '--compare', '--card', 'both.json', cwd=tmp_path))
        both = json.loads((tmp_path/'both.json').read_text())['value']
        assert f"{both['error in bf16']:.2f} %" in r.stdout and abs(both['error in bf16']-both['error in fp32'])<=10
    f = next(cls.glob('*.JPEG'))
    r = call(alexnet_predict, 'runs/pack-code2012', f, tmp_path/'none.jpg', cls/'broken ü.jpg', cwd=tmp_path)
    assert f.name in r.stdout and (tmp_path/'predictions.png').exists()
    refused(r, 'none.jpg: No such file', 'broken ü.jpg: ')

def test_other_names(demo_pack, trained, tmp_path):
    "A pack whose classes are in another order than those that the network has learnt"
    shutil.copytree(demo_pack/'pack', tmp_path/'other')
    meta = json.loads((tmp_path/'other/meta.json').read_text())
    meta['classes'] = meta['classes'][::-1]
    (tmp_path/'other/meta.json').write_text(json.dumps(meta))
    r = fine(call(alexnet_eval, trained, '--pack', tmp_path/'other'))
    assert r.stderr.count('\n')==1 and 'note: ' in r.stderr and 'matched by name' in r.stderr, r.stderr

# --- Disks

def test_disk_full(demo_pack, tmp_path):
    "A file that cannot grow stands for a disk without room: nothing half-written stays"
    with largest_file(2_000_000): r = call(alexnet_prepare, demo_pack/'pictures', 'x', '--size', 64, cwd=tmp_path)
    refused(r, 'x: cannot be written')
    assert not list(tmp_path.iterdir())

def test_full_disk_keeps_checkpoint(demo_pack, tmp_path):
    "A disk that fills up in the middle of a run: the last checkpoint stays, and the run goes on when there is room"
    args = demo_pack/'pack', '--run', tmp_path/'run', *small
    fine(call(alexnet_train, *args, '--steps', 7))
    before = (tmp_path/'run/last.safetensors').read_bytes()
    with largest_file(1_000_000): r = call(alexnet_train, *args)
    refused(r, 'last.safetensors: cannot be written')
    assert (tmp_path/'run/last.safetensors').read_bytes()==before and not list(tmp_path.rglob('*.partial'))
    assert 'going on at step 7' in fine(call(alexnet_train, *args, '--steps', 8)).stdout

@pytest.mark.skipif(os.name!='posix' or os.geteuid()!=0, reason='mounting a small disk needs root')
def test_small_disk(demo_pack, tmp_path):
    "A real disk of 1 MB"
    if run('mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', tmp_path).returncode:
        pytest.skip('this machine does not let root mount a disk')
    try:
        refused(call(alexnet_prepare, demo_pack/'pictures', 'x', '--size', 64, cwd=tmp_path), 'disk too small')
        refused(call(alexnet_train, demo_pack/'pack', '--run', tmp_path/'run', *small), 'cannot be written')
        assert not list(tmp_path.rglob('*.safetensors*'))
    finally: fine(run('umount', tmp_path))

def test_broken_pack(demo_pack, tmp_path):
    "A JPEG of the pack that cannot be decoded any more ends the run with one line"
    fine(call(alexnet_prepare, demo_pack/'pictures', tmp_path/'pack', '--size', 64, '--storage', 'jpeg'))
    f = tmp_path/'pack/train_jpeg.bin'
    f.write_bytes(f.read_bytes()[:100_000] + b'\0'*(f.stat().st_size-100_000))
    t = time.monotonic()
    r = call(alexnet_train, tmp_path/'pack', '--run', tmp_path/'run', *small)
    refused(r, 'train_jpeg.bin', 'copy the pack again')
    assert time.monotonic()-t<60

# --- Interruptions

def in_a_terminal(name):
    "The script of a command where Ctrl-C is heard; in the background of some shells it is not"
    code = ('import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
            'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")')
    return sys.executable, '-c', code, script(name)

def test_prepare_interrupted(demo_pack, tmp_path):
    "Ctrl-C during prepare leaves nothing"
    p = start(*in_a_terminal('alexnet_prepare'), demo_pack/'pictures', tmp_path/'x', '--size', 1024, '--workers', 1)
    p.wait_for((tmp_path/'x.partial/pack/train_images.npy').exists)
    p.send(signal.SIGINT)
    err = p.wait(60).stderr
    assert p.returncode==130 and 'interrupted' in err and 'Traceback' not in err, err
    assert not list(tmp_path.iterdir())

def test_same_settings_again(demo_pack, trained):
    "A finished run is measured again, not trained again"
    before = weights(trained)
    r = fine(call(alexnet_train, demo_pack/'pack', '--run', trained, *small))
    assert 'epoch 1 of' not in r.stdout and 'top-1 error' in r.stdout
    assert equal(before, weights(trained))

@slow # the next test kills, too; others interrupt a training in this process, and processes under torchrun
@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(demo_pack, trained, tmp_path, sig):
    "Stopped in the middle, the same command goes on and ends with the same weights, bit for bit"
    args = demo_pack/'pack', '--run', tmp_path/'run', *small
    p,log = start(*in_a_terminal('alexnet_train'), *args),tmp_path/'run/log.jsonl'
    p.wait_for(lambda: log.exists() and log.read_text().count('\n')>=8)
    p.send(sig)
    err = p.wait(60).stderr
    assert not (tmp_path/'run/model.safetensors').exists(), 'it was over before it was interrupted'
    if sig!=signal.SIGKILL:
        assert p.returncode==128+sig and 'Traceback' not in err, err
        assert 'stopped at step' in err and 'the same command goes on' in err
        assert (tmp_path/'run/last.safetensors').exists()
    r = fine(call(alexnet_train, *args))
    if sig!=signal.SIGKILL: assert 'going on at step' in r.stdout
    assert equal(weights(tmp_path/'run'), weights(trained))

job = """
import sys
from alexnet_nb import train as T
T.SAVE_EVERY = .25 # seconds; so that some checkpoints are in the middle of an epoch
T.train(*sys.argv[1:3], width=.125, size=56, batch_size=32, epochs=12, schedule='paper', keep=2, say=print)
"""

def test_killed_at_random(demo_pack, tmp_path, monkeypatch):
    "kill -9 at any moment, then the same again: all weights, checkpoints and the log are those of an uninterrupted run"
    monkeypatch.setattr(T, 'SAVE_EVERY', .25)
    rng,n = random.Random(os.environ.get('ALEXNET_NB_SEED', '0')),int(os.environ.get('ALEXNET_NB_KILLS', '1'))
    def train(name):
        said = []
        T.train(demo_pack/'pack', tmp_path/name, width=.125, size=56, batch_size=32, epochs=12, schedule='paper', keep=2,
                say=said.append)
        return said
    def told(name): return [{k:v for k,v in json.loads(o).items() if k!='images_per_s'}
                            for o in (tmp_path/name/'log.jsonl').read_text().splitlines()]
    def lines(name): return (f := tmp_path/name/'log.jsonl').exists() and f.read_text().count('\n')
    def files(name):
        res = {}
        for f in (tmp_path/name).glob('*.safetensors*'):
            with safe_open(f, 'pt') as o: res[f.name] = o.metadata(),{k:o.get_tensor(k).numpy().tobytes() for k in o.keys()}
        return res
    train('whole')
    want = files('whole')
    assert len(want)==5 and len(told('whole'))==132 # model, last, best and two more; 120 steps and 12 epochs
    where,names = [],[f'k{i}' for i in range(n)]
    for name in names:
        p,at = start(sys.executable, '-c', job, demo_pack/'pack', tmp_path/name),rng.randrange(90)
        p.wait_for(lambda: lines(name)>=at)
        time.sleep(rng.random()*.1)
        p.send(signal.SIGKILL)
        assert p.wait(60).returncode==-signal.SIGKILL, 'it was over before it was killed'
        left = sorted(o.name for o in (tmp_path/name).glob('*'))
        said = train(name)
        where.append((at, next((o.split(' at ')[-1] for o in said if 'going on' in o), 'the beginning'),
                      [o for o in left if 'partial' in o]))
        assert files(name)==want and told(name)==told('whole'), (at, left, said)
        shutil.rmtree(tmp_path/name)
    print(*where, sep='\n')

# --- Options and real pictures

def test_fine_tuning(demo_pack, trained, tmp_path):
    "From a trained network, one layer of which is frozen; with a budget of time"
    tune = demo_pack/'pack', '--init_from', trained, '--rates', 'conv1=0,fc8=10', '--epochs', 3, '--keep', 1, '--run', tmp_path/'t'
    r = fine(call(alexnet_train, *tune, '--time_budget', '.1s'))
    assert 'the time is spent at step' in r.stderr+r.stdout and 'all layers copied' in r.stdout, r
    assert 'going on at step' in fine(call(alexnet_train, *tune)).stdout
    for k,v in weights(trained).items():
        if 'conv1' in k: assert torch.equal(v, weights(tmp_path/'t')[k])

def test_tiny_imagenet(data_dir, tmp_path):
    "Real photographs go in and come out as a pack with the names of their classes"
    with tarfile.open(data_dir/'tiny-imagenet-25.tar.xz') as t:
        keep = [m for m in t if m.name.endswith('words.txt') or m.isfile() and int(m.name.rsplit('_', 1)[-1].split('.')[0])%25==0]
        t.extractall(tmp_path/'src', keep, filter='data')
    src = next(o.parent for o in (tmp_path/'src').rglob('words.txt'))
    fine(call(alexnet_prepare, src, tmp_path/'pack', '--size', 64))
    p = Pack(tmp_path/'pack')
    assert p.n_classes==25 and 'goldfish' in p.names and p.meta['repairs']==0
    assert 90<p.mean.mean()<140 and p.pca['std'][0]>p.pca['std'][1]>p.pca['std'][2]

def test_ilsvrc_sample(data_dir, trained, tmp_path):
    "Original ILSVRC files: grey ones, tiny ones, long ones"
    files = sorted((data_dir/'ilsvrc-sample').glob('*.JPEG'))
    r = fine(call(alexnet_predict, trained, *files, '--out', tmp_path/'p.png', '--views', 1))
    assert all(f.name in r.stdout for f in files) and f"picture: {tmp_path/'p-01.png'}" in r.stdout
