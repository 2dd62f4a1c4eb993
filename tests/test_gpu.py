"The command that measures a GPU, with small networks on the CPU, so that it works when there is a GPU"
import tarfile, time

import pytest

import gpu
from alexnet_nb.tools.cards import Card
from conftest import later, root, run, slow

@pytest.fixture
def place(demo_pack, tmp_path):
    "Where a piece works; both packs are that of the other tests"
    for name in 'small', 'pack': (tmp_path/name).symlink_to(demo_pack/'pack')
    return gpu.Place('', tmp_path/'cards', tmp_path, 'cpu', True, 60., time.monotonic())

@pytest.mark.parametrize('name, card', [('numbers', 'numbers'), ('parts', 'profile_bf16'), ('bench', 'bench_lrn'),
                                        later('replay', 'replay'), later('resume', 'resume'), later('drift', 'drift'), later('speed', 'speed_4')])
def test_piece(place, name, card):
    "A piece works, and leaves a card"
    gpu.run_piece(name, place.out, place.tmp, place.device, place.quick, place.seconds)
    assert Card.load(place.out/f'gpu_{card}.json').n

def test_cells(notebooks):
    "Each cell that is marked for a GPU finds the names that it needs in cells before it"
    assert gpu.cells_needed(['a = 1', 'b = 2', 'def f(x): return x+a', 'c = f(1)'], 3)==[0, 2, 3]
    for nb in notebooks:
        for i,source in enumerate(sources := [o.source for o in nb.cells if o.type=='code']):
            if '#| gpu' in source: assert gpu.cells_needed(sources, i)[-1]==i

@slow
def test_all(tmp_path):
    "The whole command; a piece that is left out or fails does not stop the others"
    r = run('bash', root/'.ci/gpu.sh', tmp_path, *'--device cpu --quick --minutes 4 --only smoke,numbers,doctor'.split(),
            timeout=300)
    assert r.returncode==0 and 'all is well' in r.stdout, r.stdout+r.stderr
    with tarfile.open(tmp_path/'gpu.tar') as t: assert {'gpu_smoke.json', 'gpu_doctor.json'}<=set(t.getnames())
    assert 'smoke: ok' in (tmp_path/'gpu.log').read_text()
