"The network that runs in a page: its numbers in a headless browser, and what the page says where it cannot run"
import contextlib, functools, http.server, io, runpy, shutil, threading
from types import SimpleNamespace

import numpy as np, pytest, torch
from PIL import Image

from alexnet_nb.augment import CENTRE, Augment
from alexnet_nb.model import AlexNet, load_weights
from conftest import root

folder = root/'nbs'/'explain'/'try_it'
html = '''<!doctype html><html lang="en"><title>Try it</title><link rel="stylesheet" href="try_it/try_it.css">
<main><h1>Try it</h1><div id="try-it" data-drawn="fish car"></div></main>
<script type="module" src="try_it/try_it.js"></script></html>'''

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "Address of a page with the network, and what was asked of its server"
    d = tmp_path_factory.mktemp('site')
    shutil.copytree(folder, d/'try_it', ignore=shutil.ignore_patterns('ort*'))
    (d/'index.html').write_text(html)
    why = runpy.run_path(root/'.ci'/'runtime.py')['put_runtime'](d/'try_it')
    if why: pytest.skip(why)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=d))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}/'
    server.shutdown()

@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api', reason='no playwright (pip install playwright)')
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not found: pytest.skip('no chromium (apt install chromium)')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found, args=['--no-sandbox', '--no-proxy-server'])
        yield browser
        browser.close()

@contextlib.contextmanager
def opened(browser, site, before='', refuse=''):
    "The page in a new tab, and what it asked for; `before` runs first, addresses with `refuse` fail"
    page = browser.new_page()
    requests = []
    def note(request): requests.append(request) # a method of a list will not do here
    page.on('request', note)
    if before: page.add_init_script(before)
    if refuse: page.route(f'**/*{refuse}*', lambda route: route.abort())
    page.goto(site)
    yield page, requests
    page.close()

listen = '''window.computed = new Promise(done => document.addEventListener('DOMContentLoaded', () =>
document.getElementById('try-it').addEventListener('computed', o => done(o.detail.results.map(result =>
Object.fromEntries(Object.entries(result).map(([k, v]) => [k, Array.from(v.data)])))))))'''

def variants(net):
    "The four networks of the page, by other means than its switches"
    def like(spec, state):
        made = AlexNet(spec, net.n_classes, .25, net.size).eval()
        made.load_state_dict(state)
        return made
    def without(column):
        "All weights of a column are zero"
        state = {k:v.clone() for k,v in net.state_dict().items()}
        for k,v in state.items():
            if not k.startswith('fc8'): v.unflatten(0, (2,-1))[column] = 0
        return like(net.spec, state)
    return [net, like('no_lrn', net.state_dict()), without(0), without(1)]

@torch.no_grad()
def expect(net, views):
    "What PyTorch computes for the ten views of a square; of the responses of conv1 what the pooling takes"
    logits = net(views)
    conv1 = net.features(views[CENTRE:CENTRE+1], 'conv1')
    return dict(logits=logits, probabilities=logits.softmax(1).mean(0), responses=conv1)

def find_difference(found, wanted): return np.abs(np.float32(found)-wanted.detach().flatten().numpy()).max()

def test_same_numbers(browser, site):
    "A square of the page's size gives the numbers of PyTorch, with all four networks; nothing is sent"
    square = np.random.default_rng(0).integers(0, 256, (110,110,3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(square).save(png, 'PNG')
    def give(page, data):
        page.set_input_files('input[type=file]', dict(name='x.png', mimeType='image/png', buffer=data))
    def wait_for(page, said): page.wait_for_selector(f'[role=status]:has-text("{said}")')
    with opened(browser, site, listen) as (page,requests):
        give(page, png.getvalue())
        got = page.evaluate('computed')
        wait_for(page, 'Computed your picture in ')
        last = page.get_by_label('Kernel 24', exact=True)
        for name in ('Response normalization off', 'Column a off', 'Column b off'):
            page.get_by_label(name).check()
            assert last.is_visible()
        give(page, b'no picture')
        wait_for(page, 'cannot read that file')
        assert not last.is_visible()
        page.get_by_role('button', name='car').press('Enter')
        wait_for(page, 'Computed the drawn car in ')
        assert last.is_visible()
        assert requests and all(o.url.startswith(site) and o.method=='GET' and not o.post_data for o in requests)
    net = load_weights(folder/'network.onnx')
    assert find_difference(got[0]['kernels'], net.conv1.weight)==0
    pack = SimpleNamespace(size=net.side, mean=net.mean, pca=dict(std=[0.]*3, vectors=torch.eye(3).tolist()))
    views = torch.cat([*Augment(pack, net.spec, net.size).views(torch.from_numpy(square)[None])])
    for result,m in zip(got, variants(net), strict=True):
        maps = torch.tensor(result['responses']).reshape(1, m.conv1.out_channels, 23, 23)
        result['responses'] = m.between['pool'](maps).flatten().tolist()
        differences = {k:find_difference(result[k], v) for k,v in expect(m, views).items()}
        assert max(differences.values())<1e-3, differences

@pytest.mark.parametrize('before, refuse, said', [
    ('delete window.WebAssembly', '', 'no WebAssembly'),
    ('', 'ort.wasm', 'ONNX Runtime Web is not in this copy of the site'),
    ('', 'network.onnx', 'The network could not be loaded')])
def test_where_it_cannot_run(browser, site, before, refuse, said):
    "One sentence says why"
    with opened(browser, site, before, refuse) as (page,_):
        page.get_by_role('button', name='fish').click()
        page.wait_for_function("!document.querySelector('[role=status]').textContent.startsWith('Loading')")
        assert said in page.text_content('[role=status]')
