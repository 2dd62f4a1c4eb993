"Guards of the repository: the form of the notebooks, and what is made from them"
import ast, importlib, inspect, io, re, runpy, shutil, tokenize
from base64 import b64decode
from itertools import takewhile
from types import NoneType
from typing import Any, get_args
import pytest, yaml
from conftest import call, entry_points, fine, run, settings, text

marks = {'slow', 'gpu', 'notest'}
nbdev_words = marks | {'measured', 'default_exp', 'export', 'exports', 'exporti', 'exec_doc', 'hide', 'filter_stream', 'fold', 'open'}
quarto_words = r'(eval|echo|output|include|warning|error|label|column|classes|(layout|fig|tbl|code)-\S+):'

def directives(cell):
    "The words of the `#|` lines at the top of a code cell; `eval: false` gives 'eval:'"
    top = takewhile(lambda o: not o.strip() or re.match(r'\s*#\s*\|', o), cell.source.splitlines())
    return [re.sub(r'\s*#\s*\|\s*', '', o, count=1).split()[0] for o in top if re.search(r'\|\s*\S', o)]

def code(nb): return [o for o in nb.cells if o.type=='code']
def exported(nb): return [o for o in code(nb) if {'export', 'exports', 'exporti'} & set(directives(o))]
def never_run(cell): return bool(re.search(r'^#\s*\|\s*eval:\s*false', cell.source, re.M|re.I))
def module(nb):
    "Arguments of all default_exp lines"
    return [m for o in code(nb) for m in re.findall(r'^#\s*\|\s*default_exp\s+(\S+)', o.source, re.M)]

def page(nb): return re.sub(r'^\d+[a-z0-9]*_', '', nb.path.stem.lower())
def data(nb):
    "Cell, type and content of all outputs of a notebook"
    for c in code(nb):
        for o in c.outputs:
            if o['output_type']=='error': yield c, 'error', '\n'.join(o['traceback'])
            if o['output_type']=='stream': yield c, o['name'], text(o['text'])
            for k,v in o.get('data', {}).items(): yield c, k, str(v) if isinstance(v, dict) else text(v)

# --- The form of a notebook

def test_title(nb):
    "`# Title`, then `> subtitle`; the subtitle becomes a docstring, so both are plain text"
    c = nb.cells[0]
    m = re.fullmatch(r'# \S.*\n+> (\S.*)(\n\n?(- [\w-]+: .*\n?)+)?', c.source)
    assert c.type=='markdown' and m, f'first cell is not a title cell:\n{c.source}'
    assert not re.search(r'[\\$]|"$', c.source), f'backslash or dollar, or a quote at the end:\n{c.source}'

def test_cells(nb):
    "Exported code and diffs refer to cells by their ids"
    ids = [o.id for o in nb.cells]
    assert None not in ids and len(set(ids))==len(ids), 'cell without an id, or two with one: run nbdev_clean'

def test_one_module_each(notebooks):
    "A chapter makes `name`, a room of another floor `engine.name` or `tools.name`; pages make nothing"
    made = []
    for nb in notebooks:
        if not exported(nb):
            assert not module(nb), f'{nb.name} exports nothing, but has default_exp {module(nb)}'
            continue
        folder = nb.path.parent.name
        want = page(nb) if nb.name[0].isdigit() else f'{folder}.{page(nb)}'
        assert module(nb)==[want], f'default_exp of {nb.name} is {module(nb)}, not {want}'
        made.append(want)
    assert len(made)==len(set(made)), 'two notebooks make one module'

def test_page_names(notebooks):
    pages = [(o.path.parent, page(o)) for o in notebooks]
    assert len(pages)==len(set(pages)), 'two pages of a folder have one name once the number is dropped'

def test_directives(nb):
    "A misspelt or misplaced `#|` line is ignored without a word"
    for c in code(nb):
        for o in directives(c):
            assert o in nbdev_words or re.fullmatch(quarto_words, o), f'unknown directive {o} in cell {c.id}'
        lines = c.source.splitlines()
        isdir = [bool(re.match(r'\s*#\s*\|', o)) for o in lines]
        first = next((i for i,o in enumerate(lines) if o.strip() and not isdir[i]), len(lines))
        low = [o for i,o in enumerate(lines) if i>first and isdir[i]]
        assert not low, f'directive below the first line of code in cell {c.id}: {low}'

