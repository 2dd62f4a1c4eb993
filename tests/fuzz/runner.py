"""Does jobs one after the other, each in a forked child of a process that has imported everything

As a program (python -m fuzz.runner FOLDER) it reads jobs from stdin and writes results to stdout, a line of JSON each. A child does
some jobs and is replaced; it is killed where a job takes too long, and its death is the result of the job that it was at."""
import faulthandler, io, json, os, random, resource, select, shutil, signal, subprocess, sys, tempfile, time, traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from . import samples
from .damage import spoil
from .kinds import KINDS, kinds, make_samples, words_of

LIMIT_S,LIMIT_MB,JOBS = 20,1100,40 # of one job; jobs of a child
WIDE_MB = 2500 # a network of full width may be asked for by odd arguments, and the doctor measures one
GOOD = 'success', 'refusal', 'interrupted'
root = Path(__file__).parents[2]

class Runner:
    "The warm process, seen from outside; a context"
    def __init__(self,
        names=tuple(KINDS), # Kinds whose samples are needed
    ):
        self.folder = Path(tempfile.mkdtemp(prefix='fuzz'))
        path = os.pathsep.join([str(root), str(root/'tests'), os.environ.get('PYTHONPATH', '')])
        home = self.folder/'home'
        home.mkdir()
        env = {**os.environ, 'PYTHONPATH':path, 'OMP_NUM_THREADS':'1', 'MPLBACKEND':'agg', 'HOME':str(home), 'MPLCONFIGDIR':str(home), 'XDG_CACHE_HOME':str(home),
               'TORCH_HOME':str(home), 'COLUMNS':'100'}
        self.process = subprocess.Popen([sys.executable, '-m', 'fuzz.runner', self.folder, *names], text=True, env=env, cwd=self.folder, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, start_new_session=True)
        hello = self._read()
        self.samples,self.options = hello['samples'],hello['options']

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError('the runner has ended')
        return json.loads(line)

    def do(self, job): # The result of a job
        self.process.stdin.write(json.dumps(job)+'\n')
        self.process.stdin.flush()
        return self._read()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

# --- In the child

def call_command(name, args):
    "A command as its script calls it: exit code, and what it said on stderr"
    from alexnet_nb.tools import commands
    out,err = io.StringIO(),io.StringIO()
    sys.argv = [name, *args]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            getattr(commands, name)()
            code = 0
        except SystemExit as e:
            code = e.code or 0
    return code, err.getvalue()

def call_library(name, args):
    "The same for a function"
    from alexnet_nb.engine.core import READERS, Refusal, printable
    from test_readers import EXAMPLES
    kind = name if name in READERS else None
    f = READERS[kind] if kind else library(name)
    try:
        f(*args, *(EXAMPLES[kind][2:] if kind else ()))
        return 0, ''
    except Refusal as e:
        named = '' if name in ('table','go_on') or printable(Path(args[0 if kind else -1]).name) in str(e) else ' (does not name the file)'
        return (2 if not named else 1), f'{name}: {e}{named}'

def library(name):
    from alexnet_nb.data import read_square
    from alexnet_nb.model import load_weights
    from alexnet_nb.tools import cards
    def read_squares(folder):
        for o in sorted(Path(folder).rglob('*')):
            if o.is_file():
                try:
                    read_square(o, 32)
                except (Exception) as e: # the preparation writes down what a decoder says
                    assert str(e) or type(e).__name__
    return {'go_on':samples.go_on, 'read_squares':read_squares, 'load_weights':load_weights, 'table':cards.table, 'Card.load':cards.Card.load}[name]

def listing(folder):
    "{path: what shows a change}"
    found = {}
    for where,folders,files in os.walk(folder):
        for o in folders+files:
            path = os.path.join(where, o)
            st = os.lstat(path)
            found[os.path.relpath(path, folder)] = (st.st_mode, st.st_size, 0 if o in folders else st.st_mtime_ns)
    return found

def allowed(path, kind, words):
    "May a job write this? The outputs that it names, and what lies beside them for a while"
    first,*parts = path.split('/')
    if first!='here':
        return first=='tmp'
    top = parts[0] if parts else ''
    outputs = {'out', *kind.writes.split()}
    if kind.name=='arguments':
        outputs |= {o.rpartition('=')[2].split('/')[0] for o in words}|{'runs', 'alexnet_demo', 'predictions.png', 'bench_lrn.json'}
    for a,b in zip(words, words[1:]):
        if a in ('--out', '--card', '--run', '--folder', '--json'):
            outputs.add(b.split('/')[0])
    return not parts or any(top==o or top.startswith((o+'.', '.'+o)) for o in outputs) or top=='fresh' or top.startswith('fresh.') or top.endswith('.partial')

