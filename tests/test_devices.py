"Several processes and devices: the numbers of one, whatever is killed"
import json, os, signal, sys, time
from pathlib import Path

import pytest, torch
from safetensors.torch import load_file

from alexnet_nb.data import prepare
from alexnet_nb.engine.demo import demo
from alexnet_nb.tools.commands import alexnet_train
from alexnet_nb.train import Run, train
from conftest import call, fine, later, root, run, script, slow, start

torchrun = Path(sys.executable).parent/'torchrun'
small = '--width .125 --size 56 --batch_size 48 --device cpu --workers 1 --precision fp32'.split()
env = {'OMP_NUM_THREADS':'1'}

@pytest.fixture(scope='module')
def pack(tmp_path_factory):
    "250 images: five full batches of 48, and one of ten"
    d = tmp_path_factory.mktemp('pack')
    return prepare(demo(d/'pictures', n_train=25, n_val=3), d/'pack', size=64).path

def command(n, *args):
    "alexnet_train in n processes under torchrun"
    return [torchrun, '--standalone', '--nproc_per_node', n, '--no-python', '--', script('alexnet_train'), *args]

def go(n, *args):
    "Train in n processes, or in this one, to the end"
    return run(*command(n, *args), env=env, timeout=200) if n else call(alexnet_train, *args)

def ours(r):
    "The lines of stderr that are not torchrun's"
    return [o for o in (r if isinstance(r, str) else r.stderr).splitlines() if o.startswith('alexnet_train:')]

def tensors(run, name='model'): return load_file(Path(run)/f'{name}.safetensors')
def equal(a, b, name='model'):
    a,b = tensors(a, name),tensors(b, name)
    return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)
def difference(a, b, name='model'):
    a,b = tensors(a, name),tensors(b, name)
    assert a.keys()==b.keys()
    return max(((a[k]-b[k]).abs().max()/a[k].abs().max()).item() for k in a)
def told(folder): return [{k:v for k,v in o.items() if k!='images_per_s'} for o in Run(folder).rows()]

@pytest.fixture(scope='module')
def one(pack, tmp_path_factory):
    "One process, one device, never interrupted; conv1 is frozen on the way"
    d = tmp_path_factory.mktemp('one')/'run'
    return train(pack, d, width=.125, size=56, batch_size=48, epochs=3, schedule='log2012', device='cpu', precision='fp32',
                 say=lambda o: None).path

three = [*small, '--epochs', '3', '--schedule', 'log2012']

# --- The numbers of one

@pytest.mark.parametrize('n, more', [(0, ['--columns']), (2, []), later(2, ['--columns']), later(3, [])])
def test_equal(pack, one, tmp_path, n, more):
    "Columns, two and three processes, and both together, against one process on one device, to rounding"
    r = fine(go(n, pack, '--run', tmp_path/'run', *three, *more))
    d = difference(one, tmp_path/'run')
    assert 0<d<2e-5, d
    assert not any(tensors(tmp_path/'run')['conv1.weight'].isnan().flatten())
    a,b = told(one),told(tmp_path/'run')
    assert len(a)==len(b) and [o['step'] for o in a]==[o['step'] for o in b]
    for o,p in zip(a, b):
        for k in o.keys()&{'loss','val_loss','grad_norm','val_n','val_top1'}: assert o[k]==pytest.approx(p[k], rel=1e-4), k
        for k,v in o.get('dead', {}).items(): assert v==pytest.approx(p['dead'][k], abs=.02), k
    assert {o['val_n'] for o in b if 'val_n' in o}=={30} # each validation image once
    assert r.stdout.count('epoch 3 of 3')==1 and r.stdout.count('ten views')==1
    assert not list(tmp_path.rglob('*.partial'))
    card = json.loads((tmp_path/'run/card.json').read_text())
    assert ('two columns' in card['device'])==bool(more) and (f'{n} processes' in card['device'])==(n>1)