def test_import_cells(nb):
    "Building the pages runs each cell with an import, so it holds nothing else; magics vanish from the page"
    for c in code(nb):
        if never_run(c) or 'nbdev_export()' in c.source: continue  # the pages leave both alone
        try: tree = ast.parse(c.source)
        except SyntaxError as e: pytest.fail(f'cell {c.id} is not plain Python ({e}):\n{c.source}')
        imports = [o for o in tree.body if isinstance(o, (ast.Import, ast.ImportFrom))]
        assert len(imports) in (0, len(tree.body)), f'imports and other code in cell {c.id}:\n{c.source}'
        if c in exported(nb) or imports: continue
        inner = [o for o in ast.walk(tree) if isinstance(o, (ast.Import, ast.ImportFrom))]
        assert not inner, f'import inside other code, cell {c.id}:\n{c.source}'

def test_width_of_lines(nb):
    "The box of a page holds 124 characters at 1,440 pixels"
    for c in code(nb):
        most = 120 if c in exported(nb) else 124
        wide = [o for o in c.source.splitlines() if len(o)>most and not o.startswith('#|')]
        assert not wide or {'hide', 'echo:', 'include:'} & set(directives(c)), f'over {most} characters: {wide}'

def test_outputs(nb):
    seen = [c for c,*_ in data(nb) if not {'hide', 'include:'} & set(directives(c))]
    assert seen, 'shows nothing: run .ci/outputs.py'
    for c,k,v in data(nb):
        assert k!='error' and 'Traceback (most recent call' not in v, f'error in the outputs of cell {c.id}'
        if not k.startswith('image/'): continue
        n = len(v) if 'svg' in k else len(b64decode(v))
        assert n<=100_000, f'picture of {n//1000} kB in cell {c.id}, 100 allowed'

def test_no_machine_paths(nb, repo):
    here = re.escape(str(repo))
    pat = re.compile(rf'(?<![\w.~/:-])/(home|root|tmp|Users)/\S*|\b[A-Z]:\\Users\S*|{here}\S*')
    for c in nb.cells:
        assert not (m := pat.search(c.source)), f'path of one machine in the source of cell {c.id}: {m[0]}'
    for c,k,v in data(nb):
        m = None if k.startswith('image/') else pat.search(v)
        assert not m, f'path of one machine in the output of cell {c.id}: {m[0]}'

# --- The notebooks together

def test_all_are_tested(notebooks, repo):
    "nbdev_test passes over notebooks without a word, and calls it a success when none is left"
    assert notebooks, 'no notebooks'
    assert not list((repo/'nbs').rglob('.notest')), 'a .notest file keeps a folder from being tested'
    for o in notebooks: assert '\n- skip_exec' not in o.cells[0].source, f'{o.name} is never run'
    assert set(settings()['tst_flags'].split())==marks

def test_sidebar(notebooks, repo):
    def files(o):
        if isinstance(o, str): return [o] if o.endswith('.ipynb') else []
        return [f for v in (o.values() if isinstance(o, dict) else o if isinstance(o, list) else []) for f in files(v)]
    assert (repo/'nbs'/'_quarto.yml').resolve()==repo/'_quarto.yml', 'nbs/_quarto.yml must be a symlink'
    listed = files(yaml.safe_load((repo/'_quarto.yml').read_text())['website']['sidebar'])
    names = [o.name for o in notebooks]
    assert set(listed)==set(names), f'sidebar and notebooks differ: {set(listed)^set(names)}'
    nums = [o for o in listed if o[0].isdigit()]
    assert len(listed)==len(names) and nums==sorted(nums), 'chapters out of order, or listed twice'

def test_in_sync(repo, py, tmp_path):
    "Clean and export a copy; nothing may differ, nothing may be left over"
    skip = shutil.ignore_patterns('runs', 'packs', '__pycache__', '.ipynb_checkpoints')
    for o in ('nbs', 'alexnet_nb'): shutil.copytree(repo/o, tmp_path/o, symlinks=True, ignore=skip)
    for o in ('settings.ini', '_quarto.yml'): shutil.copy(repo/o, tmp_path)
    for o in (tmp_path/'alexnet_nb').rglob('*.py'):
        if o.name!='__init__.py': o.unlink()
    names = 'nbdev_clean', 'nbdev_export', 'refresh_quarto_yml'
    res = py('-c', 'from nbdev.clean import nbdev_clean; from nbdev.doclinks import nbdev_export\n'
             'from nbdev.quarto import refresh_quarto_yml\n' + '\n'.join(o+'()' for o in names), cwd=tmp_path)
    assert res.returncode==0, res.stderr
    def read(d):
        files = [o for pat in ('nbs/**/*.ipynb', 'nbs/nbdev.yml', 'alexnet_nb/**/*.py') for o in d.glob(pat)]
        return {str(o.relative_to(d)): o.read_text() for o in files if '.ipynb_checkpoints' not in o.parts}
    old, new = read(repo), read(tmp_path)
    diff = sorted(o for o in old|new if old.get(o)!=new.get(o))
    assert not diff, f'run nbdev_clean and nbdev_export (a .py without a notebook must be deleted): {diff}'

