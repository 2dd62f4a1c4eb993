"""Write what the page "Try it" needs into nbs/explain/try_it: a network with two columns as an ONNX graph,
the names of its classes, and drawn pictures. For instance: python .ci/try_it.py RUN"""
import argparse, json, sys, tempfile
from pathlib import Path

repo = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(repo))

import numpy as np, onnx
from onnx import helper, numpy_helper

from alexnet_nb.augment import CENTRE
from alexnet_nb.data import square
from alexnet_nb.engine.demo import CLASSES, draw
from alexnet_nb.model import export_onnx, load_weights

FLOAT,UINT8,BOOL = 1, 2, 9
DRAWN = dict(fish=0, butterfly=0, car=6, mushroom=8, cat=0, boat=6) # Name of the class, seed of the picture

class Graph:
    "The graph that `export_onnx` wrote, while it gets a new beginning, switches and more outputs"
    def __init__(self, proto):
        self.nodes = list(proto.graph.node)
        self.numbers = list(proto.graph.initializer)

    def constant(self, name, values, dtype=None):
        self.numbers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def find(self, start, op): return next(o for o in self.nodes if o.name.startswith(f'{start}_') and o.op_type==op)

    def insert(self, node, op, *inputs):
        "Let all that read a node read instead `op` of it; `inputs` are the other inputs, and '' stands for the node"
        name = node.output[0]
        node.output[0] = f'{name}_before'
        at = next(i for i,o in enumerate(self.nodes) if o.name==node.name)
        self.nodes.insert(at+1, helper.make_node(op, [o or node.output[0] for o in inputs], [name]))

def cut_views(g, model):
    "From a square (side,side,3) of bytes to `image`: ten views minus the mean image, as in chapter 6"
    side,size = model.side, model.size
    end,middle = side-size, (side-size)//2
    start = [helper.make_node('Cast', ['square'], ['square_float'], to=FLOAT),
             helper.make_node('Transpose', ['square_float'], ['square_planes'], perm=[2,0,1]),
             helper.make_node('Unsqueeze', ['square_planes', g.constant('square_axis', [0], np.int64)], ['square_one'])]
    axes = g.constant('view_axes', [2,3], np.int64)
    for i,(top,left) in enumerate([(0,0), (0,end), (end,0), (end,end), (middle,middle)]):
        corner = g.constant(f'view{i}_start', [top,left], np.int64)
        opposite = g.constant(f'view{i}_end', [top+size,left+size], np.int64)
        start.append(helper.make_node('Slice', ['square_one', corner, opposite, axes], [f'view{i}']))
    start.append(helper.make_node('Concat', [f'view{i}' for i in range(5)], ['views'], axis=0))
    mirror = dict(start=-1, end=-size-1, axis=3, step=-1)
    backwards = [g.constant(f'mirror_{k}', [v], np.int64) for k,v in mirror.items()]
    start.append(helper.make_node('Slice', ['views', *backwards], ['views_mirrored']))
    start.append(helper.make_node('Concat', ['views', 'views_mirrored'], ['views_all'], axis=0))
    mean = model.mean[middle:middle+size, middle:middle+size].permute(2,0,1)
    start.append(helper.make_node('Sub', ['views_all', g.constant('view_mean', mean.numpy(), np.float32)], ['image']))
    g.nodes[:0] = start

def switch_columns(g, model):
    "Multiply what each layer but the last computes by `columns`, two numbers of which 0 switches a column off"
    for row in model.shapes()[:-1]:
        name,units = row['name'], row['out']
        which = g.constant(f'columns_{name}_which', np.arange(units)*2//units, np.int64)
        shape = g.constant(f'columns_{name}_shape', [1,units,1,1][:4 if name.startswith('conv') else 2], np.int64)
        node = g.find(name, 'Conv' if name.startswith('conv') else 'Gemm')
        g.insert(node, 'Mul', '', f'columns_{name}')
        g.nodes[:0] = [helper.make_node('Gather', ['columns', which], [f'columns_{name}_flat']),
                       helper.make_node('Reshape', [f'columns_{name}_flat', shape], [f'columns_{name}'])]

def switch_norms(g):
    "Where `norm` is false, responses are multiplied by 1 instead of by the power of their neighbours' energy"
    one = g.constant('norm_off', 1., np.float32)
    for node in [o for o in g.nodes if o.op_type=='Pow']:
        g.insert(node, 'Where', 'norm', '', one)

def add_outputs(g):
    "Mean probabilities of the ten views; kernels and responses of conv1, rectified, of the centre view"
    kernels = g.find('conv1', 'Cast').output[0]
    normed = g.find('conv1', 'MaxPool').input[0]
    centre = g.constant('centre', [CENTRE], np.int64)
    g.nodes += [helper.make_node('Softmax', ['logits'], ['probabilities_each'], axis=1),
                helper.make_node('ReduceMean', ['probabilities_each'], ['probabilities'], axes=[0], keepdims=0),
                helper.make_node('Gather', [normed, centre], ['responses_signed'], axis=0),
                helper.make_node('Relu', ['responses_signed'], ['responses']),
                helper.make_node('Identity', [kernels], ['kernels'])]

def write_graph(model, path):
    "The graph of a network of the spec code2012, from `square`, `norm` and `columns` to what the page shows"
    with tempfile.TemporaryDirectory() as d:
        proto = onnx.load(export_onnx(model, Path(d)/'net.onnx', 'plain', half=True))
    g = Graph(proto)
    switch_norms(g)
    switch_columns(g, model)
    add_outputs(g)
    cut_views(g, model)
    conv1 = model.conv1
    k,n,side = conv1.kernel_size[0], conv1.out_channels, model.shapes()[0]['side']
    inputs = dict(square=(UINT8, [model.side,model.side,3]), norm=(BOOL, []), columns=(FLOAT, [2]))
    outputs = dict(logits=[10,model.n_classes], probabilities=[model.n_classes],
                   responses=[1,n,side,side], kernels=[n,3,k,k])
    ends = ([helper.make_tensor_value_info(name, *o) for name,o in inputs.items()],
            [helper.make_tensor_value_info(name, FLOAT, shape) for name,shape in outputs.items()])
    proto.graph.CopyFrom(helper.make_graph(g.nodes, 'try_it', *ends, g.numbers))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('run', help='folder of a run, or a file of weights')
    p.add_argument('--out', type=Path, default=repo/'nbs'/'explain'/'try_it')
    args = p.parse_args()
    model = load_weights(args.run)
    write_graph(model, args.out/'network.onnx')
    about = dict(side=model.side, size=model.size, classes=model.names, drawn=list(DRAWN))
    (args.out/'network.json').write_text(json.dumps(about, indent=1)+'\n')
    for name,seed in DRAWN.items():
        picture = draw(CLASSES.index(name), np.random.default_rng(seed)).convert('RGB')
        square(picture, model.side).save(args.out/f'{name}.png', optimize=True)

if __name__=='__main__': main()
