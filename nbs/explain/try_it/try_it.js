// The network in the page. A picture becomes a square, ONNX Runtime Web computes the rest; nothing leaves the browser.
// Each result is also an event `computed` of #try-it, for whoever wants the numbers.

const here = new URL('./', import.meta.url)
const settings = [
  {name: 'As trained', norm: true, columns: [1, 1]},
  {name: 'Response normalization off', norm: false, columns: [1, 1]},
  {name: 'Column a off', norm: true, columns: [0, 1]},
  {name: 'Column b off', norm: true, columns: [1, 0]},
]
const corners = ['top left', 'top right', 'bottom left', 'bottom right', 'centre']
const centre = 4

class Sentence extends Error {} // What is said to the reader as it stands

// --- Elements

// An element: `make('p', {className: 'x'}, 'text', other)`
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}

// A canvas that shows pixels; `said` is for those who do not see it
function paint(pixels, said, scale = 1) {
  const canvas = make('canvas', {width: pixels.width, height: pixels.height})
  canvas.setAttribute('role', 'img')
  canvas.setAttribute('aria-label', said)
  canvas.style.width = `${pixels.width*scale}px`
  canvas.getContext('2d').putImageData(pixels, 0, 0)
  return canvas
}

function percent(x) { return `${(100*x).toFixed(1)} %` }

function figure(caption, ...children) {
  return make('figure', {}, make('figcaption', {textContent: caption}), ...children)
}

// A table; the first cell of a row is its head, cells that are numbers stand on the right
function table(caption, heads, rows) {
  const head = make('tr', {}, ...heads.map(o => make('th', {scope: 'col', textContent: o})))
  const body = rows.map(([first, ...rest]) => make('tr', {},
    make('th', {scope: 'row', textContent: first}),
    ...rest.map(o => o instanceof Node ? make('td', {}, o)
                                       : make('td', {textContent: o, className: o.endsWith('%') ? 'number' : ''}))))
  return make('div', {className: 'try-wide'}, make('table', {}, make('caption', {textContent: caption}),
                                                 make('thead', {}, head), make('tbody', {}, ...body)))
}

// --- From a picture to a square

// The central square of a picture, `side` pixels wide, as the browser scales it
async function cutSquare(blob, side) {
  let picture
  try { picture = await createImageBitmap(blob) }
  catch { throw new Sentence('This browser cannot read that file as a picture.') }
  const short = Math.min(picture.width, picture.height)
  const canvas = make('canvas', {width: side, height: side})
  const context = canvas.getContext('2d', {willReadFrequently: true})
  context.imageSmoothingQuality = 'high'
  context.fillStyle = 'white' // behind what is transparent
  context.fillRect(0, 0, side, side)
  context.drawImage(picture, (picture.width-short)/2, (picture.height-short)/2, short, short, 0, 0, side, side)
  picture.close()
  return context.getImageData(0, 0, side, side)
}

// RGB bytes, row by row
function toBytes(pixels) {
  const bytes = new Uint8Array(pixels.width*pixels.height*3)
  for (let i = 0; i < bytes.length; i++) bytes[i] = pixels.data[Math.floor(i/3)*4 + i%3]
  return bytes
}

// View i of a square: four corners and the centre, then the same mirrored
function cutView(square, size, i) {
  const end = square.width-size, middle = Math.floor(end/2)
  const [top, left] = [[0, 0], [0, end], [end, 0], [end, end], [middle, middle]][i%5]
  const view = new ImageData(size, size)
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const from = (top+y)*square.width + left + (i < 5 ? x : size-1-x)
      view.data.set(square.data.subarray(4*from, 4*from+4), 4*(y*size+x))
    }
  return view
}

// --- The network

async function read(name) {
  const answer = await fetch(new URL(name, here)).catch(() => undefined)
  if (!answer?.ok) throw new Sentence(`The network could not be loaded: ${name} is missing, or there is no connection.`)
  return answer
}

