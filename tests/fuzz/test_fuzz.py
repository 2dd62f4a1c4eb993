"A few seconds of fuzzing with fixed seeds; what was found before is done again. For longer: python -m tests.fuzz"
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .kinds import KINDS
from .runner import GOOD, Runner
from .strategies import jobs

HERE = [o for o in KINDS if o!='figure1'] # whose optimizer takes seconds to import
# Good samples that are refused, and why
REFUSED = {('folders','deep'), ('folders','flat')}
CALLS = dict(arguments=40, series=5, partial=20) # 15 of the others
FOUND = [json.loads(o) for o in (Path(__file__).parent/'found.jsonl').read_text().splitlines()]

@pytest.fixture(scope='module')
def runner():
    with Runner(HERE) as r:
        yield r

@pytest.mark.parametrize('kind', [o for o in HERE if o not in ('arguments', 'trees', 'tables', 'mixed')])
def test_good(runner, kind):
    "The samples are good before they are damaged"
    for sample in runner.samples.get(kind, ()):
        if (kind, sample) not in REFUSED:
            result = runner.do(dict(kind=kind, sample=sample, call=0, damage=[]))
            assert result['what']=='success', (sample, result)

@pytest.mark.parametrize('kind', HERE)
def test_damaged(runner, kind):
    "Success or one line; nothing is written elsewhere, no pack is wrong, nobody waits"
    if not runner.samples.get(kind):
        pytest.skip('a package is missing')
    @settings(max_examples=CALLS.get(kind, 15), derandomize=True, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(jobs(kind, runner))
    def try_one(job):
        result = runner.do(job)
        assert result['what'] in GOOD, (result, json.dumps(job))
    try_one()

@pytest.mark.parametrize('job', FOUND, ids=lambda o: f"{o['kind']} {o['sample']}")
def test_found(runner, job):
    "What earlier runs have found"
    if job['sample'] not in runner.samples.get(job['kind'], ()):
        pytest.skip('a package is missing, or there is one sample less')
    result = runner.do(job)
    assert result['what'] in GOOD, result
