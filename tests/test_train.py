"Training: what makes a resumed run the same run, and what is said when it goes wrong"
import builtins, copy, errno, itertools, json, math, os, pickle, shutil, signal, sys, threading, time, types
from dataclasses import replace
from pathlib import Path

import pytest, torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

import alexnet_nb.engine.machine as M
import alexnet_nb.engine.runs as R
import alexnet_nb.train as T
from alexnet_nb.data import Loader, prepare
from alexnet_nb.engine.core import Refusal, Stopped, Unwritable, mix
from alexnet_nb.engine.demo import demo
from alexnet_nb.engine.machine import arithmetic, parse_time
from alexnet_nb.model import AlexNet, get_spec, load_weights, save_weights
from alexnet_nb.split import columns
from alexnet_nb.engine.runs import locked
from alexnet_nb.train import SGD2012, Run, Training, settings, train, train_step
from conftest import later, slow

small = dict(width=.125, size=56, batch_size=100, epochs=4, precision='fp32', say=lambda s: None)

@pytest.fixture(scope='module')
def pack(tmp_path_factory):
    d = tmp_path_factory.mktemp('pack')
    return prepare(demo(d/'pictures', n_train=26, n_val=5), d/'pack', size=64)

@pytest.fixture(scope='module')
def long(pack, tmp_path_factory):
    "A run of ten epochs with schedule paper, never interrupted"
    return train(pack, tmp_path_factory.mktemp('long')/'run', **plateau)

plateau = {**small, 'epochs':10, 'schedule':'paper', 'keep':2}

def bits(run):
    "All weights of a run: of its end, its best and its other checkpoints"
    return {f.name:load_file(f) for f in Path(run).glob('*.safetensors')}

def same(a, b):
    a,b = bits(a),bits(b)
    assert a.keys()==b.keys()
    for f in a:
        assert a[f].keys()==b[f].keys()
        for k in a[f]: assert torch.equal(a[f][k], b[f][k]), (f, k)

def told(run): return [{k:v for k,v in o.items() if k!='images_per_s'} for o in Run(run).rows()]

def trainer(pack, **kw):
    cfg = settings(pack, **{k:v for k,v in {**small, **kw}.items() if k!='say'})
    return Training(pack, cfg)

# --- The update rule

def test_optimizer_travels(pack):
    "Pickled, or through its state dict, an optimizer goes on as before; layers of columns go by their own names"
    net = AlexNet(width=.125, size=56, n_classes=4, seed=0)
    opt = SGD2012(net, rates=dict(conv1=.5))
    def go(net, opt, n):
        for i in range(n):
            F.cross_entropy(net(torch.full((4,3,56,56), float(i))), torch.arange(4)).backward()
            opt.step(); opt.zero_grad()
    net.eval(); go(net, opt, 2)
    net2,opt2 = pickle.loads(pickle.dumps((net, opt)))
    net3 = copy.deepcopy(net)
    opt3 = SGD2012(net3, rates=dict(conv1=.5))
    opt3.load_state_dict(copy.deepcopy(opt.state_dict()))
    for o in ((net,opt), (net2,opt2), (net3,opt3)): go(*o, 2)
    for n in (net2, net3):
        for a,b in zip(net.parameters(), n.parameters()): assert torch.equal(a, b)
    cols = SGD2012(columns(net, ('cpu','cpu')), rates=dict(conv1=0, fc8=10))
    assert {g['name']:g['lr'] for g in cols.param_groups if 'weight' in g['name'] and g['lr']!=.01}=={
        'a.conv1.weight':0., 'b.conv1.weight':0., 'a.fc8.weight':.1}

def test_many_tensors(pack):
    "Groups that share their rates are updated together: as many calls for sixteen tensors as for two"
    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kw=None):
            seen.append(f.name().split('.')[0].removeprefix('aten::'))
            return f(*args, **(kw or {}))
    net = AlexNet(width=.125, size=56, n_classes=4, seed=0)
    opt = SGD2012(net)
    for _ in range(2):
        seen = []
        F.cross_entropy(net(torch.randn(4,3,56,56)), torch.arange(4)).backward()
        with Count(): opt.step()
    assert [o for o in seen if 'profiler' not in o]==['_fused_sgd_']*2

