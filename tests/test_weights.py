"Files of weights as they are found: wrapped in anything, of any age, of other programs, damaged, no weights at all"
import hashlib, io, json, os, pickle, resource, struct, threading, zipfile
from argparse import Namespace
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np, pytest, torch
from torchvision.models import alexnet

from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.pickles import Inert, load_torch, read_pth
from alexnet_nb.model import SPECS, AlexNet, export_onnx, load_weights, read_weights, save_weights
from conftest import later

keys = 'features.0 features.3 features.6 features.8 features.10 classifier.1 classifier.4 classifier.6'.split()
ours = 'conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8'.split()

@pytest.fixture(scope='module')
def net():
    "A small network, whose numbers are the same in half precision"
    m = AlexNet('torchvision', 3, .125, seed=0).eval()
    m.load_state_dict({k:(v*256).round()/256 for k,v in m.state_dict().items()})
    return m

def named(m, kind=torch.float32, scale=1):
    "The state dict that torchvision's class would have"
    return {f'{a}.{p}':getattr(getattr(m, b), p).detach().to(kind)*scale for a,b in zip(keys, ours) for p in ('weight','bias')}

def before(prefix, sd): return {prefix+k:v for k,v in sd.items()}

def strided(sd): return {k:v.t().contiguous().t() if v.ndim==2 else v for k,v in sd.items()}

def wrappers(sd):
    "{name: what somebody saved}"
    opt = dict(state={0:dict(step=torch.tensor(3.), exp_avg=torch.ones(4))}, param_groups=[dict(lr=.1, params=[0])])
    run = dict(epoch=90, arch='alexnet', best_acc1=torch.tensor(56.5), optimizer=opt, scaler=None)
    return dict(
        plain=sd, half={k:v.half() for k,v in sd.items()}, bfloat16={k:v.bfloat16() for k,v in sd.items()},
        double={k:v.double() for k,v in sd.items()}, parameters={k:torch.nn.Parameter(v) for k,v in sd.items()},
        strided=strided(sd), extra={'n':torch.tensor(3), **sd, 'fc.weight':torch.ones(2,2)},
        compiled=before('_orig_mod.', sd), parallel=before('module.', sd), both=before('module._orig_mod.', sd),
        example=dict(run, state_dict={k.replace('features.', 'features.module.'):v for k,v in sd.items()}),
        reference=dict(model=sd, optimizer=opt, lr_scheduler=dict(last_epoch=89), epoch=89, args=Namespace(model='alexnet')),
        tutorial=dict(run, model_state_dict=sd), numpy=dict(state_dict=sd, best=np.float64(5), losses=np.arange(4.)),
        lightning={'pytorch-lightning_version':'2.5.0', 'state_dict':before('model.', sd), 'callbacks':{}, 'loops':{}},
        **{k:{k:sd, 'note':None} for k in 'net network weights params student checkpoint'.split()},
        twice=dict(checkpoint=dict(run, model=dict(state_dict=before('module.net.', sd)))), listed=[3, (before('model.', sd),)],
        args=dict(model=sd, args=Namespace(f=max, path=io.BytesIO, nested=Namespace(a=[{1,2}, frozenset((3,)), complex(1,2)]))))

@pytest.mark.parametrize('kw', [{}, dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=5), None],
                         ids=['zip', 'pickles', 'protocol5', 'pickle'])
def test_wrapped(net, tmp_path, kw):
    "The weights are read, whatever is around them, in each layout"
    file,want = tmp_path/'x.pth.tar',net.state_dict()
    for name,o in wrappers(named(net)).items():
        if kw is None: file.write_bytes(pickle.dumps(o))
        else: torch.save(o, file, **kw)
        m = load_weights(file)
        assert m.n_classes==3 and m.width==.125 and not m.training and m.names is None and m.wnids is None, name
        for k,v in m.state_dict().items(): assert torch.equal(v, want[k]) and v.dtype==torch.float32, (name, k)

def test_whole_networks(net, tmp_path):
    "A network that was pickled whole, and one that was compiled: their classes are not needed"
    big = alexnet(num_classes=2).eval()
    for o in (big, dict(model=torch.nn.DataParallel(big)), torch.optim.swa_utils.AveragedModel(big)):
        torch.save(o, tmp_path/'x')
        assert torch.equal(load_weights(tmp_path/'x').fc8.bias, big.classifier[6].bias)

