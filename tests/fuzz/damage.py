"""Ways to damage a file: each is a list, so that it can be printed, kept and done again

A number that stands for a place in a file is small for a place near its beginning or (below zero) its end; larger ones
are places all over it, in 65536ths."""
import bz2, gzip, io, json, lzma, os, pickletools, re, shutil, struct, tarfile, zipfile, zlib

# What stands where something else is expected
VALUES = [
    None, True, 0, -1, 1, 1.5, 1e308, float('nan'), float('-inf'), 1<<31, (1<<53)+1, 1<<63, 10**30, '', 'x', '1', [],
    {}, [[]], [0]*9, {'x':1}, '../../up', '/dev/zero', 'a\nb\x1b[2J', '\u202e', '\ud800', 'x'*300, '$\\frac{',
    'DEEP', 'WIDE']
WORDS = ['NaN', '-1', '0', '1e308', '1e-320', '9223372036854775808', 'inf', '', ' ', ',', '\t', '"', '\0', 'null', 'é',
         '\u2028', '../up', 'x'*70_000]
SIZES = [0, 1, 255, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, (1<<63)-1, 1<<63, (1<<64)-1]
ENCODINGS = ['utf-16', 'utf-32', 'utf-8-sig', 'latin-1', 'cp1252', 'utf-7']
DEEP = 100_000

def place(at, n): return min(at, n) if 0<=at<1000 else max(0, n+at) if at<0 else at*n>>16

# --- Bytes

def flip(data, at, bit):
    i = place(at, len(data)-1)
    return data[:i]+bytes([data[i]^1<<bit])+data[i+1:]

def fill(data, at, n, byte):
    i = place(at, len(data))
    return data[:i]+bytes([byte])*min(n, len(data)-i)+data[i+n:]

def cut(data, at): return data[:place(at, len(data))]
def behead(data, at): return data[place(at, len(data)):]
def insert(data, at, text): return data[:(i := place(at, len(data)))]+text.encode('latin-1')+data[i:]
def remove(data, at, n): return data[:(i := place(at, len(data)))]+data[i+n:]
def repeat(data, at, n, times): return data[:(i := place(at, len(data)))]+data[i:i+n]*times+data[i:]

def swap(data, a, b, n):
    a,b = sorted(place(o, len(data)) for o in (a, b))
    b = max(b, a+n)
    return data[:a]+data[b:b+n]+data[a+n:b]+data[a:a+n]+data[b+n:]

def number(data, at, width, order, value):
    i = place(at, len(data))
    return data[:i]+(value % (1<<8*width)).to_bytes(width, order)+data[i+width:]

# --- Texts

def word(data, which, new):
    "Another word or number in the place of one"
    found = [*re.finditer(rb'[\w.+-]+', data)]
    m = found[which%len(found)]
    return data[:m.start()]+new.encode('utf-8', 'surrogatepass')+data[m.end():]

def encode(data, name): return data.decode().encode(name)
def lines(data, end): return data.replace(b'\n', end.encode())

def nodes(value):
    "(container, key) of everything in a JSON value"
    for k,v in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, k
        yield from nodes(v)

def change_json(data, which, how, value):
    "Replace a value in a JSON text, remove it, write it twice, or under another name"
    top = [json.loads(data)]
    found = [*nodes(top)]
    box,key = found[which%len(found)]
    if how=='remove' and len(found)>1 and box is not top:
        del box[key]
    elif how=='rename' and isinstance(box, dict):
        box[str(value)[:99]] = box.pop(key)
    elif how=='twice' and isinstance(box[key], list):
        box[key] *= 2
    else:
        box[key] = value
    text = json.dumps(top[0])
    text = text.replace('"DEEP"', '['*DEEP+']'*DEEP, 1).replace('"WIDE"', '['+'1,'*300_000+'1]', 1)
    return text.encode('utf-8', 'surrogatepass')

# --- Parts: (bytes, function that puts other bytes in their place, and makes lengths and checksums right)

def at(data, start, end): return data[start:end], lambda new: data[:start]+new+data[end:]