class Watch:
    "Notes what is written outside of a folder, and refuses connections"
    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def __call__(self, event, args):
        if event=='socket.connect':
            raise OSError(101, 'Network is unreachable')
        if event in ('os.rename', 'os.link', 'os.symlink'):
            paths = args[1:2]
        elif event in ('os.remove', 'os.mkdir', 'os.rmdir', 'os.chmod', 'os.truncate', 'shutil.rmtree'):
            if any(isinstance(o, int) and o>=0 for o in args[1:]) and event!='os.mkdir' and event!='os.chmod' and event!='os.truncate':
                return # below a folder that is open
            paths = args[:1]
        elif event=='open' and isinstance(args[2], int) and args[2]&(os.O_WRONLY|os.O_RDWR|os.O_CREAT):
            paths = args[:1]
        else:
            return
        for o in paths:
            if isinstance(o, int) or o is None:
                continue
            path = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(o))))+'/'
            if not path.startswith((str(self.folder), '/dev/', '/proc/')):
                self.seen.append(f'{event} {os.fsdecode(o)}')

def is_plain(words, said):
    "One line that names the command; a list below it is indented"
    lines = [o for o in said.splitlines() if o.strip() and '%|' not in o and not o.startswith(('warning:', 'training:', 'decoding', 'checksums'))]
    return len([o for o in lines if not o.startswith('  ')])==1 and lines[0].startswith(words[0]+': ')

def judge(job, words, code, said, sample, here, watch, new):
    "What a job has come to: a word for the table, and why"
    kind = KINDS.get(job['kind'])
    broken = words[0]=='alexnet_doctor' # may say so with 1
    if 'Traceback' in said or 'a fault of alexnet_nb' in said or code not in (0, 2, 130, broken):
        return 'traceback', ''
    if watch.seen or new:
        return 'written', str(watch.seen+new)
    if code==2:
        return ('refusal', '') if is_plain(words, said) else ('traceback', 'not one line')
    if code==130:
        return 'interrupted', ''
    why = kind.check(sample, here, job) if kind and kind.check else ''
    return ('wrong', why) if why else ('success', '')

def execute(job, folder, watch):
    "Do a job in a folder of its own"
    box = folder/'box'
    shutil.rmtree(box, ignore_errors=True)
    sample = folder/'samples'/job['kind']/job['sample']
    here = box/'here'
    samples.put(box, {'tmp/.keep':'', 'outside/a.txt':'somebody else owns this'})
    shutil.copytree(sample, here, symlinks=True)
    os.chdir(here)
    tempfile.tempdir = str(box/'tmp')
    os.environ.update(TMPDIR=str(box/'tmp'), OUTSIDE=str(box/'outside'))
    if job['kind']=='arguments':
        os.mkfifo('fifo')
    where = here if job['kind']=='partial' else here/'in'
    for which,*damage in job.get('damage', ()):
        spoil(where, which, *damage)
    kind = KINDS.get(job['kind'])
    words = job.get('words') or words_of(job, here, folder/'samples/common')
    before = listing(box)
    watch.seen.clear()
    start = time.time()
    if job.get('stop'):
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, job['stop'])
    f = call_command if words[0].startswith('alexnet_') else call_library
    code,said = f(words[0], words[1:])
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.time()-start
    seen = list(watch.seen)
    after = listing(box)
    changed = [o for o in before.keys()|after.keys() if before.get(o)!=after.get(o)]
    new = [o for o in changed if o!='here' and not allowed(o, kind, words) and not os.path.isdir(box/o)]
    watch.seen = seen
    what,why = judge(job, words, code, said, sample, here, watch, new)
    if what=='traceback':
        why += ''.join(o.read_text(errors='replace')[-1500:] for o in sorted((box/'tmp').glob('*.txt'))[:1])
    return dict(what=what, why=why, code=code, said=said[-600:], seconds=round(seconds, 2))