@pytest.mark.parametrize('first,second,taken', [('model', 'model_ema', 'model'), ('model_ema', 'model', 'model'),
    ('state_dict_ema', 'state_dict', 'state_dict'), ('teacher', 'student', 'student'), ('swa', 'last', 'last'), ('a', 'b', 'a')])
def test_two_candidates(net, tmp_path, first, second, taken):
    "One is taken, and that is said; a copy that follows the weights is not the one"
    torch.save({first:named(net, scale=1 if first==taken else 2), second:named(net, scale=1 if second==taken else 2)}, tmp_path/'x')
    m = load_weights(tmp_path/'x')
    assert torch.equal(m.fc8.weight, net.fc8.weight)
    assert m.origin==f"torchvision's alexnet, of 2 networks {taken}, not {second if first==taken else first}"

def test_averaged(net, tmp_path):
    "The state dict of PyTorch's AveragedModel beside the weights"
    average = dict(n_averaged=torch.tensor(3), **before('module.', named(net, scale=2)))
    torch.save(dict(shadow=average, model=named(net)), tmp_path/'x')
    assert torch.equal(load_weights(tmp_path/'x').fc8.weight, net.fc8.weight)
    torch.save(average, tmp_path/'x')
    assert torch.equal(load_weights(tmp_path/'x').fc8.weight, 2*net.fc8.weight)

def test_safetensors_of_others(net, tmp_path):
    "The names of torchvision in a safetensors file that another program wrote"
    from safetensors.torch import save_file
    save_file(before('model.', named(net, torch.bfloat16)), tmp_path/'x', dict(format='pt'))
    assert torch.equal(load_weights(tmp_path/'x').fc6.weight, net.fc6.weight)

def refusal(f):
    with pytest.raises(Refusal) as e: f()
    assert '\n' not in str(e.value), e.value
    return str(e.value)

class Evil:
    "Calls something when it is read as a pickle"
    def __init__(self, f, *args): self.call = f, args
    def __reduce__(self): return self.call

def test_no_code(net, tmp_path):
    "Nothing is called: what reaches for the system is refused, anything else is passed over"
    made = tmp_path/'made'
    for f in (os.mkdir, eval, os.system, exec):
        torch.save(dict(named(net), x=Evil(f, f'open({str(made)!r}, "w")')), tmp_path/'x')
        assert 'it asks to run' in refusal(lambda: load_weights(tmp_path/'x'))
    for f in (torch.save, io.FileIO, np.save, torch.Tensor.__reduce_ex__):
        torch.save(dict(named(net), x=Evil(f, str(made), 'w')), tmp_path/'x')
        assert torch.equal(load_weights(tmp_path/'x').fc8.bias, net.fc8.bias)
    assert not made.exists()
    (tmp_path/'y').write_bytes(b'\x80\x02cposix\nsystem\nX\x04\x00\x00\x00lsss\x85R.')
    assert 'it asks to run posix.system' in refusal(lambda: read_pth(tmp_path/'y'))

def test_torch_files(tmp_path):
    "Containers and numbers as they were, one thing at two places, a thing within itself"
    shared = torch.arange(12.).reshape(3,4)
    o = dict(a=[1, -2.5, None, True, 'ü', b'x', (1, (2,))], view=shared[1:,::2], turned=shared.t(), n={0:shared, 1.5:'x'},
             size=shared.shape, none=torch.zeros(0, 3), empty={}, one=torch.tensor(2, dtype=torch.int16), path=tmp_path)
    o['self'] = o
    for kw in ({}, dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4)):
        torch.save(o, tmp_path/'x', **kw)
        found = load_torch(tmp_path/'x')
        assert found['a']==o['a'] and found['self'] is found and tuple(found['size'])==(3,4) and isinstance(found['path'], Inert)
        for k in ('view', 'turned', 'none', 'one'): assert torch.equal(found[k], o[k]) and found[k].dtype==o[k].dtype
        found['view'].zero_() # the file is not touched
        assert torch.equal(load_torch(tmp_path/'x')['view'], o['view'])

