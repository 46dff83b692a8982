// A page on Twinrail, with nothing but what a browser has: fetch, EventSource and
// WebSocket. It follows a canvas over the SSE rail and talks in a thread over the
// WS rail, through cuts, restarts of the server and new tokens.
//
// Every position in a stream is a cursor. A page that keeps the last one of each
// stream, and comes back with it, misses nothing and sees nothing twice.

const settings = new URLSearchParams(location.search)
const server = settings.get('server') ?? 'http://127.0.0.1:8080'

// The context that every request states. The server checks it against the
// credential, and never guesses any of it.
const tenant = { tenant_id: 't_acme', env: 'dev' }
const app = { ...tenant, workspace_id: 'w1', project_id: 'p1', app_id: 'studio' }
const canvas = { ...app, canvas_id: settings.get('canvas') ?? 'c1' }
const thread = { ...app, thread_id: settings.get('thread') ?? 'th1' }

const element = (id) => document.getElementById(id)
const note = (text) => element('log').append(`${text}\n`)

// ---- Credentials ------------------------------------------------------------

// fetchToken asks the page's own backend for a JWT of the user who is signed in.
// In this example that is a file next to the page.
async function fetchToken() {
  const response = await fetch('token', { cache: 'no-store' })
  if (!response.ok) throw new Error(`no token: ${response.status}`)
  return (await response.text()).trim()
}

// openSession swaps a token for an HttpOnly cookie, which ends when the token
// does. From then on EventSource, which can set no header, is authenticated, and
// so is all else that is sent with credentials.
async function openSession() {
  const { expires_at } = await call('POST', '/v1/session', tenant, { token: await fetchToken() })
  note(`signed in until ${expires_at}`)
}

// call sends one request. An error is the server's problem document: its code says
// what is wrong, its retry what to do about it, and wait not before when.
async function call(method, path, query, { token, body } = {}) {
  const headers = {}
  if (token) headers.Authorization = `Bearer ${token}`
  if (body) headers['Content-Type'] = 'application/json'
  const response = await fetch(`${server}${path}?${new URLSearchParams(query)}`, {
    method, headers, body: body && JSON.stringify(body), credentials: 'include',
  })
  if (response.status === 204) return null
  const answer = await response.json()
  if (!response.ok) {
    const wait = 1000 * (Number(response.headers.get('Retry-After')) || 0)
    throw Object.assign(new Error(answer.detail ?? answer.title), answer, { wait })
  }
  return answer
}

// attempt repeats what may fail for a while, but not what will always fail. A
// credential that is refused is replaced once.
async function attempt(request) {
  for (let failures = 0, refreshed = false; ; failures++) {
    try {
      return await request()
    } catch (e) {
      if (e.retry === 'never' || (e.retry === 'refresh' && refreshed)) throw e
      note(`${e.code ?? e.message}; trying again`)
      if (e.retry === 'refresh') {
        refreshed = true
        await openSession().catch((e) => note(`not signed in: ${e.message}`))
      } else {
        await pause(failures, e.wait)
      }
    }
  }
}

// pause waits for at least so long, and for a random time besides that grows with
// the failures in a row: clients that were cut at once must not come back at once.
function pause(failures, atLeast = 0) {
  const most = Math.min(30_000, 1000 * 2 ** failures)
  return new Promise((done) => setTimeout(done, atLeast + most * Math.random()))
}

// ---- State ------------------------------------------------------------------

function show(list, event) {
  const item = document.createElement('li')
  item.dataset.cursor = event.cursor
  item.textContent = `${event.routing.actor_id} ${event.type} ${JSON.stringify(event.data)}`
  list.append(item)
}

// load reads the state of a stream anew, and returns the cursor to follow it from
// without a gap. Here the state is the stream's whole history; an application has
// a snapshot somewhere, with the cursor that it was taken at.
async function load(list, stream) {
  const events = []
  let after = 'earliest'
  for (;;) {
    const page = await attempt(() => call('GET', '/v1/history', { ...stream, after, limit: 1000 }))
    events.push(...page.events)
    const done = page.next === page.head || page.next === after
    after = page.next
    if (done) break
  }
  list.replaceChildren()
  for (const event of events) show(list, event)
  return after
}

// publish stores events of either kind of stream. With an id that is kept for the
// retry, an event whose answer was lost is not stored twice.
function publish(stream, event) {
  const events = [{ id: crypto.randomUUID(), routing: stream, ...event }]
  return attempt(() => call('POST', '/v1/publish', tenant, { body: { events } }))
}

// ---- The canvas: EventSource ------------------------------------------------

let source
let canvasCursor
let canvasFailures = 0

