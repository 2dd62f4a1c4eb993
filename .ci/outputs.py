"""Run notebooks from top to bottom and store their outputs in them.

Conditions are those of nbdev_test: the notebook's folder is the current one, the repository is importable.
Cells marked slow, gpu or notest keep the outputs they have, unless --flags names their mark; cells marked
measured (times, numbers of processes, what differs each time) run and keep the outputs they have, unless --flags
names them too; cells marked eval: false never run. When a cell fails, its source and the error are shown, and the file stays as it was.
Several notebooks run beside each other, each in a process of its own with one thread. With --check nothing is
stored: the notebooks whose outputs would change are named, and there must be none."""
import argparse, json, os, re, subprocess, sys, time
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor, as_completed
from difflib import unified_diff
from io import BytesIO
from pathlib import Path
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell, format_exc
from fastcore.xtras import working_directory
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor, extract_directives
from PIL import Image

repo = Path(__file__).resolve().parents[1]
max_image, max_text = 100_000, 4_000  # bytes, characters

# Cells that show what cards say of the claims, and the import that they need: they need no other cell
CLAIMS = re.compile(r'tools\.claims|\b(show_claims|show_effects|show_errors|show_pilot|cite_claims|tell_results)\('
                    r'|\blist_experiments(\(\))?$|^found = Card\.load\(.cards/', re.M)

def shows_claims(cell): return not {'export','exports'} & marks(cell).keys() and bool(CLAIMS.search(cell.source))

def marks(cell): return extract_directives(cell, remove=False) if cell.cell_type=='code' else {}

def skipped(
    cell,       # A cell
    flags:set,  # Marks whose cells do not run
)->bool:        # Does it keep its outputs?
    "Tell whether `cell` is left alone"
    d = marks(cell)
    return (cell.cell_type!='code' or 'nbdev_export(' in cell.source
            or d.get('eval:', [''])[0].lower()=='false' or bool(flags & d.keys()))

def smaller(
    png:str,  # A picture in base64
)->tuple:     # (kind, the same picture in base64, small enough for a repository)
    "Lines and letters get a palette; photographs and noise, which make large PNGs, become a JPEG"
    im = Image.open(BytesIO(b64decode(png))).convert('RGB')
    if im.getcolors(5000): # a photograph has many more
        few = im.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) # rare colours stay
        few.save(buf := BytesIO(), 'PNG', optimize=True)
        if buf.tell()<=max_image: return 'image/png', b64encode(buf.getvalue()).decode()
    for q in 85,75,65,55,45:
        im.thumbnail((1000,1700))
        im.save(buf := BytesIO(), 'JPEG', quality=q, optimize=True)
        if buf.tell()<=max_image: break
    return 'image/jpeg', b64encode(buf.getvalue()).decode()

def tidy(
    cell,  # A cell that has run
):
    "Drop what differs from run to run: lines that a progress bar wrote over, rates in a log; shrink large pictures"
    for o in cell.get('outputs', []):
        if o.output_type=='stream':
            text = re.sub(r'[^\n]*\r[^\n]*\n?', '', ''.join(o.text))
            o['text'] = re.sub(r'; [\d,.]+ images/s, [^;\n]* left$', '', text, flags=re.M).splitlines(True)
        d = o.get('data', {})
        if len(d.get('image/png', ''))*3//4>max_image:
            kind,picture = smaller(d.pop('image/png'))
            d[kind] = picture
    if 'outputs' in cell: cell['outputs'] = [o for o in cell.outputs if o.output_type!='stream' or o.text]

def sizes(
    cell,  # A cell
)->list:   # Warnings
    "Name the outputs of `cell` that are too large to keep in a repository"
    res = []
    for o in cell.get('outputs', []):
        n = len(''.join(o.get('text', '')))
        if n>max_text: res.append(f'{n:,} characters of {o.name}')
        for k,v in o.get('data', {}).items():
            if not k.startswith('image/'): continue
            n = len(''.join(v)) if 'svg' in k else len(b64decode(''.join(v)))
            if n>max_image: res.append(f'{n//1000:,} kB of {k}')
    return res

def differences(
    old:Path, # A notebook
    new:Path, # The same, run again
)->list:      # Lines: which cells, and the first words that changed
    "Name the cells whose outputs are others"
    res = []
    for a,b in zip(read_nb(old).cells, read_nb(new).cells):
        was, now = (json.dumps(o.get('outputs', []), indent=1).splitlines() for o in (a, b))
        if was==now: continue
        lines = [o for o in unified_diff(was, now, n=0, lineterm='') if o[:1] in '+-' and o[:3] not in ('---', '+++')]
        res.append(f'  cell {a.id}: ' + ' | '.join(o[:160] for o in lines[:2]))
    return res