# --- caffe.proto, as published

def published():
    "Classes of Google's protobuf for the messages of caffe.proto that a network consists of: fields of V0, V1 and today"
    pytest.importorskip('google.protobuf')
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    F = descriptor_pb2.FieldDescriptorProto
    kinds = dict(string=F.TYPE_STRING, int32=F.TYPE_INT32, int64=F.TYPE_INT64, float=F.TYPE_FLOAT, double=F.TYPE_DOUBLE,
                 uint32=F.TYPE_UINT32, bool=F.TYPE_BOOL)
    schema = '''
        BlobShape: repeated packed int64 dim = 1
        BlobProto: optional BlobShape shape = 7; repeated packed float data = 5; repeated packed float diff = 6;
            repeated packed double double_data = 8; repeated packed double double_diff = 9; optional int32 num = 1;
            optional int32 channels = 2; optional int32 height = 3; optional int32 width = 4
        ConvolutionParameter: optional uint32 num_output = 1; repeated uint32 kernel_size = 4; optional uint32 group = 5
        LayerParameter: optional string name = 1; optional string type = 2; repeated string bottom = 3; repeated string top = 4;
            repeated float loss_weight = 5; repeated BlobProto blobs = 7; optional int32 phase = 10;
            optional ConvolutionParameter convolution_param = 106
        V0LayerParameter: optional string name = 1; optional string type = 2; optional uint32 num_output = 3;
            optional bool biasterm = 4; repeated BlobProto blobs = 50; repeated float blobs_lr = 51
        V1LayerParameter: repeated string bottom = 2; repeated string top = 3; optional string name = 4; optional int32 type = 5;
            repeated BlobProto blobs = 6; repeated float blobs_lr = 7; repeated float weight_decay = 8;
            optional V0LayerParameter layer = 1; optional ConvolutionParameter convolution_param = 10
        NetParameter: optional string name = 1; repeated V1LayerParameter layers = 2; repeated string input = 3;
            repeated int32 input_dim = 4; optional bool force_backward = 5; repeated LayerParameter layer = 100'''
    file = descriptor_pb2.FileDescriptorProto(name='caffe.proto', package='caffe', syntax='proto2')
    for line in schema.replace(';\n', ';').strip().splitlines():
        name,_,fields = line.partition(':')
        message = file.message_type.add(name=name.strip())
        for field in fields.split(';'):
            *words,kind,label,_,number = field.split()
            f = message.field.add(name=label, number=int(number), label=F.LABEL_REPEATED if 'repeated' in words else F.LABEL_OPTIONAL)
            if 'packed' in words: f.options.packed = True
            if kind in kinds: f.type = kinds[kind]
            else: f.type,f.type_name = F.TYPE_MESSAGE,f'.caffe.{kind}'
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {o.name:message_factory.GetMessageClass(pool.FindMessageTypeByName(f'caffe.{o.name}')) for o in file.message_type}

def caffe_file(m, age, double=False):
    "A .caffemodel of a network, serialized by Google's library; blobs of old layers have four dimensions"
    made = published()
    net,ids = made['NetParameter'](name='AlexNet'),dict(Convolution=4, InnerProduct=14, LRN=15, Pooling=17, ReLU=18, Dropout=6, Data=5)
    old = dict(Convolution='conv', InnerProduct='innerproduct', LRN='lrn', Pooling='pool', ReLU='relu', Dropout='dropout', Data='data')
    def add(name, kind, tensors=()):
        if age=='new': layer = net.layer.add(name=name, type=kind, bottom=['below'], top=[name])
        elif age=='v1': layer = net.layers.add(name=name, type=ids[kind], bottom=['below'], top=[name], blobs_lr=[1,2])
        else:
            outer = net.layers.add(bottom=['below'], top=[name])
            outer.layer.SetInParent()
            layer = outer.layer
            layer.name,layer.type = name,old[kind]
        for t in tensors:
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(t.flatten().tolist())
            blob.diff.extend([0.]*3)
            if age=='new': blob.shape.dim.extend(t.shape)
            else: blob.num,blob.channels,blob.height,blob.width = [1]*(4-t.ndim)+list(t.shape)
    add('data', 'Data')
    for l in m.spec.layers:
        layer = getattr(m, l.name)
        weight = layer.weight.detach().flip(1) if l.name=='conv1' else layer.weight.detach()
        add(l.name, 'Convolution' if l.kernel else 'InnerProduct', [weight, layer.bias.detach()])
        for o in l.then.split(): add(o+l.name[-1], dict(relu='ReLU', lrn='LRN', pool='Pooling', dropout='Dropout')[o])
    return net.SerializeToString()

