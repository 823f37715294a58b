// The form of one prompt, in the notebook's page. Everything that a user or a run wrote goes through textContent
// or .value, never through HTML. The answer goes to the kernel's control channel, which is served even while the
// cell that waits blocks the kernel; what the kernel replies is shown.
(ask => {
  'use strict'
  const REPLY_WITHIN = 10000 // ms; a kernel that was restarted does not reply at all
  const [QUERY, REPLY] = ['durable_signal_request', 'durable_signal_reply']

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

  // ---- fields: each has a node, read() and, by its path, a place for what is wrong with it ----

  const resolve = schema => {
    if (schema.$ref) {
      const found = schema.$ref.split('/').slice(1).reduce((at, key) => at?.[key], ask.schema)
      return { ...resolve(found ?? {}), ...schema, $ref: undefined }
    }
    if (schema.allOf?.length === 1) return { ...resolve(schema.allOf[0]), ...schema, allOf: undefined }
    return schema
  }

  // Of "a type or null" the type; null is then what an empty field means.
  const withoutNull = schema => {
    const rest = schema.anyOf?.filter(one => one.type !== 'null')
    if (rest?.length === 1 && rest.length < schema.anyOf.length) {
      return [{ ...resolve(rest[0]), ...schema, anyOf: undefined }, true]
    }
    return [schema, false]
  }

  const field = (given, name, path, required) => {
    const [schema, nullable] = withoutNull(resolve(given))
    const kind = kindOf(schema)
    const made = FIELDS[kind](schema, { name, path, required, nullable, id: `${ask.id}-${counter++}` })
    return { path, ...made }
  }

  const kindOf = schema => {
    if (schema.enum || 'const' in schema) return 'choice'
    if (schema.type === 'object' && schema.properties) return 'object'
    if (schema.type === 'array' && schema.items && !schema.prefixItems) return 'array'
    return ['boolean', 'string', 'integer', 'number'].includes(schema.type) ? schema.type : 'json'
  }

  const title = (schema, name) => schema.title ?? name ?? 'Value'

  const labelled = (schema, place, input) => {
    const problem = element('div', { class: 'dnb-problem', role: 'alert', id: `${place.id}-problem` })
    input.id = place.id
    input.setAttribute('aria-describedby', problem.id)
    const label = element('label', { for: place.id }, title(schema, place.name))
    if (place.nullable || (!place.required && schema.default === undefined)) label.append(element('span', { class: 'dnb-hint' }, ' (optional)'))
    const hint = schema.description && element('div', { class: 'dnb-hint' }, schema.description)
    const fail = text => {
      problem.textContent = text
      input.setAttribute('aria-invalid', String(Boolean(text)))
    }
    return [element('div', { class: 'dnb-field' }, label, input, hint || undefined, problem), fail]
  }

  const INPUTS = { date: 'date', 'date-time': 'datetime-local', time: 'time', email: 'email', uri: 'url', password: 'password' }

  const typed = (type, parse) => (schema, place) => {
    const shape = type ?? INPUTS[schema.format] ?? 'text'
    const long = shape === 'text' && (schema.maxLength > 200 || schema.format === 'multiline')
    const input = long
      ? element('textarea', { rows: 4, class: 'jp-mod-styled' })
      : element('input', { type: shape, step: schema.type === 'integer' ? 1 : 'any', class: 'jp-mod-styled' })
    if (schema.default !== undefined && schema.default !== null) input.value = schema.default
    const [node, fail] = labelled(schema, place, input)
    const read = () => {
      if (input.value === '' && schema.default !== '') return place.nullable ? null : undefined
      return parse(input.value)
    }
    return { node, read, fail, focus: () => input.focus() }
  }

  const json = (schema, place) => {
    const input = element('textarea', { rows: 3, class: 'jp-mod-styled', placeholder: 'JSON' })
    if (schema.default !== undefined) input.value = JSON.stringify(schema.default)
    const [node, fail] = labelled(schema, place, input)
    const read = () => {
      if (input.value.trim() === '') return place.nullable ? null : undefined
      try {
        return JSON.parse(input.value)
      } catch {
        return input.value
      }
    }
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
    const values = schema.enum ?? [schema.const]
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
    const inner = Object.entries(schema.properties).map(([name, each]) =>
      field(each, name, [...place.path, name], required.includes(name))
    )
    const problem = element('div', { class: 'dnb-problem', role: 'alert' })
    const legend = place.path.length ? element('legend', {}, title(schema, place.name)) : undefined
    const node = element('fieldset', place.path.length ? {} : { class: 'dnb-top' }, legend, ...inner.map(one => one.node), problem)
    const read = () => {
      const pairs = Object.keys(schema.properties).map((name, at) => [name, inner[at].read()])
      const given = pairs.filter(([, value]) => value !== undefined)
      const untouched = given.every(([, value]) => value === null || value === false)
      return place.path.length && !place.required && untouched
        ? place.nullable ? null : undefined
        : Object.fromEntries(given)
    }
    return { node, read, fail: text => (problem.textContent = text), inner: () => inner, focus: () => inner[0]?.focus() }
  }

  const array = (schema, place) => {
    const rows = []
    const list = element('div', {})
    const problem = element('div', { class: 'dnb-problem', role: 'alert' })
    const renumber = () => rows.forEach((row, at) => (row.path = [...place.path, at]))
    const add = value => {
      const items = value === undefined ? schema.items : { ...resolve(schema.items), default: value }
      const row = field(items, String(rows.length + 1), [...place.path, rows.length], true)
      const remove = button('Remove', '', () => {
        rows.splice(rows.indexOf(row), 1)
        line.remove()
        renumber()
      })
      const line = element('div', { class: 'dnb-row' }, row.node, remove)
      rows.push(row)
      list.append(line)
      return row
    }
    for (const value of schema.default ?? []) add(value)
    const more = button('Add', '', () => add().focus())
    const node = element('fieldset', {}, element('legend', {}, title(schema, place.name)), list, more, problem)
    const read = () => rows.map(row => row.read())
    return { node, read, fail: text => (problem.textContent = text), inner: () => rows, focus: () => more.focus() }
  }

  const FIELDS = {
    choice, object, array, boolean, json,
    string: typed(undefined, text => text),
    integer: typed('number', Number),
    number: typed('number', Number),
  }

  const spelled = value => (typeof value === 'string' ? value : JSON.stringify(value))

  // The innermost field that a problem's path leads to; its top where the path leads nowhere.
  const fieldAt = (top, path) => {
    const next = top.inner?.().find(one => path.length > one.path.length - 1 && one.path.every((key, at) => key === path[at]))
    return next ? fieldAt(next, path) : top
  }

  const each = (top, visit) => {
    visit(top)
    top.inner?.().forEach(one => each(one, visit))
  }

  // ---- the kernel's control channel ----

  const config = () => {
    const found = document.getElementById('jupyter-config-data')
    return found ? JSON.parse(found.textContent) : {}
  }

  const socketAddress = session => {
    const { baseUrl = '/', wsUrl, token } = config()
    const base = new URL(wsUrl || baseUrl, location.href)
    base.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
    const query = new URLSearchParams({ session_id: session, ...(token && { token }) })
    return `${base.href.replace(/\/?$/, '/')}api/kernels/${ask.kernel}/channels?${query}`
  }

  // Gives the reply's content; null if there is none in time.
  const send = content =>
    new Promise(done => {
      const session = crypto.getRandomValues(new Uint32Array(4)).join('-')
      const header = {
        msg_id: `${session}-1`, msg_type: QUERY, session, username: '', version: '5.3', date: new Date().toISOString(),
      }
      const socket = new WebSocket(socketAddress(session))
      const finish = reply => {
        clearTimeout(timer)
        socket.close()
        done(reply)
      }
      const timer = setTimeout(() => finish(null), REPLY_WITHIN)
      socket.onopen = () =>
        socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, buffers: [], channel: 'control' }))
      socket.onerror = () => finish(null)
      socket.onmessage = event => {
        if (typeof event.data !== 'string') return
        const message = JSON.parse(event.data)
        if (message.msg_type === REPLY && message.parent_header?.msg_id === header.msg_id) finish(message.content)
      }
    })

  // ---- the prompt ----

  const approval = answer => {
    const comment = field({ type: 'string', title: 'Comment' }, 'comment', ['comment'], false)
    const give = approved => () => answer({ approved, comment: comment.read() ?? '' })
    const buttons = [button('Approve', 'jp-mod-accept', give(true)), button('Reject', 'jp-mod-warn', give(false))]
    return { top: comment, body: [comment.node], buttons, enter: give(true) }
  }

  const choosing = (answer, said) => {
    const buttons = ask.choices.map(value => button(spelled(value), 'jp-mod-accept', () => answer(value)))
    return { top: { path: [], fail: text => (said.textContent = text) }, body: [], buttons }
  }

  const filling = answer => {
    const top = field(ask.schema, undefined, [], true)
    const submit = () => answer(top.read() ?? null)
    return { top, body: [top.node], buttons: [button('Submit', 'jp-mod-accept', submit)], enter: submit }
  }

  const build = root => {
    const said = element('div', { class: 'dnb-said', role: 'status' })
    const disable = off => root.querySelectorAll('button, input, select, textarea').forEach(one => (one.disabled = off))
    const over = text => form.replaceWith(element('div', { class: 'dnb-over', role: 'status' }, text))
    const show = reply => {
      if (reply?.status === 'over') return over(reply.text)
      if (reply?.status === 'open') return
      if (reply?.status === 'invalid') {
        reply.problems.forEach(one => fieldAt(made.top, one.path).fail(one.text))
        return made.top.focus?.()
      }
      said.textContent = reply ? ask.gone : ask.silent
      root.querySelector('.dnb-command').hidden = false
    }
    const answer = async value => {
      each(made.top, one => one.fail(''))
      said.textContent = ''
      disable(true)
      const reply = await send({ token: ask.token, value })
      disable(false)
      show(reply)
    }
    const made = ask.choices ? choosing(answer, said) : ask.schema ? filling(answer) : approval(answer)
    const form = element(
      'form',
      {
        'aria-label': ask.title,
        'data-lm-suppress-shortcuts': 'true', // else the notebook takes the keys for its own
        onkeydown: event => event.stopPropagation(),
        onsubmit: event => {
          event.preventDefault()
          made.enter?.()
        },
      },
      ...made.body,
      element('div', { class: 'dnb-buttons' }, ...made.buttons, element('button', { type: 'submit', hidden: true })),
      said
    )
    root.querySelector('.dnb-form').replaceChildren(form)
    root.querySelector('.dnb-command').hidden = true
    const check = async () => {
      if (form.isConnected) show(await send({ token: ask.token }))
    }
    check()
    window.addEventListener('focus', check)
  }

  for (const root of document.querySelectorAll(`[data-durable-nb="${ask.id}"]`)) {
    if (!root.dataset.built) {
      root.dataset.built = 'true'
      build(root)
    }
  }
})