def run(
    fn:Path,     # Notebook, absolute
    flags:set,   # Marks whose cells keep their outputs
    claims:bool, # Only the cells that show claims?
    check:bool,  # Compare instead of writing it back?
)->bool:         # Did it work?
    "Run `fn` and write it back"
    name, nb = fn.relative_to(repo), read_nb(fn)
    if NBProcessor(fn, procs=FrontmatterProc, process=True).nb.frontmatter_.get('skip_exec'):
        return print(f'{name}: skip_exec, left as it is') or True
    again = flags & {'measured'} # these run nevertheless
    def kept(cell): return skipped(cell, flags-again) or (claims and not shows_claims(cell))
    cells = [o for o in nb.cells if not kept(o)]
    if not cells: return True
    measured = {o.id:o.outputs for o in cells if again & marks(o).keys() and o.get('outputs')}
    for o in cells: o['outputs'] = []
    sys.path.insert(0, str(repo))
    shell, at = CaptureShell(fn), None
    def skip(cell):
        nonlocal at
        at = cell
        return kept(cell)
    with working_directory(fn.parent):
        try: shell.run_all(nb, exc_stop=True, preproc=skip, postproc=tidy)
        except BaseException as e:
            error = ''.join(format_exc(shell.exc or e))
            print(f'{name}: cell {at.id} failed\n\n{at.source}\n\n{error}', file=sys.stderr)
            return False
    for o in cells: o['outputs'] = measured.get(o.id, o.get('outputs', []))
    new = fn.with_name(f'.{fn.name}')  # written beside; names with a dot are no notebooks of the site
    try:
        write_nb(nb, new)
        nbdev_clean.__wrapped__(new)
        if check:
            found = differences(fn, new)
            print('\n'.join([f"{name}: {len(found)} of {len(cells)} cells that ran differ", *found]))
            return not found
        new.replace(fn)
    finally: new.unlink(missing_ok=True)
    for o in nb.cells:
        for w in sizes(o): print(f'{name}: cell {o.id}: warning: {w}', file=sys.stderr)
    return print(f'{name}: {len(cells)} cells run') or True

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', metavar='NOTEBOOK', help='notebooks to run (default: all)')
    p.add_argument('--flags', default='', metavar='MARKS', help='marks whose cells run too, as in "slow gpu"')
    p.add_argument('--claims', action='store_true', help='only cells that show what cards say of the claims')
    p.add_argument('--check', action='store_true', help='store nothing; name the cells whose outputs would change')
    p.add_argument('--jobs', type=int, default=os.cpu_count(), metavar='N', help='notebooks at once (default: a core each)')
    args = p.parse_args()
    for o in ('IN_TEST', 'MPLBACKEND'): os.environ.pop(o, None)
    os.environ['TQDM_DISABLE'] = '1'  # no progress bars in the outputs
    files = [Path(o).resolve() for o in args.notebooks]
    for o in files:
        if not o.is_file(): p.error(f'no such notebook: {o}')
    os.chdir(repo)
    files = files or sorted(o.resolve() for o in nbglob(as_path=True))
    flags = {'measured', *get_config().tst_flags.split()} - set(args.flags.split())
    if len(files)==1: sys.exit(not run(files[0], flags, args.claims, args.check))
    if args.claims:
        done = [run(o, flags, True, args.check) for o in files]
        sys.exit(not all(done))
    cmd = [sys.executable, __file__, '--flags', args.flags, *(['--check'] if args.check else [])]
    env, start, bad = {**os.environ, 'OMP_NUM_THREADS':'1'}, time.time(), []  # sums depend on the number of threads
    def other(fn): return subprocess.run([*cmd, fn], capture_output=True, text=True, env=env)
    with ThreadPoolExecutor(args.jobs) as pool:
        # the largest first: they take longest
        todo = {pool.submit(other, o):o for o in sorted(files, key=lambda o: -o.stat().st_size)}
        for n,o in enumerate(as_completed(todo), 1):
            r = o.result()
            if r.returncode: bad.append(str(todo[o].relative_to(repo)))
            print(f'{time.time()-start:4.0f} s, {n} of {len(files)}: {(r.stdout+r.stderr).strip() or "nothing to run"}', flush=True)
    sys.exit(f"{len(bad)} of {len(files)} notebooks {'differ or fail' if args.check else 'fail'}: {', '.join(sorted(bad))}" if bad else 0)

if __name__=='__main__': main()