def serve(folder, jobs, results):
    "Do some jobs; runs in the child"
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(folder/'said', os.O_RDWR|os.O_CREAT|os.O_TRUNC|os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    faulthandler.enable(said)
    resource.setrlimit(resource.RLIMIT_AS, (8<<30, 8<<30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch(folder)
    sys.addaudithook(watch)
    for number,line in enumerate(jobs, 1):
        job = json.loads(line)
        try:
            result = execute(job, folder, watch)
        except BaseException:
            result = dict(what='traceback', why=traceback.format_exc()[-1800:], code=None, said='', seconds=0)
        result['mb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss>>10
        limit = WIDE_MB if job['kind']=='arguments' else LIMIT_MB
        if result['mb']>limit and result['what'] in ('success', 'refusal', 'interrupted'):
            result.update(what='memory', why=f"{result['mb']} MB")
        result['last'] = number==JOBS or result['mb']>LIMIT_MB-300 or result['what'] not in ('success', 'refusal')
        results.write(json.dumps(result)+'\n')
        results.flush()
        if result['last']:
            os._exit(0)

# --- In the warm process

class Child:
    "A forked process that does jobs"
    def __init__(self, folder):
        self.folder = folder
        a,b = os.pipe()
        c,d = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(b)
                os.close(c)
                serve(folder, os.fdopen(a), os.fdopen(d, 'w'))
            except BaseException:
                traceback.print_exc(file=open(2, 'w'))
            finally:
                os._exit(1)
        os.close(a)
        os.close(d)
        self.jobs,self.results = os.fdopen(b, 'w'),os.fdopen(c)

    def do(self, job, limit):
        "The result of a job; without it, the child is dead"
        try:
            self.jobs.write(json.dumps(job)+'\n')
            self.jobs.flush()
        except BrokenPipeError:
            return None
        ready,*_ = select.select([self.results], [], [], limit)
        if not ready:
            os.kill(self.pid, signal.SIGABRT)
            time.sleep(.5)
        line = self.results.readline() if ready else ''
        return json.loads(line) if line else None

    def end(self):
        "Kill it and what it has started; its exit code"
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _,status,usage = os.wait4(self.pid, 0)
        return os.waitstatus_to_exitcode(status), usage

def make_in_child(kind, folder):
    "Samples are made in a child, so that this process has no threads"
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]==0
    try:
        os.dup2(2, 1)
        make_samples(kind, folder)
        os._exit(0)
    except ImportError as e:
        print(f'{kind.name}: left out ({e})', file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    os._exit(1)

def main(folder, *names):
    import alexnet_nb.tools.bench, alexnet_nb.tools.commands, alexnet_nb.tools.doctor, alexnet_nb.tools.experiments, conftest # warm
    import matplotlib.backends.backend_agg, matplotlib.pyplot, safetensors.torch, torchvision, PIL.ImageOps
    from inspect import signature
    if 'figure1' in names:
        import torch._dynamo # PyTorch's optimizers do, which takes seconds
    from alexnet_nb.tools import commands
    folder = Path(folder)
    (folder/'samples').mkdir()
    for name in ('common', *names):
        kind = KINDS.get(name) or type('Common', (), dict(name='common', make=staticmethod(samples.make_common)))
        make_in_child(kind, folder/'samples'/name)
    made = {o:sorted(p.name for p in (folder/'samples'/o).iterdir()) for o in names if (folder/'samples'/o).exists()}
    options = {name:list(signature(f).parameters) for name,f in vars(commands).items() if name.startswith('alexnet_')}
    print(json.dumps(dict(samples=made, options=options)), flush=True)
    child = None
    for line in sys.stdin:
        job = json.loads(line)
        for limit in (LIMIT_S, 2*LIMIT_S): # a busy machine may be slow once
            child = child or Child(folder)
            start = time.time()
            result = child.do(job, limit)
            if result is None:
                code,usage = child.end()
                child = None
                slow = time.time()-start>=limit
                said = (folder/'said').read_text(errors='replace')[-2500:]
                result = dict(what='hang' if slow else 'died', why=f'{code}; {said}', code=code, said='', mb=usage.ru_maxrss>>10,
                              seconds=round(usage.ru_utime+usage.ru_stime, 1))
                if slow:
                    continue
            elif result['last']:
                child.end()
                child = None
            break
        print(json.dumps(result), flush=True)
    if child:
        child.end()

if __name__=='__main__':
    sys.dont_write_bytecode = True
    main(*sys.argv[1:])