def test_readme(py):
    res = py('.ci/readme.py', '--check')
    assert res.returncode==0, res.stderr
    for o in ('test', 'run'):
        res = py('-S', '.ci/readme.py', '--block', o) # asked before anything is installed
        assert res.returncode==0 and res.stdout.strip(), res.stderr

def test_names_become_links(repo):
    "nbdev leaves all of a notebook out of its index, without a word, if the path of the notebook contains 'auto'"
    idx = runpy.run_path(str(repo/'alexnet_nb'/'_modidx.py'))['d']['syms']
    for p in modules(repo):
        names = {o.name for o in ast.parse(p.read_text()).body if isinstance(o, (ast.FunctionDef, ast.ClassDef))
                 and not any(ast.unparse(d).startswith('patch') for d in o.decorator_list)}
        name = dotted(p, repo)
        lost = names - {o.split('.')[-1] for o in idx.get(name, ())}
        assert not lost, f"{name}: not in _modidx.py: {sorted(lost)}; does its notebook's name contain 'auto'?"

def test_no_data_in_git(repo):
    """Only tests/fixtures/ holds packs and weights, made of a few drawn pictures, and it stays small. card.png is the
    site's; explain/try_it has a small network and drawn pictures for a page, and a card the kernels and the curve of a network"""
    if not (repo/'.git').exists(): pytest.skip('not a git checkout')
    names = fine(run('git', 'ls-files', '-co', '--exclude-standard', cwd=repo)).stdout.splitlines()
    kinds = '.jpg .jpeg .png .npy .npz .bin .pt .pth .safetensors .onnx .tar .zip .gz .xz .parquet'.split()
    files = [repo/o for o in names if (repo/o).is_file()]
    drawn = [o for o in files if o.is_relative_to(repo/'tests'/'fixtures')]
    own = repo/'nbs'/'card.png', *(repo/'nbs'/'cards'/f'full_{o}.png' for o in ('curve', 'filters'))
    shown = [o for o in files if o in own or o.is_relative_to(repo/'nbs'/'explain'/'try_it')]
    others = [o for o in files if o not in drawn+shown]
    bad = [o.name for o in others if o.suffix.lower() in kinds or o.stat().st_size>2_000_000]
    assert not bad, f'images, data or weights: {bad}'
    size = sum(o.stat().st_size for o in drawn)
    assert size<200_000, f'tests/fixtures: {size:,} bytes, 200,000 allowed'
    size = sum(o.stat().st_size for o in shown)
    assert size<4_000_000, f'for the site: {size:,} bytes, 4,000,000 allowed'

# --- The package

def modules(repo): return sorted(o for o in (repo/'alexnet_nb').rglob('*.py') if o.name[0]!='_')
def dotted(path, repo): return '.'.join(path.relative_to(repo).with_suffix('').parts)

def parameters(f):
    "Parameters of a function that the comments have to explain"
    a = f.args
    found = [o for o in a.posonlyargs + a.args + [a.vararg] + a.kwonlyargs if o]
    return [o for o in found if o.arg not in ('self', 'cls', 'ctx')]

def uncommented(
    f,             # Syntax tree of a function
    comments:set,  # Numbers of the lines that have a comment
)->list:           # Names
    "Parameters without a comment; as in docments, a comment is on the last parameter of its line"
    last = {o.lineno:o.arg for o in parameters(f)}
    bad = []
    for o in parameters(f):
        if o.lineno not in comments or last[o.lineno]!=o.arg: bad.append(o.arg)
    return bad

def methods(o):
    "`__init__` and the public methods of a class"
    funcs = [f for f in o.body if isinstance(f, ast.FunctionDef)]
    return [f for f in funcs if f.name=='__init__' or f.name[0]!='_']

