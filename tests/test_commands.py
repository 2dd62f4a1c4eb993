"The commands as their users meet them: whole jobs, bad input, interruptions. Everything runs in processes of its own."
import json, os, resource, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest, torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import later

bin = Path(sys.executable).parent
small = '--width .25 --size 56 --batch_size 64 --epochs 30'.split()

def run(*args, cwd=None, **kw):
    "Run a command; its result has stdout, stderr and returncode"
    return subprocess.run([bin/args[0], *map(str, args[1:])], cwd=cwd, capture_output=True, text=True, timeout=800, **kw)

def refused(r, *parts):
    "The promise for bad input: exit code 2, one line on stderr that says what, no traceback"
    lines = [o for o in r.stderr.splitlines() if 'images/s' not in o and '0%|' not in o]
    assert r.returncode==2, r.stderr
    assert len(lines)==1, r.stderr
    for p in parts: assert str(p) in lines[0], lines[0]

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A folder with pictures and a pack of them"
    from alexnet_nb.data import demo, prepare
    d = tmp_path_factory.mktemp('made')
    prepare(demo(d/'pictures', n_train=32, n_val=5), d/'pack', size=64)
    return d

@pytest.fixture(scope='module')
def trained(made):
    "A run that was never interrupted"
    r = run('alexnet_train', made/'pack', '--run', made/'run', *small)
    assert r.returncode==0, r.stderr
    return made/'run'

def weights(folder, name='model'): return load_file(folder/f'{name}.safetensors')
def equal(a, b): return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def test_main_job(tmp_path):
    "`alexnet_train` alone learns the demo data and leaves everything that was promised"
    r = run('alexnet_train', cwd=tmp_path)
    assert r.returncode==0, r.stderr
    folder = tmp_path/'alexnet_demo/run'
    card = json.loads((folder/'card.json').read_text())
    assert card['value']['top-1 (10 views)']<=30 and card['n']==500, card
    assert 'smaller than the paper' in r.stdout or torch.cuda.is_available()
    for o in ('curve','filters','top5'): assert min(Image.open(folder/f'{o}.png').size)>100
    assert (folder/'model.safetensors').exists() and len((folder/'log.jsonl').read_text().splitlines())>100
    assert 'top-1 error' in r.stdout.splitlines()[-2] and str(Path('alexnet_demo/run')) in r.stdout.splitlines()[-1]
    assert not list(tmp_path.rglob('*.partial'))
    print(r.stdout)

def test_own_images(made, tmp_path):
    "prepare, train, eval and predict on a folder of class folders, one file of which is no image"
    src = tmp_path/'my pictures'
    shutil.copytree(made/'pictures/train', src)
    cls = sorted(src.iterdir())[2]
    (cls/'broken ü.jpg').write_text('not an image')
    r = run('alexnet_prepare', 'my pictures', 'pack', '--size', 64, cwd=tmp_path)
    assert r.returncode==0, r.stderr
    assert 'broken ü.jpg' in r.stdout and '1 files left out' in r.stdout
    assert json.loads((tmp_path/'pack/repairs.jsonl').read_text())['action']=='refused'
    r = run('alexnet_train', 'pack', *small, cwd=tmp_path)
    assert r.returncode==0, r.stderr
    r = run('alexnet_eval', 'runs/pack-code2012', '--pack', 'pack', '--card', 'card.json', cwd=tmp_path)
    assert r.returncode==0, r.stderr
    card = json.loads((tmp_path/'card.json').read_text())
    assert f"{card['value']['top-1 (10 views)']/100:.2%}" in r.stdout and card['n']==30
    f = next(cls.glob('*.JPEG'))
    r = run('alexnet_predict', 'runs/pack-code2012', f, tmp_path/'none.jpg', cls/'broken ü.jpg', cwd=tmp_path)
    assert f.name in r.stdout and (tmp_path/'predictions.png').exists()
    refused(r, 'none.jpg: no such file', 'broken ü.jpg: cannot identify')

