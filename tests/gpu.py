"""What only a GPU can show, in one command: are its numbers right, does it go on bit by bit, how fast is it, and why

python -m tests.gpu --out DIR [--minutes 12] [--only PIECE,…] [--device cuda] [--quick] [--tar]
python -m tests.gpu --out DIR --only series --rows all --jobs 6 --minutes 14

It needs PyTorch, this folder and the requirements of the package, and neither nbdev nor a network. Each piece is a
process with a limit of its own. Pieces that compare numbers run side by side, those that measure time one after the
other. Each leaves cards in DIR as soon as it can, and what it said in DIR/gpu.log. With --tar the cards lie in
DIR/gpu.tar instead. The exit code is 1 if a piece has failed."""
import argparse, ast, json, math, os, signal, statistics, subprocess, sys, tarfile, tempfile, time, traceback
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

root = Path(__file__).resolve().parents[1]
os.environ.setdefault('MPLBACKEND', 'Agg')
if str(root) not in sys.path: sys.path.insert(0, str(root))

PRECISIONS = 'fp32', 'tf32', 'bf16'
TOLERATED = dict(fp32=1e-4, tf32=1e-2, bf16=5e-2) # greatest difference over the greatest number

@dataclass
class Place:
    "Where a piece works, and how much"
    piece:str      # Its name
    out:Path       # Folder for its cards
    tmp:Path       # Folder that the pieces share, with `pack` and `small` in it
    device:str     # cuda, cuda:1, cpu …
    quick:bool     # Small networks and few steps, to see whether all of this works
    seconds:float  # That the piece should take
    start:float    # When it began
    rows:str = ''  # Of the experiments, for `series`: names with commas between, all, pretrain or full
    jobs:int = 6   # Trainings at once
    seeds:str = '' # With commas between; those of each row

    @property
    def width(self): return .125 if self.quick else 1.
    @property
    def size(self): return 64 if self.quick else 224
    @property
    def batch(self): return 16 if self.quick else 128
    @property
    def precisions(self): return [o for o in PRECISIONS if self.device!='cpu' or o!='tf32']
    @property
    def pack(self): return self.wait(self.tmp/'pack')
    @property
    def small(self): return self.wait(self.tmp/'small')

    def wait(self, path, limit=120):
        "A pack that another process may still be making"
        end = time.monotonic()+limit
        while not (path/'meta.json').exists():
            assert time.monotonic()<end, f'{path} is not there'
            time.sleep(.1)
        return path

    def left(self): return self.seconds-(time.monotonic()-self.start)

    def keep(self, name, value, unit, n, **kw):
        "Write a card, perhaps over one that said less"
        from alexnet_nb.tools.cards import Card, device_name
        command = f'bash .ci/gpu.sh DIR --only {self.piece}' + (' --quick' if self.quick else '')
        card = Card(f'GPU: {name}', value, unit, n, command=command, wall_s=time.monotonic()-self.start,
                    device=device_name(self.device), **kw)
        card.save(self.out/f'gpu_{name}.json')
        return card

# --- Data

def make_data(p):
    "A pack of 256 pixels with ten full batches, in which each picture comes four times, and a small one"
    from PIL import Image
    from alexnet_nb.data import prepare
    from alexnet_nb.engine.demo import demo
    workers = None if p.device!='cpu' else 1
    n,size,times = (3, 72, 1) if p.quick else (32, 256, 4)
    folder = demo(p.tmp/'pictures', n if not p.quick else 13, 3)
    prepare(folder, p.tmp/'small', size=64, workers=workers)
    for path in sorted((folder/'train').rglob('*.JPEG')):
        for i in range(1, times): os.link(path, path.with_stem(f'{path.stem}_{i}'))
    prepare(folder, p.tmp/'pack', size=size, workers=workers)
    for path in (o for split in ('train', 'val') for o in (p.tmp/'pictures'/split).rglob('*_?.JPEG')): # as if CIFAR-10
        small = p.tmp/'cifar'/path.relative_to(p.tmp/'pictures').with_suffix('.png')
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((32, 32)).save(small)
    return 'two packs'

# --- Commands

def call_all(jobs, limit, at_once=8, env=None):
    "Run commands, some of them side by side; yields name, exit code, seconds and what it said, as they end"
    end = time.monotonic()+limit
    waiting,running = list(jobs.items()),{}
    while waiting or running:
        while waiting and len(running)<at_once:
            name,words = waiting.pop(0)
            out = tempfile.TemporaryFile()
            running[name] = out,time.monotonic(),subprocess.Popen(
                words, cwd=root, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True)
        over = time.monotonic()>end
        for name,(out,begin,process) in list(running.items()):
            if over and process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
            if process.poll() is None and not over: continue
            code = process.wait()
            out.seek(0)
            said = out.read().decode(errors='replace')
            del running[name]
            yield name, 'over its time' if over and code else code, time.monotonic()-begin, said
        if over: waiting = []
        time.sleep(.05)

def run_all(p, card, jobs, lines, limit, **kw):
    "Run commands, print what they said, and keep a card after each; raises where one fails"
    bad,seconds = {},{}
    for name,code,seconds[name],said in call_all(jobs, limit, **kw):
        print(f'-- {name}: {code}, {seconds[name]:.0f} s\n{tail(said, 60 if code else lines)}', flush=True)
        if code: bad[name] = code
        p.keep(card, len(seconds)-len(bad), 'work', len(seconds), spread=seconds)
    bad |= {k:'not begun' for k in jobs if k not in seconds}
    assert not bad, f'failed: {bad}'
    return f'{len(seconds)} work'

def tail(text, n=12): return '\n'.join(text.strip().splitlines()[-n:])

def list_commands(p):
    "Commands in groups; those of a group come one after the other"
    d = p.tmp/'smoke'
    small,on = p.tmp/'small',['--device', p.device]
    base = [small, '--width', .125, '--size', 56, '--batch_size', 32, '--epochs', 1, '--schedule', 'short']
    picture = next((p.tmp/'pictures').rglob('*.JPEG'))
    def train(name, *words): return ['train', *base, *on, '--run', d/name, *words]
    whole = [train('whole', '--steps', 3), train('whole'), ['eval', d/'whole', '--pack', small, *on],
             ['predict', d/'whole', picture, picture, '--out', d/'predicted.csv', *on]]
    columns = ['train', *base, '--device', f'{p.device},{p.device}', '--columns', '--run', d/'columns']
    if p.quick and p.device=='cpu': return dict(whole=whole[:1], columns=[columns]) # tests do the others
    last = '--precision', 'bf16', '--channels_last'
    return dict(whole=whole, columns=[columns, *[train(o, '--precision', o) for o in ('tf32', 'fp32')]],
                deterministic=[train('same', '--deterministic'), train('same16', *last, '--deterministic')],
                bf16=[train('bf16', '--precision', 'bf16'), train('last', *last)],
                specs=[train(o, '--spec', o, '--steps', 3) for o in ('paper', 'torchvision', 'caffe')],
                compiled=[train(f'compiled{len(o)}', *o, '--compile', '--steps', 5) for o in ((), last)],
                doctor=[['doctor', '--seconds', 15, '--json', d/'doctor.json', *on]],
                others=[['bench', 'lrn', '--quick', '--batch_size', 4, '--out', d/'lrn.json', *on],
                        ['reproduce', 'figure1', p.tmp/'cifar', '--folder', d/'figure1', '--seeds', 1,
                         '--max_epochs', 1, '--lr', .001, *on]])

