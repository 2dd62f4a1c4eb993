"Files as they are found in the wild: `files()` makes them, each with what must become of it"
import io, struct, zlib
import numpy as np
from PIL import Image, ImageOps

def saved(im, kind, **kw):
    im.save(f := io.BytesIO(), kind, **kw)
    return f.getvalue()

def photo(w=96, h=72):
    "A smooth picture with many colours"
    y,x = np.mgrid[:h,:w]/max(w,h)
    return Image.fromarray((255*np.stack([x, y, 1-x*y], -1)).clip(0, 255).astype(np.uint8))

def with_exif(jpeg, body):
    "A JPEG with an APP1 block that holds `body`"
    seg = b'\xff\xe1'+struct.pack('>H', len(body)+2)+body
    return jpeg[:2]+seg+jpeg[2:]

def orientation(im, n):
    e = Image.Exif()
    e[0x112] = n
    return saved(im, 'JPEG', exif=e, quality=95)

def ycck(im):
    "A JPEG of four colours whose Adobe marker says YCCK"
    ycc = 255-np.asarray(ImageOps.invert(im).convert('YCbCr'))  # such files hold their colours inverted
    data = bytearray(saved(Image.fromarray(np.dstack([ycc, ycc[...,0]*0]), 'CMYK'), 'JPEG', quality=95))
    i = data.find(b'Adobe')
    if i>=0: data[i+11] = 2  # the colour transform: 2 is YCCK
    return bytes(data)

def png_chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))

def png_claims(w, h):
    "A PNG of a few bytes that claims to be of w x h pixels"
    return (b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0))
            + png_chunk(b'IDAT', zlib.compress(bytes(1000))) + png_chunk(b'IEND', b''))

def jpeg_claims(jpeg, w, h):
    "The same JPEG with another size in its header"
    i = jpeg.find(b'\xff\xc0')
    return jpeg[:i+5]+struct.pack('>HH', h, w)+jpeg[i+9:]

