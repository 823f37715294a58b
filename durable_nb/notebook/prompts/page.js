// The form of one prompt, in the notebook's page. Text from users and runs is set through textContent or .value,
// never as HTML. The answer is sent on the kernel's control channel, which is served even while the waiting cell
// blocks the kernel; the kernel's reply is shown.
((ask, fields) => {
  'use strict'
  const { element, button, field, spelled, isExact, roundTrips, showProblems, each } = fields
  const REPLY_TIMEOUT = 10000 // ms; a kernel that was restarted does not reply
  const [QUERY, REPLY] = ['durable_signal_request', 'durable_signal_reply']

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

  // Returns a promise of the reply's content; of null after the timeout.
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
      const timer = setTimeout(() => finish(null), REPLY_TIMEOUT)
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

  const editable = () => {
    const call = ask.schema?.properties?.arguments
    return Boolean(call && Object.keys({ ...call.properties, ...call.default }).length && isExact(call.default))
  }

  // Approve or reject with a comment; approving a tool call may change its arguments.
  const approval = (schema, answer, status) => {
    const { arguments: call, comment: remark = { type: 'string', title: 'Comment' } } = schema.properties ?? {}
    const comment = field(remark, 'comment', false)
    const args = editable() ? editor(call) : undefined
    const before = JSON.stringify(args?.read())
    const edited = () => JSON.stringify(args?.read()) !== before
    const decide = approved => () =>
      answer({ approved, comment: comment.read() ?? '', ...(approved && edited() && { arguments: args.read() }) })
    const yes = button('Approve', 'jp-mod-accept', decide(true))
    const changed = () => (yes.textContent = edited() ? 'Approve with changes' : 'Approve')
    const inner = [args, comment].filter(Boolean)
    const body = element('div', { oninput: changed, onclick: changed }, ...inner.map(one => one.node))
    const top = { inner: () => inner, fail: text => (status.textContent = text) }
    return { top, body: [body], buttons: [yes, button('Reject', 'jp-mod-warn', decide(false))] }
  }

  // Fields for the arguments of a call; a JSON field if the fields cannot represent them exactly.
  const editor = call => {
    const made = field(call, 'arguments', true)
    return roundTrips(made.read(), call.default) ? made : field({ ...call, properties: undefined }, 'arguments', true)
  }

  const choiceButtons = (answer, status) => {
    const buttons = ask.choices.map(value => button(spelled(value), 'jp-mod-accept', () => answer(value)))
    return { top: { fail: text => (status.textContent = text) }, body: [], buttons }
  }

  const valueFields = answer => {
    const top = field(ask.schema, undefined, true)
    const submit = () => answer(top.read() ?? null)
    return { top, body: [top.node], buttons: [button('Submit', 'jp-mod-accept', submit)], enter: submit }
  }

  const build = root => {
    const status = element('div', { class: 'dnb-status', role: 'status' })
    const disable = off => root.querySelectorAll('button, input, select, textarea').forEach(one => (one.disabled = off))
    const over = text => form.replaceWith(element('div', { class: 'dnb-over', role: 'status' }, text))
    const show = reply => {
      if (reply?.status === 'over') return over(reply.text)
      if (reply?.status === 'open') return
      if (reply?.status === 'invalid') return showProblems(made.top, reply.problems).focus?.()
      status.textContent = reply ? ask.gone : ask.silent
      root.querySelector('.dnb-command').hidden = false
    }
    const answer = async value => {
      each(made.top, one => one.fail(''))
      status.textContent = ''
      const cell = root.closest('.jp-Cell') // found now: the form may have been replaced when the reply arrives
      disable(true)
      const reply = await send({ token: ask.token, value })
      disable(false)
      show(reply)
      const isLost = document.activeElement === document.body
      if (isLost && reply?.status === 'over') cell?.focus() // otherwise the focus moves to the top of the page
    }
    const approving = !ask.schema || ask.schema.format === 'approval'
    const made = ask.choices
      ? choiceButtons(answer, status)
      : approving ? approval(ask.schema ?? {}, answer, status) : valueFields(answer)
    const heading = approving && editable() ? ask.schema.title : ask.title // the arguments are shown below
    root.querySelector('.dnb-title').textContent = heading
    const form = element(
      'form',
      {
        'aria-label': heading,
        'data-lm-suppress-shortcuts': 'true', // otherwise the notebook handles the keys
        onkeydown: event => event.stopPropagation(),
        onsubmit: event => {
          event.preventDefault()
          made.enter?.()
        },
      },
      ...made.body,
      element('div', { class: 'dnb-buttons' }, ...made.buttons, element('button', { type: 'submit', hidden: true })),
      status
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
