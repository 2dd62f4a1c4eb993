"Packages from npm, each pinned by the hash of its archive: downloaded once, checked, unpacked in the user's cache"
import base64, hashlib, io, os, shutil, tarfile
from pathlib import Path
from urllib.request import urlopen

cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'alexnet_nb'/'npm'

def unpack(
    name:str,    # As on npm, `onnxruntime-web` or `@scope/name`
    version:str, # `4.14.1`
    sha512:str,  # In base 64, as `npm view NAME@VERSION dist.integrity` shows it behind `sha512-`
)->Path:         # Folder with the files of the package; raises OSError without a network, ValueError for another archive
    "The files of a package"
    to = cache/f"{name.replace('/', '+')}-{version}"
    if to.is_dir(): return to
    url = f"https://registry.npmjs.org/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    with urlopen(url, timeout=60) as answer: archive = answer.read()
    got = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if got!=sha512: raise ValueError(f'{url}: sha512 {got}, not {sha512}')
    partial = to.with_name(f'{to.name}.{os.getpid()}')
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar: tar.extractall(partial, filter='data')
    try: (partial/'package').rename(to)
    except OSError: # another process was first
        if not to.is_dir(): raise
    shutil.rmtree(partial, ignore_errors=True)
    return to
