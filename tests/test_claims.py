"The tables and figures of claims: without cards, with a few pairs, with all; and that pages show what the cards say"
import ast, re, runpy
import pytest
import invented
from alexnet_nb.engine.core import Text
from alexnet_nb.tools import claims
from alexnet_nb.tools import commands
from alexnet_nb.tools import experiments
from alexnet_nb.tools.cards import Card, cite
from alexnet_nb.tools.experiments import TRIALS, list_experiments
from conftest import call, fine, text
from test_repo import directives

ours = 'ours (95 % interval)'

def test_no_card(tmp_path):
    "Each row says which command fills it, and no number"
    for name in claims.list_names():
        for row in claims.show_claims(name, folder=tmp_path).rows:
            assert row[ours]==f'not yet: alexnet_reproduce {name}' and row['verdict']=='–'
        note = claims.show_claims(name, folder=tmp_path).note
        assert note.startswith('Not yet measured: ') and f'`alexnet_reproduce {name} PACK`' in note
    for table in (1, 2):
        for row in claims.show_errors(table, tmp_path).rows:
            assert row['ours in small, top-1 / top-5'].startswith('not yet: alexnet_reproduce ')
    claims.show_effects(folder=tmp_path).savefig(tmp_path/'none.png')
    assert 'not there yet' in claims.show_pilot(tmp_path) and cite(['lrn'], tmp_path)==''

@pytest.mark.parametrize('seeds', [1, 2, 5])
def test_cards(tmp_path, seeds):
    "What a card says, how many pairs it has of how many, and its verdict"
    invented.save_cards(tmp_path, seeds, ['lrn', 'views', 'dropout'])
    first = claims.show_claims('lrn', folder=tmp_path).rows[0]
    found = claims.find_claims('lrn', folder=tmp_path)[0].found
    assert first['pairs']==(str(seeds) if seeds==5 else f'{seeds} of 5') and first['verdict'].startswith(found['verdict'])
    assert f"{abs(found['mean']):.2f}" in first[ours] and (' to ' in first[ours])==(seeds>1)
    assert '`lrn.json`' in claims.cite_claims(folder=tmp_path)
    assert f'({seeds} run' in claims.show_errors(2, tmp_path).rows[1]['ours in small, top-1 / top-5']
    brief = claims.show_claims(brief=True, folder=tmp_path).rows
    assert len([o for o in brief if not o['claim'].startswith('–')])==len(claims.list_names())
    claims.show_effects('lrn', 'dropout', folder=tmp_path).savefig(tmp_path/'few.png')

def test_numbers_are_consistent():
    "What the rows of the experiments print and log is what tables and log say"
    views = TRIALS['views'].comparisons[0]
    assert views.printed.endswith(next(o.top1 for o in claims.PRINTED if o.table==1 and o.model=='CNN'))
    for o in claims.find_claims():
        assert o.compared and o.metric
        if o.points and re.search(r'\d', o.printed): assert claims.read_effect(o.printed) is not None, o

def test_recompute(repo, tmp_path):
    "A card that is kept has the bytes that its command computes from the lines that are kept"
    names = sorted(o.stem for o in (repo/'nbs/cards/runs').glob('*.jsonl'))
    assert {'bf16', 'views', 'baselines'}<={*names}
    for name in names:
        fine(call(commands.alexnet_reproduce, name, '--recompute', '--out', f'{name}.json', cwd=tmp_path))
    other = [o for o in names if (tmp_path/f'{o}.json').read_bytes()!=(repo/f'nbs/cards/{o}.json').read_bytes()]
    assert not other, f'run alexnet_reproduce NAME --recompute --out nbs/cards/NAME.json for {other}'

def test_pages_show_what_the_cards_say(notebooks, repo, monkeypatch):
    "After a card has changed: python .ci/outputs.py --claims"
    pattern = runpy.run_path(str(repo/'.ci/outputs.py'))['CLAIMS']
    monkeypatch.chdir(repo/'nbs')
    stale,seen = [],0
    for nb in notebooks:
        for cell in nb.cells:
            words = directives(cell) if cell.type=='code' else ['hide']
            if {'hide','export','exports'} & set(words) or not pattern.search(cell.source): continue
            call = '\n'.join(o for o in cell.source.splitlines() if not o.startswith('#|'))
            if not re.fullmatch(r'(show|cite|tell|list)_\w+\(.*\)|found = Card[\s\S]*', call): continue
            *before,last = ast.parse(call).body # a text that is made of cards has lines before its last
            names = vars(claims)|dict(list_experiments=list_experiments, Card=Card, Text=Text)
            exec(compile(ast.Module(before, []), nb.name, 'exec'), names)
            shown = eval(ast.unparse(last), names)
            if not hasattr(shown, '_repr_markdown_'): continue
            kept = [text(o['data']['text/markdown']) for o in cell.outputs if 'text/markdown' in o.get('data', {})]
            seen += 1
            if kept!=[shown._repr_markdown_()]: stale.append(f'{nb.name}: {cell.source.splitlines()[-1]}')
    assert seen>10 and not stale, f'run python .ci/outputs.py --claims: {stale}'

def test_time_of_figure1(repo, tmp_path, monkeypatch):
    "The hours of figure 1 follow from its card, and from one whose runs did not all reach the target"
    monkeypatch.setattr(experiments, 'find_cards', lambda: tmp_path)
    card = Card.load(repo/'nbs/cards/figure1.json')
    def say():
        card.save(tmp_path/'figure1.json')
        return experiments.EXPERIMENTS['figure1'].time()
    assert experiments.EXPERIMENTS['figure1'].time()=='not measured'
    assert re.fullmatch(r'\d+ minutes on 1 core', say())
    slow = card.value['tanh']
    for i in range(len(slow['epochs'])):
        assert say()!='not measured'
        slow['epochs'][i] = slow['seconds'][i] = None
    assert say()=='not measured'
