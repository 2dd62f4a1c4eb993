"Hypothesis chooses the damage, and the odd arguments"
from hypothesis import strategies as st

from .damage import ENCODINGS, SIZES, VALUES, WORDS
from .kinds import KINDS
from .samples import BASE, COLUMNS, NUMERIC, ODD, TRAIN

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
code = "cposix\nsystem\n(S'touch code_was_run'\ntR" # in a pickle
inserts = st.sampled_from(['\0', '\xff\xfe', '\n', '{', '0'*99, '\r\n\0'*500, code, code+'.'])
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

numbers = st.sampled_from([o for o in ODD if o[:1] in '-0123456789' and o])
odd = st.one_of(numbers, st.sampled_from(ODD), st.text(max_size=5).filter(lambda o: '\0' not in o))
extra = st.sampled_from([
    ['--help'], ['--'], ['-'], ['--verify'], ['--version'], ['--pdb'], ['--xtra', '1'], ['--out', 'fifo'], ['x']*50])
dashes = st.sampled_from(['--']*9+['--no-', '-'])
changes = st.lists(st.sampled_from('option option option value value remove add'.split()), min_size=1, max_size=4)

@st.composite
def lines(draw, options):
    "A command, with some of its arguments replaced, left out, repeated, and others added"
    command = draw(st.sampled_from(sorted(BASE)))
    words = BASE[command].split()
    for how in draw(changes):
        at = draw(st.one_of(st.just(0), st.just(len(words)), st.just(len(words)), st.integers(0, len(words))))
        if how=='option':
            option = draw(st.sampled_from(options[command]))
            name,value = draw(dashes)+option,draw(st.one_of(numbers, numbers, odd) if option in NUMERIC else odd)
            words[at:at] = [f'{name}={value}'] if draw(st.booleans()) else [name, value]
        elif how=='value':
            at = [i for i,o in enumerate(words) if not o.startswith('-')]
            if at:
                words[draw(st.sampled_from(at))] = draw(odd)
        elif how=='remove':
            del words[at:at+draw(st.integers(1, 2))]
        else:
            words[at:at] = draw(extra)
    return [command, *words]

# --- One kind in the place of another

MIXED = [
    'alexnet_prepare A out --size 32 --workers 1 --max_bad 1', 'alexnet_prepare A --verify', 'Card.load A', 'table A',
    f'alexnet_train A --run new --steps 1 {TRAIN}', f'alexnet_train {{pack}} --run A --steps 1 {TRAIN}',
    f'alexnet_train {{pack}} --run new --init_from A --steps 1 {TRAIN}', 'alexnet_eval A --pack B --device cpu',
    'alexnet_eval {run} --pack A --device cpu', 'alexnet_predict A B --out p.png --device cpu',
    'alexnet_predict {run} A --out p.png --device cpu', 'alexnet_reproduce figure1 A --folder s',
    'alexnet_doctor A --seconds 1 --width .02 --size 64 --device cpu', 'alexnet_reproduce autopsy A --folder B',
    'load_weights A']

@st.composite
def mixtures(draw, samples):
    "A command with two samples of any kind; `a` and `b` are copies of them, or the first file of one"
    places = {o:draw(st.sampled_from(samples)) for o in 'AB'}
    return dict(copies=places, words=draw(st.sampled_from(MIXED)).split(), file=draw(st.booleans()), stop=4)

# --- Folders

splits = st.sampled_from([
    'train', 'Train', 'TRAINING', 'trainset', 'train_set', 'seg_train', 'training_set', 'train_images', 'val', 'dev',
    'Validation', 'valid', 'eval', 'test', 'Test', 'testing', 'seg_test', 'test_set', 'TESTSET', 'holdout', 'extra'])
classes = st.sampled_from([
    'cat', 'dog', 'train', 'test', 'val', 'Testing', '0', '2', '10', '007', 'a b', 'é', 'caf\udce9', '$x$', 'x'*200,
    'a\nb', '\u202egpj', '.hidden', 'n01440764', 'images', '-', '__MACOSX', 'train_test'])
tops = st.one_of(st.just(['.']), st.lists(splits, max_size=3, unique=True).map(lambda o: ['train', *o]),
                 st.lists(splits, min_size=1, max_size=3, unique=True))
prefixes = st.sampled_from(['', '', '', '', 'data/', 'set/set/', 'my test/', 'train/'])
lying = st.sampled_from(['readme.txt', 'labels.csv', 'train/loose.png', 'test/a.png', 'a.png', 'test/unknown/1.png'])
loose = st.one_of(st.just([]), st.lists(lying, max_size=2))

@st.composite
def trees(draw):
    "Paths of pictures: perhaps a folder of splits, a folder of classes in each, and files that lie about"
    prefix,kinds = draw(prefixes),draw(st.lists(classes, min_size=1, max_size=4, unique=True))
    pairs = [(top, c) for top in draw(tops) for c in kinds if draw(st.integers(0, 9))]
    paths = [f'{prefix}{top}/{c}/{i}.png' for top,c in pairs for i in range(draw(st.integers(0, 3)))]
    return paths+draw(loose)

# --- Tables

columns = st.sampled_from('image img picture label labels target y class fine_label path x'.split())
shards = st.sampled_from([
    'train-00000-of-00001.parquet', 'train-1.parquet', 'test-0.parquet', 'validation-0.parquet', 'a.parquet',
    'train/0.parquet', 'val/0.parquet', 'my-Training-set.parquet', 'test_train.parquet'])
kinds = st.sampled_from(sorted(COLUMNS))
usual = st.fixed_dictionaries(dict(image=st.sampled_from(['struct', 'bytes', 'struct', 'deep']), label=kinds))
schemas = st.one_of(usual, st.dictionaries(columns, kinds, min_size=1, max_size=5))
features = st.fixed_dictionaries(dict(info=st.fixed_dictionaries(dict(features=st.dictionaries(columns, st.one_of(
    values, st.fixed_dictionaries(dict(_type=st.just('ClassLabel'), names=st.one_of(values, st.lists(words))))))))))
table = dict(name=shards, columns=schemas, rows=st.integers(0, 30), metadata=st.one_of(st.none(), values, features))
tables = st.lists(st.fixed_dictionaries(table), min_size=1, max_size=3)

def jobs(kind, runner):
    "Something to do with a damaged sample of a kind, or with odd arguments"
    job = dict(kind=st.just(kind), sample=st.sampled_from(runner.samples[kind]))
    if kind=='arguments':
        return st.fixed_dictionaries(job|dict(words=lines(runner.options), stop=st.just(4)))
    if kind=='mixed':
        samples = [[k, o] for k,v in runner.samples.items() if k not in ('mixed', 'arguments') for o in v]
        return st.builds(lambda a,b: {**a, **b}, st.fixed_dictionaries(job), mixtures(samples))
    if kind=='trees':
        return st.fixed_dictionaries(job|dict(call=st.just(0), tree=trees()))
    if kind=='tables':
        return st.fixed_dictionaries(job|dict(call=st.just(0), tables=tables))
    return st.fixed_dictionaries(job|dict(call=st.integers(0, len(KINDS[kind].calls)-1), damage=damages))