def test_fused(monkeypatch):
    "One pass gives what four give; in all layouts, and where one of three tensors lies otherwise the four are taken"
    def last(x): return x.to(memory_format=torch.channels_last)
    shapes = (96,3,11,11),(256,48,5,5),(128,256),(10,),(4,1,1,1),()
    calls = []
    fused = T.fused_momentum
    def spy(*args):
        fits = fused(*args)
        if fits: calls.append('once')
        return fits
    monkeypatch.setattr(T, 'fused_momentum', spy)
    def go(ps, gs, vs, wd):
        net = torch.nn.ParameterDict({f'{i}weight':torch.nn.Parameter(p.clone()) for i,p in enumerate(ps)})
        opt = SGD2012(net, lr=.03, weight_decay=wd)
        for p,g,v in zip(net.values(), gs, vs): p.grad = g.clone(); opt.state[p]['v'] = v.clone()
        before,n = [p.grad.clone() for p in net.values()],len(calls)
        opt.step()
        for p,g in zip(net.values(), before): assert torch.equal(p.grad, g)
        return calls[n:], [p.detach() for p in net.values()], [opt.state[p]['v'] for p in net.values()]
    for wd in (0., 5e-4):
        ps,gs,vs = ([torch.randn(s, dtype=torch.float64) for s in shapes] for _ in range(3))
        want = [.9*v-wd*.03*p-.03*g for p,g,v in zip(ps, gs, vs)]
        for how,a,b,c in ((['once'],0,0,0), (['once'],1,1,1), ([],1,0,0), ([],0,1,0), ([],0,0,1)):
            lists = [[last(o) if k and o.ndim==4 else o for o in os] for k,os in zip((a,b,c), (ps,gs,vs))]
            used,p,v = go(*lists, wd)
            assert used==how, (a, b, c)
            for o,q,w,u in zip(p, ps, want, v):
                torch.testing.assert_close(u, w, rtol=1e-13, atol=1e-14); torch.testing.assert_close(o, q+w, rtol=1e-13, atol=1e-14)

# --- A step

def test_no_waiting(pack):
    "No step asks the device for a number"
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kw=None):
            assert 'local_scalar' not in f.name() and 'nonzero' not in f.name(), f
            return f(*args, **(kw or {}))
    t = trainer(pack)
    class Aug(types.SimpleNamespace): # on a CPU its loops ask
        def __call__(self, xb, seed, *share): return torch.randn(len(xb), 3, 56, 56)
    t.aug = Aug(spec=t.aug.spec)
    for n in (100, 100, 60):
        with Watch(): train_step(t, torch.zeros(n, 64, 64, 3, dtype=torch.uint8), torch.arange(n)%10, due=n<100)
    assert t.observer.read()['grad_norm']>0 and t.sums[1,2]==260

def test_watch(pack):
    "Dead units and the norm of the gradient are what one would count"
    t = trainer(pack)
    with torch.no_grad(): t.model.fc6.bias.fill_(-1e6); t.model.conv3.bias[:12] = -1e6
    xb,yb = next(t.stream(1))
    got = {}
    t.opt.register_step_pre_hook(lambda *_: got.update(
        norm=torch.cat([p.grad.flatten() for p in t.model.parameters()]).norm().item()))
    torch.manual_seed(mix(0, 2, 0))
    y = t.model(t.aug(xb, mix(0, 1, 0)), upto='conv3')
    train_step(t, xb, yb, due=True)
    seen = t.observer.read()
    assert list(seen['dead'])==['conv1','conv2','conv3','conv4','conv5','fc6','fc7']
    assert seen['dead']['fc6']==1 and seen['dead']['conv3']==pytest.approx((y.amax((0,2,3))==0).float().mean().item())
    assert seen['dead']['conv3']>=.25
    assert seen['grad_norm']==pytest.approx(got['norm'], rel=1e-5)

def test_small_batches_stay_plain(pack):
    "The last batch of an epoch is smaller; it passes by the compiled network"
    t,seen = trainer(pack, epochs=2),[]
    def fast(x): seen.append(len(x)); return t.model(x)
    t.net = fast
    batches = t.stream(1)
    while t.step<t.total: train_step(t, *next(batches))
    assert t.total==6 and seen==[100]*4

def test_frozen_by_schedule(pack):
    "conv1 is not computed and does not move once log2012 has put it to rest"
    t = trainer(pack, schedule='log2012', epochs=20)
    t.step = round(.9*t.total)
    xb,yb = next(t.stream(1))
    before = t.model.conv1.weight.clone()
    train_step(t, xb, yb)
    assert not t.model.conv1.weight.requires_grad and torch.equal(before, t.model.conv1.weight) and not t.aug.colour

def test_precision(pack, tmp_path):
    "fp32 is fp32 on a GPU too; bf16 is another run, and resumes as exactly; what is global is put back"
    cuda,cudnn = torch.backends.cuda.matmul,torch.backends.cudnn
    was = cuda.allow_tf32,cudnn.allow_tf32,cudnn.benchmark
    for p,tf in (('fp32',False), ('tf32',True), ('bf16',True)):
        with arithmetic(p, torch.device('cuda')): assert (cuda.allow_tf32,cudnn.allow_tf32)==(tf,tf)
        assert (cuda.allow_tf32,cudnn.allow_tf32,cudnn.benchmark)==was
    with pytest.raises(Refusal, match='only a GPU'): settings(pack, precision='tf32')
    assert settings(pack, precision='tf32', gpu=True)['precision']=='tf32'
    kw = {**small, 'epochs':1}
    half = {**kw, 'precision':'bf16'}
    a = train(pack, tmp_path/'a', **half)
    train(pack, tmp_path/'b', steps=1, **half)
    b = train(pack, tmp_path/'b', **{**half, 'precision':'auto'}) # takes what the run has
    same(a.path, b.path)
    c = train(pack, tmp_path/'c', **kw)
    assert train(pack, c.path, **{**kw, 'precision':'auto'}).config['precision']=='fp32'
    x,y = (o.rows()[0]['loss'] for o in (a, c))
    assert x!=y and x==pytest.approx(y, rel=.02)
    with pytest.raises(Refusal, match='precision bf16 .now fp32.'): train(pack, a.path, **kw)

