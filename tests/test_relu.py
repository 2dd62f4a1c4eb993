"Figure 1 as its users meet it: killed at any moment, and started again"
import json, signal
from functools import partial

import numpy as np, pytest
from PIL import Image

from alexnet_nb.tools import experiments
from alexnet_nb.tools.commands import alexnet_reproduce
from conftest import call, fine, script, start

small = '--only relu,tanh --lr .01 --max_epochs 2 --seeds 2'.split()

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Class folders of noise, 32 by 32 pixels"
    d,rng = tmp_path_factory.mktemp('cifar'),np.random.default_rng(0)
    for i in range(300):
        f = d/('train' if i<256 else 'val')/f'class{i%10}'/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32,32,3), np.uint8)).save(f)
    return d

def curves(card):
    return json.loads(card.read_text())['spread']['curves']

def test_killed_and_resumed(pictures, tmp_path, monkeypatch):
    "kill -9 again and again; the curves are those of a run that nobody disturbed"
    monkeypatch.setattr(experiments, 'step_times', partial(experiments.step_times, rounds=1)) # they take most of the time
    r = fine(call(alexnet_reproduce, 'figure1', pictures, '--folder', tmp_path/'whole', *small))
    assert 'not reached in 2 epochs' in r.stdout
    args = 'figure1', pictures, '--folder', tmp_path/'parts', *small
    for n in (1, 3):
        p = start(script('alexnet_reproduce'), *args)
        p.wait_for(lambda: len(list((tmp_path/'parts').glob('*.pt')))>=n)
        p.send(signal.SIGKILL)
        assert p.wait(60).returncode==-signal.SIGKILL, 'ended before it could be killed'
    assert not (tmp_path/'parts/card.json').exists()
    fine(call(alexnet_reproduce, *args))
    assert curves(tmp_path/'parts/card.json')==curves(tmp_path/'whole/card.json')
