"Cards made of invented lines, for tests of the pages' tables and figures; no such card is kept"
import json
from types import SimpleNamespace
import numpy as np
from alexnet_nb.model import SPECS
from alexnet_nb.tools.experiments import TRIALS
from alexnet_nb.tools.trials import compute_card

pack = SimpleNamespace(path='small', sha256='0'*64)

def as_written(o): return o.name if o in SPECS.values() else vars(o) # a spec, or a part of one

def line(row, variant, seed, effect=0., n=400):
    "A finished trial; `effect` is added to its errors"
    g = np.random.default_rng([seed, len(variant), *variant.encode()])
    def error(base): return round(float(np.clip(base+effect+g.normal(0, .004), 0, 1)), 6)
    right = g.random(n)<.45-effect
    epochs = row.base.get('epochs', 10)
    falling = [error(.9-.4*i/epochs) for i in range(1, epochs+1)]
    cfg = dict(row.base, **{k:json.loads(json.dumps(v, default=as_written)) for k,v in row.variants[variant].items()})
    return dict(variant=variant, seed=seed, settings=cfg|dict(seed=seed, pack='small', pack_sha256='0'*64), n=n,
                val=dict(loss=falling, top1=falling, top5=falling), train=dict(loss=falling, top1=falling),
                top1=error(.58), top5=error(.31), top1_ten=error(.55), top5_ten=error(.28), top1_train=error(.4),
                right=np.packbits(right).tobytes().hex(), seconds=900., date='2012-09-30', commit=['0123456789'],
                machine=['none'], versions=[dict(python='3')])

def save_cards(folder, seeds=5, names=None):
    "Cards of all trainings in pairs; without a pair where `seeds` is 1"
    for row in [TRIALS[o] for o in names or TRIALS]:
        lines = [line(row, v, s, .012*i) for i,v in enumerate(row.variants) for s in range(seeds)]
        compute_card(row, lines).save(folder/f'{row.name}.json')
    return folder
