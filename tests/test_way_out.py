"However a command ends: what it writes to may be closed or full, a signal may come at any moment, a mistake may be ours"
import csv, json, os, pty, select, signal, sys
from pathlib import Path

import pytest, torch
from PIL import Image

from alexnet_nb.engine import core
from alexnet_nb.model import AlexNet, save_weights
from alexnet_nb.tools import predicting
from alexnet_nb.tools.commands import alexnet_predict
from conftest import call, fine, refused, script, start

NAMES = ['cat', 'dög', '日本', 'a$x_1$', 'two\nlines']

def save_network(path, names):
    "An untrained network whose classes have these names"
    model = AlexNet('code2012', len(names), .05, 64, seed=0)
    model.names = names
    model.mean = torch.zeros(72, 72, 3)
    model.side = 72
    save_weights(model, path)
    return path

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a network and a picture"
    d = tmp_path_factory.mktemp('place')
    save_network(d/'net.safetensors', NAMES)
    Image.new('RGB', (80, 72), (200, 30, 30)).save(d/'picture.png')
    return d

predict = 'alexnet_predict --views 1 --out out.csv net.safetensors picture.png'

# How the shell starts it, exit code, what stdout and stderr then hold
streams = {
    'head':      (f'{predict} | head -c 1', 0, 'i', ''),
    'no stdout': (f'{predict} >&-', 0, '', ''),
    'no stderr': (f'{predict} 2>&-', 0, 'table: out.csv', ''),
    'nothing':   (f'{predict} <&- >&- 2>&-', 0, '', ''),
    'full':      (f'{predict} >/dev/full', 2, '', 'standard output: No space left'),
    'full, too': (f'{predict} none.png 2>/dev/full', 2, 'table: out.csv', ''),
    'ascii':     (f'PYTHONIOENCODING=ascii {predict}', 0, r'd\xf6g', ''),
    'C':         (f'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 NO_COLOR=1 {predict}', 0, r'\u65e5\u672c', ''),
    'gone':      (f'mkdir gone; cd gone; rmdir ../gone; {predict}', 2, '', 'is not there any more'),
    'windows':   (f'MPLBACKEND=nonsense {predict.replace("csv", "png")}', 0, 'picture: out.png', ''),
    'narrow':    ('COLUMNS=20 alexnet_predict --help', 0, 'usage', '')}

def test_streams(place):
    "Whatever stdout and stderr are"
    env = {'PATH':f"{script('x').parent}:{os.environ['PATH']}"}
    ps = {k:start('bash', '-c', f'set -o pipefail; {line}', cwd=place, env=env) for k,(line,*_) in streams.items()}
    for k,(_,code,said,why) in streams.items():
        p = ps[k].wait()
        assert p.returncode==code and said in p.stdout and why in p.stderr, (k, p.returncode, p.stdout, p.stderr)
        assert 'Traceback' not in p.stderr and 'Exception' not in p.stderr and p.stderr.count('\n')<=bool(why), (k, p.stderr)

def test_signals_while_importing(place):
    "Ctrl-C, SIGTERM and the end of the terminal, before a command has begun"
    code = ('import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
            'import alexnet_nb.engine.start as s\n'
            'sys.argv = sys.argv[1:]; s.expect_interrupts(); print("begun", flush=True)\n'
            'runpy.run_path(sys.argv[0], run_name="__main__")')
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    ps = [start(sys.executable, '-c', code, script('alexnet_predict'), 'net.safetensors', 'picture.png', cwd=place) for _ in numbers]
    for p,number in zip(ps, numbers):
        p.wait_for(lambda: 'begun' in p.stdout)
        p.send(number)
    for p,number in zip(ps, numbers):
        p.wait()
        assert p.returncode==128+number and p.stderr=='alexnet_predict: interrupted\n', (p.returncode, p.stderr)

@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(place, monkeypatch, number):
    "While a command works; also where a library makes something else of the interruption"
    def work(*args): signal.raise_signal(number)
    def swallow(*args):
        try: work()
        except BaseException as e: raise ValueError('odd') from e
    for f in (work, swallow):
        monkeypatch.setattr(predicting, 'load_weights', f)
        before = signal.getsignal(number)
        r = call(alexnet_predict, 'net.safetensors', 'picture.png', cwd=place)
        assert r.returncode==128+number and r.stderr=='alexnet_predict: interrupted; nothing half-written is left\n', r
        assert signal.getsignal(number) is before

