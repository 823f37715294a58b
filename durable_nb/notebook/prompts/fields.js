// The fields of one prompt's form, made from a JSON schema. Text from users and runs is set through textContent or
// .value, never as HTML.
(ask => {
  'use strict'
  const LONG = 80 // characters above which a text gets a field with several lines
  const ROWS = [3, 12] // minimum and maximum lines of such a field
  const DEEPEST = 50 // references that lead from one to the next
  const MOST = 1000 // fields; what comes after them is typed as JSON

  let counter = 0
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
      else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? '' : value)
    }
    made.append(...children.filter(child => child !== undefined))
    return made
  }
  const button = (text, kind, onclick) =>
    element('button', { type: 'button', class: `jp-mod-styled ${kind}`, onclick }, text)

  // ---- fields: each has a node, read() for its value, and fail() to show a problem ----

  const resolve = (schema, depth = 0) => {
    if (depth > DEEPEST) return {}
    if (schema.$ref) {
      const found = schema.$ref.split('/').slice(1).reduce((at, key) => at?.[key], ask.schema)
      return { ...resolve(found ?? {}, depth + 1), title: undefined, ...schema, $ref: undefined } // not the type's own title
    }
    if (schema.allOf?.length === 1) return { ...resolve(schema.allOf[0], depth + 1), ...schema, allOf: undefined }
    return schema
  }

  // Split "a type or null" into the type and whether it is nullable; an empty nullable field means null.
  const withoutNull = schema => {
    if (Array.isArray(schema.type) && schema.type.length === 2 && schema.type.includes('null')) {
      return [{ ...schema, type: schema.type.find(type => type !== 'null') }, true]
    }
    const rest = schema.anyOf?.filter(one => one.type !== 'null')
    if (rest?.length === 1 && rest.length < schema.anyOf.length) {
      return [{ ...resolve(rest[0]), ...schema, anyOf: undefined }, true]
    }
    return [schema, false]
  }

  const field = (given, name, required) => {
    const [schema, nullable] = withoutNull(resolve(given))
    const place = { name, required, nullable, id: `${ask.id}-${counter++}` }
    const kind = counter > MOST ? 'json' : kindOf(schema, place) // a schema may contain itself many times
    return { key: name, ...FIELDS[kind](schema, place) }
  }

  const kindOf = (schema, place) => {
    if (schema.enum || 'const' in schema) return 'choice'
    if (schema.type === 'boolean' && mayBeLeftOut(schema, place)) return 'choice' // a box has no third state
    if (schema.type === 'object' && schema.properties) return mayBeLeftOut(schema, place) ? 'optional' : 'object'
    if (schema.type === 'array' && schema.items && !schema.prefixItems) return 'array'
    return ['boolean', 'string', 'integer', 'number'].includes(schema.type) ? schema.type : 'json'
  }

  const mayBeLeftOut = (schema, place) => place.nullable || (!place.required && schema.default === undefined)

  const title = (schema, name = 'value') =>
    schema.title ?? name.replaceAll('_', ' ').replace(/\b\w/g, letter => letter.toUpperCase())

  const hint = schema => (schema.description ? element('div', { class: 'dnb-hint' }, schema.description) : undefined)

  const labelled = (schema, place, input) => {
    const problem = element('div', { class: 'dnb-problem', role: 'alert', id: `${place.id}-problem` })
    input.id = place.id
    input.setAttribute('aria-describedby', problem.id)
    const label = element('label', { for: place.id }, title(schema, place.name))
    if (mayBeLeftOut(schema, place)) label.append(element('span', { class: 'dnb-hint' }, ' (optional)'))
    else if (schema.default === undefined) input.setAttribute('aria-required', 'true')
    const fail = text => {
      problem.textContent = text
      input.setAttribute('aria-invalid', String(Boolean(text)))
    }
    return [element('div', { class: 'dnb-field' }, label, input, hint(schema), problem), fail]
  }

  const INPUTS = { date: 'date', 'date-time': 'datetime-local', time: 'time', email: 'email', uri: 'url', password: 'password' }

  const rowsFor = text => Math.min(Math.max(text.split('\n').length, ROWS[0]), ROWS[1])

  const typed = (type, parse) => (schema, place) => {
    const shape = type ?? INPUTS[schema.format] ?? 'text'
    const preset = schema.default ?? ''
    const lines = preset.length > LONG || /\n/.test(preset) || schema.maxLength > 200 || schema.format === 'multiline'
    const long = shape === 'text' && lines
    const input = long
      ? element('textarea', { rows: rowsFor(preset), class: 'jp-mod-styled' })
      : element('input', { type: shape, step: schema.type === 'integer' ? 1 : 'any', class: 'jp-mod-styled' })
    input.value = preset
    const [node, fail] = labelled(schema, place, input)
    const read = () => {
      if (input.validity.badInput) return input.validationMessage // the kernel rejects this text and shows it
      if (input.value === '' && schema.default !== '') return place.nullable ? null : undefined
      return parse(input.value)
    }
    return { node, read, fail, focus: () => input.focus() }
  }

  const json = (schema, place) => {
    const preset = schema.default === undefined ? '' : JSON.stringify(schema.default, null, 2)
    const input = element('textarea', { rows: rowsFor(preset), class: 'jp-mod-styled dnb-json', placeholder: 'JSON' })
    input.value = preset
    const [node, showProblem] = labelled(schema, place, input)
    const parsed = () => {
      try {
        return [JSON.parse(input.value)]
      } catch (error) {
        return [input.value, `Not valid JSON: ${error.message}`]
      }
    }
    const read = () => (input.value.trim() === '' ? (place.nullable ? null : undefined) : parsed()[0])
    const fail = text => showProblem(text && (parsed()[1] ?? text))
    return { node, read, fail, focus: () => input.focus() }
  }

  const boolean = (schema, place) => {
    const input = element('input', { type: 'checkbox' })
    input.checked = schema.default === true
    const [node, fail] = labelled(schema, { ...place, required: true }, input)
    node.classList.add('dnb-check')
    return { node, read: () => input.checked, fail, focus: () => input.focus() }
  }

  const choice = (schema, place) => {
    const values = schema.enum ?? (schema.type === 'boolean' ? [true, false] : [schema.const])
    const input = element('select', { class: 'jp-mod-styled' })
    const empty = !place.required && schema.default === undefined
    if (empty || place.nullable) input.append(element('option', { value: '' }, '—'))
    values.forEach((value, at) => input.append(element('option', { value: at }, spelled(value))))
    const preset = values.findIndex(value => value === schema.default)
    if (preset >= 0) input.value = preset
    const [node, fail] = labelled(schema, place, input)
    const read = () => (input.value === '' ? (place.nullable ? null : undefined) : values[input.value])
    return { node, read, fail, focus: () => input.focus() }
  }

  const object = (schema, place) => {
    const required = schema.required ?? []
    const filled = (each, value) => (value === undefined ? each : { ...each, default: value })
    const inner = Object.entries(schema.properties).map(([name, each]) =>
      field(filled(each, schema.default?.[name]), name, required.includes(name))
    )
    const problem = element('div', { class: 'dnb-problem', role: 'alert' })
    const isTop = place.name === undefined
    const heading = isTop ? [] : [element('legend', {}, title(schema, place.name)), hint(schema)]
    const nodes = [...heading, ...inner.map(one => one.node), problem]
    const node = element('fieldset', isTop ? { class: 'dnb-top' } : {}, ...nodes)
    const read = () => {
      const pairs = Object.keys(schema.properties).map((name, at) => [name, inner[at].read()])
      return Object.fromEntries(pairs.filter(([, value]) => value !== undefined))
    }
    return { node, read, fail: text => (problem.textContent = text), inner: () => inner, focus: () => inner[0]?.focus() }
  }

  // Fields that are created when the user adds them: a schema may contain itself.
  const optional = (schema, place) => {
    let made
    const show = at => {
      made = at
      box.replaceChildren(...(made ? [made.node] : []))
      toggle.textContent = `${made ? 'Remove' : 'Add'} ${title(schema, place.name)}`
    }
    const add = () => object(schema, { ...place, required: true, nullable: false })
    const toggle = button('', '', () => {
      show(made ? undefined : add())
      made?.focus()
    })
    const box = element('div', {})
    const problem = element('div', { class: 'dnb-problem', role: 'alert' })
    show(schema.default ? add() : undefined)
    return {
      node: element('div', { class: 'dnb-optional' }, box, toggle, problem),
      read: () => (made ? made.read() : place.nullable ? null : undefined),
      fail: text => (problem.textContent = text),
      inner: () => made?.inner() ?? [],
      focus: () => toggle.focus(),
    }
  }

  const array = (schema, place) => {
    const rows = []
    const list = element('div', {})
    const problem = element('div', { class: 'dnb-problem', role: 'alert' })
    const renumber = () => rows.forEach((row, at) => (row.key = at))
    const add = value => {
      const items = value === undefined ? schema.items : { ...resolve(schema.items), default: value }
      const row = field(items, String(rows.length + 1), true)
      const remove = button('Remove', '', () => {
        rows.splice(rows.indexOf(row), 1)
        line.remove()
        renumber()
      })
      const line = element('div', { class: 'dnb-row' }, row.node, remove)
      rows.push(row)
      renumber()
      list.append(line)
      return row
    }
    if (Array.isArray(schema.default)) schema.default.forEach(add)
    const more = button('Add', '', () => add().focus())
    const legend = element('legend', {}, title(schema, place.name))
    const node = element('fieldset', {}, legend, hint(schema), list, more, problem)
    const read = () => rows.map(row => row.read())
    return { node, read, fail: text => (problem.textContent = text), inner: () => rows, focus: () => more.focus() }
  }

  const FIELDS = {
    choice, object, optional, array, boolean, json,
    string: typed(undefined, text => text),
    integer: typed('number', text => (isExact(Number(text)) ? Number(text) : text)),
    number: typed('number', Number),
  }

  const spelled = value => (typeof value === 'string' ? value : JSON.stringify(value))

  // JavaScript cannot represent integers above 2**53 exactly.
  const isExact = value =>
    value !== null && typeof value === 'object'
      ? Object.values(value).every(isExact)
      : !Number.isInteger(value) || Number.isSafeInteger(value)

  // Whether fields filled with a value read as that value; they may add defaults of the schema.
  const roundTrips = (back, value) =>
    value === null || typeof value !== 'object'
      ? back === value
      : back !== null && typeof back === 'object' && Array.isArray(back) === Array.isArray(value) &&
        !(Array.isArray(value) && back.length !== value.length) &&
        Object.keys(value).every(key => roundTrips(back[key], value[key]))

  // The innermost field that a problem's path leads to, and the rest of the path.
  const fieldAt = (top, path) => {
    const next = path.length && top.inner?.().find(one => one.key === path[0])
    return next ? fieldAt(next, path.slice(1)) : [top, path]
  }

  // Show the problems of each field, with the rest of their paths; returns the first field with a problem.
  const showProblems = (top, problems) => {
    const texts = new Map()
    for (const { path, text } of problems) {
      const [at, rest] = fieldAt(top, path)
      texts.set(at, [...(texts.get(at) ?? []), rest.length ? `${rest.join('.')}: ${text}` : text])
    }
    texts.forEach((lines, at) => at.fail(lines.join('\n')))
    let first
    each(top, one => (first ??= texts.has(one) ? one : undefined)) // in the order of the page
    return first
  }

  const each = (top, visit) => {
    visit(top)
    top.inner?.().forEach(one => each(one, visit))
  }

  return { element, button, field, spelled, isExact, roundTrips, showProblems, each }
})