def test_prepare_refuses(made, tmp_path):
    (tmp_path/'empty').mkdir()
    (tmp_path/'one/cat').mkdir(parents=True)
    shutil.copy(next((made/'pictures').rglob('*.JPEG')), tmp_path/'one/cat')
    refused(run('alexnet_prepare', 'none', 'x', cwd=tmp_path), 'none: no such folder')
    refused(run('alexnet_prepare', 'empty', 'x', cwd=tmp_path), 'empty: no images')
    refused(run('alexnet_prepare', 'one', 'x', cwd=tmp_path), 'one: only one class')
    refused(run('alexnet_prepare', made/'pictures', made/'pack', cwd=tmp_path), 'exists already')
    refused(run('alexnet_prepare', made/'pictures', 'x', '--workers', 0, cwd=tmp_path), 'workers 0')
    refused(run('alexnet_prepare', made/'pictures', 'x', '--val', 2, cwd=tmp_path), 'val 2.0')
    assert sorted(o.name for o in tmp_path.iterdir())==['empty','one']

def test_disk_full(made, tmp_path):
    "A file that cannot grow stands for a disk without room: nothing half-written stays"
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    r = run('alexnet_prepare', made/'pictures', 'x', '--size', 64, cwd=tmp_path, preexec_fn=limit)
    refused(r, 'x: cannot be written')
    assert not list(tmp_path.iterdir())

def test_prepare_interrupted(made, tmp_path):
    "Ctrl-C during prepare leaves nothing"
    p = subprocess.Popen([bin/'alexnet_prepare', made/'pictures', tmp_path/'x', '--size', '1024', '--workers', '1'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) # as in a terminal
    end = time.time()+60
    while time.time()<end and not (tmp_path/'x.partial/train_images.npy').exists(): time.sleep(.02)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=60)[1]
    assert p.returncode==2 and 'interrupted; nothing half-written is left' in err and 'Traceback' not in err, err
    assert not list(tmp_path.iterdir())

@pytest.mark.skipif(os.name!='posix' or os.geteuid()!=0, reason='mounting a small disk needs root')
def test_small_disk(made, tmp_path):
    "A real disk of 1 MB"
    if subprocess.run(['mount','-t','tmpfs','-o','size=1m','tmpfs',tmp_path], capture_output=True).returncode:
        pytest.skip('this machine does not let root mount a disk')
    try:
        refused(run('alexnet_prepare', made/'pictures', 'x', '--size', 64, cwd=tmp_path), 'disk too small')
        refused(run('alexnet_train', made/'pack', '--run', tmp_path/'run', *small), 'cannot be written')
        assert not list(tmp_path.rglob('*.safetensors*'))
    finally: subprocess.run(['umount',tmp_path], check=True)

def test_train_refuses(made, trained, tmp_path):
    old = tmp_path/'old'
    shutil.copytree(made/'pack', old)
    (old/'meta.json').write_text((old/'meta.json').read_text().replace('"format": 1', '"format": 99'))
    refused(run('alexnet_train', old, '--run', tmp_path/'r'), 'format 99', 'format 1')
    refused(run('alexnet_train', tmp_path/'none', '--run', tmp_path/'r'), 'not a pack')
    refused(run('alexnet_train', made/'pack', '--spec', 'resnet'), "'resnet' is unknown", 'code2012')
    refused(run('alexnet_train', made/'pack', '--run', trained, *small, '--lr', .02), 'lr 0.01 (now 0.02)')
    refused(run('alexnet_eval', tmp_path, '--pack', made/'pack'), 'no weights in this folder')
    refused(run('alexnet_eval', trained, '--pack', made/'pack', '--batch_size', 0), 'batch size 0')
    shutil.copytree(made/'pack', tmp_path/'other')
    meta = json.loads((tmp_path/'other/meta.json').read_text())
    meta['classes'] = meta['classes'][::-1]
    (tmp_path/'other/meta.json').write_text(json.dumps(meta))
    r = run('alexnet_eval', trained, '--pack', tmp_path/'other')
    assert r.returncode==0 and r.stderr.count('\n')==1 and 'warning: ' in r.stderr and '10 of 10 classes have another name' in r.stderr, r
    f = next((made/'pictures').rglob('*.JPEG'))
    refused(run('alexnet_predict', trained, f, '--out', tmp_path/'none/p.png'), 'none/p.png', 'No such file')
    refused(run('alexnet_train', made/'pack', '--run', tmp_path/'r', '--steps', -1), 'steps -1')
    refused(run('alexnet_train', made/'pack', '--run', tmp_path/'r', '--device', 'cuda:77'), 'cuda:77')
    assert not (tmp_path/'r').exists()

