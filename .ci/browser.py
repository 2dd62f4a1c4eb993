"""Open every page of a folder of HTML in headless Chromium, in light and dark, at 1,440 and 390 pixels.

Asks each page what `browser.js` lists, and prints a line for each kind of fault on each page. Needs
`pip install playwright` and a Chromium; without them, says so and exits with 0."""
import argparse, asyncio, functools, http.server, importlib.util, runpy, shutil, sys, threading, time
from dataclasses import dataclass
from pathlib import Path

here = Path(__file__).resolve().parent
AXE = ('axe-core', '4.14.1', 'FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==')
KINDS = dict(
    console='errors that the browser logs', requests='requests that fail', hosts='what is fetched from another host',
    pictures='pictures that do not load', mathematics='formulas that are not typeset',
    wide='what sticks out of the page at 390 px', phone_code='code that wraps at 390 px',
    code='lines of code wider than their box at 1,440 px', output='printed lines wider than their box at 1,440 px',
    result="a chapter's result after the first fifth of the page", twice='functions shown twice',
    litter='progress bars, warnings, raw Markdown', paths='paths of a machine', dark='pages without a dark theme',
    axe='serious or critical findings of axe-core')
CONTRAST = ['color-contrast']
QUESTIONS = (here/'browser.js').read_text()
WIDE,NARROW = dict(width=1440, height=900), dict(width=390, height=844)

@dataclass(frozen=True)
class Finding:
    page:str  # Path in the folder
    kind:str  # One of KINDS
    where:str # Width and theme
    what:str

def find_chromium():
    names = 'chromium', 'chromium-browser', 'google-chrome'
    return next(filter(None, map(shutil.which, names)), None)


def missing():
    "Why there is no browser, or None"
    if not importlib.util.find_spec('playwright'): return 'no playwright (pip install playwright)'
    return None if find_chromium() else 'no chromium (apt install chromium)'

def load_axe():
    "axe-core's code, or nothing and why"
    try: return (runpy.run_path(here/'npm.py')['unpack'](*AXE)/'axe.min.js').read_text(), None
    except OSError as e: return None, f'axe-core cannot be had: {e}'

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

def serve(folder):
    "A server of the folder on a free port of this machine"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

class Tab:
    "A tab of the browser, in which one page after the other is looked at"
    def __init__(self, tab, base, axe):
        self.tab,self.base,self.axe = tab, base, axe
        tab.on('console', self._hear)
        tab.on('pageerror', lambda e: self.say('console', str(e).splitlines()[0]))
        tab.on('request', lambda o: self._is_here(o.url) or self.say('hosts', o.url))
        tab.on('requestfailed', lambda o: self._is_here(o.url) and self.say('requests', f'{o.failure}: {o.url}'))
        tab.on('response', lambda o: o.status>=400 and self.say('requests', f'{o.status}: {o.url}'))

    def say(self, kind, what): self.found[Finding(self.path, kind, self.where, what)] = True
    def _is_here(self, url): return url.startswith((self.base, 'data:', 'blob:'))
    def _hear(self, o):
        if o.type=='error' and not o.text.startswith('Failed to load resource'): self.say('console', o.text)

    async def put(self, question): return await self.tab.evaluate(f'ask.{question}()')
    async def ask(self, *kinds):
        for k in kinds:
            for o in await self.put(k): self.say(k, o)

    async def ask_axe(self, rules=None):
        if not self.axe: return
        for o in await self.tab.evaluate('rules => ask.axe(rules)', rules): self.say('axe', o)

    async def resize(self, size, theme):
        self.where = f"{size['width']} px, {theme}"
        await self.tab.set_viewport_size(size)

    async def look(self, path):
        "What is wrong with a page; whether it is a chapter"
        self.path,self.found = path, {}
        await self.resize(WIDE, 'light')
        await self.tab.goto(f'{self.base}/{path}')
        await self.tab.evaluate('document.fonts.ready')
        for o in filter(None, (self.axe, QUESTIONS)):
            await self.tab.evaluate(o + '\nnull') # a function at the end would be called
        chapter = await self.put('is_chapter')
        await self.ask('pictures', 'mathematics', 'result', 'twice', 'litter', 'paths')
        await self.put('unfold')
        await self.ask('code', 'output')
        await self.ask_axe()
        await self.resize(NARROW, 'light')
        await self.ask('wide', 'phone_code')
        await self.resize(WIDE, 'dark')
        await self.ask('dark')         # turns it dark
        await self.ask_axe(CONTRAST)
        await self.resize(NARROW, 'dark')
        await self.put('header_alone') # what is below it has been looked at
        await self.ask_axe(CONTRAST)
        await self.resize(NARROW, 'light')
        await self.put('light')
        await self.ask_axe(CONTRAST)
        return chapter

