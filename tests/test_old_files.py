"""Files that older versions made: every later version reads them, computes the same from them and goes on with them.

fixtures/v1 was made by version 0.0.1 (commit d6fe692) from 24 pictures that `demo` draws: `pack` keeps raw pixels and
`jpeg` JPEGs; `run` is finished; `unfinished` was stopped in its second epoch; `named` before its first checkpoint.
expected.json holds what that version computed."""
import hashlib, json, shutil
from pathlib import Path

import numpy as np, pytest, torch
from safetensors.torch import load_file

from alexnet_nb.data import Pack
from alexnet_nb.model import load_weights
from alexnet_nb.results import evaluate
from alexnet_nb.tools.cards import Card
from alexnet_nb.train import Run, train

v1 = Path(__file__).parent/'fixtures'/'v1'
expected = json.loads((v1/'expected.json').read_text())

@pytest.fixture(autouse=True)
def one_thread():
    "The order of a sum depends on the number of threads"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def processor():
    "What else decides about the last bits of a sum"
    file = Path('/proc/cpuinfo')
    lines = file.read_text().splitlines() if file.exists() else []
    about = {}
    for line in lines:
        key,_,value = line.partition(':')
        about.setdefault(key.strip(), value.strip())
    words = [about.get(k, '') for k in ('cpu family', 'model', 'model name', 'cache size')]
    return ', '.join([*words, torch.backends.cpu.get_cpu_capability()])

same_machine = torch.__version__==expected['torch'] and processor()==expected['processor']

def bits(tensors):
    "A hash of names, shapes and numbers"
    h = hashlib.sha256()
    for k in sorted(tensors):
        h.update(f'{k} {tuple(tensors[k].shape)}'.encode())
        h.update(tensors[k].contiguous().numpy().tobytes())
    return h.hexdigest()

def logits(model):
    "Of two images that consist of the same numbers everywhere"
    x = torch.arange(2*3*model.size**2)*37%251 - 125.
    with torch.no_grad():
        return model(x.reshape(2, 3, model.size, model.size))

def check_errors(run, want):
    "Evaluate a run on its pack, with the centre view and with ten"
    for views in (1, 10):
        got = evaluate(load_weights(run), Pack(v1/'pack'), views=views, precision='fp32')
        assert got==pytest.approx(want[str(views)], rel=1e-4)

def same_log(old, new):
    "Do the lines of a log agree, but for the speed?"
    return {**old, 'images_per_s':0}=={**new, 'images_per_s':0}

def test_pack():
    "Checksums, classes, names, pixels and repairs"
    pack,want = Pack(v1/'pack'),expected['pack']
    pack.verify()
    assert pack.sha256==want['sha256']
    assert pack.names==want['classes'] and pack.counts==want['counts']
    assert pack.labels().sum()==want['label_sum']
    assert np.asarray(pack.images(), dtype=np.int64).sum()==want['image_sum']
    assert (pack.path/'train_names.txt').read_text().split()[-1]==want['last_name']
    repairs = (pack.path/'repairs.jsonl').read_text().splitlines()
    assert [json.loads(o) for o in repairs]==want['repairs']
    assert pack.mean.shape==(20,20,3) and pack.pca['std']==sorted(pack.pca['std'], reverse=True)

def test_jpeg_pack():
    "Decoders of JPEG may differ by a grey level"
    pack,want = Pack(v1/'jpeg'),expected['jpeg']
    pack.verify()
    assert pack.sha256==want['sha256'] and pack.counts==want['counts']
    assert [o.mean() for o in pack.images()[:]]==pytest.approx(want['image_means'], abs=.5)

def test_weights():
    "The network, its table, its classes and its numbers, from the file alone"
    model = load_weights(v1/'weights.safetensors')
    assert model.spec.name=='code2012' and len(model.spec.layers)==8 and model.size==36
    assert model.names==['one', 'two', 'three', 'four', 'fünf']
    assert bits(dict(model.state_dict()))==expected['weights']['sha256']
    torch.testing.assert_close(logits(model), torch.tensor(expected['weights']['logits']), rtol=1e-4, atol=1e-5)

def test_run():
    "A finished run: its log, its card, its errors; asked to train again, it is done"
    want,run = expected['run'],Run(v1/'run')
    assert run.done and run.config['spec']['name']=='tiny' and run.config['rates']=={'conv1':.5}
    assert run.rows()[-1]['step']==24
    assert Card.load(run.path/'card.json').value['top-1 (10 views)']==pytest.approx(100*want['evaluate']['10']['top1'], abs=.001)
    assert bits(load_file(run.path/'model.safetensors'))==want['weights']
    for name in ('last', 'best'):
        assert load_weights(run.path/f'{name}.safetensors').names==expected['pack']['classes']
    torch.testing.assert_close(logits(load_weights(run.path)), torch.tensor(want['logits']), rtol=1e-4, atol=1e-5)
    check_errors(run.path, want['evaluate'])

def test_finished(tmp_path):
    "The command that made a finished run does nothing more to it"
    run = shutil.copytree(v1/'run', tmp_path/'run')
    before = {f.name:f.read_bytes() for f in run.iterdir()}
    assert train(v1/'pack', run, spec=load_weights(run).spec, **expected['run']['options']).done
    assert {f.name:f.read_bytes() for f in run.iterdir()}==before

def test_resumed(tmp_path):
    "An unfinished run goes on and ends as it would have ended then"
    run,want = shutil.copytree(v1/'unfinished', tmp_path/'run'),expected['unfinished']
    old = Run(run).rows()
    assert old[-1]['step']==want['step'] and not Run(run).done
    train(v1/'pack', run, spec=load_weights(run).spec, **want['options'])
    new = Run(run).rows()
    assert all(map(same_log, old, new)) and new[-1]['step']==16
    tensors = load_file(run/'model.safetensors')
    assert tensors.keys()==want['norms'].keys()
    for k,(total,norm) in want['norms'].items():
        t = tensors[k].double()
        assert t.sum().item()==pytest.approx(total, abs=1e-3*norm*t.numel()**.5), k
        assert t.norm().item()==pytest.approx(norm, rel=1e-3), k
    if same_machine:
        assert bits(tensors)==want['weights']
    check_errors(run, want['evaluate'])

def test_named(tmp_path):
    "A run whose network has a name, killed before its first checkpoint, is taken for the same and begins again"
    run = shutil.copytree(v1/'named', tmp_path/'run')
    train(v1/'jpeg', run, steps=2, **expected['named']['options'])
    assert [o['step'] for o in Run(run).rows()][-1]==2

def test_other_settings(tmp_path):
    "An old run knows its settings"
    run = shutil.copytree(v1/'unfinished', tmp_path/'run')
    options = {**expected['unfinished']['options'], 'lr':.5}
    with pytest.raises(Exception, match='lr 0.001 .now 0.5'):
        train(v1/'pack', run, spec=load_weights(run).spec, **options)