@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_kinds_of_numbers(pack, monkeypatch, precision):
    "What is summed is float32 in each precision: weights, velocities, the gradients of the update, logits and loss"
    seen = {}
    real = T.step
    def look(net, x, y, opt, *args):
        loss,logits = real(net, x, y, opt, *args)
        seen.update(loss=loss, logits=logits)
        return loss,logits
    def update(ps, gs, vs, *constants):
        seen.update({f'weight {i}':p for i,p in enumerate(ps)}, gradient=gs[0], velocity=vs[0])
    monkeypatch.setattr(T, 'step', look)
    monkeypatch.setattr(T, '_update', update)
    t = trainer(pack, precision=precision, batch_size=4)
    train_step(t, *next(t.stream(1)))
    assert {'loss', 'logits', 'gradient', 'velocity'}<seen.keys() and {o.dtype for o in seen.values()}=={torch.float32}
    assert t.model.conv2.weight.is_contiguous(memory_format=torch.channels_last)==(precision=='bf16')

def test_keeps_its_precision(pack, tmp_path, monkeypatch):
    "A run in bf16 goes on in bf16 where there are no instructions for it, and says that this is slow"
    said = []
    kw = {**small, 'epochs':1, 'batch_size':130, 'device':'cpu', 'say':said.append}
    train(pack, tmp_path/'a', steps=1, **{**kw, 'precision':'bf16'})
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2') # libraries that are loaded do not look at it again
    a = train(pack, tmp_path/'a', **{**kw, 'precision':'auto'})
    assert a.done and a.config['precision']=='bf16' and sum('as this run began; slow here: ONEDNN' in o for o in said)==1
    b = train(pack, tmp_path/'b', steps=1, **{**kw, 'precision':'auto'})
    assert b.config['precision']=='fp32' and 'precision fp32: ONEDNN_MAX_CPU_ISA=AVX2 forbids' in said[-1]+said[-2], said

def test_channels_last(pack, tmp_path):
    "The order in memory is no setting: a run may begin in one and end in the other"
    a = train(pack, tmp_path/'a', **small)
    train(pack, tmp_path/'b', steps=5, channels_last=True, **small)
    b = train(pack, tmp_path/'b', **small)
    for k,v in bits(a.path)['model.safetensors'].items():
        torch.testing.assert_close(v, bits(b.path)['model.safetensors'][k], rtol=1e-4, atol=1e-5)

@pytest.mark.skipif('ALEXNET_NB_LONG' not in os.environ, reason='compiling takes minutes: set ALEXNET_NB_LONG')
def test_compile(pack, tmp_path):
    "Compiled, the network learns the same with the same masks; nothing is compiled again after the first step"
    from torch._dynamo.utils import counters
    counters.clear()
    a,b = (train(pack, tmp_path/str(c), compile=c, **{**small, 'batch_size':64}) for c in (False, True))
    for k,v in bits(a.path)['model.safetensors'].items():
        torch.testing.assert_close(v, bits(b.path)['model.safetensors'][k], rtol=1e-3, atol=1e-4)
    assert counters['stats']['unique_graphs']==1 and not counters['graph_break']

# --- Schedules and checkpoints

def test_plateau(long):
    "The rates follow the validation errors: a drop after each epoch without a new best, three times, and no more"
    rows = long.rows()
    val = [o['val_top1'] for o in rows if 'val_top1' in o]
    n = [T.SCHEDULES['paper'].dropped(val[:i], 10) for i in range(11)]
    assert n[-1]==3, 'the run must have dropped three times to be a test'
    for o in rows:
        if 'lr' in o: assert o['lr']==pytest.approx(.01*.1**n[math.ceil(o['epoch'])-1]), o
    assert sorted(bits(long.path))==['best.safetensors','last.safetensors','model.safetensors',
                                     'step-000027.safetensors','step-000030.safetensors']
    with safe_open(long.path/'best.safetensors', 'pt') as f: step = int(f.metadata()['step'])
    assert step==3*(1+val.index(min(val)))

@pytest.mark.parametrize('at', [later((1,)), (4,20), (9,18,27), later((29,))])
def test_resumed(pack, long, tmp_path, at):
    "Stopped after some steps, in the middle of an epoch or at its end: all checkpoints and the log are the same"
    for n in at: assert not train(pack, tmp_path/'run', steps=n, **plateau).done
    train(pack, tmp_path/'run', **plateau)
    same(long.path, tmp_path/'run')
    for f in long.path.glob('*.safetensors'): assert f.read_bytes()==(tmp_path/'run'/f.name).read_bytes() # not the numbers alone
    assert told(long.path)==told(tmp_path/'run')

class Killed(BaseException): pass