def test_same_settings_again(made, trained):
    "A finished run is measured again, not trained again"
    before = weights(trained)
    r = run('alexnet_train', made/'pack', '--run', trained, *small)
    assert r.returncode==0 and 'epoch 1 of' not in r.stdout and 'top-1 error' in r.stdout
    assert equal(before, weights(trained))

@pytest.mark.parametrize('sig', [signal.SIGINT, later(signal.SIGTERM), signal.SIGKILL])
def test_interrupted(made, trained, tmp_path, sig):
    "Stopped in the middle, the same command goes on and ends with the same weights, bit for bit"
    cmd = [bin/'alexnet_train', made/'pack', '--run', tmp_path/'run', *small]
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path/'run/log.jsonl'
    end = time.time()+120
    while time.time()<end and not (log.exists() and len(log.read_text().splitlines())>=12): time.sleep(.02)
    p.send_signal(sig)
    out,err = p.communicate(timeout=60)
    assert not (tmp_path/'run/model.safetensors').exists(), 'it was over before it was interrupted'
    if sig!=signal.SIGKILL:
        assert p.returncode==2 and 'Traceback' not in err
        assert 'stopped at step' in err and 'the same command goes on' in err
        assert (tmp_path/'run/last.safetensors').exists()
    r = run(*cmd)
    assert r.returncode==0, r.stderr
    if sig!=signal.SIGKILL: assert 'going on at step' in r.stdout
    assert equal(weights(tmp_path/'run'), weights(trained))

job = """
import sys
import alexnet_nb.train as T
T._save_every = .25 # seconds; so that some checkpoints are in the middle of an epoch
T.train(*sys.argv[1:3], width=.125, size=56, batch_size=32, epochs=12, schedule='paper', keep=2, say=print)
"""

