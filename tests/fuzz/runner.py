"""Does jobs one after the other, each in a forked child of a process that has imported everything

As a program (python -m fuzz.runner FOLDER KINDS) it reads jobs from stdin and writes results to stdout, a line of JSON
each. A child does some jobs and is replaced. It is killed where a job takes too long, and its death is the result of
the job that it was at."""
import faulthandler, gc, io, json, os, re, resource, select, shutil, signal, subprocess, sys, tempfile, time, traceback
from contextlib import redirect_stderr, redirect_stdout
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

from . import samples
from .damage import spoil
from .kinds import KINDS, make_samples, words_of

LIMIT_S,LIMIT_MB,JOBS = 20,1100,100 # of one job; jobs of a child
WIDE_MB = 2500 # a network of full width may be asked for by odd arguments, and the doctor measures one
GOOD = 'success', 'refusal', 'interrupted'
root = Path(__file__).parents[2]

class Runner:
    "The warm process, seen from outside; a context"
    def __init__(self,
        names=tuple(KINDS), # Kinds whose samples are needed
    ):
        self.folder = Path(tempfile.mkdtemp(prefix='fuzz'))
        home = self.folder/'home'
        home.mkdir()
        path = os.pathsep.join([str(root), str(root/'tests'), os.environ.get('PYTHONPATH', '')])
        env = os.environ|dict(PYTHONPATH=path, OMP_NUM_THREADS='1', MPLBACKEND='agg', COLUMNS='100')
        env |= {o:str(home) for o in ('HOME', 'MPLCONFIGDIR', 'XDG_CACHE_HOME', 'TORCH_HOME')}
        command = [sys.executable, '-m', 'fuzz.runner', self.folder, *names]
        self.process = subprocess.Popen(command, text=True, env=env, cwd=self.folder, stdin=subprocess.PIPE,
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

def read_squares(folder):
    "Read all pictures of a folder; the preparation writes down whatever a decoder says"
    from alexnet_nb.data import read_square
    for o in sorted(Path(folder).rglob('*')):
        try:
            read_square(o, 32)
        except Exception as e:
            assert str(e) or type(e).__name__

def call_library(name, args):
    "The same for a function; what it refuses names the file"
    from alexnet_nb.engine.core import READERS, Refusal, printable
    from alexnet_nb.model import load_weights
    from alexnet_nb.tools.cards import Card, table
    from test_readers import EXAMPLES
    own = dict(go_on=samples.go_on, read_squares=read_squares, table=table)
    files = READERS|{'load_weights':load_weights, 'Card.load':Card.load}
    more = EXAMPLES[name][2:] if name in READERS else ()
    try:
        (own|files)[name](*args, *more)
        return 0, ''
    except Refusal as e:
        path = Path(args[0])
        named = name in own or printable(path.name) in str(e) or f'{path.parent}/' in str(e) # one that lies beside it
        return (2, f'{name}: {e}') if named else (1, f'{name}: {e} (does not name the file)')

def listing(folder):
    "{path: what shows a change}"
    found = {}
    for where,folders,files in os.walk(folder):
        for o in folders+files:
            path = os.path.join(where, o)
            st = os.lstat(path)
            found[os.path.relpath(path, folder)] = st.st_mode, st.st_size, o in files and st.st_mtime_ns
    return found

def list_outputs(kind, words):
    "Names of files and folders that a job may write, or begin with"
    names = {'out', 'fresh', *kind.writes.split()}
    names |= {b for a,b in zip(words, words[1:]) if a in ('--out', '--card', '--run', '--folder', '--json')}
    if kind.name=='arguments':
        names |= {o.rpartition('=')[2] for o in words}|{'runs', 'alexnet_demo', 'predictions.png', 'bench_lrn.json'}
    return {o.split('/')[0] for o in names}

def is_allowed(path, outputs):
    "May a job write this? Its outputs, and what lies beside them for a while"
    place,*parts = path.split('/')
    if place=='outside': # through a link, which stays, in the folder of a run
        return 'in' in outputs
    if place!='here' or not parts:
        return place in ('tmp', 'here')
    return parts[0].endswith('.partial') or any(parts[0]==o or parts[0].startswith((o+'.', '.'+o)) for o in outputs)

class Watch:
    "Notes what Python writes outside of a folder, and refuses connections"
    targets = {'os.rename', 'os.link', 'os.symlink'} # the second argument is what is written
    places = {'os.remove', 'os.rmdir'}               # may be relative to an open folder, below one that is noted
    others = {'os.mkdir', 'os.chmod', 'os.truncate', 'shutil.rmtree'}
    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def __call__(self, event, args):
        if event=='socket.connect':
            raise OSError(101, 'Network is unreachable')
        writes = event=='open' and isinstance(args[2], int) and args[2]&(os.O_WRONLY|os.O_RDWR|os.O_CREAT)
        relative = event in self.places and args[1]!=-1
        if not (writes or event in self.targets|self.places|self.others) or relative:
            return
        path = args[event in self.targets]
        if not isinstance(path, int):
            folder = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))+'/'
            if not folder.startswith((str(self.folder), '/dev/', '/proc/')):
                self.seen.append(f'{event} {os.fsdecode(path)}')