@pytest.mark.parametrize('name, call', [('link_file',1), later('link_file',2), ('link_file',5), later('save_weights',3), ('save_weights',11)])
@pytest.mark.parametrize('when', ['before', 'after'])
def test_killed_between(pack, long, tmp_path, monkeypatch, name, call, when):
    "Killed right before or after a file of the end of an epoch is written"
    module = R if name=='link_file' else T
    old,calls = getattr(module, name),[]
    def die(*args, **kw):
        calls.append(0)
        if when=='after': old(*args, **kw)
        if len(calls)==call: raise Killed
        if when=='before': old(*args, **kw)
    with monkeypatch.context() as m:
        m.setattr(module, name, die)
        with pytest.raises(Killed): train(pack, tmp_path/'run', **plateau)
    train(pack, tmp_path/'run', **plateau)
    same(long.path, tmp_path/'run')
    assert told(long.path)==told(tmp_path/'run') and not list(tmp_path.rglob('*.partial'))

def test_lines_of_many_steps(pack, tmp_path, monkeypatch):
    "The sums of a line that is not yet written are in the checkpoint"
    init = Training.__init__
    def slow(self, *args): init(self, *args); self.every = 7
    monkeypatch.setattr(Training, '__init__', slow)
    a = train(pack, tmp_path/'a', **small)
    for n in (1, 5, 8): train(pack, tmp_path/'b', steps=n, **small)
    train(pack, tmp_path/'b', **small)
    assert told(a.path)==told(tmp_path/'b')
    same(a.path, tmp_path/'b')

def test_old_runs(pack, tmp_path):
    "A run from before there were precision, rates, sums and kept errors goes on as if it had them"
    new = train(pack, tmp_path/'new', **small)
    old = train(pack, tmp_path/'old', steps=7, **small).path
    cfg = json.loads((old/'config.json').read_text())
    (old/'config.json').write_text(json.dumps({k:v for k,v in cfg.items() if k not in ('precision','rates','init_from')}))
    f = old/'last.safetensors'
    with safe_open(f, 'pt') as o: meta = {k:v for k,v in o.metadata().items() if k!='val'}
    save_file({k:v for k,v in load_file(f).items() if k!='sums'}, f, meta)
    assert Run(old).config['precision']=='fp32'
    train(pack, old, **small)
    same(new.path, old)

def test_mismatch(pack, tmp_path):
    "Each setting that differs is named, on a line of its own"
    train(pack, tmp_path/'a', steps=1, **small)
    with pytest.raises(Refusal) as e:
        train(pack, tmp_path/'a', **{**small, 'lr':.02, 'seed':3, 'precision':'bf16', 'rates':'conv1=0', 'schedule':'exp'})
    lines = str(e.value).split('\n  ')
    for o in ('lr 0.01 (now 0.02)', 'seed 0 (now 3)', 'schedule short (now exp)', 'precision fp32 (now bf16)',
              "rates None (now {'conv1': 0.0})"): assert o in lines, e.value
    assert len(lines)==6

def test_two_trainings(pack, tmp_path):
    "Of two trainings in one folder the second is refused; afterwards the folder is free again"
    run = train(pack, tmp_path/'a', steps=1, **small)
    before = bits(run.path)
    with locked(run), pytest.raises(Refusal, match='another training is at work in this folder'):
        train(pack, run.path, **small)
    assert bits(run.path).keys()==before.keys()
    assert train(pack, run.path, **small).done

def test_deterministic(pack, tmp_path, monkeypatch):
    "On a CPU it changes nothing, and is undone; an operation that cannot repeat itself is named in one line"
    a,b = (train(pack, tmp_path/o, steps=5, deterministic=o=='b', **small) for o in 'ab')
    same(a.path, b.path)
    assert not torch.are_deterministic_algorithms_enabled()
    def step(*a, **kw):
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError('upsample_cuda does not have a deterministic implementation, but you set …\nmore')
    monkeypatch.setattr(T, 'train_step', step)
    with pytest.raises(Refusal, match='^cpu: --deterministic: upsample_cuda does not have .* but you set …$'):
        train(pack, tmp_path/'c', deterministic=True, **small)

def test_time_budget(pack, tmp_path):
    t = time.time()
    a = train(pack, tmp_path/'a', **small)
    said,b,budget = [],tmp_path/'b',f'{(time.time()-t)/4:.3f}s'
    for _ in range(100):
        if train(pack, b, time_budget=budget, **{**small, 'say':said.append}).done: break
    assert any('the time is spent at step' in o and 'the same command goes on' in o for o in said), said
    same(a.path, b)
    assert [parse_time(o) for o in (2, '90m', '2h', '1.5', '30s', None)]==[120, 5400, 7200, 90, 30, math.inf]
    for o in ('soon', '-3', '0', ''):
        with pytest.raises(Refusal, match='time_budget'): parse_time(o)

# --- Folders that were damaged, moved, linked

@pytest.fixture(scope='module')
def left(pack, tmp_path_factory):
    "The same run, left in its eighth epoch"
    run = tmp_path_factory.mktemp('left')/'run'
    train(pack, run, steps=22, **plateau)
    return run

