"Pictures that are damaged, deep, turned, animated or too large: taken as a rule says, or refused; never half grey"
import io, random, struct, threading, zlib

import numpy as np, pytest
from PIL import Image, ImageFile

from alexnet_nb.engine.core import Refusal
from alexnet_nb.engine.pictures import MOST_BYTES, open_picture, read_picture
from malformed import photo, png_chunk, saved

def pixels(data, name=''):
    im,note = open_picture(data, name)
    assert im.mode=='RGB'
    return np.asarray(im).astype(int), note

def refused(data):
    with pytest.raises(Exception) as e: open_picture(data)
    assert isinstance(e.value, (ValueError, OSError, SyntaxError, zlib.error)), repr(e.value)
    return str(e.value)

def textured(w=300, h=200):
    "A picture with so much in it that a JPEG has some bytes for each block"
    x = np.asarray(photo(w, h)).astype(int)+np.random.default_rng(0).integers(-25, 25, (h,w,3))
    return Image.fromarray(x.clip(0, 255).astype(np.uint8))

def png(x, size=None, lost=None):
    "A PNG whose compressed pixels are in pieces of 8 kB, one of which may be lost; its depth is that of `x`"
    h,w = x.shape[:2]
    rows = x.astype('>u2') if x.dtype.itemsize>1 else x
    stream = zlib.compress(b''.join(b'\0'+o.tobytes() for o in rows), 1)
    pieces = [stream[i:i+8192] for i in range(0, len(stream), 8192)]
    head = struct.pack('>IIBBBBB', w, h, 8*x.dtype.itemsize, 2 if x.ndim==3 else 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n'+png_chunk(b'IHDR', head)
            + b''.join(png_chunk(b'IDAT', o) for i,o in enumerate(pieces) if i!=lost)+png_chunk(b'IEND', b''))

# --- Broken streams

def test_png():
    "A lost, a flipped or a cut piece of a PNG, wherever it is"
    x = np.random.default_rng(0).integers(60, 200, (300,400,3), dtype=np.uint8)
    whole = png(x)
    assert (pixels(whole)[0]==x).all()
    n = whole.count(b'IDAT')
    assert n>20
    for i in range(n): refused(png(x, lost=i))
    for at in (45, 60, 5000, 200_000, len(whole)-20, len(whole)-30):
        flipped = bytearray(whole)
        flipped[at] ^= 0xff
        refused(bytes(flipped))
    refused(whole[:-20])
    assert (pixels(whole[:-12])[0]==x).all() # only its end is missing

