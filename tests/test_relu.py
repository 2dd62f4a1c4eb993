"Figure 1 as its users meet it: killed at any moment, and started again"
import json, signal

import numpy as np, pytest
from PIL import Image

from alexnet_nb.tools.experiments import EXPERIMENTS
from conftest import script, slow, start

small = dict(lr='.01', max_epochs=2, seeds=2)

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Class folders of noise, 32 by 32 pixels"
    d,rng = tmp_path_factory.mktemp('cifar'),np.random.default_rng(0)
    for i in range(300):
        f = d/('train' if i<256 else 'val')/f'class{i%10}'/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32,32,3), np.uint8)).save(f)
    return d

def finish(pictures, folder):
    "Run the experiment to its end in this process; its steps are timed only once, which is most of the work otherwise"
    return EXPERIMENTS['figure1'].run(pictures, folder, folder/'card.json', **small, timing_rounds=1)

def curves(folder):
    return json.loads((folder/'card.json').read_text())['spread']['curves']

@slow
def test_killed_and_resumed(pictures, tmp_path, capsys):
    "kill -9 again and again; the curves are those of a run that nobody disturbed"
    whole,parts = tmp_path/'whole',tmp_path/'parts'
    card = finish(pictures, whole)
    assert 'not reached in 2 epochs' in capsys.readouterr().out
    assert card.wall_s>0
    options = [o for k,v in small.items() for o in (f'--{k}', v)]
    for n in (1, 3):
        p = start(script('alexnet_reproduce'), 'figure1', pictures, '--folder', parts, *options)
        p.wait_for(lambda: len(list(parts.glob('*.pt')))>=n)
        p.send(signal.SIGKILL)
        assert p.wait(60).returncode==-signal.SIGKILL, 'ended before it could be killed'
    assert not (parts/'card.json').exists()
    card = finish(pictures, parts)
    assert curves(parts)==curves(whole)
    assert card.wall_s is None # a part of the time was spent before