def is_plain(name, said):
    "Does one line, the last, name the command? A list below it is indented; notes and progress may stand above"
    lines = [o for o in said.splitlines() if o.strip() and not o.startswith('  ')]
    named = [o for o in lines if o.startswith(name+': ')]
    return named==lines[-1:] and not any(re.search('[a-z](Error|Warning): ', o) for o in lines[:-1])

def judge(job, name, code, said, written, check):
    "What a job has come to: a word for the table, and why"
    broken = name=='alexnet_doctor' # says so with 1
    if 'Traceback' in said or 'a fault of alexnet_nb' in said or code not in (0, 2, 130, broken):
        return 'traceback', ''
    if written:
        return 'written', str(written)
    if code==2:
        return ('refusal', '') if is_plain(name, said) else ('traceback', 'not one line')
    if code==130:
        return 'interrupted', ''
    why = check() if code==0 else ''
    return ('wrong', why) if why else ('success', '')

def execute(job, folder, watch):
    "Do a job in a folder of its own"
    box,sample,kind = folder/'box',folder/'samples'/job['kind']/job['sample'],KINDS[job['kind']]
    here = box/'here'
    shutil.rmtree(box, ignore_errors=True)
    samples.put(box, {'tmp/.keep':'', 'outside/a.txt':'somebody else owns this'})
    shutil.copytree(sample, here, symlinks=True)
    os.chdir(here)
    tempfile.tempdir = str(box/'tmp')
    os.environ.update(TMPDIR=str(box/'tmp'), OUTSIDE=str(box/'outside'))
    if job['kind']=='arguments':
        os.mkfifo('fifo')
    for i,o in enumerate(job.get('tree', ())):
        samples.put(here/'in', {o:samples.saved(samples.picture(i), 'PNG')})
    for o in job.get('tables', ()):
        samples.make_table(here/'in', **o)
    for o,(k,name) in job.get('copies', {}).items():
        shutil.copytree(folder/'samples'/k/name/'in', here/o, symlinks=True)
    for which,*damage in job.get('damage', ()):
        spoil(here if job['kind']=='partial' else here/'in', which, *damage)
    name,*args = words_of(job, here, folder/'samples/common')
    before = listing(box)
    watch.seen.clear()
    start = time.time()
    if job.get('stop'):
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, job['stop'])
    code,said = (call_command if name.startswith('alexnet_') else call_library)(name, args)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = round(time.time()-start, 2)
    after,outputs = listing(box),list_outputs(kind, args)
    changed = [o for o in before.keys()|after.keys() if before.get(o)!=after.get(o) and not is_allowed(o, outputs)]
    written = watch.seen+[o for o in changed if not os.path.isdir(box/o)]
    what,why = judge(job, name, code, said, written, lambda: kind.check(sample, here, job) if kind.check else '')
    if what=='traceback': # which lies in a file
        why += ''.join(o.read_text(errors='replace')[-1500:] for o in sorted((box/'tmp').glob('*.txt'))[:1])
    return dict(what=what, why=why, code=code, said=said[-600:], seconds=seconds)