async def check_pages(folder, pages, axe, tabs, seconds, found):
    from playwright.async_api import async_playwright
    server,todo,chapters = serve(folder), pages[::-1], 0
    base = f'http://127.0.0.1:{server.server_address[1]}'
    async def work(browser):
        nonlocal chapters
        context = await browser.new_context(color_scheme='light', reduced_motion='reduce') # with a storage of its own
        await context.add_init_script('localStorage.clear()') # each page is first seen as it comes
        tab = Tab(await context.new_page(), base, axe)
        while todo:
            path = todo.pop()
            try: chapters += await asyncio.wait_for(tab.look(path), seconds)
            except Exception as e: tab.say('console', f'cannot be checked: {type(e).__name__} {e}'.splitlines()[0])
            found[path] = list(tab.found)
    async with async_playwright() as p:
        here_only = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
        args = ['--no-sandbox', '--no-proxy-server', here_only]
        browser = await p.chromium.launch(executable_path=find_chromium(), args=args)
        await asyncio.gather(*(work(browser) for _ in range(min(tabs, len(pages)))))
        await browser.close()
    server.shutdown()
    if not chapters:
        nowhere = Finding(pages[0], 'result', 'all pages', 'no page of a section "The paper": nothing to ask')
        found[pages[0]].append(nowhere)

def check_folder(
    folder,
    axe,          # Code of axe-core, or None
    tabs=2,
    seconds=120,  # For one page
    limit=900,    # For all together; two free cores need less than a tenth
)->dict:          # Path of each page: its findings, or None where the time did not reach
    pages = sorted(o.relative_to(folder).as_posix() for o in Path(folder).rglob('*.html'))
    found = dict.fromkeys(pages)
    if not pages: return found
    try: asyncio.run(asyncio.wait_for(check_pages(folder, pages, axe, tabs, seconds, found), limit))
    except asyncio.TimeoutError: pass
    return found

def report(found, everything):
    "A line for each kind of fault on each page, or for each place"
    groups = {}
    for o in sorted(found, key=lambda o: list(KINDS).index(o.kind)):
        groups.setdefault(f'{o.kind}: {o.page} ({o.where})', []).append(o.what)
    for k,whats in groups.items():
        more = len(whats)-1
        if everything: print(*(f'{k}: {o}' for o in whats), sep='\n')
        else: print(f'{k}: {whats[0]}' + (f' ... and {more} more' if more else ''))

def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('folder', type=Path, help='with pages, made by whatever program')
    p.add_argument('--count', nargs='+', default=[], choices=KINDS, metavar='KIND',
                   help='kinds of faults that are counted, and do not fail')
    p.add_argument('--limit', type=int, metavar='S', help='of so many seconds; pages that were not reached then are named, '
                   'and do not fail (without it 900 s, and they fail)')
    p.add_argument('--all', action='store_true', help='a line for each place, not only for the first one of a page')
    args = p.parse_args()
    if why := missing(): return print(f'pages in a browser: skipped, {why}')
    axe,why = load_axe()
    start = time.time()
    pages = check_folder(args.folder, axe, limit=args.limit or 900)
    found = [o for v in pages.values() for o in v or []]
    late = [k for k,v in pages.items() if v is None]
    report(found, args.all)
    for k,text in KINDS.items():
        those = [o for o in found if o.kind==k]
        note = ' (counted only)' if k in args.count else ''
        print(f'{len(those):6} on {len({o.page for o in those}):3} pages  {k}: {text}{note}')
    print(f'{len(pages)} pages in {time.time()-start:.0f} s')
    if why: print(f'skipped: axe, {why}')
    if late: print(f"no time was left for {', '.join(late)}")
    return int(bool((late and not args.limit) or not pages or any(o.kind not in args.count for o in found)))

if __name__=='__main__': sys.exit(main())