double = '''
import sys, torch, torch.nn.functional as F
from alexnet_nb.augment import Augment
from alexnet_nb.data import Loader, Pack, part
from alexnet_nb.dropout import set_share, share_masks
from alexnet_nb.engine.core import mix
from alexnet_nb.engine.parallel import join, wrap_network
from alexnet_nb.model import AlexNet, save_weights
from alexnet_nb.split import columns
from alexnet_nb.train import SGD2012
folder,out,cols,spec = sys.argv[1:]
def work(w): # what is in here does not outlive the connection
    pack = Pack(folder)
    m = AlexNet(spec, pack.n_classes, .125, 63, seed=0).double()
    if cols=='1': m = columns(m, w.devices)
    masks = share_masks(m)
    net,opt,aug = wrap_network(m, w),SGD2012(m, .001, .002),Augment(pack, m.spec, 63)
    ld = Loader(pack, bs=83, seed=0, rank=w.rank, world=w.size) # the last batch has one image
    for step,(xb,yb) in enumerate(ld):
        if step==1: opt.scale(lambda name: 0 if 'conv1' in name else 1)
        n = [83,83,83,1][step]
        a,k = part(n, w.rank, w.size)
        set_share(masks, a, n)
        torch.manual_seed(mix(0, 2, step))
        loss = F.cross_entropy(net(aug(xb, mix(0, 1, step), a, n).double())[:k], yb[:k], reduction='sum')*(w.size/n)
        loss.backward(); opt.step(); opt.zero_grad()
    w.run_on_rank0(lambda: save_weights(m, out))
with join('cpu', cols=='1') as w: work(w)
'''

@slow
@pytest.mark.parametrize('spec, ways', [('code2012', ((1,'1'), (2,'0'), (3,'1'))), ('torchvision', ((2,'0'),))])
def test_double(pack, tmp_path, spec, ways):
    "In float64 the differences are those of float64: masks, crops, shares and the freezing of a layer are the same"
    (tmp_path/'steps.py').write_text(double)
    def steps(n, cols):
        out = tmp_path/f'{n}{cols}'
        out.mkdir()
        fine(run(torchrun, '--standalone', '--nproc_per_node', n, tmp_path/'steps.py', pack, out/'model.safetensors', cols,
                 spec, env=env))
        return out
    want = steps(1, '0')
    for w in ways: assert difference(want, steps(*w))<1e-12, w

# --- Checkpoints move

@slow
def test_transitions(pack, one, tmp_path):
    "One process, then columns, then two processes, then both, then one again: the run is as if nothing had changed"
    folder = tmp_path/'run'
    for n,steps,more in ((0, 4, []), (0, 7, ['--columns']), (2, 10, []), (2, 14, ['--columns'])):
        r = fine(go(n, pack, '--run', folder, *three, *more, '--steps', steps))
        assert steps==4 or 'going on at step' in r.stdout
    fine(go(0, pack, '--run', folder, *three))
    d = difference(one, folder)
    assert 0<d<2e-5, d
    assert [o['step'] for o in told(folder)]==[o['step'] for o in told(one)]
    assert set(tensors(folder, 'last'))==set(tensors(one, 'last')) # files know nothing of columns

# --- What is killed

long = [*small, '--epochs', '12']

@pytest.fixture(scope='module')
def two(pack, tmp_path_factory):
    "Two processes, never interrupted"
    d = tmp_path_factory.mktemp('two')/'run'
    fine(go(2, pack, '--run', d, *long))
    return d

def children(p):
    "Process ids of the ranks of a torchrun"
    res = {}
    for f in Path('/proc').glob('[0-9]*/environ'):
        try:
            if f'\nPPid:\t{p.pid}\n' not in (f.parent/'status').read_text(): continue
            e = dict(o.split('=', 1) for o in f.read_text().split('\0') if '=' in o)
        except OSError: continue
        if 'LOCAL_RANK' in e: res[int(e['RANK'])] = int(f.parent.name)
    return res

