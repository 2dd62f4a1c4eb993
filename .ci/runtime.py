"""Put ONNX Runtime Web beside the page explain/try_it of the site in this folder; Quarto runs this before it renders"""
import runpy, shutil
from pathlib import Path

VERSION = '1.30.0'
SHA512 = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='
FILES = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'

def put_runtime(
    folder, # Where the page's script looks for it
)->str:     # Why it could not be had, or ''
    "Copy the files of the pinned version; without them the page says that they are missing"
    unpack = runpy.run_path(Path(__file__).with_name('npm.py'))['unpack']
    try: package = unpack('onnxruntime-web', VERSION, SHA512)
    except OSError as e: return f'ONNX Runtime Web cannot be had: {e}'
    for o in FILES: shutil.copy(package/'dist'/o, folder)
    return ''

if __name__=='__main__': print(put_runtime(Path('explain/try_it')) or 'ONNX Runtime Web is there')
