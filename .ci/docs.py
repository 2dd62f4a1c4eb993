"""Build the site into _proc/_docs without Quarto, and check every link in it.

nbdev prepares the pages, smalldocs renders them; formulas become MathML, as Quarto is told to write them. Fails on a broken link, a missing anchor or picture, and on
an error among the outputs. Needs the package installed (`pip install -e .`): names then link to pages."""
import argparse, gc, html, json, os, re, shutil, subprocess, sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

repo = Path(__file__).resolve().parents[1]
proc, docs = repo/'_proc', repo/'_proc'/'_docs'

def rename():
    "Name the prepared notebooks after their pages, as nbdev's links assume: `04_lrn.ipynb` -> `lrn.ipynb`"
    names = {}
    for p in sorted(proc.rglob('*.ipynb')):
        m = re.search(r'output-file: (\S+)\.html', ''.join(json.loads(p.read_text())['cells'][0]['source']))
        if m and m[1]!=p.stem: names[p.name] = p.rename(p.with_stem(m[1])).name
    if not names: return
    old = '|'.join(map(re.escape, names))
    link = re.compile(rf'(\]\((?!\w+:)(?:[^()\s]*/)?|href=\\?"(?!\w+:)(?:[^"\\\s]*/)?)({old})(?=[)#"\\])')
    for p in proc.rglob('*.ipynb'): p.write_text(link.sub(lambda m: m[1]+names[m[2]], p.read_text()))
    word = re.compile(rf'(?<![\w.-])({old})\b')
    for p in proc.glob('*.yml'): p.write_text(word.sub(lambda m: names[m[1]], p.read_text()))

def suit_smalldocs():
    """Write tables as smalldocs reads them, where Quarto reads `tbl-cap` and escaped signs: the caption of a cell below
    its rows, and nothing between escaped dashes and dots, of which smalldocs makes one sign even so"""
    from alexnet_nb.tools.pages import caption_table
    for p in proc.rglob('*.ipynb'):
        nb = json.loads(p.read_text(encoding='utf-8'))
        for c in nb['cells']:
            cap = re.search(r'^#\| *tbl-cap: *(.*)$', ''.join(c['source']), re.M)
            for data in (o['data'] for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})):
                text = ''.join(data['text/markdown'])
                if cap: text = caption_table(text, cap[1].strip(chr(34)))
                data['text/markdown'] = re.sub(r'(?<!\\)(\\[-.])(?=\\[-.])', r'\1<!-- -->', text)
        p.write_text(json.dumps(nb), encoding='utf-8')

class Page(HTMLParser):
    "Ids, links and pictures of one rendered page"
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.imgs, self.text = set(), [], [], path.read_text(encoding='utf-8')
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        self.ids |= {d.get('id'), d.get('name') if tag=='a' else None} - {None}
        if tag=='a' and d.get('href'): self.links.append(d['href'])
        if tag=='img': self.imgs.append(d.get('src') or '')

def check():
    "Follow every link inside the site; a list of what is wrong, one line each"
    pages, bad = {p: Page(p) for p in docs.rglob('*.html')}, []
    for p,page in pages.items():
        where = p.relative_to(docs)
        for o in page.links+page.imgs:
            to,anchor = target(p, o)
            if to is None: continue
            if not to.exists(): bad.append(f'{where}: no such file: {o}')
            elif anchor and to in pages and anchor not in pages[to].ids:
                bad.append(f'{where}: no such anchor: {o}')
        if 'Traceback (most recent call last)' in page.text or 'cell-output-error' in page.text:
            bad.append(f'{where}: shows a traceback')
    return sorted(set(bad))

def check_names():
    "Each name that a notebook exports is shown once: documented, or in an open source; a list of what is wrong"
    from alexnet_nb.tools.pages import DEFINITION
    bad = []
    litter = re.compile(r'^def [A-Z]\w*\(|->None:|Call self as a function|\[[^\[\]]*\[`[^`]+`\]\([^()\s]*\)[^\[\]]*\]\(', re.M)
    def cells(path, kind='code'):
        found = [o for o in json.loads(path.read_text(encoding='utf-8'))['cells'] if o['cell_type']==kind]
        return [(''.join(o['source']), o.get('outputs', [])) for o in found]
    for nb in sorted((repo/'nbs').rglob('*.ipynb')):
        page = proc/nb.relative_to(repo/'nbs').with_stem(re.sub(r'^\d+_', '', nb.stem))
        if not page.exists(): continue
        where, shown = page.relative_to(proc), Counter()
        for source, outputs in cells(page):
            folded = re.search(r'^#\| *code-fold: *true', source, re.M)
            shown.update(re.findall(r'^show_doc\((\w+)\)', source, re.M) + ([] if folded else DEFINITION.findall(source)))
            said = ''.join(''.join(o.get('data', {}).get('text/markdown', '')) for o in outputs)
            bad += [f'{where}: {m[0]}' for m in litter.finditer(said)]
        bad += [f'{where}: {m[0]}' for source, _ in cells(page, 'markdown') for m in litter.finditer(source)]
        made = [o for source, _ in cells(nb) if re.match(r'#\| *exports?\s', source) for o in DEFINITION.findall(source)]
        bad += [f'{where}: {o} is shown {shown[o]} times' for o in made if shown[o]!=1]
    return bad

