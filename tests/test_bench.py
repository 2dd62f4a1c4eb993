"`alexnet_bench` in processes of its own. Only that it works is tested: no time, no ratio of times is compared with anything."
import json, os, shutil, subprocess, sys
import pytest
from conftest import root, slow

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

every = ['lrn','step','memory','optimizer','data','end_to_end']

@pytest.mark.parametrize('what', [['lrn'], []])
def test_writes_a_card(bench, tmp_path, what):
    "By name and without one: one table, and a card that says on what it was measured"
    r = bench(*what, *tiny)
    assert r.returncode==0, r.stderr
    card = json.loads((tmp_path/'work/bench_lrn.json').read_text())
    assert card['command'].startswith('alexnet_bench') and card['versions']['threads']==1 and '1 threads' in card['device']
    ls = card['spread']
    assert {o['unit'] for o in ls}=={'times as fast','times as long','copies','GB/s'}
    assert len({o['place'] for o in ls})==3 # two places, and the training step
    for o in ls: assert 0<o['low']<=o['median']<=o['high'] and o['n']==1, o
    for o in ls: assert o['what'] in r.stdout
    cards = sorted(f'bench_{o}.json' for o in what or every)
    assert all(o in r.stdout for o in cards)
    assert sorted(o.name for o in (tmp_path/'work').iterdir())==cards
    assert sum(o.startswith(('measured','measurement')) for o in r.stdout.splitlines())==1

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

nets = 'paper code2012 one_column no_lrn no_overlap no_talk conv6 caffe torchvision torchvision.models.alexnet'.split()

def test_step(bench, tmp_path):
    "All networks, the ceilings of the same run beside each, and what follows from images per second"
    r = bench('step', *tiny, '--bf16', '--channels-last')
    assert r.returncode==0, r.stderr
    card = json.loads((tmp_path/'work/bench_step.json').read_text())
    ls = {(o['what'],o['place'],o['unit']):o for o in card['spread']}
    base = 'batch 2, fp32'
    for k in nets:
        o = ls[k, base, 'images per s']
        assert o['share']>0 and o['binds'] in ('arithmetic in fp32','memory')
        hours = ls[f'90 epochs of ILSVRC, computed, compute only: {k}', base, 'hours']['median']
        assert hours==pytest.approx(90*1_281_167/o['median']/3600)
    modes = {place for _,place,unit in ls if unit=='images per s'}
    assert modes=={base, 'batch 2, fp32 channels_last', 'batch 2, bf16', 'batch 2, bf16 channels_last'}
    assert 'code2012 against torchvision.models.alexnet, per multiply-add' in r.stdout
    assert not card['value'], 'goals are for the full network'

@slow
@pytest.mark.skipif(not shutil.which('c++'), reason='torch.compile needs a compiler on a CPU')
def test_compiled(tmp_path):
    "A compiled network takes part"
    code = """if 1:
        from alexnet_nb.bench import Mode, Options, _can_compile, _trainer
        o = Options(device='cpu', batch_size=2, width=.25, size=64, compile=True)
        assert _can_compile(o) and not _can_compile(Options(device='cpu'))
        _trainer(o, 'one_column', Mode(compile=True))()"""
    r = subprocess.run([sys.executable, '-c', code], env=os.environ | dict(PYTHONPATH=str(root)), capture_output=True, text=True)
    assert r.returncode==0, r.stderr

def test_optimizer_and_end_to_end(bench, tmp_path, monkeypatch):
    "The update rules against a copy, and what is lost between pack and weights; nothing stays behind"
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    r = bench('optimizer', 'end_to_end', *tiny)
    assert r.returncode==0, r.stderr
    opt,whole = (json.loads((tmp_path/f'work/bench_{o}.json').read_text())['spread'] for o in ('optimizer','end_to_end'))
    assert {o['limit'] for o in opt if o['unit']=='copies'}=={5/3}
    assert {o['what'] for o in opt if o['unit']=='ms'}=={'SGD2012','SGD, tensor by tensor','SGD, foreach','SGD, fused'}
    v = {o['what']:o['median'] for o in whole}
    for k in ('raw','jpeg'):
        lost = 1-v[f'pack, {k}, to step']/v['step alone']
        assert v[f'pack, {k}, to step: lost']==pytest.approx(lost, abs=1e-6)
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
    refused(bench('step', *tiny, '--compile-mode', 'fast'), "compile_mode 'fast' is unknown")
    refused(bench('lrn', 'lrn', *tiny, '--out', 'x.json'), 'one file for 2 cards')
    assert not list((tmp_path/'work').iterdir())
