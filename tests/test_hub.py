"The entry point of torch.hub, called as a user would"
import importlib, runpy
from conftest import fine

code = '''
import torch
def load(**kw): return torch.hub.load({repo!r}, 'alexnet', source='local', **kw)
net = load(spec='code2012', weights=None, width=.25, size=64, n_classes=3, seed=0)
assert net.spec.name=='code2012' and net(torch.zeros(2,3,64,64)).shape==(2,3)
from alexnet_nb.model import save_weights
save_weights(net, 'net.safetensors')
again = load(weights='net.safetensors')
assert torch.equal(again.fc8.weight, net.fc8.weight) and not again.training
try: load(spec='lenet')
except Exception as e: assert 'there are paper, code2012' in str(e), e
else: raise AssertionError
'''

def test_hub(repo, py, tmp_path):
    "From another folder, without the package on the path: torch.hub puts it there"
    fine(py('-c', code.format(repo=str(repo)), cwd=tmp_path, TORCH_HOME=str(tmp_path)))

def test_entry_points(repo):
    "All public names are on offer; torch.hub asks for the dependencies before it loads anything"
    hub = runpy.run_path(str(repo/'hubconf.py'))
    assert [k for k,o in hub.items() if k[0]!='_' and callable(o)]==['alexnet']
    for o in hub['dependencies']: importlib.import_module(o)