def run_group(words):
    "Run commands in this process, until one fails"
    sys.path.insert(0, str(root/'tests'))
    from conftest import call
    from alexnet_nb.tools import commands
    for name,*args in json.loads(words):
        begin = time.monotonic()
        r = call(getattr(commands, f'alexnet_{name}'), *args)
        print(f'{name} {" ".join(map(str, args[1:]))}: {r.returncode}, {time.monotonic()-begin:.1f} s')
        print(r.stdout+r.stderr if r.returncode or name=='doctor' else tail(r.stdout, 2), flush=True)
        if r.returncode: sys.exit(r.returncode)

def smoke(p):
    "Every command, on the device"
    _ = p.small # made now
    (p.tmp/'smoke').mkdir()
    code = 'import sys; from tests.gpu import run_group; run_group(sys.argv[1])'
    jobs = {k:[sys.executable, '-c', code, json.dumps(v, default=str)] for k,v in list_commands(p).items()}
    return run_all(p, 'smoke', jobs, 40, max(5, p.left()-5), at_once=3 if p.device!='cpu' else 1)

# --- Notebooks

def cells_needed(sources, last):
    "Which cells come before a cell that uses names of theirs, by their numbers"
    def names(source, kind):
        try: tree = ast.parse(source)
        except SyntaxError: return set() # a line for the shell
        found = {o.id for o in ast.walk(tree) if isinstance(o, ast.Name) and isinstance(o.ctx, kind)}
        if kind is ast.Store:
            found |= {o.name for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
            found |= {(a.asname or a.name).split('.')[0] for o in ast.walk(tree)
                      if isinstance(o, (ast.Import, ast.ImportFrom)) for a in o.names}
        return found
    wanted,numbers = names(sources[last], ast.Load),[last]
    for i in range(last-1, -1, -1):
        source = sources[i]
        stars = 'import *' in source and 'nbdev' not in source
        if stars or names(source, ast.Store) & wanted:
            numbers.append(i)
            wanted |= names(source, ast.Load)
    return sorted(numbers)

def run_cells(path):
    "Run the cells of a notebook that are marked `gpu`, each after those that it needs"
    raw = json.loads(Path(path).read_text(encoding='utf-8'))
    cells = [''.join(o['source']) for o in raw['cells'] if o['cell_type']=='code']
    module = next((o.split()[-1] for c in cells for o in c.splitlines() if o.startswith('#| default_exp')), None)
    def marked(c, *words): return any(o.startswith('#|') and o[2:].split()[0] in words for o in c.splitlines())
    gpu = [i for i,c in enumerate(cells) if marked(c, 'gpu')]
    shown = [c if i in gpu or not marked(c, 'export', 'exports', 'slow', 'eval:') else '' for i,c in enumerate(cells)]
    space = {'display':print, '__name__':'__main__'}
    exec(f'import sys; import alexnet_nb.{module} as module', space)
    space |= vars(space['module'])
    done = set()
    for i in gpu:
        for j in cells_needed(shown, i):
            if j in done: continue
            done.add(j)
            start = time.monotonic()
            exec(compile(shown[j], f'{Path(path).name}, cell {j}', 'exec'), space)
            if j in gpu: print(f'{Path(path).name}, cell {j}: {time.monotonic()-start:.1f} s', flush=True)

def cells(p):
    "The cells that are marked `gpu`"
    import torch
    found = [o for o in sorted((root/'nbs').rglob('*.ipynb')) if '#| gpu' in o.read_text(encoding='utf-8')]
    if torch.cuda.device_count()<2: found = [o for o in found if o.stem!='03_split'] # needs two
    if p.quick: found = [o for o in found if o.parent.name!='tools']
    if not os.environ.get('ALEXNET_NB_DATA'): found = [o for o in found if o.stem!='01_data'] # it needs photographs
    code = 'import sys; from tests.gpu import run_cells; run_cells(sys.argv[1])'
    jobs = {o.stem:[sys.executable, '-c', code, str(o)] for o in found}
    return run_all(p, 'cells', jobs, 8, max(5, p.left()-5), at_once=2)

# --- Tests

SUITE = 'split commands train doctor bench hub weights devices'.split()

def suite(p):
    "The tests that meet a GPU if there is one"
    def words(name):
        return [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--timeout', '60', '-rfE', '--tb=short',
                '-o', f'session_timeout={max(10, p.left()/2)}', f'tests/test_{name}.py']
    return run_all(p, 'suite', {o:words(o) for o in SUITE}, 3, max(10, p.left()-5), at_once=2)

# --- Numbers

def apart(x, truth):
    "Greatest difference, over the greatest number there is"
    x,truth = x.detach().double().cpu(),truth.detach().double().cpu()
    return ((x-truth).abs().max()/truth.abs().max()).item()

@contextmanager
def plainly(wish):
    "Let the norms be computed operation by operation?"
    before = dict(os.environ)
    if wish: os.environ['ALEXNET_NB_PLAIN'] = '1'
    try: yield
    finally:
        os.environ.clear()
        os.environ.update(before)

def compare_norms(p):
    "Response normalization, forward and backward, in each kind of numbers, layout and way"
    import torch
    from alexnet_nb.lrn import implementation, lrn
    found = {}
    for within,shape in ((False, (8,96,27,27)), (True, (8,64,13,13)), (False, (3,48,7,7))):
        settings = dict(k=1., alpha=1e-3, within=True) if within else dict(groups=2)
        rng = torch.Generator().manual_seed(0)
        x,g = torch.randn(2, *shape, generator=rng)*50
        for dtype in (torch.float32, torch.bfloat16):
            a = x.to(dtype).double().requires_grad_()
            y = lrn(a, **settings)
            truth = y,torch.autograd.grad(y, a, g.to(dtype).double())[0]
            for layout in (torch.contiguous_format, torch.channels_last):
                b = x.to(p.device, dtype).contiguous(memory_format=layout).requires_grad_()
                for plain in (False, True):
                    with plainly(plain):
                        y = lrn(b, **settings)
                        ours = y,torch.autograd.grad(y, b, g.to(p.device, dtype).contiguous(memory_format=layout))[0]
                        how = implementation(b, within=within)
                    kind = f"{'within' if within else 'across'} {shape[1]}x{shape[2]}, {str(dtype)[6:]}, "
                    kind += f"{'channels_last' if layout is torch.channels_last else 'contiguous'}, {how}"
                    for way,t,o in zip(('forward', 'backward'), truth, ours): found[f'lrn {kind}, {way}'] = apart(o, t)
    return found

def compare_augment(p):
    "Augmentation of the same squares with the same seed"
    import torch
    from alexnet_nb.augment import CAFFE, CODE2012, PAPER, TORCHVISION, Augment
    from alexnet_nb.data import Loader, Pack
    pack = Pack(p.small)
    xb = next(iter(Loader(pack, bs=40)))[0]
    found = {}
    for name,spec in dict(paper=PAPER, code2012=CODE2012, caffe=CAFFE, torchvision=TORCHVISION).items():
        cpu,gpu = (Augment(pack, spec, device=o) for o in ('cpu', p.device))
        found[f'Augment {name}'] = apart(gpu(xb, 7), cpu(xb, 7))
        found[f'Augment {name}, views'] = apart(torch.stack(list(gpu.views(xb))), torch.stack(list(cpu.views(xb))))
    return found

def compare_update(p):
    "Five updates of SGD2012, with rates that change and a layer that freezes"
    import torch
    from alexnet_nb.model import AlexNet
    from alexnet_nb.train import SGD2012
    found = {}
    for last in (False, True):
        rng = torch.Generator().manual_seed(0)
        net = AlexNet('code2012', 10, .25, 64, seed=0)
        truth = AlexNet('code2012', 10, .25, 64, seed=0).double()
        truth.load_state_dict({k:v.double() for k,v in net.state_dict().items()})
        if last: net.to(memory_format=torch.channels_last)
        nets = net.to(p.device),truth
        rules = [SGD2012(o, rates=dict(conv1=.1)) for o in nets]
        for i in range(5):
            for a,b in zip(*(o.parameters() for o in nets)):
                g = torch.randn(b.shape, generator=rng)
                for q in (a, b): q.grad = torch.empty_like(q).copy_(g) if q.requires_grad else None
            for o in rules: o.step()
            factor = (1e-3 if i<3 else 0.)
            for o in rules: o.scale(lambda name: factor if name.startswith('conv2') else .1)
        worst = max(apart(a, b) for a,b in zip(*(o.parameters() for o in nets)))
        found[f"SGD2012, {'channels_last' if last else 'contiguous'}"] = worst
        vs = [(rules[0].state[a]['v'], rules[1].state[b]['v']) for a,b in zip(*(o.parameters() for o in nets))]
        found[f"SGD2012, {'channels_last' if last else 'contiguous'}, velocity"] = max(apart(a, b) for a,b in vs)
    return found

def compare_networks(p):
    "Logits and gradients of whole networks, and of one in two columns on this device"
    import torch
    import torch.nn.functional as F
    from alexnet_nb.engine.machine import arithmetic
    from alexnet_nb.engine.step import forward
    from alexnet_nb.model import SPECS, AlexNet
    from alexnet_nb.split import columns, merge_state
    rng = torch.Generator().manual_seed(0)
    found = {}
    device = torch.device(p.device)
    for name in SPECS if not p.quick else ['code2012']:
        net = AlexNet(name, 10, .25, 99, seed=0).eval()
        x,y = torch.randn(8, 3, 99, 99, generator=rng)*60,torch.randint(10, (8,), generator=rng)
        truth = AlexNet(name, 10, .25, 99, seed=0).eval().double()
        with torch.no_grad():
            for a,b in zip(truth.parameters(), net.parameters()): # larger than at the start: all layers count
                a.copy_(torch.randn(a.shape, generator=rng)*(2/max(1, a[0].numel()))**.5 if a.ndim>1 else a)
                b.copy_(a)
        logits = truth(x.double())
        F.cross_entropy(logits, y).backward()
        grads = {k:o.grad for k,o in truth.named_parameters()}
        last = x.to(p.device).contiguous(memory_format=torch.channels_last)
        ways = {f'{o}{k}':(o, k) for o in p.precisions for k in ('', ', channels_last')}
        if name=='code2012': ways |= {f'columns, {o}':(o, ', columns') for o in p.precisions}
        for way,(precision,kind) in ways.items():
            ours = columns(net, (p.device, p.device)) if 'columns' in kind else AlexNet(name, 10, .25, 99).to(p.device)
            if 'columns' not in kind: ours.load_state_dict(net.state_dict())
            if 'last' in kind: ours.to(memory_format=torch.channels_last)
            ours.eval()
            with arithmetic(precision, device):
                got = forward(ours, last, precision)
                F.cross_entropy(got, y.to(p.device)).backward()
            state = merge_state({k:o.grad for k,o in ours.named_parameters()}, net.spec)
            way = way if 'columns' not in way else f'{precision}, columns'
            found[f'{name}, {way}, logits'] = apart(got, logits)
            worst = {k:((state[k].double().cpu()-v).norm()/v.norm()).item() for k,v in grads.items()}
            found[f'{name}, {way}, gradients'] = statistics.median(worst.values())
            found[f'{name}, {way}, worst of the gradients'] = max(worst.values())
    return found

def numbers(p):
    "Norms, augmentation, update rule, networks and columns against the CPU in float64"
    found,slow = {},[]
    for f in (compare_norms, compare_augment, compare_update, compare_networks):
        try: found |= f(p)
        except Exception: slow.append(f'{f.__name__}: {traceback.format_exc(limit=-4)}')
        p.keep('numbers', max(found.values(), default=0.), 'greatest difference', len(found), spread=found)
    for k,v in found.items(): print(f'{v:9.2e}  {k}')
    def limit(name):
        precision = next((o for o in PRECISIONS if f' {o}' in name), 'fp32')
        if 'worst' in name: return dict(fp32=.05, tf32=.2, bf16=.5)[precision] # where a ReLU or a pool takes another way
        if 'gradients' in name: return dict(fp32=1e-4, tf32=.1, bf16=.4)[precision]
        return TOLERATED['bf16' if 'bf' in name else 'tf32' if 'tf32' in name else 'fp32']
    wrong = {k:v for k,v in found.items() if not v<limit(k)}
    assert not slow and not wrong, '\n'.join([*slow, f'too far apart: {wrong}' if wrong else ''])
    return f'{len(found)} comparisons'

# --- Bit by bit

def resume(p):
    "40 steps at once, and 20 and 20, with --deterministic: are all bits the same?"
    import torch
    from alexnet_nb.train import read_checkpoint, train
    pack,half = p.small,(3 if p.quick else 20)
    kw = dict(width=.25, size=56, batch_size=32, epochs=99, schedule='constant', device=p.device, deterministic=True,
              say=print)
    found = {}
    ways = {'fp32':dict(precision='fp32'), 'bf16, channels_last':dict(precision='bf16', channels_last=True)}
    if not p.quick: ways['tf32'] = dict(precision='tf32')
    if p.device=='cpu': ways.pop('tf32', None)
    if not p.quick:
        ways['bf16, columns'] = dict(precision='bf16', columns=True, device=f'{p.device},{p.device}')
    for way,more in ways.items():
        d = p.tmp/'resume'/way.replace(', ', '_')
        for name,ends in dict(once=[2*half], twice=[half, 2*half], again=[2*half]).items():
            for end in ends: train(pack, d/name, steps=end, **kw | more)
        a,b,c = (read_checkpoint(d/o/'last.safetensors') for o in ('once', 'twice', 'again'))
        assert a.step==b.step==2*half
        def differ(a, b):
            pairs = [(a.model.state_dict()[k], v) for k,v in b.model.state_dict().items()]
            pairs += [(a.tensors[k], v) for k,v in b.tensors.items()]
            return sum(not torch.equal(u, v) for u,v in pairs)
        found[f'{way}: resumed'] = differ(a, b)
        found[f'{way}: repeated'] = differ(a, c)
        p.keep('resume', found, 'tensors differ', 2*half)
        print(found, flush=True)
    assert not any(found.values()), found
    return f'the same bits: {", ".join(ways)}'

def replay(p):
    "The update rule, and steps that are played back against steps that are not: are all bits the same?"
    import torch
    from alexnet_nb.data import Pack
    from alexnet_nb.engine.machine import arithmetic, repeatable
    from alexnet_nb.engine.parallel import World
    from alexnet_nb.train import Training, settings, train_step
    found = compare_update(p)
    print(found, flush=True)
    pack,device,ends = Pack(p.small),torch.device(p.device),{}
    for precision in ('fp32', 'bf16'):
        cfg = settings(pack, width=.25, size=56, batch_size=32, epochs=2 if p.quick else 4, schedule='short',
                       precision=precision, gpu=device.type=='cuda')
        for way in ('played back', 'step by step'):
            with repeatable(True), arithmetic(precision, device):
                t = Training(pack, cfg, World([p.device]), replay=way=='played back')
                batches,losses = t.stream(2),[]
                while t.step<t.total:
                    train_step(t, *t.send(next(batches)), t.step%9==8)
                    losses.append(t.sums.clone())
                batches.close()
            ends[way] = [*t.model.state_dict().values(), *[t.opt.state[o]['v'] for o in t.model.parameters()], *losses]
            if t.replay and device.type=='cuda': assert t.replay.graph, 'no step was recorded'
        found[f'{precision}, tensors that differ'] = sum(not torch.equal(*o) for o in zip(*ends.values()))
        p.keep('replay', found, 'greatest difference, tensors that differ', t.total)
        print(found, flush=True)
    assert not any(v for k,v in found.items() if 'differ' in k), found
    assert max(v for k,v in found.items() if 'SGD' in k)<1e-4, found
    return 'the same bits'

# --- Drift

def drift(p):
    "Losses of the same steps in each precision"
    import torch
    from alexnet_nb.data import Pack
    from alexnet_nb.engine.machine import arithmetic
    from alexnet_nb.engine.parallel import World
    from alexnet_nb.train import Training, settings, train_step
    pack,steps = Pack(p.pack),(6 if p.quick else 200)
    device = torch.device(p.device)
    curves = {}
    ways = {o:(o, o=='bf16') for o in p.precisions} | {'fp32, again':('fp32', False)}
    for way,(precision,last) in ways.items():
        cfg = settings(pack, width=p.width, size=p.size, batch_size=p.batch, epochs=1000, schedule='constant',
                       precision=precision, gpu=device.type=='cuda')
        t = Training(pack, cfg, World([p.device]), channels_last=last)
        batches,sums = t.stream(2),[]
        with arithmetic(precision, device):
            for _ in range(steps):
                t.sums.zero_()
                train_step(t, *t.send(next(batches)))
                sums.append(t.sums[0].clone())
        batches.close()
        losses = [a/n for a,_,n in torch.stack(sums).tolist()]
        curves[way] = losses
        tens = max(1, steps//20)
        spread = {k:[statistics.mean(v[i:i+tens]) for i in range(0, steps, tens)] for k,v in curves.items()}
        ends = {k:statistics.mean(v[-2*tens:]) for k,v in curves.items()}
        for k,v in curves.items():
            ends[f'{k}, mean difference of a step'] = statistics.mean(abs(a-b) for a,b in zip(v, curves['fp32']))
        p.keep('drift', ends, 'loss at the end', steps, spread=spread, seeds=[0])
        print(way, [round(o, 3) for o in spread[way]], flush=True)
        assert all(map(math.isfinite, losses)), f'{way}: the loss is not a number'
    return ', '.join(f'{k} {v:.4f}' for k,v in ends.items() if 'mean' not in k)

# --- Speed

def show_lines(lines):
    for l in lines:
        share = f"{l['share']:.0%} of {l['binds']}" if 'share' in l else ''
        spread = f"({l['low']:.3f} to {l['high']:.3f})"
        print(f"{l['median']:10.3f} {spread:24} {l['unit']:14} {l['what']}, {l['place']} {share}")

def speed(p):
    "Steps against torchvision's, in turns, in each precision, eager and compiled"
    import torch
    from alexnet_nb.engine.timing import Job, Ratio, per_second, quotient, run_job
    from alexnet_nb.engine.step import Replay
    from alexnet_nb.tools.bench_step import ALEXNET, Mode, make_step, random_batch
    device = torch.device(p.device)
    torch._dynamo.config.recompile_limit = 64
    last = Mode('bf16', True)
    modes = [Mode('fp32'), Mode('tf32', True), last, 'played back', replace(last, compile=True)]
    if device.type=='cpu': modes = [modes[0], last]
    said,rounds = [],2 if p.quick else 10
    for n in [p.batch, 8*p.batch] if not p.quick else [4]:
        calls,notes,memory = {},[],{}
        for mode in modes if n<=p.batch else modes[2:4]:
            for name in ('code2012', 'no_lrn', ALEXNET):
                if name=='no_lrn' and mode!=last or p.left()<20 and calls: continue
                if isinstance(mode, Mode) and mode.compile and p.left()<50: continue # which takes long
                way = last if mode=='played back' else mode
                f = make_step(name, way, p.device, p.width, p.size)
                x,y = random_batch(n, p.size, p.device, channels_last=name!=ALEXNET or way.channels_last)
                call = partial(f, x, y)
                if mode=='played back':
                    played = Replay(f, notes.append)
                    call = partial(played, 0, x, y)
                start = time.monotonic()
                if device.type=='cuda': torch.cuda.reset_peak_memory_stats()
                try:
                    for _ in range(5): call()
                except Exception as e:
                    print(f'{name}, {mode}: {traceback.format_exc(limit=-3)}', flush=True)
                    notes.append(f'{name}, {mode}: {e}'[:200])
                    continue
                if device.type=='cuda':
                    torch.cuda.synchronize()
                    memory[f'{name}, {mode}'] = torch.cuda.max_memory_allocated()/1e9
                print(f'batch {n}, {name}, {mode}: five steps in {time.monotonic()-start:.1f} s', flush=True)
                calls[f'{name}, {mode}'] = call
        ratios = [Ratio(k, per_second(k, n), 'images per s') for k in calls]
        for mode in modes:
            mine,plain = f'code2012, {mode}',f'no_lrn, {mode}'
            for peer in dict.fromkeys([f'{ALEXNET}, {mode}', f'{ALEXNET}, {last}', f'{ALEXNET}, {modes[0]}']):
                if {mine, peer}<=calls.keys():
                    ratios.append(Ratio(f'{mine} against {peer}', quotient(peer, mine), 'times as fast'))
            if {mine, plain}<=calls.keys():
                ratios.append(Ratio(f'{mine} against no_lrn', quotient(mine, plain), 'times as long'))
        lines = run_job(Job(f'batch {n}, {p.size} px', calls, ratios, rounds), p.device)
        values = {l['what']:round(l['median'], 3) for l in lines if l['unit']!='images per s'}
        p.keep(f'speed_{n}', values, '(medians)', rounds, claim='3.5', spread=lines)
        show_lines(lines)
        print('largest memory, GB, with all networks there:', {k:round(v, 2) for k,v in memory.items()})
        said += [f"{l['what']} {l['median']:.0f}" for l in lines if l['unit']=='images per s' and 'bf16' in l['what']]
        assert not notes, notes
    return 'images/s: '+', '.join(said)

# --- What limits a step

def parts(p):
    "The parts of a step, alone and together, what the host needs for it, and the kernels of the device"
    import torch
    from alexnet_nb.data import Loader, Pack
    from alexnet_nb.engine.machine import arithmetic
    from alexnet_nb.engine.parallel import World
    from alexnet_nb.engine.timing import median_time, pace, time_call
    from alexnet_nb.engine.runs import state_tensors
    from alexnet_nb.model import save_weights
    from alexnet_nb.results import evaluate
    from alexnet_nb.train import Training, settings, train_step
    pack,device = Pack(p.pack),torch.device(p.device)
    seconds = .05 if p.quick else 1.
    values = {}
    def note(name, v):
        values[name] = v
        print(f'{v:12.3f}  {name}', flush=True)
        p.keep('parts', values, 'ms for a batch, and images/s', p.batch)
    gpu = device.type=='cuda'
    if gpu: # host to device
        x,y = next(iter(Loader(pack, bs=p.batch, pin=True)))
        copy = median_time(lambda: x.to(device, non_blocking=True), seconds, device)
        note('copy of a batch to the device, ms', 1e3*copy)
        xd = x.to(device)
    else: xd,y = next(iter(Loader(pack, bs=p.batch)))
    for workers in (2, 4):
        def read():
            while True:
                for xb,_ in Loader(pack, bs=p.batch, workers=workers, pin=gpu): yield len(xb)
        note(f'loader with {workers} workers, images/s', pace(read(), seconds))
    for precision,last in (('bf16', True), ('fp32', False)):
        cfg = settings(pack, width=p.width, size=p.size, batch_size=p.batch, epochs=1000, schedule='log2012',
                       precision=precision, gpu=gpu)
        t = Training(pack, cfg, World([p.device]), channels_last=last, replay=last)
        kind = f"{precision}{', channels_last' if last else ''}"
        if last: note('augmentation, ms', 1e3*median_time(lambda: t.aug(xd, 1), seconds, device))
        if last and gpu:
            start = time.perf_counter()
            for _ in range(5): t.aug(xd, 1)
            note('augmentation, until it is queued, ms', 1e3*(time.perf_counter()-start)/5)
        def again():
            t.step = 0 # always a full batch
            train_step(t, xd, y)
        with arithmetic(precision, device):
            for _ in range(3): again()
            step = median_time(again, seconds, device)
            note(f'step {kind}, with augmentation, alone, ms', 1e3*step)
            row = time_call(again, 3 if p.quick else 10, device)
            note(f'step {kind}, with augmentation, ten in a row, ms', 1e3*row)
            if gpu:
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(3): again()
                note(f'step {kind}, until it is queued, ms', 1e3*(time.perf_counter()-start)/3)
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(20): t.opt.scale(lambda name: 1.)
            note('rates of the groups, host, ms', 1e3*(time.perf_counter()-start)/20)
            for workers in (2, 4) if last else ():
                batches = t.stream(workers)
                count,start,end = 0,time.perf_counter(),time.perf_counter()+seconds
                while time.perf_counter()<end: # no waiting for the device between steps
                    count += feed(t, batches, t.send)
                if gpu: torch.cuda.synchronize()
                note(f'train {kind}, {workers} workers, images/s', count/(time.perf_counter()-start))
                batches.close()
            profile(p, kind, again)
            if last:
                compare_feeds(p, t)
                compare_groups(p)
    start = time.perf_counter()
    save_weights(t.model, p.tmp/'weights.safetensors', state_tensors(t.opt, 'v', 'velocity'))
    note('weights and velocities to the disk, s', time.perf_counter()-start)
    model = t.model.eval()
    for views in (1, 10):
        start = time.perf_counter()
        n = evaluate(model, pack, views, 'train', p.batch, p.device)['n']
        note(f'evaluation with {views} views, images/s', n/(time.perf_counter()-start))
        with torch.no_grad():
            x = torch.zeros(p.batch, 3, p.size, p.size, device=p.device)
            pure = p.batch/views/median_time(lambda: model(x), seconds, device)
            note(f'forward pass of {views} views, fp32, images/s', pure)
    return ', '.join(f'{k} {v:.2f}' for k,v in values.items() if 'alone' in k or 'train' in k)

def compare_groups(p):
    "The convolutions of two groups in bf16, forward and backward: as they are, as two, and as one with zeros"
    import torch
    import torch.nn.functional as F
    from alexnet_nb.engine.machine import arithmetic
    from alexnet_nb.engine.timing import Job, Ratio, duration, quotient, run_job
    lines = []
    for n,out,side,kernel in ((96, 256, 27, 5), (384, 384, 13, 3), (384, 256, 13, 3)):
        if p.quick: n,out = n//8,out//8
        make = partial(torch.randn, device=p.device, dtype=torch.bfloat16)
        x = make(p.batch, n, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        w = make(out, n//2, kernel, kernel).contiguous(memory_format=torch.channels_last).requires_grad_()
        whole = make(out, n, kernel, kernel).contiguous(memory_format=torch.channels_last).requires_grad_()
        g = make(p.batch, out, side, side).contiguous(memory_format=torch.channels_last)
        conv = partial(F.conv2d, padding=kernel//2)
        def two(x, w): return torch.cat([conv(*o) for o in zip(x.chunk(2, 1), w.chunk(2))], 1)
        ways = {'two groups':(partial(conv, groups=2), w), 'two convolutions':(two, w)}
        ways['one, of all channels'] = conv,whole
        calls = {k:partial(lambda f, w: torch.autograd.grad(f(x, w), (x, w), g), *o) for k,o in ways.items()}
        ratios = [Ratio(k, duration(k, 1000), 'ms') for k in calls]
        for k in list(calls)[1:]:
            ratios.append(Ratio(f'{k} against two groups', quotient('two groups', k), 'times as fast'))
        job = Job(f'{n} to {out} channels, {side}x{side}', calls, ratios, 1 if p.quick else 8)
        with arithmetic('bf16', torch.device(p.device)): lines += run_job(job, p.device)
    values = {f"{l['what']}, {l['place']}":l['median'] for l in lines if l['unit']=='ms'}
    p.keep('groups', values, 'ms', 1 if p.quick else 8, spread=lines)
    show_lines(lines)

def feed(t, batches, send):
    "A step on the next full batch: the number of its images"
    from alexnet_nb.train import train_step
    batch = next(o for o in batches if len(o[1])==t.cfg['batch_size'])
    t.step = 0
    train_step(t, *send(batch))
    return len(batch[1])

def compare_feeds(p, t):
    "From the pack to the weights: what a way of its own for batches brings, and crops that are cut together"
    from alexnet_nb import augment
    from alexnet_nb.engine.timing import Job, Ratio, per_second, quotient, run_job
    n = 2 if p.quick else 20
    batches,together,single = t.stream(4),'_cut_crops','_cut_at_once'
    def take(send, cut, played):
        kept = getattr(augment, together),t.replay
        setattr(augment, together, getattr(augment, cut))
        t.replay = played
        try:
            for _ in range(n): feed(t, batches, send)
        finally:
            setattr(augment, together, kept[0])
            t.replay = kept[1]
    calls = {'as it is':partial(take, t.send, together, t.replay),
             'no Sender':partial(take, lambda o: o, together, t.replay),
             'crops by one index':partial(take, t.send, single, t.replay),
             'not played back':partial(take, t.send, together, None)}
    ratios = [Ratio(f'as it is against {k}', quotient(k, 'as it is'), 'times as fast') for k in list(calls)[1:]]
    ratios += [Ratio(k, per_second(k, n*p.batch), 'images per s') for k in calls]
    rounds = 2 if p.quick else 10
    lines = run_job(Job(f"train, {t.cfg['precision']}, batch {p.batch}", calls, ratios, rounds), p.device)
    batches.close()
    p.keep('feeds', {l['what']:l['median'] for l in lines}, '(medians)', rounds, spread=lines)
    show_lines(lines)

def profile(p, kind, call, times=10):
    "What the device does in a step"
    import torch
    from torch.profiler import ProfilerActivity, profile as record
    gpu = p.device!='cpu'
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    call()
    with record(activities=activities) as found:
        start = time.perf_counter()
        for _ in range(times): call()
        if gpu: torch.cuda.synchronize()
        wall = time.perf_counter()-start
    by_kernel,spans = defaultdict(list),[]
    for o in found.events():
        if gpu and o.device_type!=torch.autograd.DeviceType.CUDA: continue
        if not gpu and o.cpu_parent is not None: continue
        by_kernel[o.name].append(o.time_range.elapsed_us())
        spans.append((o.time_range.start, o.time_range.end))
    busy,end = 0,0
    for a,b in sorted(spans):
        busy += max(0, b-max(a, end))
        end = max(end, b)
    length = max(b for _,b in spans)-min(a for a,_ in spans)
    total = sum(map(sum, by_kernel.values()))
    top = sorted(by_kernel.items(), key=lambda o: -sum(o[1]))[:25]
    rows = [dict(what=k[:110], share=sum(v)/total, us=sum(v)/times, calls=len(v)/times) for k,v in top]
    values = dict(wall_ms=1e3*wall/times, busy_ms=busy/times/1e3, busy_share=busy/length, launches=len(spans)/times)
    p.keep(f"profile_{kind.split(',')[0]}", values, 'per step', times, spread=rows)
    print(f'{kind}: {values}')
    for r in rows[:16]: print(f"  {r['share']:6.1%} {r['us']:9.0f} us {r['calls']:5.1f}  {r['what'][:100]}")
    if gpu:
        averages = [o for o in found.key_averages() if o.key.startswith(('aten::', '_', 'Optimizer'))]
        for o in sorted(averages, key=lambda o: -o.self_device_time_total)[:14]:
            print(f'  {o.self_device_time_total/times:9.0f} us {o.count/times:5.1f}  {o.key}')
        for o in sorted(averages, key=lambda o: -o.self_cpu_time_total)[:10]:
            print(f'  host {o.self_cpu_time_total/times:9.0f} us {o.count/times:5.1f}  {o.key}')

# --- Measures

def compare_kernels(p):
    "The norm forward and backward, beside PyTorch's, its own formula compiled, and a copy"
    import torch
    import torch.nn.functional as F
    from alexnet_nb.engine.timing import Job, Ratio, duration, quotient, run_job
    from alexnet_nb.lrn import lrn
    lines = []
    for channels,side in ((96, 55), (256, 27)):
        for dtype,layout in ((torch.bfloat16, torch.channels_last), (torch.float32, torch.contiguous_format)):
            shape = p.batch,channels,side,side
            x = torch.randn(shape, device=p.device).mul_(50).to(dtype).contiguous(memory_format=layout).requires_grad_()
            g,y = torch.randn_like(x),torch.empty_like(x)
            ways = {'lrn':partial(lrn, groups=2), 'F.local_response_norm':partial(F.local_response_norm, size=5)}
            ways['lrn, compiled'] = torch.compile(partial(lrn, groups=2), dynamic=False)
            def both(f): return torch.autograd.grad(f(x), x, g)
            calls = {k:partial(both, f) for k,f in ways.items()} | {'copy':lambda: y.copy_(x.detach())}
            ratios = [Ratio(k, duration(k, 1000), 'ms') for k in calls]
            ratios += [Ratio(k, quotient(k, 'copy'), 'copies') for k in ways]
            kind = f'{channels}x{side}x{side}, {str(dtype)[6:]}'
            lines += run_job(Job(kind, calls, ratios, 10), p.device)
            copies = {f"{l['what']}, {l['place']}":l['median'] for l in lines if l['unit']=='copies'}
            p.keep('kernels', copies, 'copies', 10, claim='3.3', spread=lines)
            if p.left()<.6*p.seconds: break
    show_lines(lines)

def bench(p):
    "Measures of alexnet_bench, a job at a time, for as long as there is time"
    from alexnet_nb.engine.timing import run_job
    from alexnet_nb.tools.bench import MEASURES, Options
    from alexnet_nb.tools.cards import versions
    said = []
    for name in ('optimizer', 'step', 'lrn', 'train'):
        if name=='step' and not p.quick: compare_kernels(p)
        section,list_jobs,fixed = MEASURES[name]
        kw = dict(batch_size=4, width=.125, size=67, steps=1, repeats=1) if p.quick else dict(steps=5, repeats=10)
        if p.quick and name in ('step', 'train'): continue
        lines = []
        jobs = list_jobs(Options(device=p.device, **kw | fixed))
        for i,make in enumerate(jobs):
            if p.left()<(1 if p.quick else 15): break
            start = time.monotonic()
            try:
                job = make()
                lines += job if isinstance(job, list) else run_job(job, p.device, f'{name} {i+1} of {len(jobs)}: ')
            except Exception:
                print(f'{name}, job {i+1}: {traceback.format_exc(limit=-4)}', flush=True)
                said.append(f'{name}, job {i+1} failed')
                continue
            print(f'{name}, job {i+1} of {len(jobs)}: {time.monotonic()-start:.1f} s', flush=True)
            n = max(l['n'] for l in lines)
            p.keep(f'bench_{name}', {}, '(medians)', n, claim=section, spread=lines, versions=versions())
        show_lines(lines)
    assert not said, said
    return 'measured'

def doctor(p):
    "What the doctor says of this machine"
    from alexnet_nb.tools.doctor import doctor as examine
    report = examine(seconds=1 if p.quick else min(30, p.left()*.7), device=p.device, say=print, full=not p.quick,
                     **dict(width=.125, size=64, batch_size=4) if p.quick else {})
    print(report)
    report.save(p.out/'gpu_doctor.json')
    assert not report.broken, [o.text for o in report.broken]
    hours = {f"{o['spec']}, {k}":o[k] for o in report.forecast for k in ('raw', 'jpeg') if o[k]}
    p.keep('forecast', hours, 'hours for 90 epochs, computed', 1)
    return report.verdict

# --- Experiments

def make_photographs(p, *names):
    "A pack of the classes of some archives, which lie in ALEXNET_NB_DATA or shared/data"
    from alexnet_nb.data import prepare
    archives = Path(os.environ.get('ALEXNET_NB_DATA', root/'shared/data'))
    own = '-'.join(names)
    parts,whole = p.tmp/f'{own}-parts',p.tmp/f'{own}-whole'
    parts.mkdir()
    whole.mkdir()
    for name in names:
        subprocess.run(['tar', '-xf', archives/f'{name}.tar.xz', '-C', parts], check=True)
        words = (parts/name/'words.txt').read_text(encoding='utf-8')
        with open(whole/'words.txt', 'a', encoding='utf-8') as f: f.write(words)
        for split in ('train', 'val'):
            (whole/split).mkdir(exist_ok=True)
            for o in (parts/name/split).iterdir(): (whole/split/o.name).symlink_to(o)
    return str(prepare(whole, p.tmp/f'{own}-110', size=110).path)

def probe_replay(told, pack, base):
    "Whether a short training can be recorded and played back"
    from alexnet_nb.train import train
    if told['device']=='cpu': return False
    run = Path(told['tmp'])/'probe'
    try: train(pack, run, told['device'], replay=True, steps=150, say=print, **base)
    except Exception: print(f'without replay:\n{traceback.format_exc(limit=-4)}', flush=True)
    else: return True
    return False

def train_rows(words):
    "Train for some rows of the experiments, in this process and others; or the full network"
    from alexnet_nb.data import Pack
    from alexnet_nb.tools.experiments import EXPERIMENTS, choose_rows
    from alexnet_nb.tools.trials import run_rows
    told = json.loads(words)
    out,folder = Path(told['out']),Path(told['tmp'])/'trials'
    if told['rows']=='full':
        small = dict(width=.125, size=64, epochs=1) if told['quick'] else {}
        sys.argv = ['alexnet_reproduce', 'full', told['pack']] # which is what the card says
        EXPERIMENTS['full'].run(told['pack'], folder, out/'full.json', device=told['device'], **small)
        return
    pack,rows,first = Pack(told['pack']),choose_rows(told['rows']),told['first'] and Pack(told['first'])
    seeds = [int(o) for o in told['seeds'].split(',')] if told['seeds'] else None
    if told['quick']:
        small = dict(width=.125, size=56, epochs=1, batch_size=32, lr=.01, schedule='short', precision='fp32')
        rows,seeds = [replace(o, base=small) for o in rows],seeds or 1
    replay = probe_replay(told, pack, rows[0].base) # whole trainings have met no GPU with it before
    files = {o.name:out/f'{o.name}.jsonl' for o in rows}
    run_rows(rows, pack, folder, files, seeds, device=told['device'], say=partial(print, flush=True),
             jobs=told['jobs'], first=first, replay=replay)

def series(p):
    "Trainings for rows of the experiments until the time is over: a line for each that is finished"
    small,large,first = 'tiny-imagenet-25', 'tiny-imagenet-75', ''
    if p.quick: pack = first = str(p.small)
    elif p.rows=='pretrain': pack,first = make_photographs(p, small),make_photographs(p, large)
    else: pack = make_photographs(p, small, large)
    print(f'pack after {time.monotonic()-p.start:.0f} s', flush=True)
    told = dict(rows=p.rows or 'all', seeds=p.seeds, pack=pack, first=first, tmp=str(p.tmp), out=str(p.out),
                device=p.device, jobs=p.jobs, quick=p.quick)
    code = 'import sys; from tests.gpu import train_rows; train_rows(sys.argv[1])'
    process = subprocess.Popen([sys.executable, '-c', code, json.dumps(told)], cwd=root)
    code = 'the time is over'
    try: code = process.wait(max(1, p.left()-10))
    except subprocess.TimeoutExpired: process.kill() # the trainings see that it is gone, and end
    lines = sum(len(o.read_text(encoding='utf-8').splitlines()) for o in p.out.glob('*.jsonl'))
    print(f'{lines} lines, with those that several rows share', flush=True)
    assert (lines or (p.out/'full.json').exists()) and code in (0, 'the time is over'), code
    return f'{lines} lines; {code or "all trained"}'

# --- All of it

SIDE_BY_SIDE = dict(data=make_data, replay=replay, resume=resume, numbers=numbers, cells=cells, smoke=smoke,
                    suite=suite)
ALONE = dict(drift=drift, parts=parts, speed=speed, doctor=doctor, bench=bench, series=series) # series: if asked for
WEIGHTS = dict(drift=2, parts=3, speed=4, doctor=1.5, bench=2, series=20) # of the time that is left
PIECES = SIDE_BY_SIDE | ALONE

def run_piece(name, out, tmp, device, quick, seconds, **kw):
    "One piece, in this process: what there is to say of it"
    place = Place(name, Path(out), Path(tmp), device, quick, seconds, time.monotonic(), **kw)
    return PIECES[name](place)

class Started:
    "A piece in a process of its own"
    def __init__(self, name, out, tmp, device, quick, seconds, more):
        words = [sys.executable, '-m', 'tests.gpu', '--piece', name, '--out', out, '--tmp', tmp, '--device', device,
                 '--seconds', seconds, '--rows', more.rows, '--jobs', more.jobs, '--seeds', more.seeds]
        self.name,self.begin = name,time.monotonic()
        self.said = tempfile.TemporaryFile()
        env = {**os.environ, 'PYTHONPATH':os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')]),
               'PYTHONUNBUFFERED':'1'}
        if name in SIDE_BY_SIDE: env = {'OMP_NUM_THREADS':'1', 'TORCHINDUCTOR_COMPILE_THREADS':'4', **env}
        self.process = subprocess.Popen([*map(str, words), *['--quick']*quick], cwd=root, env=env,
                                        stdin=subprocess.DEVNULL, stdout=self.said, stderr=subprocess.STDOUT,
                                        start_new_session=True)

    def wait(self, limit): # True if it ended by itself
        try: self.process.wait(max(.1, limit))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return False
        return True

    def text(self):
        self.said.seek(0)
        return self.said.read().decode(errors='replace')

def pack_up(folder, out):
    "All cards in one file, replaced when it is whole"
    with tarfile.open(out/'gpu.tar.partial', 'w') as t:
        for path in sorted(folder.glob('*.json*')): t.add(path, path.name)
    (out/'gpu.tar.partial').replace(out/'gpu.tar')

def finish(piece, whole, log, tell):
    "Say what came of a piece"
    text = piece.text()
    seconds = time.monotonic()-piece.begin
    last = (text.strip().splitlines() or [''])[-1]
    good = whole and piece.process.returncode==0
    word = 'ok' if good else f'exit code {piece.process.returncode}' if whole else 'its time was over'
    with open(log, 'a', encoding='utf-8') as f: f.write(f'\n===== {piece.name}: {word}, {seconds:.0f} s\n{text}')
    tell(f'{piece.name}: {word}, {seconds:.0f} s: {last[:1000]}')
    return good

def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument('--out', required=True, type=Path)
    cli.add_argument('--minutes', type=float, default=12.)
    cli.add_argument('--only', default='', help=f"of {', '.join(PIECES)}")
    cli.add_argument('--device', default='cuda')
    cli.add_argument('--quick', action='store_true')
    cli.add_argument('--tar', action='store_true')
    cli.add_argument('--rows', default='all', help='of the experiments, for the piece series; pretrain and full alone')
    cli.add_argument('--jobs', type=int, default=6, help='trainings at once, for the piece series')
    cli.add_argument('--seeds', default='', help='for the piece series, with commas between; those of each row')
    cli.add_argument('--piece', help=argparse.SUPPRESS)
    cli.add_argument('--tmp', help=argparse.SUPPRESS)
    cli.add_argument('--seconds', type=float, help=argparse.SUPPRESS)
    a = cli.parse_args()
    if a.piece:
        print(run_piece(a.piece, a.out, a.tmp, a.device, a.quick, a.seconds, rows=a.rows, jobs=a.jobs,
                        seeds=a.seeds))
        return 0
    wanted = a.only.split(',') if a.only else [o for o in PIECES if o!='series']
    unknown = set(wanted)-set(PIECES)
    if unknown: cli.error(f'unknown: {unknown}')
    end = time.monotonic()+60*a.minutes
    a.out.mkdir(parents=True, exist_ok=True)
    log = a.out/'gpu.log'
    log.write_text('')
    bad = []
    def tell(line): print(f'[{time.strftime("%H:%M:%S")}] {line}', flush=True)
    with tempfile.TemporaryDirectory(prefix='alexnet_gpu') as tmp:
        cards = Path(tmp)/'cards' if a.tar else a.out
        cards.mkdir(exist_ok=True)
        def done(piece, whole):
            if not finish(piece, whole, log, tell): bad.append(piece.name)
            if a.tar: pack_up(cards, a.out)
        alone = [k for k in ALONE if k in wanted]
        limit = 60*a.minutes*(.4 if alone else 1)
        together = ({'data', *wanted} if a.quick or wanted!=['series'] else set(wanted)) & set(SIDE_BY_SIDE)
        one_by_one = a.device=='cpu' # few cores, and each piece takes them all
        pieces = []
        for name in SIDE_BY_SIDE:
            if name not in together: continue
            piece = Started(name, cards, tmp, a.device, a.quick, limit-10, a)
            if one_by_one: done(piece, piece.wait(limit))
            else: pieces.append(piece)
        until = time.monotonic()+limit
        while pieces: # in the order in which they end
            for piece in list(pieces):
                over = time.monotonic()>until
                if piece.process.poll() is None and not over: continue
                done(piece, piece.wait(.1))
                pieces.remove(piece)
            time.sleep(.1)
        for i,name in enumerate(alone):
            left = end-time.monotonic()
            if left<15:
                tell(f'{name}: left out, the time is over')
                continue
            share = left*WEIGHTS[name]/sum(WEIGHTS[o] for o in alone[i:])
            piece = Started(name, cards, tmp, a.device, a.quick, share, a)
            done(piece, piece.wait(min(left, share*1.2+15)))
    tell(f"failed: {', '.join(bad)}" if bad else 'all is well')
    return int(bool(bad))

if __name__=='__main__': sys.exit(main())
