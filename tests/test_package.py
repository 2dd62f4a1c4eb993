"What pip installs, and what `import alexnet_nb` offers and costs"
import importlib, re, shutil, sys, tarfile, zipfile
from pathlib import Path

import pytest, torch

import alexnet_nb
from alexnet_nb.tools.cards import find_cards
from alexnet_nb.tools.claims import show_claims
from alexnet_nb.tools.experiments import list_experiments
from alexnet_nb.tools.trials import find_lines
from conftest import entry_points, fine, run, settings, slow

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

def test_one_version(repo):
    "CITATION.cff names the version of settings.ini; each version that was released has a section in the changelog"
    version = settings()['version']
    assert f'\nversion: {version}\n' in (repo/'CITATION.cff').read_text()
    assert f'\n## [{version}] - 20' in (repo/'CHANGELOG.md').read_text()

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

@slow
def test_types(repo, tmp_path):
    "A type checker agrees with a user's program, which has everything that was promised"
    pytest.importorskip('mypy')
    program = repo/'tests/user_types.py'
    fine(run(sys.executable, '-m', 'mypy', f'--cache-dir={tmp_path}', program, cwd=repo, timeout=200))
    promised = {o for names in contract.values() for o in names.split()}
    assert not promised - set(re.findall(r'\w+', program.read_text()))

# --- The files that pip gets

build = """
import os, sys, setuptools.build_meta as b
os.chdir(sys.argv[1])
getattr(b, f'build_{sys.argv[2]}')(sys.argv[3])
"""

@pytest.fixture(scope='module')
def built(repo, py, tmp_path_factory):
    "A folder with a source archive, made from a copy of this repository, and a wheel, made from that archive alone"
    d = tmp_path_factory.mktemp('built')
    skip = shutil.ignore_patterns('.git', '*.ipynb', '__pycache__', '_proc', 'build', '*.egg-info')
    for o in ('alexnet_nb', 'nbs', 'tests'): shutil.copytree(repo/o, d/'copy'/o, ignore=skip)
    for o in repo.iterdir():
        if o.is_file(): shutil.copy(o, d/'copy')
    fine(py('-c', build, d/'copy', 'sdist', d))
    with tarfile.open(next(d.glob('*.tar.gz'))) as t: t.extractall(d/'source', filter='data')
    fine(py('-c', build, next((d/'source').iterdir()), 'wheel', d))
    with zipfile.ZipFile(next(d.glob('*.whl'))) as z: z.extractall(d/'site')
    return d

def files(folder): return {o.relative_to(folder).as_posix() for o in folder.rglob('*') if o.is_file()}

def test_wheel(repo, built):
    "All modules, their data, all cards and finished runs, the licence; no notebook, no test, nothing else"
    names = {o for o in files(built/'site') if '.dist-info/' not in o}
    want = {o.relative_to(repo).as_posix() for o in (repo/'alexnet_nb').rglob('*.py')}
    want |= {f'alexnet_nb/{o}' for o in ('ilsvrc2012.txt', 'lab_log_2012.csv', 'py.typed')}
    want |= {f'alexnet_nb/cards/{o}' for o in files(repo/'nbs/cards') if re.search(r'\.jsonl?$', o)}
    assert names==want, names^want
    info = next((built/'site').glob('*.dist-info'))
    entry = (info/'entry_points.txt').read_text()
    assert '[console_scripts]' in entry and '[nbdev]' in entry and 'alexnet_nb._modidx:d' in entry
    for name,*_ in entry_points(): assert re.search(rf'^{name} *=', entry, re.M), f'{name} is not installed'
    meta = (info/'METADATA').read_text()
    assert re.search(r'^License(-Expression)?: Apache-2.0$', meta, re.M) and list(info.rglob('LICENSE'))
    needs = [o for o in re.findall(r'^Requires-Dist: (.*)$', meta, re.M) if 'extra ==' not in o]
    assert needs and not any('nbdev' in o or 'pytest' in o for o in needs)
    extras = set(re.findall(r'^Provides-Extra: (.*)$', meta, re.M))
    assert extras>={'parquet', 'onnx', 'baselines', 'tensorboard', 'dev', 'docs'}
    assert not re.search(r'\]\((?!\w+:|#)', meta.partition('\n\n')[2]), 'a link that leads nowhere on PyPI'

def test_source_archive(built):
    "What the wheel is made from, and no more"
    names = files(next((built/'source').iterdir()))
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'LICENSE', 'nbs/cards/demo.json'}<=names
    assert not [o for o in names if o.startswith('tests/') or o.endswith('.ipynb')]

def test_cards_of_a_wheel(repo, built, tmp_path, monkeypatch):
    "An installed package shows what was measured, and keeps new lines with the user's files"
    here = list_experiments().rows,show_claims().rows
    monkeypatch.setattr(alexnet_nb, '__file__', str(built/'site/alexnet_nb/__init__.py'))
    assert find_cards()==built/'site/alexnet_nb/cards'
    assert (list_experiments().rows, show_claims().rows)==here and 'cards' in here[0][0]['here']
    assert find_lines('bf16').is_relative_to(built) and find_lines('bf16', tmp_path)==tmp_path/'bf16.jsonl'

@slow
def test_installed(built, tmp_path):
    "In an environment of its own, outside the repository: a training begins, and the experiments are listed"
    fine(run(sys.executable, '-m', 'venv', tmp_path/'venv'))
    python = next(o for o in (tmp_path/'venv').glob('*/python*') if o.stem=='python')
    theirs = next((tmp_path/'venv').rglob('site-packages'))
    (theirs/'others.pth').write_text(str(Path(torch.__file__).parents[1])) # in place of what it needs
    fine(run(python, '-m', 'pip', 'install', '-q', '--no-deps', next(built.glob('*.whl')), timeout=180))
    outside = dict(cwd=tmp_path, env={'PYTHONPATH':str(theirs)})
    where = fine(run(python, '-c', 'import alexnet_nb; print(alexnet_nb.__file__)', **outside)).stdout
    assert Path(where.strip()).is_relative_to(theirs)
    said = fine(run(python.with_name('alexnet_train'), '--steps', 20, timeout=280, **outside)).stdout
    assert 'stopped as asked' in said and (tmp_path/'alexnet_demo/run/last.safetensors').exists()
    assert 'tanh' in fine(run(python.with_name('alexnet_reproduce'), **outside)).stdout