def target(
    page:Path,  # A rendered page
    link:str,   # A link in it
)->tuple:       # The page that it leads to, or None if it leads out of the site; and the anchor there
    "Where a link inside the site leads"
    url = urlsplit(link)
    if url.scheme or url.netloc: return None, ''
    to = (page.parent/unquote(url.path)).resolve() if url.path else page
    return to/'index.html' if to.is_dir() else to, unquote(url.fragment)

def lead_to_classes():
    "A method without a `show_doc` of its own is documented with its class: let links to it lead there"
    pages = {p: Page(p) for p in docs.rglob('*.html')}
    for p,page in pages.items():
        text = page.text
        for o in set(page.links):
            to,anchor = target(p, o)
            if to not in pages or '.' not in anchor or anchor in pages[to].ids: continue
            owner = anchor.rpartition('.')[0]
            if owner in pages[to].ids:
                text = text.replace(f'href="{o}"', f'href="{o.partition("#")[0]}#{owner}"')
        if text!=page.text: p.write_text(text, encoding='utf-8')

def build():
    "Make the pages anew"
    from nbdev.config import get_config
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    shutil.rmtree(proc, ignore_errors=True)
    refresh_quarto_yml()
    proc_nbs(force=True, n_workers=0)
    rename()
    suit_smalldocs()
    res = smalldocs('render', '--quiet')
    if res.returncode: sys.exit(res.stderr)
    site = get_config().doc_host + get_config().doc_baseurl
    localize(site)
    lead_to_classes()
    finish(site)

def localize(
    site:str,  # Address that the site will have
):
    "Make links to the site's own address relative: nbdev writes that address into every link to a name"
    for p in docs.rglob('*.html'):
        up = '../'*(len(p.relative_to(docs).parts)-1)
        p.write_text(p.read_text().replace(f'<a href="{site}/', f'<a href="{up}'))

# Widths of the grid in _quarto.yml, which smalldocs does not read
widths = '<style>:root{--sd-sidebar-width:230px;--sd-margin-width:200px;--sd-body-width:910px;--sd-gap:1.5rem}</style>'

def finish(
    site:str,  # Address that the site will have
):
    "What Quarto does by itself: formulas as MathML, the address of each page, widths"
    from latex2mathml.converter import convert
    def formula(m):
        tex = html.unescape(m[2]).strip()[2:-2]
        return f'<span class="math {m[1]}">{convert(tex, display="block" if m[1]=="display" else "inline")}</span>'
    for p in (docs/'site_libs/themes').glob('*.css'): # their letters come from another host
        p.write_text(re.sub(r'@import url\([^)]*\);?', '', p.read_text(encoding='utf-8')), encoding='utf-8')
    for p in docs.rglob('*.html'):
        text = re.sub(r'<(link|script)[^>]*/katex@[^>]*>(</script>)?', '', p.read_text(encoding='utf-8'))
        text = re.sub(r'<span class="math (inline|display)">(.*?)</span>', formula, text, flags=re.S)
        address = f'<link rel="canonical" href="{site}/{p.relative_to(docs).as_posix()}">'
        p.write_text(text.replace('</head>', f'{address}{widths}</head>', 1), encoding='utf-8')

def smalldocs(*args):
    "Run `smalldocs` on the prepared pages; its other remarks (keys it does not read) are for no one"
    cmd = [sys.executable, '-m', 'smalldocs.cli', *args, proc]
    return subprocess.run(cmd, capture_output=True, text=True)

def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('--keep', action='store_true', help='build nothing, only check the pages in _proc')
    args = p.parse_args()
    os.chdir(repo)
    sys.path.insert(0, str(repo))
    if not args.keep: build()
    res = smalldocs('check')
    if res.returncode>1: sys.exit(res.stderr)
    bad = [o for o in res.stdout.splitlines() if 'broken link' in o] + check() + check_names()
    n = len(list(docs.rglob('*.html')))
    if bad or not n: sys.exit('\n'.join(bad) + f'\npages: {n} rendered, {len(bad)} things wrong')
    print(f'pages: {n} rendered, links ok, each name shown once')

if __name__=='__main__':
    try: main()
    finally: gc.freeze() # at exit each of IPython's shells collects garbage; there is one for each page
