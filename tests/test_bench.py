"`alexnet_bench`, called as its script does. Only that it works is tested: no time, no ratio of times is compared with anything."
import json, shutil, sys
import pytest
from alexnet_nb.tools.commands import alexnet_bench
from conftest import call, fine, later, run, slow

tiny = '--device cpu --batch-size 2 --repeats 1 --steps 1 --width .25 --size 64 --threads 1'.split()

@pytest.fixture
def bench(tmp_path, same_threads):
    "Run `alexnet_bench` in an empty folder; what it says"
    (tmp_path/'work').mkdir()
    return lambda *args: fine(call(alexnet_bench, *args, cwd=tmp_path/'work')).stdout

every = 'train profile step lrn optimizer data feed growth eval'.split()

@pytest.mark.parametrize('what', [['lrn'], later([])])
def test_writes_a_card(bench, tmp_path, what):
    "By name and without one: one table, and a card that says on what it was measured"
    said = bench(*what, *tiny)
    card = json.loads((tmp_path/'work/bench_lrn.json').read_text())
    assert card['command'].startswith('alexnet_bench') and card['versions']['threads']==1 and '1 threads' in card['device']
    ls = card['spread']
    assert {o['unit'] for o in ls}=={'times as fast','times as long','copies','ms','GB/s'}
    assert len({o['place'] for o in ls})==3 # two places, and the training step
    for o in ls: assert 0<o['low']<=o['median']<=o['high'] and o['n']==1, o
    for o in ls: assert o['what'] in said
    cards = sorted(f'bench_{o}.json' for o in what or every)
    assert all(o in said for o in cards)
    assert sorted(o.name for o in (tmp_path/'work').iterdir())==cards
    assert sum(o.startswith(('measured','measurement')) for o in said.splitlines())==1

@pytest.mark.parametrize('photos', [True, False])
def test_data(bench, tmp_path, temp_dir, request, monkeypatch, photos):
    "Packs and loaders, on photographs or on drawn pictures; on the CPU and one thread whatever is asked for"
    if photos: request.getfixturevalue('data_dir')
    else: monkeypatch.delenv('ALEXNET_NB_DATA', raising=False)
    bench('data', *tiny, '--threads', 2, '--out', 'card.json')
    card = json.loads((tmp_path/'work/card.json').read_text())
    assert card['claim']=='2' and card['versions']['threads']==1 and 'width' not in card['name']
    what = {o['what'] for o in card['spread']}
    assert {'prepare, raw','prepare, jpeg','Loader, raw','Loader, jpeg','ImageFolder, 73-pixel files'}<=what
    assert any('16 cores, computed' in o for o in what) and not card['value']
    for o in card['spread']:
        assert 0<o['low']<=o['median']<=o['high'] and o['n']==1, o
        assert ('photographs of ILSVRC' if photos else 'drawn pictures') in o['place']
    assert not list(temp_dir.iterdir())

nets = 'paper code2012 one_column no_lrn no_overlap no_talk conv6 caffe torchvision torchvision.models.alexnet'.split()

def test_step(bench, tmp_path):
    "All networks, the ceilings of the same run beside each, and what follows from images per second"
    said = bench('step', *tiny, '--bf16', '--channels-last')
    card = json.loads((tmp_path/'work/bench_step.json').read_text())
    ls = {(o['what'],o['place'],o['unit']):o for o in card['spread']}
    base = 'batch 2, fp32'
    for k in nets:
        o = ls[k, base, 'images per s']
        assert o['share']>0 and o['binds'] in ('arithmetic in fp32','memory')
        hours = ls[f'90 epochs of ILSVRC, computed, compute only: {k}', base, 'hours']['median']
        assert hours==pytest.approx(90*1_281_167/o['median']/3600)
    modes = {place for _,place,unit in ls if unit=='images per s'}
    assert modes=={base, 'batch 2, bf16 channels_last'}
    assert 'code2012 against torchvision.models.alexnet, per multiply-add' in said
    assert not card['value'], 'goals are for the full network'

@slow
@pytest.mark.skipif(not shutil.which('c++'), reason='torch.compile needs a compiler on a CPU')
def test_compiled(tmp_path):
    "A compiled network takes part"
    code = """if 1:
        from alexnet_nb.tools.bench_step import Mode, make_step, random_batch, step_jobs
        from alexnet_nb.tools.measuring import Options
        job = step_jobs(Options(device='cpu', batch_size=2, width=.25, size=64, compile=True))[-1]()
        assert 'code2012, fp32 compiled' in job.calls, list(job.calls)
        make_step('one_column', Mode(compile=True), width=.25, size=64)(*random_batch(2, 64))"""
    fine(run(sys.executable, '-c', code, timeout=280))

def test_optimizer_and_profile(bench, tmp_path, temp_dir):
    "The update rules against a copy, and the operations of a step; nothing stays behind"
    bench('optimizer', 'profile', *tiny)
    opt,parts = (json.loads((tmp_path/f'work/bench_{o}.json').read_text())['spread'] for o in ('optimizer','profile'))
    assert {o['limit'] for o in opt if o['unit']=='copies'}=={5/3}
    assert {o['what'] for o in opt if o['unit']=='ms'}=={'SGD2012','SGD, tensor by tensor','SGD, foreach','SGD, fused'}
    places = {o['place'] for o in parts}
    assert 'batch 2, fp32' in places
    for place in places:
        assert sum(o['median'] for o in parts if o['place']==place)==pytest.approx(1)
    assert not list(temp_dir.iterdir())

@slow
def test_train(bench, tmp_path, temp_dir):
    "Whole training against torchvision's, each in a process of its own"
    bench('train', *tiny)
    ls = json.loads((tmp_path/'work/bench_train.json').read_text())['spread']
    rate = {(o['what'],o['place']):o['median'] for o in ls if o['unit']=='images per s'}
    for o in ls:
        if o['unit']=='times as fast' and 'multiply-add' not in o['what']:
            first,other = o['what'].split(' against ')
            assert o['median']==pytest.approx(rate[first,o['place']]/rate[other,o['place']])
    assert not list(temp_dir.iterdir())

def test_options(bench, tmp_path):
    "Other kinds of arrays, no training step, a card in a file of its own"
    bench('lrn', *tiny, '--steps', 0, '--bf16', '--channels-last', '--out', 'new/card.json')
    places = {o['place'].split(' ', 1)[1] for o in json.loads((tmp_path/'work/new/card.json').read_text())['spread']}
    assert places=={'float32','bfloat16','float32, channels last'}