@pytest.mark.parametrize('age', ['new', 'v1', 'v0'])
def test_caffemodel(tmp_path, age):
    "Files that Google's protobuf wrote by the published schema. (The real bvlc_alexnet.caffemodel was never at hand)"
    m = AlexNet('caffe', 5, .25, seed=0).eval()
    file = tmp_path/'bvlc_alexnet.caffemodel'
    for double in (False, True):
        file.write_bytes(caffe_file(m, age, double))
        again = load_weights(file)
        assert again.origin.startswith("Caffe's alexnet, BGR turned to RGB") and again.n_classes==5
        for k,v in m.state_dict().items(): assert torch.equal(again.state_dict()[k], v), k
    other = replace(SPECS['caffe'], layers=tuple(replace(l, then='relu pool lrn' if 'lrn' in l.then else l.then) for l in m.spec.layers))
    file.write_bytes(caffe_file(AlexNet(other, 5, .25, seed=0), age))
    assert load_weights(file).origin.startswith('CaffeNet')

# --- damage

def table(n): return json.dumps({'a':dict(dtype='F32', shape=[n], data_offsets=[0, 4*n])})
def framed(header, data=b''): return struct.pack('<Q', len(header)) + header.encode() + data
def place(**kw): return json.dumps({'a':dict(dict(dtype='F32', shape=[2], data_offsets=[0,8]), **kw)})

@pytest.mark.parametrize('raw,said', [
    (framed(table(2), bytes(4)), '8 bytes of tensors, but 4 in the file'), (framed(table(10**12)), 'bytes of tensors'),
    (framed(table(1), bytes(8)), '4 bytes of tensors, but 8'), (framed(place(dtype='F33'), bytes(8)), "invalid enum value 'F33'"),
    (framed(place(shape=[-2]), bytes(8)), 'expected int >= 0'), (framed(place(shape=2), bytes(8)), 'expected array'),
    (framed(place(shape=[1]*9), bytes(8)), 'length <= 8'), (framed(place(data_offsets=[0,4]), bytes(8)), '4 bytes for a shape of [2]'),
    (framed(place(data_offsets=[8,16]), bytes(16)), 'begins at byte 8'), (framed(place(data_offsets=[0,8.5]), bytes(8)), 'expected int'),
    (framed(place(data_offsets=[2**63,2**63+8]), bytes(8)), 'expected'), (framed('{"a":'+'['*99_999), 'nested too deep'),
    (framed('{"__metadata__":{"a":1}}'), 'expected str'), (framed('{"__metadata__":[]}'), 'expected object'),
    (framed('{}\xff'), 'a header'), (framed('{"a":1}'), 'expected object'), (struct.pack('<Q', 1<<62)+b'{}', 'unknown kind of file'),
    (framed(json.dumps({k:dict(dtype='U8', shape=[4], data_offsets=[o,o+4]) for k,o in (('a',0),('b',2))}), bytes(6)), 'b begins at byte 2')])
def test_safetensors_header(tmp_path, raw, said):
    "Each is one line that says where"
    (tmp_path/'x').write_bytes(raw)
    text = refusal(lambda: load_weights(tmp_path/'x'))
    assert text.startswith(str(tmp_path/'x')) and (said in text or said=='a header'), text

def own_file(tmp_path, change):
    "A file of ours, whose texts were changed"
    save_weights(AlexNet(width=.02, size=64, n_classes=3, seed=0), tmp_path/'own')
    raw = (tmp_path/'own').read_bytes()
    n = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8:8+n])
    change(header['__metadata__'])
    (tmp_path/'x').write_bytes(framed(json.dumps(header), raw[8+n:]))
    return tmp_path/'x'

