"Names of classes and files from anywhere: in figures and tables, and as what a network and a pack are matched by"
import csv, io, json, os, shutil, warnings
import numpy as np, pytest, torch
from PIL import Image

from alexnet_nb.data import Pack, prepare
from alexnet_nb.engine.lists import ilsvrc_words
from alexnet_nb.model import AlexNet, load_weights, save_weights
from alexnet_nb.results import evaluate, show_top5, top5_pages
from alexnet_nb.tools.cards import Card
from alexnet_nb.tools.commands import alexnet_eval, alexnet_predict
from conftest import call, fine, refused

odd_names = ['Ba$$in', 'Ke$ha', '$', '_x', r'a\b', r'$\frac{', 'new\nline', '\x1b[31mred', '\u202eturned', 'caf\udce9',
             '\u00e9'*255, 'x'*255, '\u732b\u72ac', '\U0001f98a', '|<b>|', '', ' ', '\u0301'*40, '0', 'nul\0']

def make_network(n, names=None, wnids=None, **kw):
    model = AlexNet('code2012', n, .02, 56, seed=0, **kw)
    model.names,model.wnids = names,wnids
    return model

@pytest.fixture(scope='module')
def network(tmp_path_factory):
    "Weights of a network whose classes have odd names"
    file = tmp_path_factory.mktemp('odd')/'w.safetensors'
    save_weights(make_network(len(odd_names), odd_names), file)
    return file

@pytest.mark.parametrize('ending', ['.png', '.svg', '.pdf', '.csv', '.json'])
def test_odd_names(network, tmp_path, ending):
    "Figures and tables of any class and any file name; not a word of warning"
    file = os.fsdecode(b'caf\xe9 $\\$ \xe7\x8c\xab.png')
    Image.new('RGB', (70,60), 'red').save(tmp_path/file)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        r = fine(call(alexnet_predict, network, tmp_path/file, '--out', f'o{ending}', '--views', 1, cwd=tmp_path))
    assert not r.stderr and all(o.isprintable() for o in r.stdout.splitlines())
    assert (tmp_path/f'o{ending}').stat().st_size
    if ending=='.csv':
        rows = list(csv.reader((tmp_path/'o.csv').open(encoding='utf-8', newline='')))
        assert len(rows)==2 and len(rows[1])==11
    if ending=='.json':
        assert set(json.loads((tmp_path/'o.json').read_text())[0]['names'])<={*odd_names}

def test_odd_figures():
    "Every name, as the right class and as a guess"
    ims = [np.zeros((60,60,3), np.uint8)]*len(odd_names)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for fig in top5_pages(iter(ims), torch.eye(len(odd_names)), odd_names, list(range(len(odd_names))), page=6):
            fig.savefig(io.BytesIO())
            for ax in fig.axes:
                for text in (ax.title, *ax.texts):
                    assert len(text.get_text())<=36 and not (text.get_text() and text.get_parse_math())

@pytest.mark.parametrize('n', [1, 2, 21_841])
def test_number_of_classes(n):
    fig = show_top5([Image.new('RGB', (40_000,1))], torch.ones(1, n)/n, [f'n{i}' for i in range(n)], [0])
    fig.savefig(io.BytesIO())
    assert len(fig.axes[1].patches)==min(n, 5)

# --- The classes of a network and those of a pack

@pytest.fixture(scope='module')
def made(demo_pack, tmp_path_factory):
    "Packs: the demo's ten classes, three of them, and three classes of ILSVRC; and weights"
    d = tmp_path_factory.mktemp('made')
    shutil.copytree(demo_pack/'pack', d/'ten')
    ten = Pack(d/'ten')
    for i,wnid in enumerate(list(ilsvrc_words())[7:10]):
        source = demo_pack/'pictures/train'/ten.wnids[i]
        shutil.copytree(source, d/f'photos/{wnid}')
        shutil.copytree(source, d/f'some/{ten.wnids[9-i]}')
    shutil.copy(demo_pack/'pictures/words.txt', d/'some')
    prepare(d/'photos', d/'ilsvrc', size=64)
    prepare(d/'some', d/'three', size=64)
    save_weights(make_network(10, ten.names, ten.wnids), d/'ten.safetensors')
    turned = make_network(10, ten.names[::-1], ten.wnids[::-1])
    with torch.no_grad():
        for p in turned.fc8.parameters(): p.copy_(p.flip(0))
    save_weights(turned, d/'turned.safetensors')
    save_weights(make_network(10), d/'nameless.safetensors')
    save_weights(make_network(1000), d/'thousand.safetensors')
    save_weights(make_network(3, ['a','b','c'], ['a','b','c']), d/'others.safetensors')
    return d

@pytest.fixture
def eval_(made): return lambda *args: call(alexnet_eval, *args, '--batch_size', 200, cwd=made)

def test_another_order(made, eval_):
    "The same network with its outputs in another order has the same errors, alone and in an average"
    r = fine(eval_('ten.safetensors', 'turned.safetensors', '--pack', 'ten', '--card', 'c.json'))
    assert 'turned.safetensors: its classes are in another order' in r.stderr and 'ten.safetensors' not in r.stderr.split()[1]
    rows = [o.split()[1:4] for o in r.stdout.splitlines()[1:7]]
    assert rows[0]==rows[2]==rows[4] and rows[1]==rows[3]==rows[5]
    assert Card.load(made/'c.json').n==50

def test_same_card(made, eval_, monkeypatch):
    "The same result is the same card, byte by byte, with a date that is given"
    monkeypatch.setenv('SOURCE_DATE_EPOCH', '1348963200')
    cards = []
    for _ in range(2):
        fine(eval_('ten.safetensors', '--pack', 'ten', '--card', 'same.json'))
        cards.append((made/'same.json').read_bytes())
    assert cards[0]==cards[1] and Card.load(made/'same.json').date=='2012-09-30'

def test_part_of_the_classes(made, eval_):
    r = fine(eval_('ten.safetensors', '--pack', 'three', '--split', 'train'))
    assert 'only the outputs of the 3 classes of three count, of its 10' in r.stderr
    net = load_weights(made/'ten.safetensors')
    found = evaluate(net, Pack(made/'three'), 1, 'train')
    assert found['top5']==0 and 0<=found['top1']<=1 # five guesses among three classes

def test_ilsvrc_without_names(made, eval_):
    r = fine(eval_('thousand.safetensors', '--pack', 'ilsvrc'))
    assert 'taken to be those of ILSVRC-2012 in their order' in r.stderr and 'the 3 classes of ilsvrc' in r.stderr
    assert 'are taken to be those of the pack' in fine(eval_('nameless.safetensors', '--pack', 'ten')).stderr

@pytest.mark.parametrize('net,pack,why', [('others','three',"'a'"), ('others','ten','10 classes are not those'),
                                          ('thousand','ten','does not name them'), ('nameless','three','does not name'),
                                          ('ten','ilsvrc','an error would mean nothing')])
def test_other_classes(made, eval_, net, pack, why):
    "An error that would mean nothing is not measured"
    refused(eval_(f'{net}.safetensors', '--pack', pack, '--card', 'none.json'), why, pack)
    assert not (made/'none.json').exists()
