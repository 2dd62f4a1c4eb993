"The checks of pages in a browser find what they are for: a page for each fault, and one without"
import runpy
import pytest
from conftest import root

RESULT = '''<div class="cell"><div class="cell-output cell-output-display"><table><tr><th>net</th></tr>
<tr><td>1</td></tr></table><p><small>Card in nbs/cards</small></p></div></div>'''
PAGE = '''<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body {{ background: #fff; color: #111; font: 16px monospace }} .dark {{ background: #111; color: #eee }}
.dark .dim {{ color: #333 }} pre {{ overflow: auto }}
@media (min-width: 500px) {{ .phone {{ display: none }} }}</style></head>
<body><header>{header}<ol class="breadcrumb"><li class="breadcrumb-item">The paper</li></ol></header>
<div id="quarto-content"><main><h1>A page</h1>{body}<div style="height: 2000px"></div></main></div></body></html>'''
BUTTON = '''<button class="quarto-color-scheme-toggle" onclick="document.body.classList.toggle('dark')">Dark</button>'''
DOCUMENTED = '''<div class="cell"><div class="cell-output cell-output-display"><h3>lrn</h3>
<pre class="sourceCode"><code>def lrn(x)</code></pre></div></div>'''
SOURCE = '<pre class="sourceCode"><code>def lrn(x):\n    return x</code></pre>'
LONG = 'x = ' + 'y + '*75 + 'z'
FAULTS = { # name of the page: the kind of its fault, what its body has
    'logs': ('console', '<script>console.error("no")</script>'),
    'throws': ('console', '<script>null.x</script>'),
    'asks': ('requests', '<script src="missing.js"></script>'),
    'elsewhere': ('hosts', '<link rel="stylesheet" href="https://example.org/a.css">'),
    'picture': ('pictures', '<img alt="nothing" src="data:image/png;base64,AAAA">'),
    'formula': ('mathematics', r'<p>Here <span class="math inline">\(a^2\)</span></p>'),
    'dollars': ('mathematics', '<p>Here $$a^2$$</p>'),
    'wide': ('wide', '<div style="width: 600px">wide</div>'),
    'cut': ('wide', '<div style="overflow: clip"><div style="width: 600px">cut off</div></div>'),
    'wraps': ('phone_code', f'<pre class="sourceCode" style="white-space: pre-wrap">{LONG[:80]}</pre>'),
    'long': ('code', f'<pre class="sourceCode" tabindex="0">{LONG}</pre>'),
    'folded': ('code', f'<details><summary>Code</summary><pre class="sourceCode" tabindex="0">{LONG}</pre></details>'),
    'printed': ('output', f'<div class="cell-output"><pre tabindex="0">{LONG}</pre></div>'),
    'both': ('twice', DOCUMENTED+SOURCE),
    'again': ('twice', DOCUMENTED+DOCUMENTED),
    'bar': ('litter', '<div class="cell-output"><pre>50%|#####     | 5/10 [00:01&lt;00:01, 3.9it/s]</pre></div>'),
    'warning': ('litter', '<div class="cell-output"><pre>UserWarning: no</pre></div>'),
    'call': ('litter', '<p>Call self as a function.</p>'),
    'raw': ('litter', '<p>See [the net](model.html)</p>'),
    'home': ('paths', '<p>In /home/someone/runs</p>'),
    'grey': ('axe', '<p style="color: #aaa">pale</p>'),
    'dim': ('axe', '<p class="dim">dim in the dark</p>'),
    'button': ('axe', '<button></button>')}

@pytest.fixture(scope='module')
def found(tmp_path_factory):
    "Kinds of faults that are found on each page"
    browser = runpy.run_path(root/'.ci'/'browser.py')
    if why := browser['missing'](): pytest.skip(why)
    axe,why = browser['load_axe']()
    folder = tmp_path_factory.mktemp('pages')
    pages = {k:PAGE.format(header=BUTTON, body=RESULT+body) for k,(_,body) in FAULTS.items()}
    pages |= dict(
        clean=PAGE.format(header=BUTTON, body=RESULT+f'<details><summary>Code</summary>{SOURCE}</details>'+DOCUMENTED),
        late=PAGE.format(header=BUTTON, body='<div style="height: 2000px"></div>'+RESULT),
        none=PAGE.format(header=BUTTON, body='<table><tr><th>net</th></tr></table>'),
        light=PAGE.format(header='', body=RESULT),
        menu=PAGE.format(header=BUTTON+'<p class="phone" style="color: #aaa">menu</p>', body=RESULT))
    for k,o in pages.items(): (folder/f'{k}.html').write_text(o)
    said = browser['check_folder'](folder, axe)
    return {k.removesuffix('.html'):{o.kind for o in v} for k,v in said.items()}, why

@pytest.mark.parametrize('page,kind', [(k, kind) for k,(kind,_) in FAULTS.items()]
    + [('late', 'result'), ('none', 'result'), ('light', 'dark'), ('menu', 'axe')])
def test_fault_is_found(found, page, kind):
    pages,why = found
    if kind=='axe' and why: pytest.skip(why)
    assert pages[page]=={kind}

def test_right_page(found): assert found[0]['clean']==set()

def test_no_time(tmp_path):
    "What was not looked at is not called right"
    browser = runpy.run_path(root/'.ci'/'browser.py')
    if why := browser['missing'](): pytest.skip(why)
    (tmp_path/'a.html').write_text('')
    assert browser['check_folder'](tmp_path, None, limit=0)=={'a.html':None}