def texts(**kw): return lambda meta: meta.update(kw)
def spec(layer=None, **kw):
    def change(meta):
        table = json.loads(meta['spec'])
        (table if layer is None else table['layers'][layer]).update(kw)
        meta['spec'] = json.dumps(table)
    return change

@pytest.mark.parametrize('change,said', [
    (texts(names='["a"]'), '1 names for 3 classes'), (texts(names='[1,2,3]'), 'names[0]: expected str'),
    (texts(wnids='["a"]'), '1 names for 3 classes'), (texts(names='{"a":1}'), 'names: expected array'),
    (texts(side='-5'), 'side: expected int >= 0'), (texts(side=str(10**12)), 'side: expected int <= 4096'),
    (texts(side='8'), 'inputs of 64 pixels from squares of 8'), (texts(size='NaN'), 'size: expected int'),
    (texts(size='0'), 'size: expected int >= 1'), (texts(n_classes='"3"'), 'n_classes: expected int'),
    (texts(n_classes=str(10**12)), 'n_classes: expected int <='), (texts(n_classes='4'), 'fc8.weight: expected (4, 80), got (3, 80)'),
    (texts(width='1e9'), 'width: expected float <= 16'), (texts(width='-1'), 'width: expected float'),
    (texts(spec='['*100_000+']'*100_000), 'nested too deep'), (texts(spec='null'), 'expected'), (texts(spec='{}'), 'required field'),
    (lambda meta: meta.pop('spec'), "no 'spec'"), (lambda meta: meta.pop('size'), 'required field size'),
    (spec(lrn_groups=3), 'do not divide into 3'), (spec(lrn_groups=0), 'lrn_groups: expected int >= 1'),
    (spec(lrn_alpha=[]), 'lrn_alpha: expected float'), (spec(lrn_k=0), 'lrn_k: expected float > 0'),
    (spec(pool=[3]), 'pool: expected array of length 2'), (spec(pool=[0,2]), 'pool[0]: expected int >= 1'),
    (spec(layers=[]), 'expected convolutions, then fully connected layers'), (spec(layers=5), 'layers: expected array'),
    (spec(momentun=.9), "'momentun' is unknown"), (spec(input=dict(crops='x')), "input.crops: invalid enum value 'x'"),
    (spec(input=dict(unit=0)), 'input.unit: expected float > 0'), (spec(input=dict(coulor='std')), "'coulor' is unknown"),
    (spec(0, name='forward'), 'layers[0].name'), (spec(0, name='conv2'), 'two layers have the same name'),
    (spec(0, out=True), 'expected int, got bool'), (spec(0, out=10**9), 'layers[0].out: expected int <='),
    (spec(0, kernel=-1), 'layers[0].kernel'), (spec(0, kernel=10**6), 'layers[0].kernel'), (spec(0, kernel=0, then=''), 'expected convolutions'),
    (spec(0, stride=0), 'layers[0].stride'), (spec(0, pad='9999'), 'layers[0].pad'), (spec(0, pad=2), 'expected str'),
    (spec(0, groups=2), 'do not divide into 2'), (spec(2, then='rleu'), "conv3: 'rleu' is unknown"),
    (spec(0, then='relu '*10**5), 'layers[0].then'), (spec(5, then='pool'), 'fc6: pool needs a map'),
    (spec(1, then='pool pool pool pool'), 'too small'), (spec(2, strd=1), "'strd' is unknown"), (spec(0, std='x'), 'layers[0].std')])
def test_own_header(tmp_path, change, said):
    "What a header may say is checked before anything is made of it"
    file = own_file(tmp_path, change)
    for f in (load_weights, read_weights):
        text = refusal(lambda: f(file))
        assert text.startswith(str(file)) and said in text, text

def test_own_tensors(tmp_path):
    "Numbers that are none, and a mean image of another size"
    m = AlexNet(width=.02, size=64, n_classes=3, seed=0)
    file = tmp_path/'x'
    m.mean = torch.zeros(9, 9, 3)
    save_weights(m, file)
    assert 'mean image: expected (73,73,3)' in refusal(lambda: load_weights(file))
    m.mean = torch.full((73,73,3), float('inf'))
    save_weights(m, file)
    assert 'finite' in refusal(lambda: load_weights(file))
    m.mean = None
    m.fc8.bias.data[1] = float('nan')
    save_weights(m, file)
    assert 'fc8.bias: expected numbers with fractions, all of them finite' in refusal(lambda: load_weights(file))

