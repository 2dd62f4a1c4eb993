"Fixtures shared by the tests. A test that asks for `nb` runs once for each notebook."
import atexit, io, json, os, shutil, signal, subprocess, sys, tempfile, time
from configparser import ConfigParser
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from types import SimpleNamespace
import pytest

os.environ['MPLBACKEND'] = 'Agg'
# Networks are small here, and a second thread gains little. Threads that wait sleep: where the cores have other work,
# threads that wait busily for each other make a step ten times as long
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
root = Path(__file__).resolve().parents[1]

slow = pytest.mark.skipif('ALEXNET_NB_LONG' not in os.environ, reason='takes long on few cores: set ALEXNET_NB_LONG')
def later(*args): return pytest.param(*args, marks=slow)

def text(o): return o if isinstance(o, str) else ''.join(o)

def find():
    "Notebooks, without those that nbdev passes over"
    files = (root/'nbs').rglob('*.ipynb')
    return sorted(p for p in files if not any(o[0] in '._' for o in p.relative_to(root).parts))

def load(
    path:Path,  # Notebook
):
    "A notebook as its file has it: `path`, `name`, and `cells` with their source as one string"
    raw = json.loads(path.read_text(encoding='utf-8'))
    cells = [SimpleNamespace(id=o.get('id'), type=o['cell_type'], source=text(o['source']),
                             outputs=o.get('outputs', [])) for o in raw['cells']]
    return SimpleNamespace(path=path, name=path.relative_to(root/'nbs').as_posix(), cells=cells)

def pytest_generate_tests(metafunc):
    if 'nb' in metafunc.fixturenames:
        nbs = [load(p) for p in find()]
        metafunc.parametrize('nb', nbs, ids=[o.name for o in nbs])

@pytest.fixture(scope='session')
def repo():
    "Folder of the repository"
    return root

@pytest.fixture(scope='session')
def notebooks():
    "All notebooks, in the order of their names"
    return [load(p) for p in find()]

@pytest.fixture(scope='session')
def chapters(notebooks):
    "The notebooks that make a module each: those whose name begins with a number"
    return [o for o in notebooks if o.name[0].isdigit()]

@pytest.fixture(scope='session')
def data_dir():
    "Folder of the real data"
    d = os.environ.get('ALEXNET_NB_DATA')
    if not d or not Path(d).is_dir(): pytest.skip('needs real data: set ALEXNET_NB_DATA to its folder')
    return Path(d)

# --- Processes

class Started:
    """A command in a session of its own, with a limit of time

    What it says goes into files: nobody waits for a pipe that somebody else holds open."""
    def __init__(self,
        *cmd,       # Program and arguments
        cwd=root,   # Folder to start in
        env=None,   # Variables besides those of this process
        **kw,       # For subprocess.Popen
    ):
        self.cmd = [str(o) for o in cmd]
        self._mark = f'{os.getpid()}-{time.monotonic_ns()}'
        self._files = [tempfile.TemporaryFile() for _ in range(2)]
        env = {**os.environ, 'PYTHONPATH':str(root), 'ALEXNET_NB_TEST':self._mark, **(env or {})}
        env['PYTHONPATH'] = os.pathsep.join(filter(None, [env['PYTHONPATH'], os.environ.get('PYTHONPATH')]))
        env['PYTHONFAULTHANDLER'] = '1' # where all threads are is printed if the process has to be ended by SIGABRT
        env.pop('IN_TEST', None)        # of nbdev
        self.popen = subprocess.Popen(self.cmd, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=self._files[0],
                                      stderr=self._files[1], start_new_session=True, **kw)
        self.pid = self.popen.pid
        started.append(self)

    def _said(self, i):
        f = self._files[i]
        return os.pread(f.fileno(), os.fstat(f.fileno()).st_size, 0).decode(errors='replace')
    @property
    def stdout(self):
        return self._said(0)
    @property
    def stderr(self):
        return self._said(1)
    @property
    def returncode(self):
        return self.popen.poll()

    def tell(self, line):
        "Write a line to its standard input"
        self.popen.stdin.write(f'{line}\n'.encode())
        self.popen.stdin.flush()

    def send(self, sig):
        self.popen.send_signal(sig)

    def wait_for(self, is_so, timeout=120):
        "Wait until `is_so()`; the test fails if the process ends before, or when the time is up"
        end = time.monotonic()+timeout
        while not is_so():
            if self.returncode is not None:
                if is_so():
                    return self
                pytest.fail(f'{self} has ended with {self.returncode}:\n{self.stdout}\n{self.stderr}')
            if time.monotonic()>end:
                self._give_up(timeout)
            time.sleep(.005)
        return self

    def wait(self, timeout=180):
        "Wait for its end; the test fails when the time is up"
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._give_up(timeout)
        return self

    def _give_up(self, timeout):
        self.send(signal.SIGABRT)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            pass # it is beyond saying where it is
        self.end()
        pytest.fail(f'{self} took more than {timeout} s:\n{self.stdout}\n{self.stderr}')

    def end(self):
        "Kill it and whatever it has started"
        family = set(self._family())
        if self.returncode is None:
            family.add(self.pid)
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass # ended meanwhile
        self.popen.wait(60)
        self.popen.stdin.close()

    def _family(self):
        "Ids of the processes that have inherited its environment, in whatever session; on Linux"
        mark = f'ALEXNET_NB_TEST={self._mark}'.encode()
        for f in Path('/proc').glob('[0-9]*/environ'):
            try:
                if mark in f.read_bytes().split(b'\0'):
                    yield int(f.parent.name)
            except OSError:
                pass # ended, or not ours

    def __repr__(self):
        return ' '.join(self.cmd)[:200]