def png_parts(data):
    i = 8
    while i<len(data):
        n = struct.unpack_from('>I', data, i)[0]
        def put(new, i=i, n=n):
            return data[:i]+struct.pack('>I', max(0, len(new)-4))+new+struct.pack('>I', zlib.crc32(new))+data[i+12+n:]
        yield data[i+4:i+8+n], put
        i += 12+n

def jpeg_parts(data):
    i = 2
    while data[i]==255 and data[i+1]!=0xda:
        n = struct.unpack_from('>H', data, i+2)[0]
        yield data[i+4:i+2+n], lambda new, i=i, n=n: data[:i+2]+struct.pack('>H', len(new)+2&0xffff)+new+data[i+2+n:]
        i += 2+n
    yield at(data, i, len(data))

def riff_parts(data):
    i = 12
    while i<len(data):
        n = struct.unpack_from('<I', data, i+4)[0]
        def put(new, i=i, n=n):
            rest = data[8:i+4]+struct.pack('<I', len(new))+new+bytes(len(new)%2)+data[i+8+n+n%2:]
            return b'RIFF'+struct.pack('<I', len(rest))+rest
        yield data[i+8:i+8+n], put
        i += 8+n+n%2

def tiff_parts(data):
    order = '<' if data[:2]==b'II' else '>'
    start, = struct.unpack_from(order+'I', data, 4)
    for i in range(struct.unpack_from(order+'H', data, start)[0]):
        for a,b in (0,2), (2,4), (4,8), (8,12):
            yield at(data, start+2+12*i+a, start+2+12*i+b)

def tar_parts(data):
    fields = [(0,100), (100,108), (124,136), (156,157), (157,257), (345,500)] # name, mode, size, kind, link, prefix
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        members = t.getmembers()
    for m in members:
        i = m.offset_data-512
        for a,b in fields:
            def put(new, i=i, a=a, b=b):
                head = bytearray(data[i:i+512])
                head[a:b] = new.ljust(b-a, b'\0')[:b-a]
                head[148:156] = b' '*8
                head[148:156] = b'%06o\0 '%sum(head)
                return data[:i]+bytes(head)+data[i+512:]
            yield data[i+a:i+b], put
        def put_file(new, i=i, n=m.size):
            head = bytearray(data[i:i+512])
            head[124:136] = b'%011o\0'%len(new)
            head[148:156] = b' '*8
            head[148:156] = b'%06o\0 '%sum(head)
            return data[:i]+bytes(head)+new+bytes(-len(new)%512)+data[i+512+n+-n%512:]
        if m.isfile():
            yield data[i+512:i+512+m.size], put_file