def test_no_weights(tmp_path, net):
    "Whatever else there is: one line that names it, within seconds"
    def saved(o):
        torch.save(o, f := io.BytesIO())
        return f.getvalue()
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w') as z: z.writestr('alexnet.pth', 'x')
    raws = {'empty':b'', 'zeros':bytes(1000), 'text.pth':b'<html>', 'lfs.caffemodel':b'version https://git-lfs.github.com/spec/v1\n',
            'x.jpg':b'\xff\xd8\xff\xe0'+bytes(99), 'x.zip':b.getvalue(), 'x.tar':bytes(257)+b'ustar'+bytes(999), 'list':saved([1,2]),
            'another':saved(dict(conv1=torch.ones(3))), 'ours':saved(AlexNet(width=.02, size=64, n_classes=3).state_dict()),
            'lacks':saved({k:v for k,v in named(net).items() if k!='classifier.6.bias'}), 'whole':saved(before('a.', {'x':torch.ones(1)})),
            'shapes':saved({k:v[:1] for k,v in named(net).items()}), 'integers':saved({k:v.int() for k,v in named(net).items()}),
            'nan':saved({k:v*float('nan') for k,v in named(net).items()}), 'cut':saved(named(net))[:-999]}
    for name,raw in raws.items(): (tmp_path/name).write_bytes(raw)
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'folder').mkdir()
    for name in (*raws, 'pipe', 'folder', 'none', 'x'*300, 'line\nbreak'):
        text = refusal(lambda: load_weights(tmp_path/name))
        assert name=='line\nbreak' or str(tmp_path/name) in text, text
    assert 'it holds alexnet.pth' in refusal(lambda: load_weights(tmp_path/'x.zip'))
    assert 'but not its spec' in refusal(lambda: load_weights(tmp_path/'ours'))

def opcodes(n): return b'\x80\x02('+b'}'*n+b't.'

@pytest.mark.parametrize('pickled', [
    b'\x80\x02Nr'+(10**8).to_bytes(4, 'little')+b'.', later(opcodes(1_100_000)), b'\x80\x02)'+b'\x85'*300_000+b'.', b'\x80\x02'+b']'*150_000+b'a'*149_999+b'.',
    b'\x80\x02ca\nb\n'+b')R'*150_000+b'.', b'\x80\x02]q\0'+b'(h\0h\0lq\0'*200+b'.', b'\x80\x02)q\0'+b'h\0h\0\x86q\0'*200+b'.',
    b'\x80\x02ca\nb\n)R'+b'2b'*9+b'.', b'\x80\x04\x8e'+(2**62).to_bytes(8, 'little')+b'.', b'\x80\x02I'+b'9'*10**6+b'\n.', b'\x80\x02h\0.', b'\x80\x02.'])
def test_pickle_bombs(tmp_path, pickled):
    "Small files that would cost gigabytes, or the stack, elsewhere"
    before_ = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path/'x').write_bytes(pickled)
    refusal(lambda: load_weights(tmp_path/'x'))
    with zipfile.ZipFile(tmp_path/'y', 'w') as z: z.writestr('a/data.pkl', pickled)
    refusal(lambda: load_weights(tmp_path/'y'))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before_ < 600<<10 # kilobytes

def rebuilt(n, at, shape, strides, kind=b'torch\nFloatStorage'):
    "A zip with one tensor, as its pickle says, and a storage of n bytes"
    numbers = lambda o: b'('+b''.join(b'\x8a\x09'+int(i).to_bytes(9, 'little', signed=True) for i in o)+b't'
    pkl = (b'\x80\x02}X\x01\0\0\0w' + b'ctorch._utils\n_rebuild_tensor_v2\n(' + b'(X\x07\0\0\0storagec'+kind+b'\nX\x01\0\0\x000X\x03\0\0\0cpuJ\xff\xff\xff\x7ftQ'
           + b'\x8a\x09'+int(at).to_bytes(9, 'little', signed=True) + numbers(shape) + numbers(strides) + b'\x89NtRs.')
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w') as z:
        z.writestr('a/data.pkl', pkl)
        z.writestr('a/data/0', bytes(n))
    return b.getvalue()

