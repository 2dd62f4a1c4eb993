"Hypothesis chooses the damage, and the odd arguments"
from hypothesis import strategies as st

from .damage import ENCODINGS, SIZES, VALUES, WORDS
from .kinds import KINDS
from .samples import BASE, ODD

places = st.one_of(st.integers(-64, 64), st.integers(1000, 65535))
counts = st.one_of(st.integers(1, 16), st.sampled_from([100, 512, 4096, 100_000]))
which = st.integers(0, 999)
fillings = st.sampled_from([0, 255, 1, 0x80, 0x0a, 0x7f])
words = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
values = st.one_of(st.sampled_from(VALUES), st.integers(-2, 300), st.text(max_size=4))
names = st.sampled_from([
    'train', 'test', 'VAL', 'a.partial', 'work', '.hidden', 'é', 'caf\udce9', 'a\nb', 'x'*255, '$x^{', '\u202egpj',
    '0', ' ', 'con', 'lock', 'meta.json', 'job.json', 'train_state', 'model.safetensors'])
links = st.sampled_from(['.', 'none', '/dev/zero', '/dev/null', '~', '~/a.txt']) # ~ is a folder beside that of the job
inserts = st.sampled_from(['\0', '\xff\xfe', '\n', '{', '0'*99, '\r\n\0'*500])
ends = st.sampled_from(['\r\n', '\r', '\n\n', '', '\u2028'])
ways = st.sampled_from(['replace', 'replace', 'remove', 'rename', 'twice'])

def op(name, *args): return st.tuples(st.just(name), *args)
def inside(o): return st.tuples(which, o).map(lambda t: ('inside', t[0], *t[1]))

bytes_ = st.one_of(
    op('flip', places, st.integers(0, 7)), op('fill', places, counts, fillings), op('cut', places),
    op('behead', places), op('remove', places, counts), op('insert', places, inserts), op('word', which, words),
    op('swap', places, places, counts), op('repeat', places, counts, st.sampled_from([1, 2, 1000])),
    op('number', places, st.sampled_from([1, 2, 4, 8]), st.sampled_from(['little', 'big']), st.sampled_from(SIZES)))
texts = st.one_of(op('encode', st.sampled_from(ENCODINGS)), op('lines', ends))
jsons = op('json', which, ways, values)
parts = inside(st.recursive(st.one_of(bytes_, jsons), inside, max_leaves=2))
files = st.one_of(
    op('delete'), op('folder'), op('fifo'), op('link', links), op('grow', st.sampled_from([1<<12]*5+[1300<<20])),
    op('rename', names), op('copy', names), op('parent'))
damage = st.one_of(bytes_, bytes_, parts, parts, parts, jsons, jsons, texts, files)
damages = st.lists(st.tuples(which, damage).map(lambda t: [t[0], *t[1]]), min_size=1, max_size=3)

# --- Arguments

odd = st.one_of(st.sampled_from(ODD), st.text(max_size=5).filter(lambda o: '\0' not in o))
extra = st.sampled_from([
    ['--help'], ['--'], ['-'], ['--verify'], ['--version'], ['--pdb'], ['--xtra', '1'], ['--out', 'fifo'], ['x']*50])
dashes = st.sampled_from(['--', '--', '--', '--no-', '-'])
changes = st.lists(st.sampled_from('option option option value value remove add'.split()), min_size=1, max_size=4)

@st.composite
def lines(draw, options):
    "A command, with some of its arguments replaced, left out, repeated, and others added"
    command = draw(st.sampled_from(sorted(BASE)))
    words = BASE[command].split()
    for how in draw(changes):
        at = draw(st.integers(0, len(words)))
        if how=='option':
            name = draw(dashes)+draw(st.sampled_from(options[command]))
            words[at:at] = [f'{name}={draw(odd)}'] if draw(st.booleans()) else [name, draw(odd)]
        elif how=='value':
            numbers = [i for i,o in enumerate(words) if not o.startswith('-')]
            if numbers:
                words[draw(st.sampled_from(numbers))] = draw(odd)
        elif how=='remove':
            del words[at:at+draw(st.integers(1, 2))]
        else:
            words[at:at] = draw(extra)
    return [command, *words]

def jobs(kind, runner):
    "Something to do with a damaged sample of a kind, or with odd arguments"
    job = dict(kind=st.just(kind), sample=st.sampled_from(runner.samples[kind]))
    if kind=='arguments':
        return st.fixed_dictionaries(job|dict(words=lines(runner.options), stop=st.just(4)))
    return st.fixed_dictionaries(job|dict(call=st.integers(0, len(KINDS[kind].calls)-1), damage=damages))