def serve(folder, jobs, results):
    "Do some jobs; runs in the child"
    os.setpgid(0, 0)
    said = os.open(folder/'said', os.O_RDWR|os.O_CREAT|os.O_TRUNC|os.O_APPEND)
    for old,new in (os.open(os.devnull, os.O_RDONLY),0), (said,1), (said,2):
        os.dup2(old, new)
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
        mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss>>10
        if mb>(WIDE_MB if 'words' in job else LIMIT_MB) and result['what'] in GOOD:
            result.update(what='memory', why=f'{mb} MB')
        last = number==JOBS or mb>LIMIT_MB-300 or result['what'] not in ('success', 'refusal')
        results.write(json.dumps(result|dict(mb=mb, last=last))+'\n')
        results.flush()
        if last:
            os._exit(0)

# --- In the warm process

class Child:
    "A forked process that does jobs"
    def __init__(self, folder):
        (jobs,to_child),(from_child,results) = os.pipe(),os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(to_child)
                os.close(from_child)
                serve(folder, os.fdopen(jobs), os.fdopen(results, 'w'))
            except BaseException:
                traceback.print_exc(file=open(2, 'w'))
            finally:
                os._exit(1)
        os.close(jobs)
        os.close(results)
        self.jobs,self.results = os.fdopen(to_child, 'w'),os.fdopen(from_child)

    def do(self, job, limit):
        "The result of a job; without it, the child is dead or does not answer"
        try:
            self.jobs.write(json.dumps(job)+'\n')
            self.jobs.flush()
        except BrokenPipeError:
            return None
        ready,*_ = select.select([self.results], [], [], limit)
        if not ready:
            os.kill(self.pid, signal.SIGABRT) # it tells where it is
            time.sleep(.5)
        line = self.results.readline() if ready else ''
        return json.loads(line) if line else None

    def end(self):
        "Kill it and what it has started; its exit code, and what it used"
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _,status,usage = os.wait4(self.pid, 0)
        return os.waitstatus_to_exitcode(status), usage

def do_in_child(child, job, limit, folder):
    "The result of a job, and the child if it can go on"
    start = time.time()
    result = child.do(job, limit)
    if result is None:
        code,usage = child.end()
        said = (folder/'said').read_text(errors='replace')[-2500:]
        what = 'hang' if time.time()-start>=limit else 'died'
        seconds = round(usage.ru_utime+usage.ru_stime, 1)
        return dict(what=what, why=f'{code}; {said}', code=code, said='', mb=usage.ru_maxrss>>10, seconds=seconds), None
    if result['last']:
        child.end()
        child = None
    return result, child

def make_in_child(kind, folder):
    "Samples are made in a child, so that this process has no threads"
    if pid := os.fork():
        return os.waitpid(pid, 0)
    try:
        os.dup2(2, 1)
        make_samples(kind, folder)
    except ImportError as e:
        print(f'{kind.name}: left out ({e})', file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    os._exit(0)

def warm_up(names):
    "Import what commands import"
    import matplotlib.backends.backend_agg, matplotlib.pyplot, safetensors.torch, torchvision
    import alexnet_nb.tools.bench, alexnet_nb.tools.commands, alexnet_nb.tools.doctor, alexnet_nb.tools.experiments
    import conftest
    if 'figure1' in names:
        import torch._dynamo # PyTorch's optimizers do, which takes seconds
    return alexnet_nb.tools.commands

def main(folder, *names):
    commands = warm_up(names)
    folder = Path(folder)
    (folder/'samples').mkdir()
    common = SimpleNamespace(name='common', make=samples.make_common)
    for kind in (common, *map(KINDS.get, names)):
        make_in_child(kind, folder/'samples'/kind.name)
    made = {o:sorted(p.name for p in (folder/'samples'/o).iterdir()) for o in names if (folder/'samples'/o).exists()}
    options = {name:list(signature(f).parameters) for name,f in vars(commands).items() if name.startswith('alexnet_')}
    print(json.dumps(dict(samples=made, options=options)), flush=True)
    gc.collect()
    gc.freeze() # what children share stays shared
    child = None
    for line in sys.stdin:
        job = json.loads(line)
        for limit in (LIMIT_S, 2*LIMIT_S): # a busy machine may be slow once
            result,child = do_in_child(child or Child(folder), job, limit, folder)
            if result['what']!='hang':
                break
        print(json.dumps(result), flush=True)

if __name__=='__main__':
    sys.dont_write_bytecode = True
    main(*sys.argv[1:])