// followCanvas opens an EventSource, which comes back by itself after a cut: with
// the cookie, with Last-Event-ID, and after the time that the server asked for.
function followCanvas() {
  const query = new URLSearchParams({ ...canvas, channels: 'commit,artifact', cursor: canvasCursor })
  const mine = new EventSource(`${server}/v1/sse/canvases/${canvas.canvas_id}?${query}`, { withCredentials: true })
  source?.close()
  source = mine
  let connection
  const on = (name, take) => mine.addEventListener(name, (e) => {
    if (mine !== source) return
    if (e.lastEventId) canvasCursor = e.lastEventId
    if (e.data !== undefined) take(JSON.parse(e.data))
  })
  // EventSource has an event "open" of its own, without data: a connection is made.
  on('open', ({ connection_id, resumed, reason }) => {
    connection = connection_id
    canvasFailures = 0
    note(`canvas: open, ${resumed ? 'after the cursor' : `at the head, ${reason ?? 'as asked'}`}`)
  })
  for (const channel of ['commit', 'artifact']) on(channel, (event) => show(element('canvas'), event))
  on('live', () => note('canvas: live'))
  // What was missed is not retained any more: start again from the state.
  on('reset', ({ reason }) => {
    note(`canvas: reset, ${reason}`)
    mine.close()
    openCanvas().catch(failed)
  })
  // The token ends in 30 s. A new one extends this connection as it is, and a new
  // cookie is there for the next.
  on('auth_expiring', async () => {
    try {
      const { expires_at } = await attempt(async () =>
        call('POST', `/v1/connections/${connection}/auth`, tenant, { token: await fetchToken() }))
      note(`canvas: renewed until ${expires_at}`)
      await openSession()
    } catch (e) {
      note(`canvas: not renewed: ${e.code ?? e.message}`) // what follows is an end
    }
  })
  on('end', ({ code, reconnect }) => {
    note(`canvas: end, ${code}`)
    if (!reconnect) mine.close()
  })
  // After a cut the state is CONNECTING, and there is nothing to do. It is CLOSED
  // after an answer that was not 200, of which a page learns no more than that: most
  // likely the cookie has ended. A request that shows its status finds out.
  mine.onerror = async () => {
    if (mine !== source || mine.readyState !== EventSource.CLOSED) return
    note('canvas: closed')
    await pause(canvasFailures++)
    if (mine !== source) return
    try {
      await attempt(() => call('GET', '/v1/history', { ...canvas, limit: 1 }))
      followCanvas()
    } catch (e) {
      failed(e)
    }
  }
}

async function openCanvas() {
  canvasCursor = await load(element('canvas'), canvas)
  followCanvas()
}

// ---- The thread: WebSocket --------------------------------------------------

let socket
let session // {id, resumeToken, cursor} of the thread, kept over connections
let members = new Map()
let silence // the timer that a dead connection runs into
const me = { text: 'looking at the canvas' } // what others see of us, up to 2 KiB of JSON

// connect opens one connection. A WebSocket can set no header either. The cookie
// would do; a ticket, for one use within a minute, works from any page, and where
// it is refused a page sees why, which it does not of a WebSocket.
async function connect(failures = 0) {
  const { ticket } = await attempt(async () =>
    call('POST', '/v1/tickets', tenant, { token: await fetchToken(), body: { rail: 'ws' } }))
  const mine = new WebSocket(`${server.replace(/^http/, 'ws')}/v1/ws?${new URLSearchParams({ ...tenant, ticket })}`, ['twinrail.v1'])
  socket = mine
  const connection = { mine, failures, heartbeat: 15_000, wait: 0 }
  watch(connection)
  mine.onmessage = (message) => {
    if (mine !== socket) return // left, and not closed yet
    watch(connection)
    take(connection, JSON.parse(message.data))
  }
  mine.onclose = ({ code }) => lost(connection, code)
}

// watch gives up on a connection that is silent for two heartbeats and a half. A
// browser may take minutes over that, and closing it would wait for the other side.
// The code tells a server that hears it after all that we come back: without one the
// session would be over.
function watch(connection) {
  clearTimeout(silence)
  silence = setTimeout(() => {
    connection.mine.onmessage = connection.mine.onclose = null
    connection.mine.close(4200)
    lost(connection, 1006)
  }, 2.5 * connection.heartbeat)
}

const send = (frame) => socket.send(JSON.stringify(frame))
const join = () => send({ op: 'join', ref: 'join', sub: 't', routing: thread, channels: ['chat', 'tool', 'presence'], after: session.cursor, presence: me })

