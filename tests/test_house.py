"The house: three floors, something shown after at most sixty exported lines, private names that are private"
import ast, re
from collections import defaultdict

from test_repo import code, directives, exported

FLOORS = ('engine', 'chapters', 'tools')
LONGEST = 60 # exported lines without anything shown

def floor(nb):
    "The floor of a notebook that exports; None for pages"
    if nb.name.startswith('engine/'): return 'engine'
    if nb.name.startswith('tools/'): return 'tools'
    return 'chapters' if nb.name[0].isdigit() else None

def source(cell): return '\n'.join(o for o in cell.source.splitlines() if not re.match(r'\s*#\s*\|', o))

def trees(nb):
    "Syntax trees of the exported cells"
    return [ast.parse(source(o)) for o in exported(nb)]

def imported(tree):
    "(module, name) of what is imported from this package, anywhere in the code"
    for o in ast.walk(tree):
        if isinstance(o, ast.Import):
            for a in o.names:
                if a.name.startswith('alexnet_nb.'): yield a.name.removeprefix('alexnet_nb.'), None
        if isinstance(o, ast.ImportFrom) and (o.module or '').startswith('alexnet_nb'):
            for a in o.names:
                module = o.module.removeprefix('alexnet_nb').lstrip('.')
                yield module or a.name, a.name if module else None

def rooms(notebooks):
    "{module: notebook} of all notebooks that export, chapters in their order"
    found = {}
    for nb in notebooks:
        if exported(nb):
            name = re.sub(r'^\d+[a-z]*_', '', nb.path.stem)
            found[name if floor(nb)=='chapters' else f'{floor(nb)}.{name}'] = nb
    return found

def shown(cell):
    "Does a reader of the page see what this cell gives?"
    if not cell.outputs: return False
    words = directives(cell)
    if 'hide' in words: return False
    return not re.search(r'^#\s*\|\s*(include|output):\s*false', cell.source, re.M)

def stretches(nb):
    "Numbers of exported lines between two things that are shown"
    n,found = 0,[]
    for c in code(nb):
        if c in exported(nb): n += sum(bool(o.strip()) for o in source(c).splitlines())
        elif shown(c):
            found.append(n)
            n = 0
    return found+[n]

def test_every_exporting_notebook_has_a_floor(notebooks):
    lost = [o.name for o in notebooks if exported(o) and floor(o) is None]
    assert not lost, f'notebooks that export and are neither engine nor chapter nor tool: {lost}'

def test_imports_go_down(notebooks):
    "An engine room imports engine rooms, a chapter the engine and earlier chapters, a tool what it likes"
    house = rooms(notebooks)
    chapters = [o for o,nb in house.items() if floor(nb)=='chapters']
    breaches = []
    for name,nb in house.items():
        allowed = {o for o,other in house.items() if floor(other)=='engine'}
        if floor(nb)=='chapters': allowed |= set(chapters[:chapters.index(name)])
        if floor(nb)=='tools': allowed = set(house)
        for tree in trees(nb):
            breaches += [f'{name} imports {module}' for module,_ in imported(tree) if module not in allowed]
    assert not breaches, '\n'.join(breaches)

def test_engine_rooms_have_an_order(notebooks):
    "No two engine rooms, and no two tools, import each other, directly or through others"
    house = rooms(notebooks)
    needs = {o:{m for t in trees(nb) for m,_ in imported(t) if m in house} for o,nb in house.items()}
    def reach(start):
        seen,todo = set(),list(needs[start])
        while todo:
            o = todo.pop()
            if o not in seen:
                seen.add(o)
                todo += needs[o]
        return seen
    circles = [o for o in house if o in reach(o)]
    assert not circles, f'modules that import themselves through others: {circles}'

def test_something_is_shown(notebooks):
    "After at most sixty exported lines the reader is shown a value, a table or a picture"
    long = {nb.name:max(stretches(nb)) for nb in notebooks if exported(nb)}
    print('longest stretch:', max(long.values()))
    breaches = {k:v for k,v in long.items() if v>LONGEST}
    assert not breaches, breaches

def test_private_names(notebooks):
    "A private name is defined in one module, and imported by nobody"
    where,breaches = defaultdict(set),[]
    for module,nb in rooms(notebooks).items():
        for tree in trees(nb):
            for o in tree.body:
                names = [o.name] if hasattr(o, 'name') else []
                if isinstance(o, ast.Assign):
                    names = [n.id for t in o.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
                for n in names:
                    if n.startswith('_') and not n.startswith('__') and n!='_all_': where[n].add(module)
            breaches += [f'{module} imports {n} of {m}' for m,n in imported(tree) if n and n.startswith('_')]
    breaches += [f'{n} is defined in {sorted(ms)}' for n,ms in where.items() if len(ms)>1]
    assert not breaches, '\n'.join(breaches)

def defined(tree):
    "Private names that a module defines anywhere: functions, classes, methods, attributes"
    names = set()
    for o in ast.walk(tree):
        if isinstance(o, (ast.FunctionDef, ast.ClassDef)): names.add(o.name)
        if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store): names.add(o.attr)
        if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store): names.add(o.id)
    return {n for n in names if n.startswith('_') and not n.startswith('__')}

def test_private_attributes(notebooks):
    "A module does not reach into the objects of another: no `x._name` that is defined elsewhere in the package"
    house = rooms(notebooks)
    own = {module:set().union(*map(defined, trees(nb))) for module,nb in house.items()}
    breaches = []
    for module,nb in house.items():
        others = set().union(*(names for m,names in own.items() if m!=module)) - own[module]
        for tree in trees(nb):
            used = {o.attr for o in ast.walk(tree) if isinstance(o, ast.Attribute)}
            breaches += [f'{module} uses .{n}' for n in used & others]
    assert not breaches, '\n'.join(breaches)

def test_classes_are_whole(notebooks):
    "A public class has its methods inside, and at most sixty lines"
    breaches = []
    for module,nb in rooms(notebooks).items():
        for c in exported(nb):
            lines = source(c).splitlines()
            for o in ast.parse(source(c)).body:
                patched = [d for d in getattr(o, 'decorator_list', []) if ast.unparse(d).startswith('patch')]
                if patched: breaches.append(f'{module}: {o.name} is patched into a class')
                if not isinstance(o, ast.ClassDef): continue
                n = sum(bool(l.strip()) for l in lines[o.lineno-1:o.end_lineno])
                if n>LONGEST: breaches.append(f'{module}: class {o.name} has {n} lines')
    assert not breaches, '\n'.join(breaches)

def test_nobody_imports_private_names(repo, notebooks):
    "Neither cells of pages nor tests reach for the private names of a module"
    breaches = []
    for nb in notebooks:
        for c in code(nb):
            try: tree = ast.parse(source(c))
            except SyntaxError: continue
            breaches += [f'{nb.name}: {n} of {m}' for m,n in imported(tree) if n and n.startswith('_')]
    for f in sorted((repo/'tests').glob('*.py')):
        breaches += [f'{f.name}: {n} of {m}' for m,n in imported(ast.parse(f.read_text())) if n and n.startswith('_')]
    assert not breaches, '\n'.join(breaches)
