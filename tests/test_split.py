"Two columns on two devices against the same network on one"
import pytest, torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_nb.augment import Augment
from alexnet_nb.data import Pack, prepare
from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.demo import demo
from alexnet_nb.model import AlexNet, load_weights, save_weights
from alexnet_nb.split import apply_layer, columns, crossings, merge, merge_state, split_state
from alexnet_nb.train import SGD2012, validate

two = 'cpu','cpu'
split = 'code2012 paper no_lrn no_overlap no_talk conv6'.split()

class Fixed(nn.Module):
    "Dropout with the same mask for a network and for its columns, which take their part"
    def __init__(self, lo=0, parts=1):
        super().__init__()
        self.lo,self.parts = lo,parts
    def forward(self, x):
        n = x.shape[1]
        mask = torch.rand(len(x), n*self.parts, generator=torch.Generator().manual_seed(n*self.parts))<.5
        return x*mask[:, n*self.lo:n*(self.lo+1)].to(x)

def fix(m, cols):
    "Give a network and its columns the same masks"
    m.between.dropout,cols.a.between.dropout,cols.b.between.dropout = Fixed(),Fixed(0, 2),Fixed(1, 2)
    return m,cols

def make(spec, size=67, **kw):
    m = AlexNet(spec, 10, kw.pop('width', .125), size, seed=0).double()
    return fix(m, columns(m, two))

def images(n, size): return torch.randn(n, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))*60
def close(a, b): return (a-b).abs().max() <= 1e-11*a.abs().max()

@pytest.mark.parametrize('size', [67, 96])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('spec', split)
def test_equal(spec, training, size):
    "Outputs, features and gradients agree to rounding"
    m,cols = make(spec, size)
    m.train(training); cols.train(training)
    x,y = images(4, size),torch.arange(4)
    for o in (m, cols): F.cross_entropy(o(x), y).backward()
    assert close(m(x), cols(x))
    for l in m.spec.layers: assert close(m.features(x, l.name), cols.features(x, l.name)), l.name
    g = merge_state({k:p.grad for k,p in cols.named_parameters()}, m.spec)
    assert g.keys()==dict(m.named_parameters()).keys()
    for k,p in m.named_parameters(): assert close(p.grad, g[k]), k

@pytest.mark.parametrize('spec', split)
def test_layers(spec):
    "`apply_layer` does what the network does"
    m = AlexNet(spec, 10, .125, 67, seed=0).eval()
    h = x = torch.randn(2, 3, 67, 67)
    for l in m.spec.layers: h = apply_layer(m, l, h)
    assert torch.equal(h, m(x))

def test_crossings():
    "The full network of 2012 and its relatives: what the released source lets pass"
    def count(spec): return [tuple(o.values()) for o in crossings(columns(AlexNet(spec), two))]
    into = {k:(k, *[n]*4) for k,n in dict(conv3=21_632, fc6=4_608, fc7=2_048, conv6=4_608).items()}
    last = 'fc8', 0, 2_048, 2_048, 0
    assert count('code2012')==[into['conv3'], into['fc6'], into['fc7'], last]
    assert count('conv6')==[into['conv3'], into['conv6'], into['fc6'], into['fc7'], last]
    assert count('no_talk')==[last]