function take(connection, frame) {
  switch (frame.op) {
    case 'welcome':
      connection.heartbeat = frame.heartbeat_ms
      // Resume brings back every subscription of the session, and nobody sees us leave.
      if (session.resumeToken) send({ op: 'resume', ref: 'resume', resume_token: session.resumeToken, cursors: { t: session.cursor } })
      else { session.id = frame.session_id; join() }
      break
    case 'joined':
      opened(connection, frame, frame)
      break
    case 'resumed': {
      session.id = frame.session_id
      const sub = frame.subs.find(({ sub }) => sub === 't')
      if (!sub || sub.code) { session.resumeToken = frame.resume_token; join(); break } // cut before it had joined
      opened(connection, frame, sub)
      // A server that was restarted knows the session, but not what we said of us.
      if (!sub.members.some((m) => m.session_id === session.id && m.state)) send({ op: 'presence', sub: 't', state: me })
      break
    }
    case 'event':
      session.cursor = frame.event.cursor
      show(element('thread'), frame.event)
      break
    case 'live':
      session.cursor = frame.cursor
      note('thread: live')
      break
    case 'ping': // with where we stand, past events that were not for us
      session.cursor = frame.cursors?.t ?? session.cursor
      send({ op: 'pong' })
      break
    case 'presence':
      for (const m of frame.leave) members.delete(who(m))
      for (const m of [...frame.join, ...frame.update]) members.set(who(m), m)
      showMembers()
      break
    case 'reset':
      note(`thread: reset, ${frame.reason}`)
      leave()
      openThread().catch(failed)
      break
    case 'auth_expiring':
      fetchToken().then((token) => send({ op: 'auth', ref: 'auth', token }), (e) => note(`thread: not renewed: ${e.message}`))
      break
    case 'authed':
      note(`thread: renewed until ${frame.expires_at}`)
      if (connection.open) session.resumeToken = frame.resume_token // the old one goes with the old credential
      break
    case 'drain':
      connection.wait = frame.reconnect_after_ms
      break
    case 'error':
      note(`thread: ${frame.code}`)
      if (frame.action) { // the close follows, and its code says what to do
        connection.wait = Math.max(connection.wait, frame.retry_after_ms ?? 0)
      } else if (frame.ref === 'resume' && (frame.code.startsWith('resume_') || frame.code === 'credential_revoked')) {
        // The session is over, or began with a credential that was revoked; the cursor is good.
        session.resumeToken = undefined
        join()
      } else if (frame.ref === 'join' || frame.ref === 'resume') {
        connection.wait = frame.retry_after_ms ?? 0
        if (frame.retry === 'never') leave()
        else connection.mine.close(4200) // and come back
      }
      break
    // Later versions have more; what a client does not know it passes over.
  }
}

// opened takes what joined says, and resumed of each subscription.
function opened(connection, { op, resume_token }, { cursor, resumed, reason, members: all }) {
  session.resumeToken = resume_token
  // With a void cursor the reset follows; until then the old one stays.
  if (!reason) session.cursor = cursor
  connection.open = true
  connection.failures = 0
  members = new Map(all.map((m) => [who(m), m]))
  showMembers()
  note(`thread: ${op}, ${resumed ? 'after the cursor' : `at the head, ${reason ?? 'as asked'}`}`)
}

// leave ends for good what is open. A close with 1000 is a clean leave, which the
// others see at once; after a cut they see one only where we do not come back.
function leave() {
  const mine = socket
  socket = undefined
  clearTimeout(silence)
  mine?.close(1000)
}

// A member is an actor in a session at an address.
const who = ({ actor_id, session_id, routing }) => JSON.stringify([actor_id, session_id, routing])

function showMembers() {
  element('members').replaceChildren(...[...members.values()].map(({ actor_id, state }) => {
    const item = document.createElement('li')
    item.textContent = `${actor_id} ${JSON.stringify(state)}`
    return item
  }))
}

// lost comes back, or does not: the range of the close code says so, for codes too
// that this page does not know.
async function lost({ mine, failures, wait }, code) {
  clearTimeout(silence)
  if (mine !== socket) return
  note(`thread: lost, ${code}`)
  if ((code >= 4000 && code < 4100) || [1002, 1003, 1007, 1008, 1009, 1010].includes(code)) return
  // 4100 to 4199 and 1011 back off, 4200 to 4299 and a cut (1006) resume, and 4300
  // to 4399 want a new token: the next connection gets one anyway.
  await pause(failures, wait)
  if (mine === socket) connect(failures + 1).catch(failed)
}

async function openThread() {
  session = { cursor: await load(element('thread'), thread) }
  await connect()
}

// ---- The page ---------------------------------------------------------------

const failed = (e) => note(`stopped: ${e.code ?? e.message}`)

element('commit').onclick = () =>
  publish(canvas, { channel: 'commit', type: 'canvas_commit', data: { at: Date.now() } }).catch(failed)

element('say').onsubmit = (e) => {
  e.preventDefault()
  const text = new FormData(e.target).get('text')
  e.target.reset()
  publish(thread, { channel: 'chat', type: 'message', data: { text } }).catch(failed)
}

// The cookie ends, and with it what it opened: the EventSource is told so.
element('sign-out').onclick = () => {
  leave()
  call('DELETE', '/v1/session', tenant).then(() => note('signed out'), failed)
}

// A laptop that wakes up may hold connections that are dead without knowing it.
// EventSource does not show the server's heartbeat, so this is the time to ask anew.
addEventListener('online', () => source && followCanvas())

attempt(openSession).then(() => Promise.all([openCanvas(), openThread()])).catch(failed)
