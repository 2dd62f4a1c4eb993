"The kinds of things that are damaged, what is done with them, and what must hold afterwards"
import filecmp, os, re
from dataclasses import dataclass

from . import samples
from .samples import TRAIN, put

@dataclass(frozen=True)
class Kind:
    "A kind of files that people bring"
    name:str            # For reports
    make:object         # Gives {sample: {path: bytes}}, or fills a folder
    calls:tuple         # Commands; the sample is the folder `in`, or what is in it
    check:object = None # Function of (sample folder, box, job): what is wrong after a success, or ''
    writes:str = ''     # Names that may be written, besides those of the commands' own options

def same_files(a, b):
    "Do two folders hold the same?"
    names = {o.relative_to(d).as_posix() for d in (a, b) for o in d.rglob('*') if o.is_file()}
    _,differ,missing = filecmp.cmpfiles(a, b, names, shallow=False)
    return not differ+missing

def check_pack_made(sample, box, job):
    "A pack agrees with itself, and of a PNG nothing counts that is damaged"
    from alexnet_nb.data import Pack
    if not (box/'out').exists():
        return ''
    pack = Pack(box/'out')
    pack.verify()
    pack.check()
    if 'damage' not in job:
        return ''
    blind = all(o[1] in ('flip','fill','cut','behead','remove','swap') for o in job['damage'])
    if blind and job['sample'] in ('png','palette','deep') and pack.meta['storage']=='raw':
        from alexnet_nb.data import read_square
        known = {read_square(o, 32)[0].tobytes() for o in sample.rglob('*.p*') if o.is_file()}
        squares = [x.tobytes() for split in pack.counts for x in pack.images(split)]
        if not known.issuperset(squares):
            return 'a damaged PNG became a square'
    return ''

def check_tree(sample, box, job):
    "No picture below a folder for tests is in the training set of a data set that has another folder for training"
    from alexnet_nb.data import Pack
    pack = Pack(box/'out')
    pack.verify()
    pack.check()
    names = {o:(box/f'out/{o}_names.txt').read_text().splitlines() for o in pack.counts}
    assert sum(map(len, names.values()))<=len(set(job['tree'])), 'more images than files'
    tops = [o.split('/')[0] for o in job['tree']]
    nested = any(map(os.path.isdir, (box/'in').glob('*/*/*')))
    if any(re.match('(seg_)?train', o.lower()) for o in tops) and not nested:
        leaked = [o for o in names['train'] if re.match('(in/)?(seg_)?test', o.lower())]
        return f'tests in training: {leaked[:3]}' if leaked else ''
    return ''

def check_resumed(sample, box, job):
    "An interrupted preparation that is gone on with gives the pack that one without interruption gives"
    from alexnet_nb.data import prepare
    options = samples.PARTIAL[job['sample'].rsplit('_', 1)[0]].split()
    prepare(box/options[0], box/'fresh', size=32, storage='jpeg' if 'jpeg' in options else 'raw', workers=1, max_bad=1)
    return '' if same_files(box/'out', box/'fresh') else 'another pack than without interruption'

def check_verified(sample, box, job):
    "`--verify` does not pass over a file that differs"
    if '--verify' not in KINDS[job['kind']].calls[job['call']]:
        return ''
    listed = (box/'in/SHA256SUMS').exists() # as in new packs; in older ones the checksums are those of the arrays
    names = [o.name for o in (sample/'in').glob('*' if listed else '*.[nb]*')]
    _,differ,missing = filecmp.cmpfiles(sample/'in', box/'in', names, shallow=False)
    return f'{differ+missing} differ, and --verify says nothing' if differ+missing else ''

PREPARE = 'alexnet_prepare {} out --size 32 --workers 1 --max_bad 1'
PREDICT = 'alexnet_predict {} {} --out p.png --views 1 --device cpu'
KINDS = {o.name:o for o in [
    Kind('pictures', samples.make_pictures, (
        PREPARE.format('in'), PREPARE.format('in')+' --storage jpeg', 'read_squares in',
        PREDICT.format('{common}/run', 'FIRST')), check_pack_made),
    Kind('folders', samples.make_folders, (PREPARE.format('in'),), check_pack_made),
    Kind('archives', samples.make_archives, (PREPARE.format('FIRST'),), check_pack_made),
    Kind('ilsvrc', samples.make_ilsvrc, (PREPARE.format('in'),), check_pack_made),
    Kind('kaggle', samples.make_kaggle, (PREPARE.format('in'),), check_pack_made),
    Kind('parquet', samples.make_parquet, (PREPARE.format('in'),), check_pack_made),
    Kind('cifar', samples.make_cifar, (PREPARE.format('in'),), check_pack_made),
    Kind('partial', samples.make_partial, ('RESUME',), check_resumed),
    Kind('pack', samples.make_packs, (
        'alexnet_prepare in --verify', 'alexnet_eval {common}/run --pack in --device cpu',
        f'alexnet_train in --run new --steps 1 --epochs 1 {TRAIN}'), check_verified, 'new'),
    Kind('run', samples.make_runs, (
        *[f'alexnet_train {{common}}/pack --run in --epochs 2 {TRAIN}{o}' for o in (' --steps 5', ' --steps 5', '')],
        'alexnet_eval in --pack {common}/pack --device cpu',
        PREDICT.format('in', '{common}/picture.png')), writes='in'),
    Kind('weights', samples.make_weights, (*['load_weights FIRST']*3, PREDICT.format('FIRST', '{common}/picture.png'))),
    Kind('series', samples.make_series, (samples.AUTOPSY,), writes='in'),
    Kind('figure1', samples.make_figure1, ('go_on {common}/cifar in',), writes='in'),
    Kind('trees', samples.make_empty, (PREPARE.format('in'),), check_tree),
    Kind('tables', samples.make_no_table, (PREPARE.format('in'),), check_pack_made),
    Kind('mixed', samples.make_empty, ('',), writes='A'),
    Kind('arguments', samples.make_nothing, ('',)),
    Kind('readers', samples.make_readable, ('READER',)),
    Kind('cards', samples.make_cards, ('table in', 'Card.load FIRST'))]}

def make_samples(kind, folder):
    "Put the samples of a kind below a folder"
    if kind.make in (samples.make_pictures, samples.make_archives, samples.make_folders):
        for name,files in kind.make().items():
            put(folder/name, files)
    else:
        folder.mkdir()
        kind.make(folder)

def find_first(box, name):
    "The first file below a folder, or the folder"
    return next((str(o.relative_to(box)) for o in sorted((box/name).rglob('*')) if not o.is_dir()), name)

def words_of(job, box, common):
    "What is typed, or called, for a job"
    if job['kind']=='mixed':
        known = dict(pack=f'{common}/pack', run=f'{common}/run')
        firsts = {o:find_first(box, o) if job['file'] else o for o in job['copies']}
        return [firsts.get(o, o.format(**known)) for o in job['words']]
    if 'words' in job:
        return job['words']
    line = KINDS[job['kind']].calls[job['call']]
    if line=='RESUME':
        line = PREPARE.format(samples.PARTIAL[job['sample'].rsplit('_', 1)[0]])
    if line=='READER':
        from test_readers import EXAMPLES
        return [job['sample'], box/'in'/EXAMPLES[job['sample']][0]]
    return [find_first(box, 'in') if o=='FIRST' else o for o in line.format(common=common).split()]