def test_killed_at_random(made, tmp_path):
    "kill -9 at any moment, then the same again: all weights, checkpoints and the log are those of an uninterrupted run"
    import random
    rng,n = random.Random(os.environ.get('ALEXNET_NB_SEED', 0)),int(os.environ.get('ALEXNET_NB_KILLS', 3))
    def start(name): return subprocess.Popen([sys.executable, '-c', job, made/'pack', tmp_path/name], text=True,
                                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    def told(name): return [{k:v for k,v in json.loads(o).items() if k!='images_per_s'}
                            for o in (tmp_path/name/'log.jsonl').read_text().splitlines()]
    def lines(name): return (f := tmp_path/name/'log.jsonl').exists() and f.read_text().count('\n')
    def files(name):
        res = {}
        for f in (tmp_path/name).glob('*.safetensors*'):
            with safe_open(f, 'pt') as o: res[f.name] = o.metadata(),{k:o.get_tensor(k).numpy().tobytes() for k in o.keys()}
        return res
    p = start('whole')
    assert p.wait(300)==0, p.stderr.read()
    want = files('whole')
    assert len(want)==5 and len(told('whole'))==132 # model, last, best and two more; 120 steps and 12 epochs
    where = []
    for i in range(n):
        p,at = start(f'k{i}'),rng.randrange(130)
        while p.poll() is None and lines(f'k{i}')<at: time.sleep(.002)
        time.sleep(rng.random()*.1)
        p.kill()
        assert p.wait(60)==-signal.SIGKILL, 'it was over before it was killed'
        left = sorted(o.name for o in (tmp_path/f'k{i}').glob('*'))
        assert (p := start(f'k{i}')).wait(300)==0, p.stderr.read()
        said = p.stdout.read()
        where.append((at, next((o.split(' at ')[-1] for o in said.splitlines() if 'going on' in o), 'the beginning'),
                      [o for o in left if 'partial' in o]))
        assert files(f'k{i}')==want and told(f'k{i}')==told('whole'), (i, at, left, said)
        shutil.rmtree(tmp_path/f'k{i}')
    print(*where, sep='\n')

def test_full_disk_keeps_checkpoint(made, tmp_path):
    "A disk that fills up in the middle of a run: the last checkpoint stays, and the run goes on when there is room"
    args = 'alexnet_train', made/'pack', '--run', tmp_path/'run', *small
    assert run(*args, '--steps', 7).returncode==0
    before = (tmp_path/'run/last.safetensors').read_bytes()
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    refused(run(*args, preexec_fn=limit), 'last.safetensors: cannot be written')
    assert (tmp_path/'run/last.safetensors').read_bytes()==before and not list(tmp_path.rglob('*.partial'))

def test_broken_pack(made, tmp_path):
    "A JPEG of the pack that cannot be decoded any more ends the run with one line"
    r = run('alexnet_prepare', made/'pictures', tmp_path/'pack', '--size', 64, '--storage', 'jpeg')
    assert r.returncode==0, r.stderr
    f = tmp_path/'pack/train_jpeg.bin'
    f.write_bytes(f.read_bytes()[:100_000] + b'\0'*(f.stat().st_size-100_000))
    t = time.time()
    refused(run('alexnet_train', tmp_path/'pack', '--run', tmp_path/'run', *small), 'a batch of epoch 1 cannot be read',
            '--verify')
    assert time.time()-t<60

def test_train_options(made, trained, tmp_path):
    "Fine-tuning, a budget of time, and what is refused"
    tune = 'alexnet_train', made/'pack', '--init_from', trained, '--rates', 'conv1=0,fc8=10', '--epochs', 3, '--keep', 1
    r = run(*tune, '--time_budget', '1s', '--run', tmp_path/'t')
    assert r.returncode==0 and 'the time is spent at step' in r.stderr+r.stdout and 'all layers copied' in r.stdout, r
    r = run(*tune, '--run', tmp_path/'t')
    assert r.returncode==0 and 'going on at step' in r.stdout, r.stderr
    assert equal({k:v for k,v in weights(trained).items() if 'conv1' in k}, {
        k:v for k,v in weights(tmp_path/'t').items() if 'conv1' in k})
    new = 'alexnet_train', made/'pack', '--run', tmp_path/'x'
    refused(run(*new, '--init_from', trained, '--width', .5), 'init_from: a network of width 0.25, not 0.5')
    refused(run(*new, '--rates', 'conv9=1'), 'no layer conv9')
    refused(run(*new, '--precision', 'fp8'), "precision 'fp8' is unknown")
    refused(run(*new, '--time_budget', 'soon'), "time_budget 'soon'")
    refused(run(*new, '--schedule', 'cosine'), "schedule 'cosine' is unknown; there are constant, short, paper")
    r = run(*tune, '--run', tmp_path/'t', '--precision', 'bf16', '--seed', 4)
    assert r.returncode==2 and not r.stdout and r.stderr.splitlines()[1:]==['  seed 0 (now 4)','  precision fp32 (now bf16)'], r
    assert not (tmp_path/'x').exists()

def test_tiny_imagenet(data_dir, tmp_path):
    "Real photographs go in and come out as a pack with the names of their classes"
    import tarfile
    with tarfile.open(data_dir/'tiny-imagenet-25.tar.xz') as t:
        keep = [m for m in t if m.name.endswith('words.txt') or m.isfile() and int(m.name.rsplit('_', 1)[-1].split('.')[0])%25==0]
        t.extractall(tmp_path/'src', keep, filter='data')
    src = next(o.parent for o in (tmp_path/'src').rglob('words.txt'))
    r = run('alexnet_prepare', src, tmp_path/'pack', '--size', 64)
    assert r.returncode==0, r.stderr
    from alexnet_nb.data import Pack
    p = Pack(tmp_path/'pack')
    assert p.n_classes==25 and 'goldfish' in p.names and p.meta['repairs']==0
    assert 90<p.mean.mean()<140 and p.pca['std'][0]>p.pca['std'][1]>p.pca['std'][2]

def test_ilsvrc_sample(data_dir, trained, tmp_path):
    "Original ILSVRC files: grey ones, tiny ones, long ones"
    files = sorted((data_dir/'ilsvrc-sample').glob('*.JPEG'))
    r = run('alexnet_predict', trained, *files, '--out', tmp_path/'p.png', '--views', 1)
    assert r.returncode==0, r.stderr
    assert all(f.name in r.stdout for f in files) and (tmp_path/'p.png').exists()