def files():
    "[(name, bytes, outcome)]: outcome is '' for a file to take as it is, else 'repaired: …' or 'refused: …'"
    im,grey = photo(),photo().convert('L')
    jpg = saved(im, 'JPEG', quality=90)
    prog = saved(im, 'JPEG', quality=90, progressive=True)
    rgba = im.convert('RGBA')
    rgba.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16)*257)
    pal = im.quantize(32)
    return [
        ('plain.JPEG', jpg, ''),
        ('progressive.JPEG', prog, ''),
        ('grey.JPEG', saved(grey, 'JPEG'), ''),
        ('best quality, no subsampling.JPEG', saved(im, 'JPEG', quality=100, subsampling=0), ''),
        ('with spaces and (brackets) & more.JPEG', jpg, ''),
        ('grüße_画像_🐟.JPEG', jpg, ''),
        ('no_ending', jpg, ''),
        ('upper.JPG', jpg, ''),
        ('.hidden.JPEG', b'never looked at', None),
        ('trailing_garbage.JPEG', jpg+b'\0'*100+b'junk', ''),
        ('comment.JPEG', jpg[:2]+b'\xff\xfe\0\x08hello!'+jpg[2:], ''),
        ('icc_profile.JPEG', saved(im, 'JPEG', icc_profile=b'not a profile'), ''),
        ('tiny_1x1.JPEG', saved(im.resize((1,1)), 'JPEG'), 'repaired: enlarged from 1x1'),
        ('long_20000x10.JPEG', saved(photo().resize((20000,10)), 'JPEG'), 'repaired: enlarged from 20000x10'),
        ('tall_3x4000.png', saved(photo().resize((3,4000)), 'PNG'), 'repaired: enlarged from 3x4000'),
        ('cmyk.JPEG', saved(im.convert('CMYK'), 'JPEG', quality=95), 'repaired: converted from CMYK'),
        ('ycck.JPEG', ycck(im), 'repaired: converted from CMYK'),
        ('png.JPEG', saved(im, 'PNG'), 'repaired: is a PNG'),
        ('gif.JPEG', saved(pal, 'GIF'), 'repaired: is a GIF'),
        ('bmp.JPEG', saved(im, 'BMP'), 'repaired: is a BMP'),
        ('tiff.JPEG', saved(im, 'TIFF'), 'repaired: is a TIFF'),
        ('jpeg.png', jpg, 'repaired: is a JPEG'),
        ('animated.gif', saved(pal, 'GIF', save_all=True, append_images=[pal.rotate(90)]*3), 'repaired: converted from P'),
        ('palette.png', saved(pal, 'PNG'), 'repaired: converted from P'),
        ('palette_transparent.png', saved(pal, 'PNG', transparency=3), 'repaired: converted from P'),
        ('bilevel.png', saved(grey.convert('1'), 'PNG'), 'repaired: converted from 1'),
        ('alpha.png', saved(rgba, 'PNG'), 'repaired: converted from RGBA'),
        ('grey_alpha.png', saved(rgba.convert('LA'), 'PNG'), 'repaired: converted from LA'),
        ('sixteen_bits.png', saved(deep, 'PNG'), 'repaired: converted from I;16'),
        ('sixteen_bits.tif', saved(deep, 'TIFF'), 'repaired: converted from I;16'),
        ('lab.tif', saved(Image.merge('LAB', im.split()), 'TIFF'), 'repaired: converted from LAB'),
        ('float.tif', saved(grey.convert('F'), 'TIFF'), 'refused: floating-point'),
        *[(f'orientation_{n}.JPEG', orientation(im, n), 'repaired: turned upright') for n in range(2, 9)],
        ('orientation_1.JPEG', orientation(im, 1), ''),
        ('orientation_99.JPEG', orientation(im, 99), ''),
        ('exif_cut.JPEG', with_exif(jpg, b'Exif\0\0II*\0\x08\0\0\0\xff\xff'), ''),
        ('exif_nonsense.JPEG', with_exif(jpg, b'Exif\0\0garbage, no TIFF header'), ''),
        ('exif_empty.JPEG', with_exif(jpg, b'Exif\0\0'), ''),
        ('one_byte_short.JPEG', jpg[:-1], 'repaired: no end marker'),
        ('progressive_one_byte_short.JPEG', prog[:-1], 'repaired: no end marker'),
        ('ten_bytes_short.JPEG', jpg[:-10], 'refused: truncated'),
        ('end_marker_lost.JPEG', jpg[:-2], 'repaired: no end marker'),
        ('cut_in_half.JPEG', jpg[:len(jpg)//2], 'refused: truncated'),
        ('progressive_cut.JPEG', prog[:len(prog)//2], 'refused: broken data stream'),
        ('header_only.JPEG', jpg[:20], 'refused:'),
        ('png_cut.png', saved(im, 'PNG')[:900], 'refused:'),
        ('png_bad_checksum.png', saved(im, 'PNG').replace(b'IDAT', b'IDAX', 1), 'refused:'),
        ('gif_cut.gif', saved(pal, 'GIF')[:300], 'refused:'),
        ('empty.JPEG', b'', 'refused: empty file'),
        ('zeros.JPEG', bytes(5000), 'refused: cannot identify'),
        ('html.JPEG', b'<!DOCTYPE html><html>404 Not Found</html>', 'refused: cannot identify'),
        ('text.JPEG', b'keine Bilddatei\n', 'refused: cannot identify'),
        ('pdf.JPEG', b'%PDF-1.4\n1 0 obj\n', 'refused: cannot identify'),
        ('postscript.JPEG', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n', 'refused: cannot identify'),
        ('svg.JPEG', b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'refused: cannot identify'),
        ('bomb_50000x50000.png', png_claims(50_000, 50_000), 'refused: pixels'),
        ('bomb_12000x12000.png', png_claims(12_000, 12_000), 'refused: pixels'),
        ('bomb_65000x65000.JPEG', jpeg_claims(jpg, 65_000, 65_000), 'refused: pixels'),
        ('claims_more_rows.JPEG', jpeg_claims(jpg, 96, 720), 'refused: pixels are missing'),
        ('zero_size.JPEG', jpeg_claims(jpg, 0, 0), 'refused:'),
        ('notes.txt', b'remember to relabel these', 'refused: cannot identify'),
    ]