def zeros(f): f.write_bytes(bytes(f.stat().st_size))
def half(f): f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
def empty(f): f.write_bytes(b'')
def gone(f): f.unlink()
def hole(f): data = f.read_bytes(); f.write_bytes(data[:-4096]+bytes(4096))

@pytest.mark.parametrize('damage', [zeros, half, empty, gone, hole])
def test_damaged_checkpoint(pack, long, left, tmp_path, damage):
    "After a power failure a run goes on from the newest checkpoint that is whole, says so, and ends as if nothing had been"
    run = shutil.copytree(left, tmp_path/'run') # copies, no links
    damage(run/'last.safetensors')
    if damage is zeros: damage(run/'step-000021.safetensors')
    said = []
    train(pack, run, **{**plateau, 'say':said.append})
    step = 18 if damage is zeros else 21
    assert any(f'going on at step {step} of 30' in o for o in said)
    assert damage is gone or 'last.safetensors: ' in said[0] and f'taking step-{step:06d}.safetensors' in said[0], said
    same(long.path, run)
    assert told(long.path)==told(run)

def test_nothing_is_whole(pack, left, tmp_path):
    run = shutil.copytree(left, tmp_path/'run')
    for f in run.glob('*.safetensors'): zeros(f)
    with pytest.raises(Refusal, match='last.safetensors: .*; no checkpoint is whole: remove them to begin anew, or choose another --run'): train(pack, run, **plateau)

def test_damaged_result(pack, long, tmp_path):
    "A result that was damaged is written again"
    run = shutil.copytree(long.path, tmp_path/'run')
    zeros(run/'model.safetensors')
    assert train(pack, run, **plateau).done
    same(long.path, run)

@pytest.mark.parametrize('change, says', [
    (lambda ts,meta: meta.update(step='31'), 'is of step 31, and the run has 30'),
    (lambda ts,meta: meta.update(step='-1'), 'expected int >= 0'), (lambda ts,meta: meta.update(step='many'), 'last.safetensors'),
    (lambda ts,meta: meta.pop('step'), "no 'step'"), (lambda ts,meta: meta.update(val='[2]'), 'expected float <= 1.0'),
    (lambda ts,meta: meta.update(val='['*99999), 'nested too deep'),
    (lambda ts,meta: ts.update({'velocity.conv1.bias':torch.zeros(1)}), 'velocity.conv1.bias: has another shape'),
    (lambda ts,meta: ts.update(sums=torch.zeros(3)), 'sums: has another shape'),
    (lambda ts,meta: ts.update(sums=ts['sums']+1), 'sums: not the numbers that were written'),
    (lambda ts,meta: ts['velocity.fc8.weight'].fill_(math.nan), 'velocity.fc8.weight: has another shape, or holds what is no number')])
def test_odd_checkpoint(pack, left, tmp_path, change, says):
    "A checkpoint is compared with the run before anything of it is used"
    run = shutil.copytree(left, tmp_path/'run')
    for o in ('best', 'step-000018', 'step-000021'): (run/f'{o}.safetensors').unlink()
    f = run/'last.safetensors'
    with safe_open(f, 'pt') as o: meta = o.metadata()
    ts = load_file(f)
    change(ts, meta)
    if 'sum' not in says: meta.pop('crc32')
    save_file(ts, f, meta)
    with pytest.raises(Refusal) as e: train(pack, run, **plateau)
    assert says in str(e.value) and '\n' not in str(e.value), e.value

def test_checkpoint_of_another(pack, left, tmp_path):
    run = shutil.copytree(left, tmp_path/'run')
    for f in run.glob('*.safetensors'): f.unlink()
    save_weights(AlexNet(width=.25, size=56, n_classes=10, seed=0), run/'last.safetensors', note=dict(step=1))
    with pytest.raises(Refusal, match='is of another network'): train(pack, run, **plateau)

def test_damaged_log(pack, long, left, tmp_path):
    "Lines that are damaged, doubled or out of order, and lines of steps that are not in the checkpoint"
    run = shutil.copytree(left, tmp_path/'run')
    log = run/'log.jsonl'
    lines = log.read_bytes().splitlines(keepends=True)
    later = b'{"step": 29, "epoch": 9.6, "loss": 1.0}\n'
    log.write_bytes(b''.join([*lines[5:], lines[3], later, *lines[:5], b'\0'*99+b'\n', b'\xff\n', b'{}\n', b'['*99999+b'\n', b'{"step": 22, "lo']))
    train(pack, run, **plateau)
    assert told(long.path)==told(run)

@pytest.mark.parametrize('text', [b'', b'\0'*99, b'[1]', b'null', b'['*99999, b'\xff', b'{}', b'{"lr": "x"}'])
def test_damaged_config(pack, left, tmp_path, text):
    run = shutil.copytree(left, tmp_path/'run')
    (run/'config.json').write_bytes(text)
    with pytest.raises(Refusal, match='config.json: .*; choose another --run'): train(pack, run, **plateau)

