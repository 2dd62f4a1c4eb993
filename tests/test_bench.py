"`alexnet_bench` in processes of its own. Only that it works is tested: no time, no ratio of times is compared with anything."
import json
import pytest
from conftest import root

tiny = '--device cpu --batch-size 2 --repeats 1 --steps 1 --width .25 --size 64 --threads 1'.split()

@pytest.fixture
def bench(py, tmp_path):
    "Run `alexnet_bench` in an empty folder, installed or not"
    f = tmp_path/'bin'/'alexnet_bench'
    f.parent.mkdir()
    f.write_text('from alexnet_nb.bench import alexnet_bench\nalexnet_bench()\n')
    (tmp_path/'work').mkdir()
    return lambda *args: py(f, *args, cwd=tmp_path/'work', PYTHONPATH=str(root))

def refused(r, *parts):
    "The promise for bad input: exit code 2, one line on stderr that says what, no traceback"
    lines = r.stderr.splitlines()
    assert r.returncode==2 and len(lines)==1, r.stderr
    for p in parts: assert p in lines[0], lines[0]

@pytest.mark.parametrize('what', [['lrn'], []])
def test_writes_a_card(bench, tmp_path, what):
    "By name and without one: a table, and a card that says on what it was measured"
    r = bench(*what, *tiny)
    assert r.returncode==0, r.stderr
    card = json.loads((tmp_path/'work/bench_lrn.json').read_text())
    assert card['command'].startswith('alexnet_bench') and card['versions']['threads']==1 and '1 threads' in card['device']
    ls = card['spread']
    assert {o['unit'] for o in ls}=={'times as fast','times as long','copies','GB/s'}
    assert len({o['place'] for o in ls})==3 # two places, and the training step
    for o in ls: assert 0<o['low']<=o['median']<=o['high'] and o['n']==1, o
    for o in ls: assert o['what'] in r.stdout
    cards = sorted(f'bench_{o}.json' for o in what or ['lrn','data'])
    assert all(o in r.stdout for o in cards)
    assert sorted(o.name for o in (tmp_path/'work').iterdir())==cards

@pytest.mark.parametrize('photos', [True, False])
def test_data(bench, tmp_path, request, monkeypatch, photos):
    "Packs and loaders, on photographs or on drawn pictures; on the CPU and one thread whatever is asked for"
    if photos: request.getfixturevalue('data_dir')
    else: monkeypatch.delenv('ALEXNET_NB_DATA', raising=False)
    monkeypatch.setenv('TMPDIR', str(tmp_path)) # so that what is left behind would be seen
    r = bench('data', *tiny, '--threads', 2, '--out', 'card.json')
    assert r.returncode==0, r.stderr
    card = json.loads((tmp_path/'work/card.json').read_text())
    assert card['claim']=='2' and card['versions']['threads']==1 and 'width' not in card['name']
    what = {o['what'] for o in card['spread']}
    assert {'prepare, raw','prepare, jpeg','Loader, raw','Loader, jpeg','ImageFolder, 73-pixel files'}<=what
    assert any('16 cores, computed' in o for o in what) and not card['value']
    for o in card['spread']:
        assert 0<o['low']<=o['median']<=o['high'] and o['n']==1, o
        assert ('photographs of ILSVRC' if photos else 'drawn pictures') in o['place']
    assert not list(tmp_path.glob('alexnet_bench*'))

def test_options(bench, tmp_path):
    "Other kinds of arrays, no training step, a card in a file of its own"
    r = bench('lrn', *tiny, '--steps', 0, '--bf16', '--channels-last', '--out', 'new/card.json')
    assert r.returncode==0, r.stderr
    places = {o['place'].split(' ', 1)[1] for o in json.loads((tmp_path/'work/new/card.json').read_text())['spread']}
    assert places=={'float32','bfloat16','float32, channels last'}

def test_refuses(bench, tmp_path):
    refused(bench('lnr', *tiny), "alexnet_bench: measurement 'lnr' is unknown; there are lrn")
    refused(bench('lrn', 'data12', *tiny), "'data12' is unknown")
    refused(bench(*tiny, '--batch-size', 0), 'batch_size 0')
    refused(bench(*tiny, '--repeats', 0), 'repeats 0')
    refused(bench(*tiny, '--size', 8), 'size 8: too small')
    refused(bench(*tiny, '--device', 'cuda:77'), 'cuda:77')
    refused(bench('lrn', 'lrn', *tiny, '--out', 'x.json'), 'one file for 2 cards')
    assert not list((tmp_path/'work').iterdir())