@pytest.mark.parametrize('spec', split)
def test_back_and_forth(spec, tmp_path):
    "Not a bit changes, also through a file; the network that was split is left alone"
    m = AlexNet(spec, 5, .125, 67, seed=0).eval()
    m.names,m.mean = list('abcde'),torch.rand(77, 77, 3)
    before = {k:v.clone() for k,v in m.state_dict().items()}
    cols = columns(m, two)
    one = merge(cols)
    assert type(one) is AlexNet and one.spec==m.spec and one.names==m.names and torch.equal(one.mean, m.mean)
    assert list(one.state_dict())==list(before) and all(torch.equal(v, before[k]) for k,v in one.state_dict().items())
    assert set(cols.state_dict())==set(split_state(before, m.spec))
    assert cols.shapes()==m.shapes() and not cols.training
    save_weights(merge(cols), tmp_path/'m.safetensors')
    x = torch.randn(2, 3, 67, 67)
    with torch.no_grad():
        assert torch.equal(load_weights(tmp_path/'m.safetensors')(x), m(x))
        assert torch.equal(columns(load_weights(tmp_path/'m.safetensors'), two)(x), cols(x))
        cols.a.conv1.weight.zero_(); cols.a.fc8.bias.fill_(9)
    for o in (m, one): assert all(torch.equal(v, before[k]) for k,v in o.state_dict().items())

def steps(m, opt, at):
    "Train on batches by number"
    for i in at:
        for g in opt.param_groups: g['lr'] = g['base_lr']*(1 if i<3 else .1)
        x = images(4, 67)*(1+i/7)
        F.cross_entropy(m(x), torch.arange(4)).backward()
        opt.step(); opt.zero_grad()

def state(m, opt):
    vs = {f"velocity.{g['name']}": opt.state[p]['v'] for g in opt.param_groups for p in g['params']}
    return {**m.state_dict(), **vs}

def resume(m, opt, sd):
    m.load_state_dict({k:v for k,v in sd.items() if 'velocity' not in k})
    for g in opt.param_groups:
        for p in g['params']: opt.state[p]['v'] = sd[f"velocity.{g['name']}"].clone()

@pytest.mark.parametrize('spec', ['code2012', 'no_talk'])
def test_training_moves(spec):
    "Six steps on one device are two there, two in columns and two there again, velocities and all"
    m,cols = make(spec)
    ref,_ = make(spec)
    a,b,c = (SGD2012(o, lr=.001, bias_lr=.002) for o in (m, cols, ref))
    assert [g['weight_decay'] for g in b.param_groups if 'bias' in g['name']]==[0.]*(2*len(m.spec.layers)-1)
    steps(ref, c, range(6))
    steps(m, a, range(2))
    resume(cols, b, split_state(state(m, a), m.spec)); steps(cols, b, range(2, 4))
    resume(m, a, merge_state(state(cols, b), m.spec)); steps(m, a, range(4, 6))
    end,want = state(m, a),state(ref, c)
    assert end.keys()==want.keys() and len(end)==4*len(m.spec.layers)
    for k in want: assert close(want[k], end[k]), k
    assert not torch.equal(end['conv1.weight'], make(spec)[0].conv1.weight)

def test_validate(tmp_path):
    "A network in columns is measured like any other"
    prepare(demo(tmp_path/'pictures', n_train=4, n_val=3), tmp_path/'pack', size=72)
    pack = Pack(tmp_path/'pack')
    m = AlexNet('code2012', pack.n_classes, .125, 63, seed=0)
    aug = Augment(pack, m.spec, 63)
    got = [validate([o], pack, [aug], bs=16, views=10) for o in (m, columns(m, two))]
    assert got[0]['n']==got[1]['n'] and got[0]['loss']==pytest.approx(got[1]['loss'], rel=1e-5)

class Log(TorchDispatchMode):
    "Operations, their device and arguments"
    def __init__(self):
        super().__init__()
        self.ops = []
    def __torch_dispatch__(self, f, types, args=(), kw=None):
        y = f(*args, **(kw or {}))
        self.ops.append((f.name().split('.')[0].removeprefix('aten::'), getattr(y, 'device', None), kw or {}))
        return y

old = tuple(int(o) for o in torch.__version__.split('.')[:2])<(2, 7)
pretending = pytest.mark.skipif(torch.cuda.device_count()==1 or old,
                                reason='PyTorch pretends no second GPU beside one; 2.6 aborts without one')