@pytest.mark.parametrize('change', [dict(lr=0), dict(lr=math.nan), dict(width=-1.), dict(epochs='many'), dict(seed=1.5), dict(size=True),
    dict(batch_size=0), dict(batch_size=2**70), dict(schedule='x'), dict(precision='fp8'), dict(rates=dict(conv9=1)), dict(rates=[1]),
    dict(rates=dict(conv1=-1)), dict(spec='x'), dict(spec={}), dict(spec=dict(name='x', layers=3)), dict(pack_sha256='x'), dict(init_from=3)])
def test_odd_config(left, tmp_path, change):
    "Settings in a file are read with the ranges that settings of a user have"
    run = shutil.copytree(left, tmp_path/'run')
    cfg = json.loads((run/'config.json').read_text())
    (run/'config.json').write_text(json.dumps({**cfg, **change}))
    with pytest.raises(Refusal) as e: Run(run)
    assert 'config.json: ' in str(e.value) and '\n' not in str(e.value), e.value

def test_newer_settings(pack, left, tmp_path):
    "A setting that this version does not know is named before anything goes on; the run can be opened"
    run = shutil.copytree(left, tmp_path/'run')
    cfg = json.loads((run/'config.json').read_text())
    (run/'config.json').write_text(json.dumps({**cfg, 'sharpness':2}))
    with pytest.raises(Refusal, match='sharpness 2 .unknown to this version.'): train(pack, run, **plateau)
    assert Run(run).config['sharpness']==2

def test_pack_moved(long, tmp_path):
    "A pack of another name is the same pack; another one of the same name is not"
    a = prepare(demo(tmp_path/'pictures', n_train=26, n_val=5), tmp_path/'a', size=64).path
    train(a, tmp_path/'run', steps=22, **plateau)
    b = a.rename(tmp_path/'b')
    train(b, tmp_path/'run', steps=23, **plateau)
    prepare(demo(tmp_path/'others', n_train=20, n_val=5), a, size=64)
    with pytest.raises(Refusal, match='made with other settings.* pack_sha256 [0-9a-f]{12} .now [0-9a-f]{12}.'): train(a, tmp_path/'run', **plateau)
    train(b, tmp_path/'run', **plateau)
    same(long.path, tmp_path/'run')

@pytest.mark.parametrize('name', ['log.jsonl', 'config.json', 'last.safetensors', 'best.safetensors', 'card.json', 'curve.png', 'tb'])
def test_links(pack, left, tmp_path, name):
    "A run writes no file that may be of others; links of other names, and a run folder that is a link, are no matter"
    mine = tmp_path/'mine'
    run = shutil.copytree(left, tmp_path/'elsewhere')
    (tmp_path/'run').symlink_to(run)
    (run/'notes').symlink_to(mine)
    if (run/name).exists(): (run/name).rename(mine)
    else: mine.write_text('mine')
    before = mine.read_bytes()
    (run/name).symlink_to(mine)
    with pytest.raises(Refusal, match=f'{name}: is a link'): train(pack, tmp_path/'run', **plateau)
    assert mine.read_bytes()==before and (run/name).is_symlink()
    (run/name).unlink()
    if name not in ('card.json', 'curve.png', 'tb'): mine.rename(run/name)
    train(pack, tmp_path/'run', steps=23, **plateau)

def test_only_checked(pack, tmp_path, monkeypatch):
    "What is refused leaves nothing, and is refused before the network is made"
    def never(*args, **kw): raise AssertionError('made')
    monkeypatch.setattr(T, 'Training', never)
    (tmp_path/'full').mkdir()
    (tmp_path/'full/my.txt').touch()
    for run,kw,says in ((tmp_path/'full', {}, 'holds other things'), (tmp_path/'full/my.txt', {}, 'is no folder'), ('/proc/run', {}, 'cannot be written'),
                        (tmp_path/('x'*300), {}, 'File name too long'), (tmp_path/'run', dict(keep=-1), 'keep -1: expected int >= 0'),
                        (tmp_path/'run', dict(steps=0), 'steps 0: expected int >= 1'), (tmp_path/'run', dict(lr=math.nan), 'lr nan'),
                        (tmp_path/'run', dict(epochs=1e300), 'epochs 1e[+]300: expected float <= ')):
        with pytest.raises(Refusal, match=says): train(pack, run, **{**small, **kw})
    monkeypatch.setenv('CXX', '/none/g++')
    with pytest.raises(Refusal, match='--compile needs a compiler .*/none/g[+][+]'): train(pack, tmp_path/'run', compile=True, **small)
    assert [o.name for o in tmp_path.iterdir()]==['full']