def test_switch_of_others(monkeypatch):
    "Another library may have told Pillow to take pictures that are cut; here it is off, in every thread"
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    im = textured()
    files = [saved(im, o)[:9000] for o in ('JPEG','PNG','BMP','TIFF')]
    assert np.asarray(Image.open(io.BytesIO(files[0]))).shape==(200,300,3)
    left = []
    def work():
        for _ in range(5):
            for o in files:
                try: left.append(open_picture(o))
                except Exception: pass
    threads = [threading.Thread(target=work) for _ in range(4)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert not left and ImageFile.LOAD_TRUNCATED_IMAGES

kinds = [dict(quality=90), dict(quality=75, subsampling=0), dict(quality=85, optimize=True), dict(quality=90, progressive=True),
         dict(quality=90, restart_marker_blocks=25), dict(quality=90, restart_marker_rows=1)]

@pytest.mark.parametrize('kw', kinds, ids=str)
@pytest.mark.parametrize('mode', ['RGB','L','CMYK'])
def test_jpeg(kw, mode):
    "A JPEG that was cut, or lost much of its middle, with its end marker or without, is no picture; the whole one is"
    data = saved(textured().convert(mode), 'JPEG', **kw)
    want = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    for whole in (data, data+b'\0'*50+b'junk', data[:-2]+b'\xff'*7+data[-2:]): assert (pixels(whole)[0]==want).all()
    for end in (1, 2):
        x,note = pixels(data[:-end])
        assert (x==want).all() and note.startswith('no end marker')
    n = len(data)
    for share in (.3, .5, .7, .9):
        at = int(n*share)
        for damaged in (data[:at], data[:at]+b'\xff\xd9'): refused(damaged)
        x = None
        try: x,_ = pixels(data[:at]+data[at+n//20:]) # may leave as many pixels as before, but none that are grey
        except (ValueError, OSError): continue
        assert x.shape==want.shape and not (np.abs(x-128).max(-1)<=1)[-8:].all()

def test_jpegs_of_many_kinds():
    "No whole JPEG is refused: all sizes, qualities, codes, one colour or noise"
    r,g = random.Random(1),np.random.default_rng(1)
    for _ in range(400):
        w,h = r.choice([1,2,7,8,9,16,17,33,100]),r.choice([1,3,8,15,16,31,64])
        x = r.choice([np.full((h,w,3), r.choice([0,128,200])), g.integers(0, 256, (h,w,3)), np.add.outer(np.arange(h), np.arange(w))[...,None]*np.ones(3)%256])
        kw = dict(quality=r.choice([1,50,75,95,100]), subsampling=r.choice([0,1,2]), optimize=r.random()<.3, progressive=r.random()<.3)
        if r.random()<.3: kw[r.choice(['restart_marker_blocks','restart_marker_rows'])] = r.choice([1,2,5])
        data = saved(Image.fromarray(x.astype(np.uint8)).convert(r.choice(['RGB','L','CMYK'])), 'JPEG', **kw)
        assert (pixels(data)[0]==np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))).all(), (w, h, kw)

def test_other_formats():
    "What is cut is refused in every format, also JPEGs inside of a TIFF"
    im = textured()
    files = [saved(im, o) for o in ('GIF','BMP','PPM','WEBP','TIFF')]+[saved(im, 'WEBP', lossless=True)]
    files += [saved(im, 'TIFF', compression=o) for o in ('tiff_lzw','tiff_adobe_deflate','packbits','jpeg')]
    for data in files:
        pixels(data)
        for share in (.2, .5, .8): refused(data[:int(len(data)*share)])
    strips = saved(im, 'TIFF', compression='tiff_adobe_deflate')
    for at in (len(strips)//3, len(strips)//2): refused(strips[:at]+bytes(10)+strips[at+10:])
    strips = saved(im, 'TIFF', compression='jpeg')
    at = len(strips)//3
    for damaged in (strips[:at]+b'\0'*2000+strips[at+2000:], strips[:at]+b'\xff\xd9'*1000+strips[at+2000:]): refused(damaged)

# --- What is deep

def ramp(top, kind, colours=False):
    g = np.outer(np.ones(48), np.linspace(0, top, 64)).round().astype(kind)
    return np.stack([g]*3, -1) if colours else g

@pytest.mark.parametrize('top,bits', [(255,8), (1000,10), (4095,12), (16383,14), (65535,16)])
def test_bits(top, bits):
    "The highest value tells how many bits are in use; the upper eight of them are kept, in grey and in colours"
    said = f' with {bits} bits in use' if bits<16 else ''
    for data in (saved(Image.fromarray(ramp(top, np.uint16)), 'PNG'), saved(Image.fromarray(ramp(top, np.uint16)), 'TIFF'),
                 saved(Image.fromarray(ramp(top, np.int32)), 'TIFF')):
        x,note = pixels(data)
        assert (x[...,0]==ramp(top, int)>>(bits-8)).all() and note.endswith(said) and note.startswith('converted from I')
    x,note = pixels(png(ramp(top, np.uint16, colours=True)))
    assert (x==ramp(top, int, colours=True)>>(bits-8)).all() and ('bits in use' in note)==(bits<16)

def test_no_known_range():
    for x in (ramp(2**30, np.int32), ramp(70_000, np.int32), ramp(100, np.int32)-50):
        assert 'a range that is not known' in refused(saved(Image.fromarray(x), 'TIFF'))
    assert 'floating-point' in refused(saved(Image.fromarray(ramp(1, np.float32)), 'TIFF'))

# --- Turned, several, not read

@pytest.mark.parametrize('turn', range(1, 9))
def test_turned_once(turn):
    "The same orientation gives the same picture in each format that can hold one"
    x = np.zeros((48,64,3), np.uint8)
    x[:24,:32],x[:24,32:],x[24:,:32] = (255,0,0),(0,255,0),(0,0,255)
    exif = Image.Exif()
    exif[0x112] = turn
    want,note = pixels(saved(Image.fromarray(x), 'PNG', exif=exif))
    assert note==('turned upright' if turn>1 else '')
    for kind,kw in (('TIFF',{}), ('TIFF',dict(compression='tiff_lzw')), ('WEBP',dict(lossless=True))):
        found,said = pixels(saved(Image.fromarray(x), kind, exif=exif, **kw))
        assert found.shape==want.shape and (found==want).all() and said==note, kind
    found,said = pixels(saved(Image.fromarray(x), 'JPEG', quality=95, exif=exif))
    assert np.abs(found-want).mean()<4 and said==note

@pytest.mark.parametrize('kind', ['GIF','PNG','WEBP','TIFF'])
def test_first_of_several(kind):
    im = Image.new('RGB', (20,10), (200,30,60))
    x,note = pixels(saved(im, kind, save_all=True, append_images=[Image.new('RGB', (20,10), (0,0,250))]*2))
    assert note.endswith('first of several pictures') and np.abs(x-(200,30,60)).max()<6
    assert 'several' not in pixels(saved(im, kind))[1]

def test_not_read():
    for data,kind in ((b'\0\0\0\x20ftypavif', 'AVIF'), (b'\0\0\0\x18ftypheic', 'HEIC'), (b'\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000'),
                      (b'\xff\x4f\xff\x51\0', 'JPEG 2000'), (b'%PDF-1.4', 'PDF'), (b'\0\0\0\x0cJXL \r\n', 'JPEG XL')):
        assert 'cannot identify' in refused(data) and refused(data).endswith(f'{kind} is not read')
    for o in (None, 7, ['x']): assert 'not bytes' in refused(o)

# --- Limits

def claims(w, h, extra=b''):
    head = png_chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n'+head+extra+png_chunk(b'IDAT', zlib.compress(bytes(h*(3*w+1) if h*w<99 else 100)))+png_chunk(b'IEND', b'')

def test_limits():
    "A message says which limit it is"
    assert 'more than 89,478,485 pixels' in refused(claims(60_000, 60_000)) and '89,478,485' in refused(claims(10_000, 10_000))
    assert f'more than {MOST_BYTES:,} bytes' in refused(bytes(MOST_BYTES+1))
    bomb = zlib.compress(bytes(1<<25), 9)
    for kind in (b'zTXt', b'iCCP'): assert 'too large' in refused(claims(3, 3, png_chunk(kind, b'a\0\0'+bomb))).lower()
    inside = b'\x89PNG\r\n\x1a\n'+png_chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 2, 0, 0, 0))+png_chunk(b'IDAT', bomb)+png_chunk(b'IEND', b'')
    assert 'wrong length' in refused(inside)
    progressive = bytearray(saved(photo(), 'JPEG', progressive=True))
    at = progressive.find(b'\xff\xc2')
    progressive[at+5:at+9] = struct.pack('>HH', 9000, 9000)
    assert 'more than 44,739,242 pixels' in refused(bytes(progressive))
    jpeg = saved(photo(), 'JPEG')
    scan = progressive.rfind(b'\xff\xda')
    many = saved(photo(), 'JPEG', progressive=True)
    assert '211 scans' in refused(many[:-2]+many[scan:-2]*201+many[-2:])
    assert pixels(jpeg+b'\xff\xda'*999)[1]=='no end marker' # what follows a picture, such as a film, is not looked at
    assert pixels(saved(photo().resize((1,40_000)), 'PNG'))[0].shape==(40_000,1,3)

def test_reader(tmp_path):
    "By its name, whatever is wrong is one line that begins with it"
    for name,data in (('good.png', saved(photo(), 'PNG')), ('half.jpg', saved(textured(), 'JPEG')[:5000]), ('none.jpg', None), ('folder', None)):
        path = tmp_path/name
        if data: path.write_bytes(data)
        if name=='folder': path.mkdir()
        if name=='good.png': assert read_picture(path)[0].size==(96,72); continue
        with pytest.raises(Refusal) as e: read_picture(path)
        assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)