// The runtime and the network, which are loaded when the first picture is chosen
async function load() {
  if (typeof WebAssembly !== 'object')
    throw new Sentence('This browser has no WebAssembly, or has it switched off, so the network cannot run here.')
  let ort
  try { ort = await import(new URL('ort.wasm.bundle.min.mjs', here)) }
  catch { throw new Sentence('ONNX Runtime Web is not in this copy of the site, so the network cannot run here.') }
  ort.env.wasm.numThreads = 1
  ort.env.wasm.wasmPaths = {wasm: new URL('ort-wasm-simd-threaded.wasm', here).href}
  const [about, bytes] = await Promise.all([read('network.json').then(o => o.json()),
                                            read('network.onnx').then(o => o.arrayBuffer())])
  const session = await ort.InferenceSession.create(new Uint8Array(bytes), {executionProviders: ['wasm']})
  return {ort, session, ...about}
}

let loading
function network() {
  loading ??= load()
  loading.catch(() => { loading = undefined }) // the next picture tries again
  return loading
}

// All settings for a square: logits of the ten views, mean probabilities, kernels and responses of conv1
async function compute({ort, session, side}, square) {
  const input = new ort.Tensor('uint8', toBytes(square), [side, side, 3])
  const results = []
  for (const {norm, columns} of settings) {
    const feeds = {square: input, norm: new ort.Tensor('bool', [norm], []),
                   columns: new ort.Tensor('float32', columns, [2])}
    const outputs = await session.run(feeds)
    results.push(Object.fromEntries(Object.entries(outputs).map(([k, o]) => [k, {data: o.data, dims: o.dims}])))
  }
  return results
}

// Numbers of the classes, the most likely first
function rank(probabilities) { return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]) }

// --- What is shown

function showTop5(net, {probabilities}) {
  const p = probabilities.data
  const rows = rank(p).slice(0, 5).map(i => {
    const bar = make('div', {className: 'try-bar'})
    bar.style.width = `${100*p[i]}%`
    const track = make('div', {className: 'try-track', ariaHidden: 'true'}, bar)
    return [net.classes[i], make('div', {className: 'try-share'}, track, percent(p[i]))]
  })
  return table('The five classes with the highest mean probability of ten views', ['class', 'probability'], rows)
}

function showSettings(net, results) {
  const first = rank(results[0].probabilities.data)[0]
  const rows = settings.map(({name}, i) => {
    const p = results[i].probabilities.data, best = rank(p)[0]
    return [name, net.classes[best], percent(p[best]), percent(p[first])]
  })
  return table('What changes', ['network', 'first guess', 'probability', `of “${net.classes[first]}”`], rows)
}

function showViews(net, square, {logits}) {
  const n = net.classes.length
  const shown = Array.from({length: 10}, (_, i) => {
    const guess = net.classes[rank(logits.data.subarray(i*n, (i+1)*n))[0]]
    const name = corners[i%5] + (i < 5 ? '' : ', mirrored')
    return figure(`${name}: ${guess}`, paint(cutView(square, net.size, i), `View ${i+1}, ${name}`))
  })
  return make('div', {className: 'try-row'}, ...shown)
}

// Kernel i, stretched so that its largest weight is black or white and zero is grey
function kernelPixels({data, dims}, i) {
  const [, , k] = dims, size = k*k, weights = data.subarray(3*size*i, 3*size*(i+1))
  const most = weights.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-30)
  const pixels = new ImageData(k, k)
  for (let p = 0; p < size; p++)
    pixels.data.set([0, 1, 2].map(c => 127.5 + 127.5*weights[c*size+p]/most).concat(255), 4*p)
  return pixels
}

function responsePixels({data, dims}, i, most) {
  const side = dims[3], pixels = new ImageData(side, side)
  for (let p = 0; p < side*side; p++) {
    const grey = 255*data[i*side*side+p]/most
    pixels.data.set([grey, grey, grey, 255], 4*p)
  }
  return pixels
}

function showConv1({kernels, responses}) {
  const n = kernels.dims[0], most = responses.data.reduce((a, b) => Math.max(a, b), 1e-30)
  const shown = ['a', 'b'].map((column, c) => {
    const pairs = Array.from({length: n/2}, (_, j) => {
      const i = c*n/2 + j
      return make('div', {className: 'try-pair'}, paint(kernelPixels(kernels, i), `Kernel ${i+1}`, 4),
                  paint(responsePixels(responses, i, most), `Response of kernel ${i+1}`, 2))
    })
    return figure(`Column ${column}`, make('div', {className: 'try-row'}, ...pairs))
  })
  const said = `Each kernel stands above its response to the centre view. Black is 0, white is ${most.toFixed(1)}.`
  return make('div', {}, make('p', {textContent: said}), ...shown)
}