def zip_parts(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        rows = [(i, z.read(i)) for i in z.infolist()]
        yield at(data, z.start_dir, len(data))
    for k,(info,body) in enumerate(rows):
        def put(new, k=k):
            with zipfile.ZipFile(f := io.BytesIO(), 'w') as z:
                for j,(info,body) in enumerate(rows):
                    z.writestr(info.filename, new if j==k else body, info.compress_type)
            return f.getvalue()
        yield body, put
        yield at(data, info.header_offset, info.header_offset+30+len(info.filename))

def npy_parts(data):
    n, = struct.unpack_from('<H', data, 8)
    yield data[10:10+n], lambda new: data[:8]+struct.pack('<H', len(new)&0xffff)+new+data[10+n:]

def safetensors_parts(data):
    n, = struct.unpack_from('<Q', data)
    yield data[8:8+n], lambda new: struct.pack('<Q', len(new))+new+data[8+n:]

def parquet_parts(data):
    n, = struct.unpack_from('<I', data, len(data)-8)
    start = len(data)-8-n
    yield data[start:-8], lambda new: data[:start]+new+struct.pack('<I', len(new))+b'PAR1'
    yield at(data, 4, start)

def pickle_parts(data):
    places = [o[2] for o in pickletools.genops(data)]+[len(data)]
    for a,b in zip(places, places[1:]):
        yield at(data, a, b)

def varint(n): return bytes([n&127|128])+varint(n>>7) if n>127 else bytes([n])
def read_varint(data, i):
    n = shift = 0
    while True:
        n |= (data[i]&127)<<shift
        shift += 7
        i += 1
        if data[i-1]<128:
            return n, i

def protobuf_parts(data):
    i = 0
    while i<len(data):
        start = i
        key,i = read_varint(data, i)
        if key&7==2:
            n,j = read_varint(data, i)
            def put(new, i=i, j=j, n=n): return data[:i]+varint(len(new))+new+data[j+n:]
            if j+n>len(data):
                raise ValueError
            yield data[j:j+n], put
            i = j+n
        elif key&7==0:
            i = read_varint(data, i)[1]
        else:
            i += {1:8, 5:4}[key&7]
        yield at(data, start, i)

def json_parts(data):
    "The texts in a JSON text; some are JSON again"
    top = [json.loads(data)]
    for box,key in nodes(top):
        if isinstance(box[key], str):
            def put(new, box=box, key=key):
                box[key] = new.decode('utf-8', 'surrogateescape')
                return json.dumps(top[0]).encode()
            yield box[key].encode(), put

def line_parts(data):
    i = 0
    for line in data.splitlines(True):
        yield at(data, i, i+len(line.rstrip(b'\r\n')))
        i += len(line)

def whole(module):
    def parts(data): yield module.decompress(data), module.compress
    return parts

KINDS = {
    b'\x89PNG':png_parts, b'\xff\xd8\xff':jpeg_parts, b'RIFF':riff_parts, b'II*\0':tiff_parts, b'MM\0*':tiff_parts,
    b'\x1f\x8b':whole(gzip), b'\xfd7zXZ':whole(lzma), b'BZh':whole(bz2), b'PK\3\4':zip_parts,
    b'{':json_parts, b'\x93NUMPY':npy_parts, b'PAR1':parquet_parts, b'\x80':pickle_parts}

def parts(data):
    "What a file consists of, as far as it can be told"
    find = next((f for start,f in KINDS.items() if data.startswith(start)), None)
    if find is None:
        find = tar_parts if data[257:262]==b'ustar' else safetensors_parts if data[8:9]==b'{' else protobuf_parts
    found = []
    for f in find, line_parts:
        try:
            for o in f(data):
                found.append(o)
        except Exception: # it is damaged already, or of no such kind
            pass
        if found:
            break
    return found

def inside(data, which, *damage):
    "Damage a part of a file"
    found = parts(data)
    part,put = found[which%len(found)]
    return put(damage_bytes(part, *damage))

BYTES = dict(flip=flip, fill=fill, cut=cut, behead=behead, insert=insert, remove=remove, repeat=repeat, swap=swap,
             number=number, word=word, encode=encode, lines=lines, json=change_json, inside=inside)

def damage_bytes(data, name, *args):
    "Damaged bytes; the same where the damage is not possible"
    try:
        return BYTES[name](data, *args)
    except Exception: # no JSON, no part, …
        return data

# --- Files of a folder

def grow(path, n):
    with open(path, 'r+b') as f:
        f.truncate(n)

def replace(path, make):
    path.unlink()
    make()

FILES = dict(
    delete=lambda path: path.unlink(),
    folder=lambda path: replace(path, path.mkdir),
    fifo=lambda path: replace(path, lambda: os.mkfifo(path)),
    link=lambda path, to: replace(path, lambda: path.symlink_to(to.replace('~', os.environ['OUTSIDE']))),
    grow=grow, # without taking room on the disk
    rename=lambda path, name: path.rename(path.with_name(name)),
    copy=lambda path, name: shutil.copy(path, path.with_name(name)),
    parent=lambda path: (shutil.rmtree(path.parent), path.parent.touch()))

def spoil(folder, which, name, *args):
    "Do a damage to one of the files of a folder"
    files = sorted(o for o in folder.rglob('*') if o.is_file())
    if not files:
        return
    path = files[which%len(files)]
    if name in BYTES:
        if path.stat().st_size>1<<26: # it has grown
            return
        data = damage_bytes(path.read_bytes(), name, *args)
        path.unlink() # it may be a link
        path.write_bytes(data)
    elif name!='parent' or path.parent!=folder:
        try:
            FILES[name](path, *args)
        except (OSError, ValueError): # a name that this file system does not take
            pass
