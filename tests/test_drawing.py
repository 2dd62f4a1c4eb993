"Pictures of networks: every spec, at several widths and sizes; their numbers are those of the networks"
import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree
import pytest
from alexnet_nb.model import SPECS, AlexNet, compare, draw_network, shapes

def overlap(a, b):
    return a.x<b.x+b.width and b.x<a.x+a.width and a.y<b.y+b.height and b.y<a.y+a.height

def check(drawing):
    "Well-formed, named for those who hear it, and no text lies on another or leaves the picture"
    root = ElementTree.fromstring(drawing.svg)
    assert root.get('role')=='img' and root.get('aria-labelledby').split()==[o.get('id') for o in root[:2]]
    assert root[0].text and root[1].text
    both = [(a.text, b.text) for a,b in combinations(drawing.labels, 2) if overlap(a, b)]
    out = [o.text for o in drawing.labels if min(o.x, o.y)<0 or o.x+o.width>drawing.width or o.y+o.height>drawing.height]
    assert not both and not out
    assert set(re.findall(r'(?:fill|stroke)="(.*?)"', drawing.svg)) <= {'currentColor', '#2f76c2', '#dd7420', '#3d9950',
                                                                       '#9257ad', '#e0a800'}
    return [o.text for o in drawing.labels]

@pytest.mark.parametrize('kw', [dict(), dict(width=.25, size=96, n_classes=10)])
def test_numbers(kw):
    "Parameters, maps, sides and what a kernel reads equal those of the layers"
    for spec in SPECS:
        drawing = draw_network(spec, **kw)
        texts,narrow = check(drawing),check(drawing.tall)
        rows = shapes(spec, **kw)
        for row,l in zip(rows, SPECS[spec].layers):
            assert f"{row['params']:,}" in texts and f"{row['out']:,}" in texts
            assert f"parameters {row['params']:,}" in narrow
            if l.kernel: assert f"{row['side']}×{row['side']}" in texts
            if l.kernel: assert f"{l.kernel}×{l.kernel}×{row['fan_in']//l.kernel**2}" in texts
        total = sum(row['params'] for row in rows)
        assert any(o.startswith(f'{total:,} parameters') for o in texts)

def test_of_a_network():
    "A network shows its own picture: its parameters, and its depth"
    m = AlexNet('code2012', width=.25, size=96, n_classes=10)
    html = m._repr_html_()
    assert f'{sum(p.numel() for p in m.parameters()):,} parameters' in html and 'role="img"' in html

def test_two_networks():
    "All settings that differ are marked, and nothing where there is no difference"
    for a,b in [('code2012', o) for o in ('paper', 'no_talk', 'conv6', 'torchvision')]:
        check(draw_network(a, b).tall)
        d = draw_network(a, b)
        check(d)
        marked = ' '.join(o.text for o in d.labels if o.marked)
        for row in compare(a, b).rows:
            if row['where'] in ('', 'input'): assert f"{row['what']}: " in marked
    assert not [o for o in draw_network('paper', replace(SPECS['paper'], name='same')).labels if o.marked]