// --- The page

function start(root) {
  const status = make('p', {className: 'try-status'})
  status.setAttribute('role', 'status')
  const file = make('input', {type: 'file', accept: 'image/*', id: 'try-file'})
  const label = make('label', {htmlFor: 'try-file'}, 'Choose a picture of yours, or drop one into this box:')
  const drawn = root.dataset.drawn.split(' ').map(name => {
    const image = make('img', {src: new URL(`${name}.png`, here).href, alt: '', width: 72, height: 72})
    const button = make('button', {type: 'button'}, image, make('span', {textContent: name}))
    button.addEventListener('click', () => take(() => read(`${name}.png`).then(o => o.blob()), `the drawn ${name}`))
    return button
  })
  const box = make('div', {className: 'try-box'}, make('p', {textContent: 'Take a picture that our own program drew:'}),
                   make('div', {className: 'try-row'}, ...drawn), make('div', {className: 'try-own'}, label, file))
  const results = make('div', {hidden: true})
  root.replaceChildren(box, status, results)

  let last = 0, chosen = 0 // number of the newest picture; number of the setting
  async function take(getBlob, name) {
    const mine = ++last
    status.textContent = loading ? 'Computing …' : 'Loading the network and ONNX Runtime, once …'
    const began = performance.now()
    try {
      const net = await network()
      const square = await cutSquare(await getBlob(), net.side)
      const computing = performance.now()
      const computed = await compute(net, square)
      if (mine !== last) return // a newer picture was chosen meanwhile
      show(net, square, computed, name)
      const now = performance.now()
      status.textContent = `Computed ${name} in ${Math.round(now-computing)} ms: ten views, four networks. `
        + `First guess: ${net.classes[rank(computed[0].probabilities.data)[0]]}.`
      root.dispatchEvent(new CustomEvent('computed', {detail: {results: computed, milliseconds: now-began}}))
    } catch (error) {
      if (mine !== last) return
      results.hidden = true
      status.textContent = error instanceof Sentence ? error.message : `The network could not run: ${error.message}`
    }
  }

  function show(net, square, computed, name) {
    const part = make('div', {})
    const choices = settings.map((setting, i) => {
      const radio = make('input', {type: 'radio', name: 'try-setting', checked: i === chosen})
      radio.addEventListener('change', () => { chosen = i; update() })
      return make('label', {}, radio, ` ${setting.name}`)
    })
    function update() {
      const result = computed[chosen]
      part.replaceChildren(showTop5(net, result),
        make('h3', {textContent: 'Ten views'}), showViews(net, square, result),
        make('h3', {textContent: 'What conv1 computes'}), showConv1(result))
      reachWide()
    }
    // What scrolls sideways can be reached with the keyboard
    function reachWide() {
      for (const box of results.querySelectorAll('.try-wide')) box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1
    }
    const picture = figure(`The square of ${net.side} pixels`, paint(square, `The square: ${name}`, 2))
    const choice = make('fieldset', {}, make('legend', {textContent: 'Compute with the network'}), ...choices)
    results.replaceChildren(make('div', {className: 'try-top'}, picture, showSettings(net, computed)), choice, part)
    results.hidden = false
    update()
  }

  file.addEventListener('change', () => {
    const [picture] = file.files
    if (picture) take(async () => picture, 'your picture')
  })
  box.addEventListener('dragover', event => { event.preventDefault(); box.classList.add('over') })
  box.addEventListener('dragleave', () => box.classList.remove('over'))
  box.addEventListener('drop', event => {
    event.preventDefault()
    box.classList.remove('over')
    const [picture] = event.dataTransfer.files
    if (picture) take(async () => picture, 'your picture')
    else status.textContent = 'What was dropped is no file. Save the picture first, then drop the file.'
  })
}

start(document.getElementById('try-it'))
