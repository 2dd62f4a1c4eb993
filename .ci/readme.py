"""Make README.md from nbs/index.ipynb, and nbs/llms.txt (what the site holds, for programs that read it) from the
sidebar and the titles of all pages, without Quarto and without running anything.

Shown: Markdown cells, code without its `#|` lines, and the outputs that the notebook holds (Markdown as it
is, text as an indented block, a drawing as two SVG files, a picture as a link to the notebook, named by its
fig-cap). Not shown, as on
the page: cells marked hide or include: false, code of echo: false, outputs of output: false; nor stderr."""
import argparse, json, re, sys
from pathlib import Path

repo = Path(__file__).resolve().parents[1]
src, dst = repo/'nbs'/'index.ipynb', repo/'README.md'
note = '<!-- made from nbs/index.ipynb by .ci/readme.py -->'
hidden = {'hide', 'default_exp', 'export', 'exporti'}

def text(o): return o if isinstance(o, str) else ''.join(o)
def indented(s): return '\n'.join('    '+o if o else '' for o in s.rstrip().splitlines())

def directives(
    source:str,  # Source of a code cell
)->tuple:        # `#|` options of the cell, and the code below them
    "Part the `#|` lines at the top of a cell from its code"
    opts, lines = {}, source.splitlines()
    while lines and (m := re.match(r'\s*#\s*\|\s*([\w-]+):?\s*(.*)', lines[0])):
        opts[m[1]] = m[2].strip().strip('"\'')
        lines.pop(0)
    lines = [o for o in lines if not re.search(r'#\|\s*hide_line\s*$', o)]
    return opts, '\n'.join(lines).strip()

def markdown(
    source:str,  # Source of a Markdown cell
    first:bool,  # Is it the title cell?
)->str:          # The same for a plain Markdown reader
    "Drop what only nbdev and Quarto read: settings in the title cell, `:::` lines, headings ending in a dash"
    lines = [o for o in source.splitlines() if not o.startswith(':::') and not re.match(r'#+ .* -\s*$', o)]
    if first: lines = [o for o in lines if not re.match(r'- [\w-]+:', o)]
    return re.sub(r'\]\((?!\w+:|/|#)([^)\s]+\.ipynb)', r'](nbs/\1', '\n'.join(lines)).strip()

def drawing(
    svg:str,  # As a page holds it; its lines have the colour of the text around it
)->dict:      # {theme: text of a file}
    "A picture for each background, which stands alone"
    svg = re.sub(r' style="[^"]*"', '', svg, count=1)
    return {k:svg.replace('currentColor', v) for k,v in dict(light='#1f2328', dark='#e6edf3').items()}

def output(
    out:dict,    # One stored output
    opts:dict,   # Options of its cell
    files:dict,  # {path: text}, where drawings are put
)->str:          # Markdown, empty if there is nothing to show
    "Write one output as Markdown"
    if out['output_type']=='error': sys.exit(f"{src.name} holds an error: {out['ename']}: {out['evalue']}")
    if out['output_type']=='stream': return indented(text(out['text'])) if out['name']=='stdout' else ''
    data = out['data']
    if 'text/markdown' in data: return text(data['text/markdown']).strip()
    if m := re.search(r'<svg.*?</svg>\n?', text(data.get('text/html', '')), re.S):
        name, alt = opts['label'], opts['fig-alt']
        files |= {repo/'nbs'/f'{name}-{k}.svg': v for k,v in drawing(m[0]).items()}
        return (f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="nbs/{name}-dark.svg">\n'
                f'<img src="nbs/{name}-light.svg" alt="{alt}">\n</picture>')
    if any(o.startswith('image/') for o in data):
        cap = opts.get('fig-cap') or sys.exit(f'{src.name}: a picture needs a `#| fig-cap:` to be linked by')
        return f'[Figure: {cap}](nbs/{src.name})'
    return indented(text(data.get('text/plain', '')))

def render(
    nb:dict,     # The notebook, as read from its file
    files:dict,  # {path: text}, where drawings are put
)->str:          # Text of README.md
    "Turn a notebook into Markdown"
    parts = [note]
    for i, cell in enumerate(nb['cells']):
        source = text(cell['source'])
        if cell['cell_type']=='markdown': parts.append(markdown(source, i==0))
        if cell['cell_type']!='code': continue
        opts, code = directives(source)
        if hidden & opts.keys() or opts.get('include')=='false': continue
        if code and opts.get('echo')!='false': parts.append(f'```python\n{code}\n```')
        if opts.get('output')!='false': parts += [output(o, opts, files) for o in cell['outputs']]
    return '\n\n'.join(o for o in parts if o) + '\n'

def overview()->str: # Text of llms.txt
    "One line for each page: title, address, subtitle"
    import yaml # not there yet where --block is asked for the commands that install
    site = yaml.safe_load((repo/'nbs'/'nbdev.yml').read_text(encoding='utf-8'))['website']
    bar = yaml.safe_load((repo/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']
    lines = [f"# {site['title']}", '', f"> {site['description']}"]
    for part in bar['contents']:
        if 'section' not in part: continue
        lines += ['', f"## {part['section']}", '']
        for file in part['contents']:
            first = text(json.loads((repo/'nbs'/file).read_text(encoding='utf-8'))['cells'][0]['source'])
            title, about = re.match(r'# (.*)\n+> (.*)', first).groups()
            page = re.sub(r'(^|/)\d+[a-z]*_', r'\1', file).replace('.ipynb', '.html')
            lines.append(f"- [{title}]({site['site-url']}/{page}): {about}")
    return '\n'.join(lines) + '\n'

def block(
    name:str,  # `test` or `run`
)->str:        # The commands
    "The fenced sh block that follows the line `<!-- name -->` in README.md"
    readme = dst.read_text(encoding='utf-8')
    m = re.search(rf'^<!-- {re.escape(name)} -->\n+```sh\n(.*?)^```$', readme, re.M|re.S)
    return m[1].strip() if m else sys.exit(f'README.md has no ```sh block after a line <!-- {name} -->')

def main():
    p = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 if one is out of date')
    p.add_argument('--block', metavar='NAME', help='print the commands below the line <!-- NAME -->')
    args = p.parse_args()
    if args.block: return print(block(args.block))
    if not src.exists(): sys.exit(f'no {src.relative_to(repo)}')
    made = {repo/'nbs'/'llms.txt': overview()}
    made[dst] = render(json.loads(src.read_text(encoding='utf-8')), made)
    for path,new in made.items():
        old = path.read_text(encoding='utf-8') if path.exists() else ''
        if args.check and new!=old: sys.exit(f'{path.relative_to(repo)} is out of date: run python .ci/readme.py')
        if new!=old: path.write_text(new, encoding='utf-8')

if __name__=='__main__': main()