def test_views(tmp_path):
    "A tensor lies within its storage, whatever the pickle says of the storage's size"
    file = tmp_path/'x'
    file.write_bytes(rebuilt(24, 1, (2,2), (3,1)))
    assert torch.equal(read_pth(file)['w'], torch.zeros(2,2))
    for args in ((24, 2, (2,2), (3,1)), (24, -1, (2,2), (2,1)), (24, 0, (2,2), (-1,1)), (24, 0, (10**12,), (0,)), (24, 0, (7,), (0,)),
                 (24, 2**63, (1,), (1,)), (0, 0, (1,), (1,)), (24, 0, (2,), (1,1)), (24, 0, (1,)*99, (1,)*99), (24, 0, (2**40, 2**40), (0, 0))):
        file.write_bytes(rebuilt(*args))
        assert str(file) in refusal(lambda: read_pth(file))

def test_damaged_at_random(tmp_path):
    "Bytes changed, cut out, put in: read, or one line"
    m = AlexNet('torchvision', 3, .125, seed=0)
    few = {k:v if v.ndim==1 else v.flatten()[:5] for k,v in named(m).items()}
    seeds = {}
    for name,kw in dict(zip={}, pickles=dict(_use_new_zipfile_serialization=False)).items():
        torch.save(dict(model=few, args=Namespace(lr=.1)), tmp_path/'x', **kw)
        seeds[name] = (tmp_path/'x').read_bytes()
    seeds['pickle'] = pickle.dumps(dict(model=few))
    seeds['own'] = own_file(tmp_path, texts()).read_bytes()
    rng = np.random.default_rng(0)
    for raw in seeds.values():
        for _ in range(150):
            b = bytearray(raw)
            for i in rng.integers(0, min(len(b)-40, 3000), rng.integers(1, 6)):
                kind = rng.integers(4)
                if kind==0: b[i] = rng.integers(256)
                if kind==1: del b[i:i+rng.integers(1, 20)]
                if kind==2: b[i:i] = rng.bytes(3)
                if kind==3: b[i:i+4] = b'\xff'*4
            (tmp_path/'x').write_bytes(b)
            try: load_weights(tmp_path/'x')
            except Refusal as e: assert '\n' not in str(e) and str(tmp_path/'x') in str(e), e

# --- same bytes

def test_same_bytes(tmp_path, py):
    "The same network is the same file: in another process, and with its tensors in another order"
    m = AlexNet('code2012', 3, .02, 64, seed=0)
    m.names,m.wnids = list('abc'),list('xyz')
    m.mean = torch.ones(m.side, m.side, 3)
    save_weights(m, tmp_path/'a', dict(one=torch.ones(2), two=torch.ones(3)), dict(step=3, val='[]'))
    save_weights(m, tmp_path/'b', dict(two=torch.ones(3), one=torch.ones(2)), dict(val='[]', step=3))
    assert (tmp_path/'a').read_bytes()==(tmp_path/'b').read_bytes()
    again,extra,meta = read_weights(tmp_path/'a')
    assert again.wnids==m.wnids and again.names==m.names and set(extra)=={'one','two'} and meta['step']=='3'
    save_weights(again, tmp_path/'b', extra, dict(step=3, val='[]'))
    assert (tmp_path/'a').read_bytes()==(tmp_path/'b').read_bytes()
    code = f"from alexnet_nb.model import *; m = read_weights({str(tmp_path/'a')!r}); save_weights(m[0], {str(tmp_path/'c')!r}, m[1], dict(step=3, val='[]'))"
    r = py('-c', code, PYTHONHASHSEED='1')
    assert r.returncode==0 and (tmp_path/'c').read_bytes()==(tmp_path/'a').read_bytes(), r.stderr

def test_same_graph(tmp_path):
    "A graph, too"
    pytest.importorskip('onnx')
    m = AlexNet('code2012', 3, .02, 64, seed=0)
    graphs = [export_onnx(m, tmp_path/f'{i}.onnx').read_bytes() for i in range(3)]
    assert len(set(graphs))==1

# --- addresses