def missing_docs(
    src:str,  # Source of a module
)->list:      # What lacks a one-line docstring or the comments on its parameters
    "Check public functions and classes, and the public methods of these"
    tokens = tokenize.generate_tokens(io.StringIO(src).readline)
    comments = {o.start[0] for o in tokens if o.type==tokenize.COMMENT}
    bad = []
    for o in ast.parse(src).body:
        if getattr(o, 'name', '_')[0]=='_': continue
        if '\n' in (ast.get_docstring(o) or '\n'): bad.append(f'{o.name}: docstring is not one line')
        funcs = {o.name:o}
        if isinstance(o, ast.ClassDef): funcs = {f'{o.name}.{f.name}':f for f in methods(o)}
        for name,f in funcs.items():
            if f is not o and '\n' in (ast.get_docstring(f) or ''): bad.append(f'{name}: docstring is not one line')
            bad += [f'{name}: no comment on {p}' for p in uncommented(f, comments)]
    return bad

def test_docments(repo):
    bad = [f'{dotted(p, repo)}.{o}' for p in modules(repo) for o in missing_docs(p.read_text())]
    assert not bad, '\n'.join(bad)

def allows_none(kind):
    "Does an annotation say that a value may be None?"
    return kind in (Any, object, NoneType) or any(map(allows_none, get_args(kind)))

def test_annotations(repo):
    "What a signature names can be looked up, so that any tool can show it, and what can be None says so"
    bad = []
    for p in modules(repo):
        mod = importlib.import_module(dotted(p, repo))
        for o in [getattr(mod, name) for name in mod.__all__]:
            own = [f for f in vars(o).values() if inspect.isfunction(f)] if inspect.isclass(o) else []
            for f in filter(inspect.isfunction, [o, *own]):
                name = f'{mod.__name__}.{f.__qualname__}'
                try: shape = inspect.signature(f, eval_str=True)
                except NameError as e: bad.append(f'{name}: {e}')
                else: bad += [f'{name}: {k} is None, but {o.annotation}' for k,o in shape.parameters.items()
                              if o.default is None and o.annotation is not o.empty and not allows_none(o.annotation)]
    assert not bad, '\n'.join(bad)

def test_ruff(py):
    "Faults that a program can find; pyproject.toml says why the other rules are off"
    pytest.importorskip('ruff')
    done = py('-m', 'ruff', 'check', '--no-cache')
    assert done.returncode==0, done.stdout

quiet = '''
import importlib, os, sys
for o in {others!r}:
    try: importlib.import_module(o)
    except ImportError: pass
seen, acts = [], 'urllib.Request subprocess.Popen os.system os.mkdir os.rename os.remove'.split()
def watch(event, args):
    if event.startswith('socket.') or event in acts: seen.append((event, args))
    if event=='open' and args[2] & (os.O_WRONLY|os.O_RDWR|os.O_CREAT): seen.append((event, args[0]))
sys.addaudithook(watch)
for o in {mods!r}:
    importlib.import_module(o)
    assert not seen, f'importing {{o}} did: {{seen}}'
    assert 'matplotlib.pyplot' not in sys.modules, f'importing {{o}} loads matplotlib.pyplot'
    torch = sys.modules.get('torch')
    assert not (torch and torch.cuda.is_initialized()), f'importing {{o}} starts CUDA'
'''

def test_quiet_import(repo, py):
    "Importing a module writes no file, opens no connection, starts no GPU and loads no plotting"
    others = set()
    for p in modules(repo):
        for o in ast.parse(p.read_text()).body:
            if isinstance(o, ast.Import): others |= {a.name for a in o.names}
            if isinstance(o, ast.ImportFrom) and not o.level: others.add(o.module)
    others -= {'matplotlib.pyplot'}
    mods = ['alexnet_nb'] + [dotted(p, repo) for p in modules(repo)]
    res = py('-B', '-c', quiet.format(others=sorted(others), mods=mods))
    assert res.returncode==0, res.stderr

@pytest.mark.parametrize('name,module,function', entry_points())
def test_help(name, module, function, monkeypatch):
    "Each command exists, and its --help says something about each option"
    monkeypatch.setenv('COLUMNS', '200')
    command = getattr(importlib.import_module(module), function)
    said = fine(call(command, '--help')).stdout
    for a in inspect.signature(command).parameters:
        line = re.search(rf'^ +(--(no-)?{a}( \S+)?|{a}) {{2,}}(?!\(default)\S', said, re.M)
        assert line, f'{name} --help says nothing about {a}:\n{said}'

def test_run_script(repo):
    assert run('bash', '-n', repo/'.ci'/'run').returncode==0
    assert (repo/'.ci'/'run').stat().st_mode & 0o100, '.ci/run is not executable'