def under_way(pack, folder, *more, n=2, lines=15, **env_):
    "Start, and wait until the run is in the middle"
    p,log = start(*command(n, pack, '--run', folder, *long, *more), env={**env, **env_}),folder/'log.jsonl'
    p.wait_for(lambda: log.exists() and log.read_text().count('\n')>=lines)
    return p, children(p)

def finished(p, kids, folder, timeout=60):
    "It has ended, and nothing of it is left"
    p.wait(timeout)
    assert p.returncode and not (folder/'model.safetensors').exists(), 'it was over before it was interrupted'
    for k in kids.values(): assert not Path(f'/proc/{k}').exists()
    return p.stdout, p.stderr

lost = 'the connection to the other processes is lost'

@pytest.mark.parametrize('rank', [later(0), 1])
def test_killed(pack, two, tmp_path, rank):
    "kill -9 of a process ends the other with one line, soon; the same command goes on, also after Ctrl-C, to the same end"
    folder = tmp_path/'run'
    p,kids = under_way(pack, folder)
    t = time.time()
    os.kill(kids[rank], signal.SIGKILL)
    out,err = finished(p, kids, folder)
    assert time.time()-t<30
    said, = ours(err)
    assert lost in said or 'ended by a signal; the same command goes on' in said, err # torchrun may be quicker
    p,kids = under_way(pack, folder, lines=30)
    os.kill(p.pid, signal.SIGINT)
    out,err = finished(p, kids, folder)
    r = fine(go(2, pack, '--run', folder, *long))
    assert f'going on at step {stopped_at(err)} of 72' in r.stdout
    assert equal(folder, two) and equal(folder, two, 'last') and told(folder)==told(two)

def stopped_at(err):
    "The step after which all have stopped, with one line"
    line, = ours(err)
    assert 'the same command goes on' in line, err
    return line.split('stopped at step ')[1].split()[0]

def test_stops_answering(pack, tmp_path):
    "A process that is stopped without dying: the other waits as long as it was told, and ends"
    folder = tmp_path/'run'
    place = {**env, 'WORLD_SIZE':'2', 'MASTER_ADDR':'127.0.0.1', 'MASTER_PORT':str(28_500+os.getpid()%1000),
             'ALEXNET_NB_TIMEOUT':'5'}
    ps = [start(script('alexnet_train'), pack, '--run', folder, *long, env={**place, 'RANK':str(i)}) for i in (0, 1)]
    log = folder/'log.jsonl'
    ps[0].wait_for(lambda: log.exists() and log.read_text().count('\n')>=10)
    ps[1].send(signal.SIGSTOP)
    t = time.time()
    assert ps[0].wait(60).returncode==2 and time.time()-t<20, ps[0].stderr
    assert len(ours(ps[0]))==1 and lost in ours(ps[0])[0] and 'within 5 s' in ours(ps[0])[0], ps[0].stderr
    assert (folder/'last.safetensors').exists()

@slow
def test_hangs(pack, two, tmp_path):
    "The same under torchrun, which gives a process thirty seconds to end before it kills it"
    folder = tmp_path/'run'
    p,kids = under_way(pack, folder, ALEXNET_NB_TIMEOUT='5')
    t = time.time()
    os.kill(kids[1], signal.SIGSTOP)
    out,err = finished(p, kids, folder)
    assert 30<time.time()-t<50
    assert len(ours(err))==1 and lost in ours(err)[0] and 'within 5 s' in ours(err)[0], err
    fine(go(2, pack, '--run', folder, *long))
    assert equal(folder, two)