@pytest.mark.parametrize('error', [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize('where', ['log.jsonl', 'last.safetensors'])
def test_cannot_be_written(pack, tmp_path, monkeypatch, error, where):
    "A disk that is full, or read-only from one moment on: the line names the file and what is kept; then the run goes on"
    run = tmp_path/'run'
    train(pack, run, steps=3, **small)
    real,worked = builtins.open,[]
    def full(path, *args, **kw):
        f = real(path, *args, **kw)
        if worked and str(path).endswith(where if where=='log.jsonl' else '.partial') and f.writable():
            f.close()
            raise OSError(error, os.strerror(error))
        return f
    def work(*args):
        train_step(*args)
        worked.append(True)
    with monkeypatch.context() as m, pytest.raises(Unwritable) as e:
        m.setattr(builtins, 'open', full)
        m.setattr(T, 'train_step', work)
        train(pack, run, **small)
    assert f'{where}: cannot be written: {os.strerror(error)}; the last checkpoint is kept' in str(e.value), e.value
    same(train(pack, run, **small).path, train(pack, tmp_path/'whole', **small).path)
    assert not list(run.glob('.*')) and not (run/'lock').exists()

# --- Signals

@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP'])
def test_stopped_by(pack, long, tmp_path, monkeypatch, name):
    "A signal ends the run after the step, with a checkpoint and the number of the signal; a second Ctrl-C at once"
    number = getattr(signal, name)
    def sent(t, *args):
        train_step(t, *args)
        if t.step==22: signal.raise_signal(number)
    before = signal.getsignal(number)
    monkeypatch.setattr(T, 'train_step', sent)
    with pytest.raises(Stopped, match='stopped at step 22 of 30; .* the same command goes on') as e: train(pack, tmp_path/'run', **plateau)
    assert e.value.number==number and signal.getsignal(number)==before
    def twice(t, *args):
        if t.step==24:
            signal.raise_signal(number)
            monkeypatch.setattr(M, 'time', types.SimpleNamespace(monotonic=lambda: math.inf))
            signal.raise_signal(signal.SIGINT)
            raise AssertionError
        train_step(t, *args)
    monkeypatch.setattr(T, 'train_step', twice)
    with pytest.raises(Stopped, match='interrupted at once; the last checkpoint is kept') as e: train(pack, tmp_path/'run', **plateau)
    assert e.value.number==signal.SIGINT
    monkeypatch.undo()
    train(pack, tmp_path/'run', **plateau)
    same(long.path, tmp_path/'run')

def test_wait(pack, long, left, tmp_path, capsys):
    "With wait, a second training begins when the first has ended"
    run = shutil.copytree(left, tmp_path/'run')
    held = locked(Run(run))
    held.__enter__()
    threading.Timer(1.2, held.__exit__, (None, None, None)).start()
    train(pack, run, wait=True, **plateau)
    assert capsys.readouterr().err.count('another training is at work in this folder')==1
    same(long.path, run)

# --- Starting from another network

def test_init_from(pack, long, tmp_path):
    "Fine-tuning: all layers but the last are copied where the classes differ; the run is as exact as any other"
    kw = {**{k:v for k,v in small.items() if k not in ('width','size')}, 'rates':'conv1=0,fc8=10', 'epochs':2}
    said = []
    a = train(pack, tmp_path/'a', init_from=long.path, **{**kw, 'say':said.append})
    assert 'all layers copied' in said[0]
    for n in (1, 4): train(pack, tmp_path/'b', init_from=str(long.path), steps=n, **kw)
    train(pack, tmp_path/'b', init_from=long.path/'model.safetensors', **kw)
    same(a.path, tmp_path/'b')
    was,now = load_weights(long.path),load_weights(a.path)
    assert torch.equal(was.conv1.weight, now.conv1.weight) and torch.equal(was.conv1.bias, now.conv1.bias)
    assert not torch.equal(was.conv2.weight, now.conv2.weight)
    assert a.config['width']==.125 and a.config['size']==56 and len(a.config['init_from'])==16
    with pytest.raises(Refusal, match='init_from'): train(pack, a.path, init_from=long.path/'best.safetensors', **kw)
    few = load_weights(long.path)
    few.names = [f'other {i}' for i in range(10)]
    save_weights(few, tmp_path/'few.safetensors')
    t = Training(pack, settings(pack, init_from=few), donor=few)
    assert not t.inherited and torch.equal(t.model.fc7.weight, few.fc7.weight)
    fresh = AlexNet(few.spec, 10, few.width, few.size, seed=0)
    assert torch.equal(t.model.fc8.weight, fresh.fc8.weight) and not torch.equal(fresh.fc8.weight, few.fc8.weight)

def test_init_from_refuses(pack, long, tmp_path):
    for kw,msg in ((dict(width=.5), 'width 0.125, not 0.5'), (dict(size=48), 'size 56, not 48'),
                   (dict(spec='paper'), 'spec code2012, not paper'), (dict(init_from='none.safetensors'), 'No such file')):
        with pytest.raises(Refusal, match=msg): train(pack, tmp_path/'x', **{'init_from':long.path, **kw})
    assert not (tmp_path/'x').exists()

# --- When it goes wrong

def test_out_of_memory(pack, tmp_path, monkeypatch):
    "The message names a smaller batch; the checkpoint of before stays"
    train(pack, tmp_path/'run', steps=2, **small)
    before = bits(tmp_path/'run')
    def full(t, *args):
        if t.step==4: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        train_step(t, *args)
    monkeypatch.setattr(T, 'train_step', full)
    with pytest.raises(Refusal, match='out of memory with batches of 100; try --batch_size 50, or --precision bf16'):
        train(pack, tmp_path/'run', **small)
    now = load_file(tmp_path/'run/last.safetensors')
    assert now.keys()==before['last.safetensors'].keys()
    monkeypatch.undo()
    same(train(pack, tmp_path/'run', **small).path, train(pack, tmp_path/'whole', **small).path)
    def other(*args): raise RuntimeError('something else')
    monkeypatch.setattr(T, 'train_step', other)
    with pytest.raises(RuntimeError, match='something else'): train(pack, tmp_path/'other', **small)

@pytest.mark.parametrize('every', [1, 5])
def test_not_a_number(pack, tmp_path, monkeypatch, every):
    "The run ends at the next line of the log; no checkpoint holds a number that is none"
    init,clock = Training.__init__,itertools.count(0, 61) # wants to save after each step
    def slow(self, *args): init(self, *args); self.every = every
    def bad(t, *args):
        if t.step==7:
            with torch.no_grad(): t.model.fc7.bias[3] = math.nan
        train_step(t, *args)
    monkeypatch.setattr(Training, '__init__', slow)
    monkeypatch.setattr(T, 'time', types.SimpleNamespace(time=lambda: next(clock)))
    monkeypatch.setattr(T, 'train_step', bad)
    with pytest.raises(Refusal) as e: train(pack, tmp_path/'run', **small)
    assert f'the loss is nan at step {8 if every==1 else 9}' in str(e.value), e.value # 9 is the end of an epoch
    assert 'the last good checkpoint is kept. Likely: a rate too high for batches of 100' in str(e.value)
    for ts in bits(tmp_path/'run').values(): assert all(v.isfinite().all() for v in ts.values())
    with safe_open(tmp_path/'run/last.safetensors', 'pt') as f: assert f.metadata()['step']=='7'

@slow
def test_no_progress(pack, tmp_path):
    "An epoch of guessing is told with what is likely; a run that learns hears nothing"
    said = []
    kw = {**small, 'batch_size':10, 'epochs':5, 'schedule':'constant', 'say':said.append}
    unit = replace(get_spec('paper'), name='unit', input=get_spec('torchvision').input)
    for spec in ('paper', unit):
        said.clear()
        train(pack, tmp_path/f'flat{spec==unit}', spec=spec, lr=1e-4, **kw)
        warned = [o for o in said if 'warning' in o]
        assert len(warned)==1 and 'after 104 steps' in warned[0] and 'guessing among 10 classes (2.303)' in warned[0], said
        for o in ('conv3, conv4, conv5 that begin at 0.01', 'biases that begin at 1', 'a rate too low', 'explain/flat_loss'):
            assert o in warned[0], warned[0]
        assert ('pixels of unit variance' in warned[0])==(spec is unit)
    said.clear()
    few = prepare(demo(tmp_path/'few', n_train=2, n_val=2), tmp_path/'fewpack', size=64)
    train(few, tmp_path/'learns', **{**kw, 'width':.25, 'batch_size':20, 'epochs':130})
    assert said and not any('warning' in o for o in said), said

def test_dead_loader(pack, tmp_path, monkeypatch):
    "A thread that dies ends the run with its message"
    read = Loader.read
    def die(self, idx):
        if self.shuffle and self.epoch==1: raise OSError('the disk has gone')
        return read(self, idx)
    monkeypatch.setattr(Loader, 'read', die)
    t = time.time()
    with pytest.raises(Refusal, match='pack: a batch cannot be read: the disk has gone'):
        train(pack, tmp_path/'run', **small)
    assert time.time()-t<30
    monkeypatch.undo()
    same(train(pack, tmp_path/'run', **small).path, train(pack, tmp_path/'whole', **small).path)

# --- TensorBoard

def test_tensorboard(pack, tmp_path, monkeypatch):
    "Where it is installed it gets what the log gets; where it is not nothing is missed"
    class Writer:
        def __init__(self, path, purge_step): seen.append((path, purge_step))
        def add_scalar(self, k, v, step): seen.append((k, v, step))
        def close(self): seen.append('closed')
    seen = []
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', types.SimpleNamespace(SummaryWriter=Writer))
    run = train(pack, tmp_path/'a', **{**small, 'epochs':1})
    assert seen[0]==(str(run.path/'tb'), None) and seen[-1]=='closed'
    rows = run.rows()
    assert ('loss', rows[0]['loss'], 1) in seen and ('dead/fc6', rows[1]['dead']['fc6'], 2) in seen
    assert ('val/top1', rows[-1]['val_top1'], 3) in seen
    seen.clear()
    train(pack, tmp_path/'c', steps=2, **small)
    train(pack, tmp_path/'c', steps=4, **small)
    assert (str(tmp_path/'c/tb'), 3) in seen # what is known of step 3 and later is written again
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    same(run.path, train(pack, tmp_path/'b', **{**small, 'epochs':1}).path)
    assert not (tmp_path/'b/tb').exists()
