"Hypothesis chooses the damage"
from hypothesis import strategies as st

from .damage import ENCODINGS, SIZES, VALUES, WORDS
from .kinds import KINDS

places = st.one_of(st.integers(-64, 64), st.integers(1000, 65535))
counts = st.one_of(st.integers(1, 16), st.sampled_from([100, 512, 4096, 100_000]))
which = st.integers(0, 999)
bytes_ = st.sampled_from([0, 255, 1, 0x80, 0x0a, 0x7f])
words = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
values = st.one_of(st.sampled_from(VALUES), st.integers(-2, 300), st.text(max_size=4))
names = st.sampled_from(['train', 'test', 'VAL', 'a.partial', 'work', '.hidden', 'é', 'caf\udce9', 'a\nb', 'x'*255, '$x^{', '‮gpj', '0', ' ', 'con', 'lock',
                         'meta.json', 'job.json', 'train_state.npz', 'model.safetensors'])
links = st.sampled_from(['.', 'none', '/dev/zero', '/dev/null', '~', '~/a.txt']) # ~ is a folder beside that of the job

def op(name, *args): return st.tuples(st.just(name), *args)

plain = st.one_of(
    op('flip', places, st.integers(0, 7)), op('fill', places, counts, bytes_), op('cut', places), op('behead', places), op('remove', places, counts),
    op('insert', places, st.sampled_from(['\0', '\xff\xfe', '\n', '{', '0'*99, '\r\n\0'*500])), op('repeat', places, counts, st.sampled_from([1, 2, 1000])),
    op('swap', places, places, counts), op('word', which, words),
    op('number', places, st.sampled_from([1, 2, 4, 8]), st.sampled_from(['little', 'big']), st.sampled_from(SIZES)))
texts = st.one_of(op('encode', st.sampled_from(ENCODINGS)), op('lines', st.sampled_from(['\r\n', '\r', '\n\n', '', '\u2028'])))
jsons = op('json', which, st.sampled_from(['replace', 'replace', 'remove', 'rename', 'twice']), values)
inner = st.recursive(st.one_of(plain, jsons), lambda o: st.tuples(st.just('inside'), which, o).map(lambda t: (t[0], t[1], *t[2])), max_leaves=2)
deep = st.tuples(which, inner).map(lambda t: ('inside', t[0], *t[1]))
files = st.one_of(op('delete'), op('folder'), op('fifo'), op('link', links), op('grow', st.sampled_from([1<<12, 1300<<20])), op('rename', names),
                  op('copy', names), op('parent'))
damages = st.lists(st.tuples(which, st.one_of(plain, plain, deep, deep, deep, jsons, jsons, texts, files)).map(lambda t: [t[0], *t[1]]), min_size=1, max_size=3)

# --- Arguments

ODD = ['', ' ', '0', '-1', '1', '3', '64', '1.5', 'nan', '-inf', '1e308', '1e-320', '9'*25, '0x10', '1_000', '٣', 'x', 'é', 'caf\udce9', 'a\nb', '\x1b[2J', '\u202e', 'none',
       'picture.png', 'pictures', 'pictures/cat', 'pack', 'pack/meta.json', 'run', 'run/model.safetensors', 'cifar', '.', '..', '../up', 'new/deep/er', 'fifo', 'link', 'fifo/x', 'a'*300,
       '/dev/null', '/dev/full', '/dev/stdout', '/proc/none', '~', '$HOME', '*', '%s', '{}', "'", 'cpu', 'cpu,cpu', 'cpu:7', 'cuda', 'cuda:9', 'meta', 'mps', 'xla', 'nope:0',
       'http://127.0.0.1:1/x.pth', 'file:///etc/passwd', 'file:///none', 'ftp://x/y', 'https://', 'true', 'no', 'None', '[]', 'paper', 'caffe', 'torchvision', 'one_column', 'conv1=0',
       'conv1=nan,fc8=1e999', 'conv9=1', '=', '90m', '-2h', 'bf16', 'tf32', 'jpeg', 'val', 'train', 'relu', 'lrn', 'step', 'out.json', 'out.png', 'out.xyz', 'out.pdf']
BASE = dict(
    alexnet_prepare='pictures out --size 32 --workers 1', alexnet_train='pack --run new --epochs 1 --steps 1 --width .02 --size 64 --batch_size 6 --device cpu',
    alexnet_eval='run --pack pack --device cpu', alexnet_predict='run picture.png --out p.png --views 1 --device cpu',
    alexnet_bench='lrn --quick --repeats 1 --steps 0 --batch_size 2 --width .05 --size 64 --device cpu --out b.json',
    alexnet_doctor='pack --seconds 1 --width .02 --size 64 --batch_size 2 --device cpu --json d.json',
    alexnet_reproduce='figure1 cifar --folder s --seeds 1 --max_epochs 1 --lr .01 --only relu --device cpu')

@st.composite
def lines(draw, options):
    "A command, with some of its arguments replaced, left out, repeated, and others added"
    command = draw(st.sampled_from(sorted(BASE)))
    words = BASE[command].split()
    odd = st.one_of(st.sampled_from(ODD), st.text(max_size=5).filter(lambda o: '\0' not in o))
    for how in draw(st.lists(st.sampled_from('option option option value value remove add'.split()), min_size=1, max_size=4)):
        at = draw(st.integers(0, len(words)))
        if how=='option':
            name = draw(st.sampled_from(options[command]))
            dashes = draw(st.sampled_from(['--', '--', '--', '--no-', '-']))
            words[at:at] = [f'{dashes}{name}={draw(odd)}'] if draw(st.booleans()) else [f'{dashes}{name}', draw(odd)]
        elif how=='value':
            values = [i for i,o in enumerate(words) if not o.startswith('-')]
            if values:
                words[draw(st.sampled_from(values))] = draw(odd)
        elif how=='remove':
            del words[at:at+draw(st.integers(1, 2))]
        else:
            words[at:at] = draw(st.sampled_from([['--help'], ['--'], ['-'], ['--verify'], ['--version'], ['--pdb'], ['--xtra', '1'], ['--out', 'fifo'], ['x']*50]))
    return [command, *words]

def jobs(kind, runner):
    "Something to do with a sample of a kind that is damaged"
    samples = st.sampled_from(runner.samples[kind])
    if kind=='arguments':
        return st.fixed_dictionaries(dict(kind=st.just(kind), sample=samples, words=lines(runner.options), stop=st.just(4)))
    return st.fixed_dictionaries(dict(kind=st.just(kind), sample=samples, call=st.integers(0, len(KINDS[kind].calls)-1), damage=damages))