@pytest.fixture
def server(tmp_path, monkeypatch, net):
    "A server of a file of weights; `breaks` says after how many bytes it hangs up, `ranges` whether it can go on"
    torch.save(named(net), tmp_path/'w.pth')
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            o = self.server
            given = self.headers.get('Range')
            begin = int(given[6:-1]) if given and o.ranges and self.headers.get('If-Range', o.tag)==o.tag else 0
            o.asked.append((given, begin))
            self.send_response(206 if begin else 200)
            if begin: self.send_header('Content-Range', f'bytes {begin}-{len(o.data)-1}/{len(o.data)}')
            if o.tag: self.send_header('ETag', o.tag)
            self.send_header('Content-Length', str(len(o.data)-begin))
            self.end_headers()
            self.wfile.write(o.data[begin:o.breaks])
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.handle_error = lambda *_: None
    server.data,server.asked,server.breaks,server.ranges,server.tag = (tmp_path/'w.pth').read_bytes(),[],None,True,'"1"'
    server.url = f'http://127.0.0.1:{server.server_port}/w.pth'
    server.sha256 = hashlib.sha256(server.data).hexdigest()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path/'home'))
    yield server
    server.shutdown()

def cache(folder): return sorted(o.name for o in (folder/'home').rglob('*') if o.is_file())

@pytest.mark.parametrize('tag', ['"1"', None, 'W/"1"'])
def test_gone_on(server, tmp_path, net, tag):
    "A download that breaks off goes on where it was"
    server.breaks,server.tag = 50_000,tag
    assert 'the connection ended after 50,000 of' in refusal(lambda: load_weights(server.url, sha256=server.sha256))
    assert cache(tmp_path)==['w.pth.begun', 'w.pth.partial']
    server.breaks = None
    assert torch.equal(load_weights(server.url, sha256=server.sha256).fc8.bias, net.fc8.bias)
    assert server.asked[-1]==('bytes=50000-', 50_000) and cache(tmp_path)==['w.pth']

def test_killed_at_the_end(server, tmp_path, net):
    "All bytes are there, but not yet under the name of the file"
    server.breaks = 50_000
    refusal(lambda: load_weights(server.url))
    next((tmp_path/'home').rglob('w.pth.partial')).write_bytes(server.data)
    assert torch.equal(load_weights(server.url).fc8.bias, net.fc8.bias) and len(server.asked)==1
    assert cache(tmp_path)==['w.pth']

def test_begun_anew(server, tmp_path, net):
    "A server without ranges, and one that has another file by now, send all of it"
    for o in (dict(ranges=False), dict(tag='"2"')):
        server.breaks,server.ranges,server.tag = 50_000,True,'"1"'
        refusal(lambda: load_weights(server.url, sha256=server.sha256))
        server.breaks = None
        for k,v in o.items(): setattr(server, k, v)
        assert torch.equal(load_weights(server.url, sha256=server.sha256).fc8.bias, net.fc8.bias)
        assert server.asked[-1]==('bytes=50000-', 0)
        next((tmp_path/'home').rglob('w.pth')).unlink()

def test_kept(server, tmp_path, net, capsys):
    "What is whole stays, whatever was expected; without a checksum and without encryption its own is said"
    for wrong in ('x', '', 'g'*64, server.sha256+'0', 7):
        assert '8 to 64 digits' in refusal(lambda: load_weights(server.url, sha256=wrong))
    assert not server.asked and not cache(tmp_path)
    text = refusal(lambda: load_weights(server.url, sha256='0'*64))
    assert 'not the file that was meant' in text and cache(tmp_path)==['w.pth.'+server.sha256[:12]] and cache(tmp_path)[0] in text
    assert torch.equal(load_weights(server.url).fc8.bias, net.fc8.bias) and server.sha256 in capsys.readouterr().err
    n = len(server.asked)
    refusal(lambda: load_weights(server.url, sha256='0'*64))
    load_weights(server.url, sha256=server.sha256.upper())
    server.data = b'<html>'+bytes(99)
    text = refusal(lambda: load_weights(server.url.replace('w.pth', 'page.pth')))
    assert len(server.asked)==n+1 and 'page.pth' in text and 'page.pth' in cache(tmp_path) and 'w.pth' in cache(tmp_path)