@pretending
@pytest.mark.parametrize('spec, want', [
    ('code2012', '>0101<>010101<>01<>01<0'), ('conv6', '>0101<>010101<>01<>01<>01<0'), ('no_talk', '>01010101010101<0')])
@pytest.mark.parametrize('training', [True, False])
def test_devices(spec, want, training, monkeypatch):
    "On two pretended GPUs each operation runs where it should, copies are queued early and never waited for"
    monkeypatch.setenv('ALEXNET_NB_PLAIN', '1') # no kernels for GPUs that are not there
    with FakeTensorMode(allow_non_fake_inputs=True), Log() as log:
        m = AlexNet(spec, seed=0).train(training)
        cols = columns(m, ('cuda:0','cuda:1'))
        log.ops.clear()
        y = cols(torch.zeros(2, 3, 224, 224, device='cuda:0'))
    assert y.device==torch.device('cuda:0') and {p.device.index for p in cols.b.parameters()}=={1}
    ops = log.ops
    assert all(kw['non_blocking'] for name,_,kw in ops if name=='_to_copy')
    signs = dict(_to_copy='<>', convolution='01', addmm='01')
    assert ''.join(signs[name][d.index] for name,d,_ in ops if name in signs)==want

@pytest.mark.parametrize('spec', split)
def test_never_waits(spec):
    "No operation of a step needs a number on the processor"
    m,cols = make(spec)
    with Log() as log: F.cross_entropy(cols(images(2, 67)), torch.arange(2)).backward()
    names = {o[0] for o in log.ops}
    assert {'convolution', 'convolution_backward', 'addmm'} <= names
    assert not names & {'_local_scalar_dense', 'equal', 'nonzero', 'masked_select', 'is_nonzero', '_unique2'}

@pytest.mark.parametrize('spec, why', [('one_column', 'one column'), ('torchvision', 'one column'), ('caffe', 'normalization')])
def test_refused(spec, why):
    with pytest.raises(Refusal, match=why) as e: columns(AlexNet(spec, 10, .125), two)
    assert '\n' not in str(e.value) and spec in str(e.value)

@pretending
def test_masks(monkeypatch):
    "Two GPUs of the same seed do not draw the same masks, and training is as repeatable as the seed"
    gs = tuple(torch.Generator().manual_seed(5) for _ in 'ab')
    monkeypatch.setattr(torch.cuda, 'default_generators', gs)
    monkeypatch.setenv('ALEXNET_NB_PLAIN', '1')
    with FakeTensorMode():
        cols = columns(AlexNet('code2012', 10, .125, 67, seed=0), ('cuda:0','cuda:1'))
        x = torch.zeros(2, 3, 67, 67, device='cuda:0')
        cols.eval()(x)
        assert [g.initial_seed() for g in gs]==[5, 5]
        cols.train()(x)
        seeds = [g.initial_seed() for g in gs]
        assert seeds[0]==5!=seeds[1]
        gs[1].manual_seed(5); cols(x)
        assert [g.initial_seed() for g in gs]==seeds

def test_refused_devices():
    m = AlexNet('code2012', 10, .125, 67)
    for d in (('cpu',), 'cpu', ('cpu','cuda:99'), ('cpu','nowhere')):
        with pytest.raises(Refusal): columns(m, d)
    if not torch.cuda.is_available():
        with pytest.raises(Refusal, match='name two that exist'): columns(m)

def test_two_gpus():
    "The real thing, where there are two GPUs"
    if torch.cuda.device_count()<2: pytest.skip('needs two GPUs')
    m,_ = make('code2012', 224, width=1)
    m,cols = fix(m, columns(m.cuda(0)))
    x,y = images(2, 224).cuda(0),torch.arange(2).cuda(0)
    for o in (m, cols): F.cross_entropy(o(x), y).backward()
    g = merge_state({k:p.grad for k,p in cols.named_parameters()}, m.spec)
    assert close(m(x), cols(x)) and all(close(p.grad, g[k]) for k,p in m.named_parameters())