@slow # SIGINT to torchrun: see test_killed
@pytest.mark.parametrize('sig, to', [('SIGTERM','torchrun'), ('SIGTERM',1), ('SIGINT',0)])
def test_stopped(pack, two, tmp_path, sig, to):
    "Ctrl-C and SIGTERM, whoever gets them, stop all after the same step, with one checkpoint and one line"
    folder = tmp_path/'run'
    p,kids = under_way(pack, folder)
    os.kill(p.pid if to=='torchrun' else kids[to], getattr(signal, sig))
    out,err = finished(p, kids, folder)
    r = fine(go(2, pack, '--run', folder, *long))
    assert f'going on at step {stopped_at(err)} of 72' in r.stdout
    assert equal(folder, two)

@slow
def test_restarts(pack, two, tmp_path):
    "torchrun starts a broken run again, if it is told to, and the run goes on"
    folder = tmp_path/'run'
    cmd = command(2, pack, '--run', folder, *long)
    p = start(cmd[0], '--max-restarts=2', *cmd[1:], env=env)
    p.wait_for((folder/'best.safetensors').exists)
    os.kill(children(p)[1], signal.SIGKILL)
    assert 'going on at step' in fine(p.wait()).stdout
    assert equal(folder, two)

def machines(*args, cwd=None):
    "Two torchruns of one process each, as on two machines; each in a folder of its own if there is one to make them in"
    port = 29_500+os.getpid()%1000
    ps = []
    for i in (0, 1):
        where = cwd/f'machine{i}' if cwd else root
        where.mkdir(exist_ok=True)
        ps.append(start(torchrun, '--nnodes=2', f'--node_rank={i}', '--master_addr=127.0.0.1', f'--master_port={port}',
            '--nproc_per_node=1', '--no-python', '--', script('alexnet_train'), *args, cwd=where,
            env={**env, 'ALEXNET_NB_TIMEOUT':'20'}))
    return ps

@slow
def test_two_machines(pack, one, tmp_path):
    "Two machines that share no folder: one of them writes"
    for p in machines(pack, '--run', 'run', *three, cwd=tmp_path): fine(p.wait())
    assert 0<difference(one, tmp_path/'machine0/run')<2e-5 and not list((tmp_path/'machine1').iterdir())

@pytest.mark.parametrize('which, again', [(1, False), later(0, True), later(1, True)])
def test_lost_machine(pack, two, tmp_path, which, again):
    "A machine that goes away with all of its processes ends the job of the other; the same commands go on"
    folder = tmp_path/'run'
    ps = machines(pack, '--run', folder, *long)
    log = folder/'log.jsonl'
    ps[0].wait_for(lambda: log.exists() and log.read_text().count('\n')>=15)
    t = time.time()
    ps[which].end()
    other = ps[1-which].wait(60)
    assert other.returncode and time.time()-t<40 and not (folder/'model.safetensors').exists()
    assert len(ours(other))==1 and lost in ours(other)[0], other.stderr
    if again:
        for p in machines(pack, '--run', folder, *long): fine(p.wait())
        assert equal(folder, two) and told(folder)==told(two)

# --- What is refused

@slow # the next test has one refusal
@pytest.mark.parametrize('args, says', [(['--spec','resnet'], "'resnet' is unknown"), (['--device','cpu,nowhere'], 'nowhere'),
    (['--device','cpu,cpu,cpu'], '3 named'), (['--columns','--spec','torchvision'], 'cannot be split'), (['--lr','-1'], 'lr -1')])
def test_refused_once(pack, tmp_path, args, says):
    "A refusal of all processes, or of one, is one line; torchrun adds its report and makes the exit code 1"
    r = go(2, pack, '--run', tmp_path/'run', *three, *args)
    assert r.returncode==1 and len(ours(r))==1 and says in ours(r)[0], r.stderr
    assert 'exitcode  : 2' in r.stderr and not (tmp_path/'run').exists()

def test_other_settings(pack, one, tmp_path):
    "Only the first process reads the run, and all hear of it"
    r = go(2, pack, '--run', one, *three, '--lr', .02)
    assert len(ours(r))==1 and 'lr 0.01 (now 0.02)' in ours(r)[0], r.stderr
    assert r.returncode==1 and 'exitcode  : 2' in r.stderr
