"Figure 1 as its users meet it: killed at any moment, started again, and refused in one line"
import json, signal, subprocess, time

import numpy as np, pytest
from PIL import Image

from test_commands import bin, refused, run

small = '--only relu,tanh --lr .01 --max_epochs 4 --seeds 2'.split()

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Class folders of noise, 32 by 32 pixels"
    d,rng = tmp_path_factory.mktemp('cifar'),np.random.default_rng(0)
    for i in range(1100):
        f = d/('train' if i<1000 else 'val')/f'class{i%10}'/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32,32,3), np.uint8)).save(f)
    return d

def curves(card):
    return json.loads(card.read_text())['spread']['curves']

def test_killed_and_resumed(pictures, tmp_path):
    "kill -9 again and again; the curves are those of a run that nobody disturbed"
    r = run('alexnet_reproduce', 'figure1', pictures, '--folder', tmp_path/'whole', *small)
    assert r.returncode==0, r.stderr
    assert 'not reached in 4 epochs' in r.stdout
    cmd = [bin/'alexnet_reproduce','figure1',pictures,'--folder',tmp_path/'parts',*small]
    for n in (1, 3):
        p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list((tmp_path/'parts').glob('*.pt')))<n and p.poll() is None: time.sleep(.05)
        assert p.poll() is None, 'ended before it could be killed'
        p.send_signal(signal.SIGKILL)
        p.wait()
    assert not (tmp_path/'parts/card.json').exists()
    r = run(*cmd)
    assert r.returncode==0, r.stderr
    assert curves(tmp_path/'parts/card.json')==curves(tmp_path/'whole/card.json')

def test_refusals(pictures, tmp_path):
    refused(run('alexnet_reproduce', 'figure1', tmp_path/'none'), 'none', 'no such folder')
    refused(run('alexnet_reproduce', 'figure1', pictures, '--lr', '-1', cwd=tmp_path), 'lr -1', 'above zero')
    refused(run('alexnet_reproduce', 'figure1', pictures, '--max_epochs', '0', cwd=tmp_path), '--max_epochs 0')
    refused(run('alexnet_reproduce', 'figure1', pictures, '--size', '64', cwd=tmp_path), 'no such option')
    refused(run('alexnet_reproduce', 'figure1', pictures, '--device', 'cuda:9', cwd=tmp_path), 'cuda:9')
    assert not list(tmp_path.iterdir())