@pytest.mark.parametrize('error', [ValueError('odd\nnews'), OSError('odd'), AssertionError(), RecursionError('deep'), UnicodeEncodeError('ascii', 'x', 0, 1, 'odd')])
def test_our_fault(place, monkeypatch, temp_dir, error):
    "One line, and a file with the traceback; the variable shows it at once"
    def fail(*args): raise error
    monkeypatch.setattr(predicting, 'load_weights', fail)
    args = 'net.safetensors', 'picture.png', '--out', 'é.png'
    monkeypatch.delenv('ALEXNET_NB_DEBUG', raising=False)
    r = call(alexnet_predict, *args, cwd=place)
    assert r.returncode==1 and r.stderr.count('\n')==1 and 'this is a fault of alexnet_nb' in r.stderr, r.stderr
    file, = temp_dir.iterdir()
    text = file.read_text(encoding='utf-8')
    assert str(file) in r.stderr and 'Traceback' in text and 'é.png' in text and 'in fail' in text
    monkeypatch.setenv('ALEXNET_NB_DEBUG', '1')
    assert 'Traceback' in call(alexnet_predict, *args, cwd=place).stderr
    assert len(list(temp_dir.iterdir()))==1

@pytest.mark.parametrize('error', [MemoryError(), torch.OutOfMemoryError('CUDA out of memory'), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_too_little_memory(place, monkeypatch, error):
    def fail(*args): raise error
    monkeypatch.setattr(predicting, 'load_weights', fail)
    refused(call(alexnet_predict, 'net.safetensors', 'picture.png', cwd=place), 'out of memory')

def test_broken_library(place, tmp_path):
    "What goes wrong while a command imports is told in one line, too"
    (tmp_path/'torchvision.py').write_text('raise ImportError("broken")')
    (tmp_path/'torch.py').write_text('raise ImportError("broken")')
    env = {'PYTHONPATH':f"{tmp_path}:{Path(core.__file__).parents[2]}", 'TMPDIR':str(tmp_path)}
    p = start(script('alexnet_eval'), 'net.safetensors', cwd=place, env=env).wait()
    assert p.returncode==1 and p.stderr.count('\n')==1 and 'ImportError: broken' in p.stderr, p.stderr

def test_narrow_terminal(tmp_path):
    "Bars and tables where a line has 20 letters"
    ours,theirs = pty.openpty()
    os.set_blocking(ours, False)
    os.system(f'stty cols 20 rows 5 < {os.ttyname(theirs)}')
    code = ('import os, sys; os.dup2(os.open(sys.argv[1], os.O_RDWR), 2)\n'
            'from alexnet_nb.engine.core import command, progress\nimport time\n'
            '@command\ndef alexnet_x():\n for _ in progress(iterable=range(30), desc="a long description", delay=0): time.sleep(.01)\n'
            'sys.argv = ["alexnet_x"]; alexnet_x()')
    (tmp_path/'x.py').write_text(code)
    p = start(sys.executable, tmp_path/'x.py', os.ttyname(theirs)).wait()
    said = ''
    while select.select([ours], [], [], .2 if said else 5)[0]: # what was written may come a little later
        said += os.read(ours, 1<<16).decode()
    assert p.returncode==0 and 'a long' in said and max(map(len, said.replace('\r', '\n').splitlines()))<=20, said
    os.close(ours)
    os.close(theirs)

# --- Files that are written

def test_targets_stay_what_they_are(place, tmp_path):
    "Pipes, links and devices are written to; folders are refused"
    pipe,link,device = (tmp_path/o for o in ('pipe.json','link.json','null.json'))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY|os.O_NONBLOCK)
    link.symlink_to('target.json')
    targets = [pipe, link]
    try:
        os.mknod(device, 0o20666, os.makedev(1, 3))
        targets.append(device)
    except PermissionError:
        pass # only root may
    for target in targets:
        kind = os.lstat(target).st_mode
        fine(call(alexnet_predict, 'net.safetensors', 'picture.png', '--views', 1, '--out', target, cwd=place))
        assert os.lstat(target).st_mode==kind
    assert json.loads(os.read(reader, 1<<16))==json.loads((tmp_path/'target.json').read_text())
    os.close(reader)
    refused(call(alexnet_predict, 'net.safetensors', 'picture.png', '--out', pipe, cwd=place), 'pipe.json: cannot be written')
    refused(call(alexnet_predict, 'net.safetensors', 'picture.png', '--out', tmp_path, cwd=place), 'is a folder')

# --- Many and large

@pytest.fixture
def many(place, tmp_path):
    "Pictures of many kinds, some of which are none; a row for each that is one"
    good = [place/'picture.png']*50
    for name,size in (('tall',(1, 40_000)), ('wide',(40_000, 1)), ('dot',(1, 1))):
        Image.new('RGB', size).save(tmp_path/f'{name}.png')
        good.append(tmp_path/f'{name}.png')
    os.mkfifo(tmp_path/'pipe.png')
    (tmp_path/'folder').mkdir()
    return good, [tmp_path/'pipe.png', tmp_path/'folder', tmp_path/'none.png', '/dev/zero', '']

def test_many_pictures(place, tmp_path, many):
    "All of them in the table; those that are none are named, and the others predicted"
    good,bad = many
    for ending in ('csv','json'):
        r = call(alexnet_predict, place/'net.safetensors', *good[:30], *bad, *good[30:], '--views', 1, '--out', f'x.{ending}', cwd=tmp_path)
        refused(r, 'pipe.png: not a regular file', 'folder: Is a directory', 'none.png: No such file', '/dev/zero: not a regular file')
        assert len(r.stdout.splitlines())==len(good)+3 # a head, the precision, the file
    with open(tmp_path/'x.csv', encoding='utf-8', newline='') as f: rows = list(csv.DictReader(f))
    found = json.loads((tmp_path/'x.json').read_text(encoding='utf-8'))
    assert [o['image'] for o in rows]==[o['image'] for o in found]==list(map(str, good))
    for row,o in zip(rows, found):
        assert {row[f'class{i}'] for i in range(1, 6)}==set(NAMES) and row['class1']==o['names'][0]
        assert abs(sum(o['probabilities'])-1)<1e-5 and float(row['probability1'])==pytest.approx(o['probabilities'][0], abs=1e-6)

def test_interrupted_while_reading(place, tmp_path, monkeypatch):
    "What waits to be read is not read any more"
    read = []
    def slow(file, name=None):
        read.append(file)
        if len(read)==8: signal.raise_signal(signal.SIGINT)
        raise ValueError('no picture')
    monkeypatch.setattr(predicting, 'opening', slow)
    r = call(alexnet_predict, place/'net.safetensors', *[place/'picture.png']*500, '--views', 1, '--out', 'x.csv', cwd=tmp_path)
    assert r.returncode==130 and len(read)<200 and not list(tmp_path.iterdir()), (r, len(read))

def test_pages(place, tmp_path, many):
    "More pictures than fit on a page"
    good,_ = many
    r = fine(call(alexnet_predict, place/'net.safetensors', *good, '--views', 1, '--out', 'x.jpg', cwd=tmp_path))
    pages = [o.removeprefix('picture: ') for o in r.stdout.splitlines()[-3:]]
    assert pages==['x-01.jpg','x-02.jpg','x-03.jpg'] and all(Image.open(tmp_path/o).size[0]>800 for o in pages)

@pytest.mark.parametrize('n', [1, 2, 21_841])
def test_numbers_of_classes(place, tmp_path, n):
    names = [f'class {i}' for i in range(n)]
    net = save_network(tmp_path/'net.safetensors', names)
    fine(call(alexnet_predict, net, place/'picture.png', '--views', 1, '--out', 'x.json', cwd=tmp_path))
    guess, = json.loads((tmp_path/'x.json').read_text())
    assert len(guess['names'])==min(n, 5) and set(guess['names'])<=set(names)
    r = fine(call(alexnet_predict, net, place/'picture.png', '--views', 1, '--out', 'bare', cwd=tmp_path))
    assert 'picture: bare' in r.stdout and Image.open(tmp_path/'bare').format=='PNG'

@pytest.mark.parametrize('name,begins', [('x.pdf',b'%PDF'), ('x.svg',b'<?xml'), ('x.JPG',b'\xff\xd8'), ('x.tiff',b'II*'), ('.png',b'\x89PNG'), ('new/x.png',b'\x89PNG')])
def test_endings(place, tmp_path, name, begins):
    r = fine(call(alexnet_predict, place/'net.safetensors', place/'picture.png', '--views', 1, '--out', name, cwd=tmp_path))
    assert f'picture: {name}' in r.stdout and (tmp_path/name).read_bytes().startswith(begins)
