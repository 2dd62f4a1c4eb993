"Fuzz for as long as wanted: python -m tests.fuzz --minutes 10 [--kind pack] [--seed 7]"
import argparse, json, random, sys, time, warnings
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from hypothesis import HealthCheck, Phase, given, seed, settings

from .kinds import KINDS
from .runner import GOOD, Runner
from .strategies import jobs

def explore(runner, strategy, number, calls, tell):
    "Do jobs that a seed chooses"
    @seed(number)
    @settings(max_examples=calls, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def go(job): tell(job, runner.do(job))
    go()

class Report:
    "Counts by kind, and what was found"
    def __init__(self):
        self.counts = defaultdict(Counter)
        self.found = {}
        self.seconds = self.mb = 0

    def __call__(self, job, result):
        self.counts[job['kind']][result['what']] += 1
        self.seconds,self.mb = max(self.seconds, result['seconds']),max(self.mb, result['mb'])
        if result['what'] in GOOD:
            return
        lines = (result['why'] or result['said']).strip().splitlines()
        key = job['kind'], result['what'], lines[-1][-150:] if lines else ''
        if key not in self.found:
            self.found[key] = job
            print(f"\n{result['what']}: {json.dumps(job)}\n  {result['said'][-300:]}\n  {result['why']}", flush=True)

    def table(self):
        words = [*GOOD, 'traceback', 'hang', 'wrong', 'written', 'memory', 'died']
        rows = [['kind', 'calls', *words]]+[[k, c.total(), *(c[o] for o in words)] for k,c in self.counts.items()]
        total = sum(self.counts.values(), Counter())
        rows.append(['all', total.total(), *(total[o] for o in words)])
        return '\n'.join(f'| {" | ".join(map(str, o))} |' for o in [rows[0], ['---']*len(rows[0]), *rows[1:]])

def main():
    warnings.simplefilter('ignore') # of hypothesis, on long values
    p = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__)
    p.add_argument('--minutes', type=float, default=1)
    p.add_argument('--kind', action='append', choices=[*KINDS], help='only this kind; may be given several times')
    p.add_argument('--seed', type=int, default=random.randrange(1<<32), help='of the first round; then the next')
    p.add_argument('--calls', type=int, default=40, help='of a round')
    p.add_argument('--again', help='a job that was printed: do it again')
    p.add_argument('--json', help='file for the counts')
    args = p.parse_args()
    if args.again:
        job = json.loads(args.again)
        with Runner([job['kind']]) as runner:
            print(json.dumps(runner.do(job), indent=1).replace('\\n', '\n'))
        return
    report,number = Report(),args.seed
    names = args.kind or [*KINDS]
    with Runner(KINDS if 'mixed' in names else names) as runner: # which mixes all kinds
        end = time.time()+60*args.minutes
        print(f'seed {number}; {", ".join(f"{k} {len(v)}" for k,v in runner.samples.items())}', flush=True)
        while time.time()<end:
            for name in filter(runner.samples.get, names):
                explore(runner, jobs(name, runner), number, args.calls, report)
                if time.time()>end:
                    break
            number += 1
    print(report.table())
    print(f'seeds {args.seed} to {number}; longest {report.seconds} s, most memory {report.mb} MB')
    if args.json:
        said = dict(counts=report.counts, seed=args.seed, found=[*report.found.values()])
        Path(args.json).write_text(json.dumps(said))

main()
