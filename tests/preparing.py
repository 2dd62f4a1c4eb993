"""Prepare a pack in small steps, and be killed on the way

python preparing.py SRC DST STORAGE PLACE says 'ready', waits for a line, and begins. PLACE is the end of a file's name and
a number: `meta.json+2` kills this process at the second thing that it does with a file after the first with a file of
that name: opening it for writing, renaming, or removing. With the PLACE `never` the preparation takes a few seconds, so that others can kill it."""
import os, signal, sys, time
from alexnet_nb.data import prepare
from alexnet_nb.engine import packing

src,dst,storage,place = sys.argv[1:]
name,_,after = place.partition('+')
pause = .04 if place=='never' else .002 # seconds for four images
seen = 0

def changed(event, args):
    "The files that this event is about to change"
    if event=='open':
        writes = args[2]&(os.O_WRONLY|os.O_RDWR)
        return [args[0]] if writes else []
    if event=='os.rename':
        return args[:2]
    if event=='os.remove':
        return args[:1]
    return []

def watch(event, args):
    global seen
    files = [os.fsdecode(o) for o in changed(event, args) if not isinstance(o, int)]
    if not files:
        return
    here = any(o.endswith('/'+name) for o in files)
    if seen or here:
        seen += 1
    if seen>int(after):
        os.kill(os.getpid(), signal.SIGKILL)

add = packing.FileWriter.add
def slow_add(self, *args):
    time.sleep(pause)
    add(self, *args)

print('ready', flush=True)
sys.stdin.readline()
packing.CHUNK = 4
packing.SAVE_EVERY = 0
packing.FileWriter.add = slow_add
if place!='never':
    sys.addaudithook(watch)
prepare(src, dst, size=32, storage=storage, workers=2, max_bad=.5)
