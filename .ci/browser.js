// Questions to a page that stands in the browser. Each returns a list: what is wrong, one string for each place.
// Class names are those of Quarto; smalldocs uses the same.
window.ask = {}

const main = () => document.querySelector('main') ?? document.body
const all = (selector, from=document) => [...from.querySelectorAll(selector)]
const short = text => text.trim().replace(/\s+/g, ' ').slice(0, 70)
const name = e => [e.tagName.toLowerCase() + (e.id && '#'+e.id), ...[...e.classList].slice(0, 2)].join('.')
const top_of = e => e.getBoundingClientRect().top

// Text of prose and outputs, one string for each text node; `source` is left out, and whatever `but` names
function words(but) {
  const found = [], walk = document.createTreeWalker(main(), NodeFilter.SHOW_TEXT)
  while (walk.nextNode()) {
    const o = walk.currentNode
    if (o.data.trim() && !o.parentElement.closest('pre.sourceCode, script, style, annotation, '+but)) found.push(o.data)
  }
  return found
}
const matches = (texts, pattern) => texts.flatMap(o => o.match(pattern) ?? []).map(short)

ask.pictures = () => all('img').filter(o => !o.complete || !o.naturalWidth)
  .map(o => `not loaded: ${short(o.currentSrc || o.src || name(o))}`)