started = [] # by the test that is running

def start(*cmd, **kw):
    "Start a process; it ends with the test at the latest"
    return Started(*cmd, **kw)

def run(*cmd, timeout=180, **kw):
    "Run a command to its end; its result has stdout, stderr and returncode"
    return Started(*cmd, **kw).wait(timeout)

@pytest.fixture(autouse=True)
def nothing_is_left():
    "Whatever a test has started, and has not ended, is ended"
    yield
    while started:
        started.pop().end()

@pytest.fixture(scope='session')
def py():
    "Run Python in a process of its own, with a folder importable"
    def f(*args, cwd=root, **env):
        return run(sys.executable, *args, cwd=cwd, env={'PYTHONPATH':str(cwd), **env})
    return f

# --- Commands

def settings():
    "The section of settings.ini"
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini')
    return ini['DEFAULT']

def entry_points():
    "[(command, module, function)]"
    return [tuple(o.replace('=', ':').split(':')) for o in settings()['console_scripts'].split()]

@cache
def scripts():
    "A folder with the scripts that pip makes of the entry points; they run what is in this repository"
    d = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, d)
    for name,module,f in entry_points():
        (d/name).write_text(f'#!{sys.executable}\nimport sys\nfrom {module} import {f}\nsys.exit({f}())\n')
        (d/name).chmod(0o755)
    return d

def script(name): return scripts()/name

def call(
    command,  # One of the commands
    *args,    # As one would type them
    cwd=None, # Folder to be in
):
    "Call a command in this process as its script does; the result is like that of `run`"
    out,err = io.StringIO(),io.StringIO()
    with pytest.MonkeyPatch.context() as m, redirect_stdout(out), redirect_stderr(err):
        m.setattr(sys, 'argv', [command.__name__, *map(str, args)])
        if cwd:
            m.chdir(cwd)
        code = 0
        try:
            command()
        except SystemExit as e:
            code = e.code or 0
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

def fine(r):
    "The result of a command that has done what it was asked for"
    assert r.returncode==0, r.stdout+r.stderr
    return r

def refused(r, *parts):
    "The promise for bad input: exit code 2, one line on stderr that says what, no traceback"
    lines = [o for o in r.stderr.splitlines() if '%|' not in o] # without those of progress
    assert r.returncode==2 and len(lines)==1, r.stderr
    for p in parts:
        assert str(p) in lines[0], lines[0]

@pytest.fixture(scope='session')
def demo_pack(tmp_path_factory):
    "A folder with 370 drawn pictures of ten classes, and a pack of them. Read only"
    from alexnet_nb.data import prepare
    from alexnet_nb.engine.demo import demo
    d = tmp_path_factory.mktemp('demo')
    prepare(demo(d/'pictures', n_train=32, n_val=5), d/'pack', size=64)
    return d

@pytest.fixture
def temp_dir(tmp_path, monkeypatch):
    "Folder of temporary files for this test, so that what is left behind is seen"
    d = tmp_path/'temp'
    d.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(d))
    monkeypatch.setenv('TMPDIR', str(d)) # for processes
    return d

@pytest.fixture
def same_threads():
    "PyTorch has as many threads after the test as before"
    import torch
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)
