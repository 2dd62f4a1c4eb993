"A user's program that names everything that is promised, for type checkers; it is read, never run"
from pathlib import Path

import numpy as np, torch
from PIL import Image
from typing_extensions import assert_type

import alexnet_nb
from alexnet_nb import SPECS, AlexNet, Pack, evaluate, load_weights
from alexnet_nb.augment import Augment, InputSpec, ten_views
from alexnet_nb.data import Loader, prepare
from alexnet_nb.dropout import Dropout
from alexnet_nb.lrn import LRN, lrn
from alexnet_nb.engine.drawing import Drawing
from alexnet_nb.model import Layer, Spec, Table, Transforms, draw_network, export_onnx
from alexnet_nb.pooling import MaxPool
from alexnet_nb.relu import Cifar, CifarNet, figure1
from alexnet_nb.results import predict, show_filters, show_neighbours, show_top5
from alexnet_nb.split import Columns, columns, merge
from alexnet_nb.tools.bench import bench
from alexnet_nb.tools.cards import Card, table
from alexnet_nb.tools.commands import (alexnet_bench, alexnet_doctor, alexnet_eval, alexnet_predict, alexnet_prepare,
                                       alexnet_reproduce, alexnet_train)
from alexnet_nb.tools.doctor import Report, doctor
from alexnet_nb.tools.experiments import EXPERIMENTS
from alexnet_nb.train import SGD2012, Run, Schedule, step, train

folder, picture = Path('pack'), Image.new('RGB', (300, 256))
assert_type(alexnet_nb.__version__, str)

# --- Data
pack = prepare('pictures', folder, size=128, storage='jpeg', workers=None, tell=print)
assert_type(pack, Pack)
again = Pack(path='pack')
assert_type(again.count(), int)
assert_type(again.mean, torch.Tensor)
assert_type(again.labels('val'), np.ndarray)
square = again.images('val')[0]
for images, labels in Loader(pack, split='train', bs=32, shuffle=None, workers=2): print(images.shape, labels)
augment = Augment(pack, size=112, device='cpu')
for view in augment.views(torch.zeros(2, 128, 128, 3, dtype=torch.uint8)): assert_type(view, torch.Tensor)
assert_type(ten_views(torch.zeros(1, 3, 256, 256)), torch.Tensor)

# --- The network
spec: Spec = SPECS['code2012']
layer: Layer = spec.layers[0]
made_of: InputSpec = spec.input
model = AlexNet(spec='one_column', n_classes=10, width=.25, size=None, seed=None)
other = AlexNet(spec)
logits = model(torch.zeros(1, 3, 224, 224))
assert_type(model.features(torch.zeros(1, 3, 224, 224), 'fc7'), torch.Tensor)
assert_type(model.transforms(), Transforms)
weights: torch.Tensor = model.state_dict()['conv1.weight']
assert_type(draw_network('paper', 'code2012', size=None), Drawing)
assert_type(load_weights('model.safetensors'), AlexNet)
assert_type(load_weights(folder, sha256=None), AlexNet)
assert_type(export_onnx(model, 'model.onnx'), Path)
x = torch.zeros(1, 96, 55, 55)
assert_type(lrn(x, n=5, k=2., alpha=1e-4, beta=.75, divide=True), torch.Tensor)
for module in (LRN(k=1), MaxPool(size=3, stride=2), Dropout(keep=.5), CifarNet(act='relu', seed=None)): module.to('cpu')
halves = columns(model, ('cpu', 'cpu'))
assert_type(halves, Columns)
whole = merge(halves).features(x)

# --- Training
opt = SGD2012(model, lr=.01, bias_lr=.02, rates=None)
opt.param_groups[0]['weight_decay'] = 0.
loss, out = step(model, x, torch.zeros(1, dtype=torch.long), opt, precision='fp32')
schedule = Schedule('mine', epochs=90, events=())
assert_type(schedule.factor('weights', .5), float)
run = train(pack, 'runs/one', device=None, steps=None, spec='code2012', width=.5, epochs=2, channels_last=None)
assert_type(run, Run)
assert_type(run.path, Path)
curve = [o['loss'] for o in Run('runs/one').rows()]

# --- Results
assert_type(evaluate(model, pack), dict)
assert_type(evaluate([model, other], pack, views=(1, 10), device='cpu'), dict)
probs = predict(model, [picture], views=1)
assert_type(probs, torch.Tensor)
for figure in (show_filters(model), show_top5([picture], probs, pack.names, labels=None), show_neighbours(model, pack)):
    figure.savefig('figure.png')

# --- Tools
def speed(data: Cifar) -> dict: return figure1(data, 'runs/figure1', acts=('relu', 'tanh'), seeds=1)
card = Card(name='top5', value=.182, unit='share', n=50_000, spread=None, wall_s=None)
card.save('card.json')
assert_type(Card.load(folder/'card.json'), Card)
assert_type(table('cards'), Table)
print(table([folder/'card.json']))
cards: dict = bench('step', out=None, device='cpu')
assert_type(doctor(pack=None, seconds=5, say=print), Report)
titles = list(EXPERIMENTS)

# --- Commands, called from Python
alexnet_prepare('pictures', 'pack', workers=None)
alexnet_train(pack=None, run='runs/one', width=None, steps=20)
alexnet_eval(['runs/one'], pack='pack', card=None)
alexnet_predict('runs/one', ['cat.jpg'], device=None)
alexnet_bench(['step'], threads=None)
alexnet_doctor(seconds=5)
alexnet_reproduce('figure1', seeds=None)