ask.mathematics = () => [
  ...all('.math').filter(o => !o.querySelector('.katex, mjx-container, math, svg'))
    .map(o => `not typeset: ${short(o.textContent)}`),
  ...all('.katex-error, merror, mjx-merror').map(o => `error: ${short(o.title || o.textContent)}`),
  ...matches(words('pre, code, .math, .katex, mjx-container, math'), /\$\$|\\[([]|\\(frac|sum|alpha|beta|times)\b/g)
    .map(o => `left in the text: ${o}`)]

// A table or figure that a cell made, with the line that names its card, begins in the first fifth of a chapter
ask.is_chapter = () => /^The paper\b/.test(document.querySelector('.breadcrumb-item')?.textContent.trim() ?? '')
const names_card = e => e && all('small', e).some(o => /nbs\/cards|alexnet_reproduce/.test(o.textContent))
ask.result = () => {
  if (!ask.is_chapter()) return []
  const shown = '.cell-output-display :is(table, img, svg)'
  const cells = all('.cell', main()).filter(o => o.querySelector(shown))
  const cell = cells.find(o => names_card(o) || names_card(o.nextElementSibling))
  if (!cell) return ['no table or figure with a line that names its card']
  const at = (top_of(cell.querySelector(shown))-top_of(main())) / main().offsetHeight
  return at<=.2 ? [] : [`the first result stands at ${Math.round(100*at)} % of the page`]
}

// A function is documented once, and its source is not open beside its documentation
ask.twice = () => {
  const bad = [], documented = new Set(), sources = new Map()
  for (const pre of all('pre', main())) {
    if (pre.closest('.cell-output, details:not([open])')) continue
    const defined = pre.textContent.matchAll(/^(?:async )?(?:def|class) (\w+)(?:\(self:\s*(\w+))?.*$/gm)
    for (const [line,def,owner] of defined) {
      const key = owner ? `${owner}.${def}` : def
      if (sources.get(key)===line) bad.push(`source of ${key}, two times`)
      sources.set(key, line)
    }
  }
  for (const pre of all('.cell-output-display pre', main())) {
    if (!/^\s*(async )?(def|class) \w/.test(pre.textContent)) continue
    const heading = all('h2, h3, h4, h5', pre.closest('.cell-output-display'))[0]
    const key = (heading?.textContent ?? pre.textContent.match(/(?:def|class) (\w+)/)[1]).trim()
    if (documented.has(key)) bad.push(`documentation of ${key}, two times`)
    documented.add(key)
    const shown = [key, key.split('.')[0]].find(o => sources.has(o))
    if (shown) bad.push(`documentation and source of ${key}`)
  }
  return bad
}

ask.litter = () => [
  ...matches(words('script'), RegExp([
    /\d+%\|/, /\d\d:\d\d<[\d?]/, /\d\s?(it\/s|s\/it)\b/, /\x1b\[/,                    // progress bars, colours
    /Call self as a function/, /<[\w.]+ object at 0x[0-9a-f]+>/, /<Figure size [^>]*>/,   // what nobody wrote
    /\w*Warning: .*/, /Traceback \(most recent call last\)/, /\?@\w+-[\w-]+/,             // what went wrong
  ].map(o => o.source).join('|'), 'g')),
  ...matches(words('pre, code, .math, .katex, mjx-container'), /\[[^\]\n]+\]\([^)\s]+\)|\*\*\w[^*\n]*\*\*/g)
    .map(o => `raw Markdown: ${o}`)]

ask.paths = () => [
  ...matches([main().textContent], /(?<![\w.~/:-])\/(home|root|tmp|Users|work)\/\S*|\b[A-Z]:\\Users\S*/g),
  ...all('[href^="file:"], [src^="file:"]').map(o => o.getAttribute('href') ?? o.getAttribute('src'))]

// Source, or what a cell printed, by lines that do not fit: they wrap, or their box has to be scrolled
function lines(fits_too) {
  const blocks = all('pre', main()).map(o => ({pre:o, height:o.offsetHeight})).filter(o => o.height)
  const sheet = new CSSStyleSheet()
  sheet.replaceSync('pre, pre * { white-space: pre !important }')
  document.adoptedStyleSheets.push(sheet)
  const bad = []
  for (const {pre,height} of blocks) {
    const style = getComputedStyle(pre), padding = parseFloat(style.paddingLeft), range = document.createRange()
    range.selectNodeContents(pre)
    const room = pre.clientWidth - padding - parseFloat(style.paddingRight)
    const width = range.getBoundingClientRect().right - pre.getBoundingClientRect().left - pre.clientLeft - padding
    const wraps = height > pre.offsetHeight+2
    if (!wraps && !(fits_too && width>room+1)) continue
    const text = pre.innerText.split('\n'), longest = Math.max(...text.map(o => o.length))
    const fit = Math.floor(room/(width/longest) + .01), long = text.filter(o => o.length>fit)
    for (const o of long.length ? long : [text[0]])
      bad.push({pre, text:`${o.length} characters where ${fit} fit: ${short(o)}`})
  }
  document.adoptedStyleSheets.pop()
  return bad
}
const printed = pre => pre.closest('.cell-output') && !/^\s*(async )?(def|class) \w/.test(pre.textContent)
ask.code = () => lines(true).filter(o => !printed(o.pre)).map(o => o.text)
ask.output = () => lines(true).filter(o => printed(o.pre)).map(o => o.text)
ask.phone_code = () => lines(false).filter(o => !printed(o.pre)).map(o => `wraps: ${o.text}`)

// The page can be moved sideways, or something is cut off at its right edge; boxes that scroll are right
const holds = e => {
  const overflow = getComputedStyle(e).overflowX
  return /auto|scroll/.test(overflow) || e.clientWidth<=1 && overflow!='visible' // the latter is only read aloud
}
ask.wide = () => {
  const room = document.documentElement.clientWidth, page = document.documentElement.scrollWidth
  const bad = page>room ? [`the page is ${page} px wide`] : []
  const out = new Set()
  for (const e of document.body.querySelectorAll('*:not(svg *)')) {
    if (out.has(e.parentElement)) { out.add(e); continue }
    const r = e.getBoundingClientRect()
    if (!r.width || r.right<=room+1 || !e.checkVisibility({visibilityProperty:true})) continue
    let box = e.parentElement
    while (box && !holds(box)) box = box.parentElement
    if (box && box!=document.body && box!=document.documentElement) continue
    out.add(e)
    bad.push(`${name(e)} ends at ${Math.round(r.right)} px: ${short(e.textContent)}`)
  }
  return bad
}

// The button for the theme is pressed, as a reader does
const is_dark = () => getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3).every(o => o < 128)
async function turn(dark) {
  const button = document.querySelector('.quarto-color-scheme-toggle')
  if (!button) return ['no button for a dark theme']
  button.click()
  const wait = ms => new Promise(o => setTimeout(o, ms))
  const done = () => is_dark()===dark && all('link[rel=stylesheet]').every(o => o.sheet)
  for (let i = 0; i<40 && !done(); i++) await wait(50)
  await wait(100) // the page's own script has seen it too, and changed the colours of code
  return is_dark()===dark ? [] : [`the button leaves the background ${dark ? 'light' : 'dark'}`]
}
ask.dark = () => turn(true)
ask.light = () => turn(false)

ask.unfold = () => { all('details').forEach(o => o.open = true); return [] }
ask.header_alone = () => { document.querySelector('#quarto-content')?.remove(); return [] }

// Code comes in few colours: where all kinds of words in a block have been looked at in another, its words are left out
function seen_code() {
  const seen = new Set()
  return all('pre > code', main()).filter(o => {
    const kinds = [o, ...all('span', o)].map(e => e.className + (o.closest('.cell-output') ? ', printed' : ''))
    const none = kinds.every(k => seen.has(k))
    kinds.forEach(k => seen.add(k))
    return none
  })
}
ask.axe = async rules => {
  const exclude = seen_code(), options = {resultTypes:['violations'], preload:false, ...(rules && {runOnly:rules})}
  const found = await axe.run({include:[document.documentElement], ...(exclude.length && {exclude})}, options)
  const bad = found.violations.filter(o => ['serious', 'critical'].includes(o.impact))
  const ratio = n => n.any[0]?.data?.contrastRatio ? ` (${n.any[0].data.contrastRatio}:1)` : ''
  return bad.flatMap(o => o.nodes.map(n => `${o.id}: ${n.target.flat().join(' ').slice(-80)}${ratio(n)}`))
}
