"""Prepare a pack in small steps, and be killed on the way

python preparing.py SRC DST STORAGE PLACE says 'ready', waits for a line, and begins. PLACE is the end of a file's name and
a number: `meta.json+2` kills this process at the second thing it does with a file, counted from the first with a file of
that name: opening it for writing, renaming, or removing. `rmtree` stands for the removal of a folder."""
import os, signal, sys, time
from alexnet_nb.data import prepare
from alexnet_nb.engine import packing

src,dst,storage,place = sys.argv[1:]
name,_,after = place.partition('+')
folder = dst+'.partial'
seen = 0

def changes(event, args):
    "The files that this event is about to change"
    if event=='open': return [args[0]] if args[2]&(os.O_WRONLY|os.O_RDWR) else []
    if event in ('os.rename','os.truncate'): return args[:2]
    return args[:1] if event in ('os.remove','shutil.rmtree') else []

def watch(event, args):
    global seen
    files = [os.fsdecode(o) for o in changes(event, args) if isinstance(o, (str,bytes,os.PathLike))]
    if not files: return
    if seen or event=='shutil.rmtree' and name=='rmtree' or any(o.endswith('/'+name) for o in files):
        seen += 1
        if seen>int(after): os.kill(os.getpid(), signal.SIGKILL)

add = packing.FileWriter.add
def slow_add(self, *args):
    time.sleep(.005)
    add(self, *args)

print('ready', flush=True)
sys.stdin.readline()
packing.CHUNK,packing.SAVE_EVERY,packing.FileWriter.add = 4,0,slow_add
if place!='never': sys.addaudithook(watch)
prepare(src, dst, size=32, storage=storage, workers=2, max_bad=.5)
