"Fixtures shared by the tests. A test that asks for `nb` runs once for each notebook."
import json, os, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import pytest

os.environ['MPLBACKEND'] = 'Agg'
root = Path(__file__).resolve().parents[1]

slow = pytest.mark.skipif('ALEXNET_NB_LONG' not in os.environ, reason='takes long on few cores: set ALEXNET_NB_LONG')
def later(*args): return pytest.param(*args, marks=slow)

def text(o): return o if isinstance(o, str) else ''.join(o)

def find():
    "Notebooks, without those that nbdev passes over"
    files = (root/'nbs').rglob('*.ipynb')
    return sorted(p for p in files if not any(o[0] in '._' for o in p.relative_to(root).parts))

def load(
    path:Path,  # Notebook
):
    "A notebook as its file has it: `path`, `name`, and `cells` with their source as one string"
    raw = json.loads(path.read_text(encoding='utf-8'))
    cells = [SimpleNamespace(id=o.get('id'), type=o['cell_type'], source=text(o['source']),
                             outputs=o.get('outputs', [])) for o in raw['cells']]
    return SimpleNamespace(path=path, name=path.relative_to(root/'nbs').as_posix(), cells=cells)

def pytest_generate_tests(metafunc):
    if 'nb' in metafunc.fixturenames:
        nbs = [load(p) for p in find()]
        metafunc.parametrize('nb', nbs, ids=[o.name for o in nbs])

@pytest.fixture(scope='session')
def repo():
    "Folder of the repository"
    return root

@pytest.fixture(scope='session')
def notebooks():
    "All notebooks, in the order of their names"
    return [load(p) for p in find()]

@pytest.fixture(scope='session')
def chapters(notebooks):
    "The notebooks that make a module each: those whose name begins with a number"
    return [o for o in notebooks if o.name[0].isdigit()]

@pytest.fixture(scope='session')
def data_dir():
    "Folder of the real data"
    d = os.environ.get('ALEXNET_NB_DATA')
    if not d or not Path(d).is_dir(): pytest.skip('needs real data: set ALEXNET_NB_DATA to its folder')
    return Path(d)

@pytest.fixture(scope='session')
def py():
    "Run Python in a process of its own, as a user would: no `IN_TEST`, the repository importable"
    def run(*args, cwd=root, **env):
        e = {k:v for k,v in os.environ.items() if k!='IN_TEST'} | {'PYTHONPATH': str(cwd)} | env
        cmd = [sys.executable, *map(str, args)]
        return subprocess.run(cmd, cwd=cwd, env=e, capture_output=True, text=True)
    return run

def pytest_collection_modifyitems(items):
    "Tests that fork come first, before others have started threads of PyTorch in this process"
    items.sort(key=lambda o: o.path.stem!='test_data')
