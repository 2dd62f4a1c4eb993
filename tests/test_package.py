"What `import alexnet_nb` offers, and what it costs"
import importlib, shutil

offered = '''
import sys, alexnet_nb
assert 'torch' not in sys.modules and 'numpy' not in sys.modules
names = ['AlexNet', 'SPECS', 'Pack', 'evaluate', 'load_weights']
assert sorted(alexnet_nb.__all__)==sorted(names) and {*names, '__version__'} <= set(dir(alexnet_nb))
try: alexnet_nb.none
except AttributeError as e: assert "'alexnet_nb' has no attribute 'none'" in str(e)
else: raise AssertionError('a name that is not there')
assert 'torch' not in sys.modules
import alexnet_nb.data, alexnet_nb.model, alexnet_nb.results
from alexnet_nb import *
assert AlexNet is alexnet_nb.AlexNet is alexnet_nb.model.AlexNet and 'AlexNet' in vars(alexnet_nb)
assert (SPECS, load_weights)==(alexnet_nb.model.SPECS, alexnet_nb.model.load_weights)
assert (Pack, evaluate)==(alexnet_nb.data.Pack, alexnet_nb.results.evaluate)
'''

def test_names_on_offer(py):
    "Loaded when they are first used, the same objects as in their modules"
    done = py('-c', offered)
    assert done.returncode==0, done.stderr

def test_version(repo, py, tmp_path):
    "nbdev writes the version of settings.ini into its line and leaves the rest alone"
    shutil.copy(repo/'settings.ini', tmp_path)
    (tmp_path/'alexnet_nb').mkdir()
    copy = tmp_path/'alexnet_nb/__init__.py'
    source = (repo/'alexnet_nb/__init__.py').read_text()
    copy.write_text(source.replace('__version__ = "', '__version__ = "9.'))
    done = py('-c', 'from nbdev.config import update_version; update_version()', cwd=tmp_path)
    assert done.returncode==0, done.stderr
    assert copy.read_text()==source

contract = {
    'data': 'prepare Pack Loader', 'relu': 'CifarNet figure1', 'split': 'columns merge', 'lrn': 'lrn LRN',
    'pooling': 'MaxPool', 'model': 'AlexNet SPECS load_weights export_onnx Table', 'augment': 'Augment ten_views',
    'dropout': 'Dropout', 'train': 'SGD2012 Schedule step train Run', 'tools.cards': 'Card table',
    'results': 'evaluate predict show_filters show_top5 show_neighbours',
    'tools.bench': 'bench', 'tools.doctor': 'doctor', 'tools.experiments': 'EXPERIMENTS'}

def test_contract():
    "The names that users rely on are where they were promised"
    lost = []
    for module,names in contract.items():
        there = importlib.import_module(f'alexnet_nb.{module}')
        lost += [f'{module}.{o}' for o in names.split() if not hasattr(there, o)]
    assert not lost, lost
