"README.md of a run: what model hubs read, and whose file it is"
import json, re, shutil
from functools import partial
from types import SimpleNamespace

import pytest, yaml

from alexnet_nb.data import Pack
from alexnet_nb.model import load_weights
from alexnet_nb.tools.commands import alexnet_eval, alexnet_train
from alexnet_nb.tools.model_card import renew_model_card, write_model_card
from alexnet_nb.train import Run
from conftest import call, fine

small = '--width .05 --size 56 --batch_size 64 --epochs 1 --device cpu --precision fp32'.split()
odd = 'a ``b` --> <b> \u732b'

@pytest.fixture(scope='module')
def trained(demo_pack, tmp_path_factory):
    "A finished run on a pack with an odd name"
    d = tmp_path_factory.mktemp('card')
    shutil.copytree(demo_pack/'pack', d/odd)
    fine(call(alexnet_train, odd, '--run', 'run', *small, cwd=d))
    return d

def metadata(text): return yaml.safe_load(re.match(r'---\n(.*?)\n---\n', text, re.S)[1])

def test_metadata(trained):
    "YAML with the fields of the specification; the figures are those of the card"
    text = (trained/'run/README.md').read_text()
    about = metadata(text)
    assert about['license']=='apache-2.0' and about['library_name']=='alexnet_nb' and about['metrics']==['accuracy']
    result, = about['model-index'][0]['results']
    assert result['dataset']=={'type':'drawn', 'name':odd.replace('`', "'"), 'split':'val', 'args':{'n':50}}
    card = json.loads((trained/'run/card.json').read_text())
    assert result['metrics'][0]['value']==pytest.approx(100-card['value']['top-1 (10 views)'], abs=.002)
    assert all({'type', 'name', 'value'}<=o.keys() for o in result['metrics']) and len(result['metrics'])==4
    assert text.splitlines()[-1].count('-->')==1 and "load_weights('model.safetensors')" in text and f"{card['n']}" in text
    hub = pytest.importorskip('huggingface_hub')
    assert hub.ModelCardData(**{k.replace('-', '_'):v for k,v in about.items()}).eval_results is None
    assert len(hub.ModelCard(text).data.eval_results)==4

found = dict(top1=.25, top5=.125, loss=1., n=370)

@pytest.fixture
def again(trained, tmp_path):
    "A copy of the run, and what writes its file once more"
    shutil.copytree(trained/'run', tmp_path/'run')
    args = load_weights(trained/'run'), Pack(trained/odd)
    write = partial(write_model_card, Run(tmp_path/'run'), *args, 'val', found, found)
    return SimpleNamespace(file=tmp_path/'run/README.md', write=write, args=args)

def test_renewed(trained, again):
    "An evaluation is added, once; where there is no file none is made"
    for _ in range(2):
        fine(call(alexnet_eval, again.file.parent, '--pack', trained/odd, '--split', 'train', '--batch_size', 256))
        results = metadata(again.file.read_text())['model-index'][0]['results']
        assert sorted(o['dataset']['split'] for o in results)==['train', 'val']
    assert again.write() and '25.00%' in again.file.read_text() and 'train' in again.file.read_text()
    again.file.unlink()
    renew_model_card(again.file.parent, [again.args[0]], again.args[1], 'val', found, found)
    assert not again.file.exists() and again.write() and '25.00%' in again.file.read_text()

@pytest.mark.parametrize('spoil', ['a word', 'the mark', 'other', 'link', 'folder'])
def test_of_the_user(again, tmp_path, capsys, spoil):
    "What somebody has changed, or put there, stays"
    file,text = again.file,again.file.read_text()
    if spoil=='a word': file.write_text(text.replace('license: "apache-2.0"', 'license: "mit"'))
    if spoil=='the mark': file.write_text(text.replace('"n": 50', '"n": 51'))
    if spoil=='other': file.write_text('mine')
    if spoil=='link':
        file.rename(tmp_path/'theirs')
        file.symlink_to(tmp_path/'theirs')
    if spoil=='folder':
        file.unlink()
        file.mkdir()
    before = file.read_bytes() if file.is_file() else None
    assert not again.write()
    renew_model_card(file.parent, [again.args[0]], again.args[1], 'val', found, found)
    assert ('somebody has changed it' in capsys.readouterr().err)==(spoil!='folder')
    assert (file.read_bytes() if file.is_file() else None)==before and not list(file.parent.glob('.*.partial'))
