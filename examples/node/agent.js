// An agent on Twinrail, with npm's eventsource and ws and Node's own fetch. It
// follows a canvas over the SSE rail, reviews each commit, and says so in a thread
// over the WS rail, where the others see what it is busy with. It goes on through
// cuts, restarts of either side and new tokens, and reviews each commit once.
//
// The page in ../browser explains more of the protocol; this is what differs in a
// service. Configuration: TWINRAIL_URL, TWINRAIL_TOKEN_FILE, STATE_FILE, and, where
// the server's --heartbeat is not 15 s, HEARTBEAT_MS.
import { readFile, rename, writeFile } from 'node:fs/promises'
import { EventSource } from 'eventsource'
import WebSocket from 'ws'

const server = process.env.TWINRAIL_URL ?? 'http://127.0.0.1:8080'
const tokenFile = process.env.TWINRAIL_TOKEN_FILE ?? 'token'
const stateFile = process.env.STATE_FILE ?? 'cursor'
const heartbeat = Number(process.env.HEARTBEAT_MS ?? 15_000) // of the SSE rail, which does not tell it

const tenant = { tenant_id: 't_acme', env: 'dev' }
const app = { ...tenant, workspace_id: 'w1', project_id: 'p1', app_id: 'studio' }
const canvas = { ...app, canvas_id: 'c1' }
const thread = { ...app, thread_id: 'th1' }

const log = (what, more) => console.log(JSON.stringify({ what, ...more }))

// token reads the credential for each request: whoever rotates it replaces the file.
const token = async () => (await readFile(tokenFile, 'utf8')).trim()
const bearer = async () => ({ Authorization: `Bearer ${await token()}` })

// jitter is a random time that grows with the failures in a row.
const jitter = (failures) => Math.random() * Math.min(30_000, 1000 * 2 ** failures)
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

// retryAfter is how long an answer asks to be left alone, in milliseconds.
const retryAfter = (header) => 1000 * (Number(header) || 0)

// hopeless reports whether a status would be the same next time. A token that is
// refused is about to be replaced, or should be.
function hopeless(status, failures) {
  if (status === 401) return failures >= 5
  return status === 204 || (status >= 400 && status < 500 && status !== 408 && status !== 429)
}

// ---- The canvas: eventsource ------------------------------------------------

let source
let cursor = await readFile(stateFile, 'utf8').catch(() => 'earliest')
let work = Promise.resolve() // the reviews, one after the other
let wait = 0 // what the last answer asked for

// keep stores how far the reviews have come. A crash between a review and this
// repeats the review, whose events have the same ids and are not stored twice.
async function keep(position) {
  cursor = position
  await writeFile(`${stateFile}.new`, position)
  await rename(`${stateFile}.new`, stateFile)
}

// followCanvas opens an EventSource, which comes back by itself after a cut.
function followCanvas(failures = 0) {
  const query = new URLSearchParams({ ...canvas, channels: 'commit', cursor })
  source = new EventSource(`${server}/v1/sse/canvases/${canvas.canvas_id}?${query}`, { fetch: watchedFetch })
  let connection
  source.addEventListener('open', ({ data }) => {
    if (data === undefined) return // EventSource's own: a connection is made
    const open = JSON.parse(data)
    connection = open.connection_id
    failures = 0
    log('canvas open', { resumed: open.resumed, reason: open.reason })
  })
  source.addEventListener('commit', ({ data, lastEventId }) => {
    const commit = JSON.parse(data)
    work = work.then(() => review(commit)).then(() => keep(lastEventId))
    work.catch(fatal)
  })
  source.addEventListener('reset', ({ data, lastEventId }) => {
    // What was missed is not retained any more. This agent lets it be; one that
    // must not would read the state of the canvas from where it is kept.
    log('canvas reset', JSON.parse(data))
    work = work.then(() => keep(lastEventId))
  })
  // The token ends in 30 s. A new one extends the connection as it is.
  source.addEventListener('auth_expiring', async () => {
    const url = `${server}/v1/connections/${connection}/auth?${new URLSearchParams(tenant)}`
    const response = await fetch(url, { method: 'POST', headers: await bearer() }).catch((e) => e)
    log('canvas renewed', { status: response.status }) // if not 200, an end follows
  })
  source.addEventListener('end', ({ data }) => {
    const { code, reconnect } = JSON.parse(data)
    log('canvas end', { code })
    if (!reconnect) fatal(new Error(code))
  })
  source.addEventListener('error', async ({ code, message }) => {
    log('canvas error', { code, message })
    if (source.readyState !== EventSource.CLOSED) return // it comes back
    if (hopeless(code, failures)) return fatal(new Error(message))
    await sleep(wait + jitter(failures))
    await work
    followCanvas(failures + 1)
  })
}

// watchedFetch adds the credential, and breaks off an answer that is silent for two
// heartbeats of the server, which are comments, and a half: that is a dead network.
async function watchedFetch(url, init) {
  const dead = new AbortController()
  const timer = setTimeout(() => dead.abort(new Error('nothing was heard for too long')), 2.5 * heartbeat).unref()
  const signal = AbortSignal.any([init.signal, dead.signal])
  try {
    const response = await fetch(url, { ...init, signal, headers: { ...init.headers, ...(await bearer()) } })
    wait = retryAfter(response.headers.get('Retry-After'))
    if (response.status !== 200) clearTimeout(timer)
    const heard = new TransformStream({ transform(chunk, to) { timer.refresh(); to.enqueue(chunk) }, flush() { clearTimeout(timer) } })
    return response.status === 200 ? new Response(response.body.pipeThrough(heard), response) : response
  } catch (e) {
    clearTimeout(timer)
    throw e
  }
}

// ---- What the agent does ----------------------------------------------------

async function review(commit) {
  present({ status: 'reviewing', commit: commit.id })
  await publish([
    { id: `call-${commit.id}`, channel: 'tool', type: 'tool_call', data: { tool: 'review', commit: commit.id } },
    { id: `said-${commit.id}`, channel: 'chat', type: 'message', data: { text: `I have looked at ${commit.id}.` } },
  ])
  present({ status: 'idle' })
  log('reviewed', { commit: commit.id })
}

// ---- The thread: ws ---------------------------------------------------------

let socket
let joined = false // on the connection there is
let stopping = false
let state = { status: 'idle' }
const session = { resumeToken: undefined, cursor: undefined }
const unanswered = new Map() // publishes, by ref, in their order
let refs = 0

// publish resolves when the events are stored. What has no answer when a connection
// ends is sent again over the next one, with the same ids.
function publish(events) {
  const ref = `p${refs++}`
  return new Promise((resolve, reject) => {
    unanswered.set(ref, { frame: { op: 'publish', ref, events: events.map((e) => ({ routing: thread, ...e })) }, resolve, reject })
    if (joined) send(unanswered.get(ref).frame)
  })
}

function present(now) {
  state = now
  if (joined) send({ op: 'presence', sub: 't', state })
}

const send = (frame) => socket.send(JSON.stringify(frame), () => {}) // an error ends the connection

function join() {
  send({ op: 'join', ref: 'join', sub: 't', routing: thread, channels: ['chat', 'tool', 'presence'], after: session.cursor, presence: state })
}

async function connect(failures = 0) {
  const url = `${server.replace(/^http/, 'ws')}/v1/ws?${new URLSearchParams(tenant)}`
  const connection = { failures, wait: 0, status: 0, heartbeat: 15_000 }
  socket = new WebSocket(url, ['twinrail.v1'], { headers: await bearer(), handshakeTimeout: 10_000 })
  const mine = socket
  let silence // the timer that a dead connection runs into
  const heard = () => {
    clearTimeout(silence)
    // terminate does not wait for the other side, who is not there.
    silence = setTimeout(() => mine.terminate(), 2.5 * connection.heartbeat)
  }
  heard()
  mine.on('message', (text) => {
    const frame = JSON.parse(text)
    if (frame.op === 'welcome') connection.heartbeat = frame.heartbeat_ms
    heard()
    take(connection, frame)
  })
  // What is refused says why with its status, which a browser would not tell.
  mine.on('unexpected-response', (_, response) => {
    connection.status = response.statusCode
    connection.wait = retryAfter(response.headers['retry-after'])
    mine.terminate()
  })
  mine.on('error', (e) => log('thread error', { message: e.message }))
  mine.on('close', async (code) => {
    clearTimeout(silence)
    joined = false
    log('thread lost', { code, status: connection.status || undefined })
    if (stopping) return
    // The range of the close code says what to do; see the page.
    const told = (code >= 4000 && code < 4100) || [1002, 1003, 1007, 1008, 1009, 1010].includes(code)
    if (told || hopeless(connection.status, connection.failures)) {
      return fatal(new Error(`the thread is closed: ${connection.status || code}`))
    }
    await sleep(connection.wait + jitter(connection.failures))
    if (!stopping) connect(connection.failures + 1).catch(fatal)
  })
}

function take(connection, frame) {
  switch (frame.op) {
    case 'welcome':
      if (session.resumeToken) send({ op: 'resume', ref: 'resume', resume_token: session.resumeToken, cursors: { t: session.cursor } })
      else join()
      break
    case 'joined':
      opened(connection, frame, frame)
      break
    case 'resumed': {
      session.resumeToken = frame.resume_token
      const sub = frame.subs.find(({ sub, code }) => sub === 't' && !code)
      if (sub) opened(connection, frame, sub)
      else join()
      break
    }
    case 'event':
      session.cursor = frame.event.cursor
      log('thread event', { cursor: session.cursor, type: frame.event.type, actor: frame.event.routing.actor_id })
      break
    case 'live':
      session.cursor = frame.cursor
      break
    case 'reset': // the talk that was missed is gone; this agent needs none of it
      log('thread reset', { reason: frame.reason })
      session.cursor = frame.head
      break
    case 'ping':
      session.cursor = frame.cursors?.t ?? session.cursor
      send({ op: 'pong' })
      break
    case 'ack':
      unanswered.get(frame.ref)?.resolve(frame.results)
      unanswered.delete(frame.ref)
      break
    case 'auth_expiring':
      token().then((token) => send({ op: 'auth', ref: 'auth', token }), (e) => log('no token', { message: e.message }))
      break
    case 'authed':
      log('thread renewed', { expires_at: frame.expires_at })
      if (joined) session.resumeToken = frame.resume_token // the old one goes with the old credential
      break
    case 'drain':
      connection.wait = frame.reconnect_after_ms
      break
    case 'error':
      refused(connection, frame)
      break
  }
}

// opened takes what joined says, and resumed of each subscription.
function opened(connection, { op, resume_token }, sub) {
  session.resumeToken = resume_token
  if (!sub.reason) session.cursor = sub.cursor // with a void one the reset follows
  connection.failures = 0
  joined = true
  log('thread open', { op, resumed: sub.resumed, members: sub.members.map((m) => m.actor_id) })
  for (const { frame } of unanswered.values()) send(frame)
  if (op === 'resumed') present(state) // a server that was restarted has forgotten it
}

function refused(connection, { ref, code, detail, retry, action, retry_after_ms = 0 }) {
  log('thread refused', { ref, code, detail })
  const publishing = unanswered.get(ref)
  if (action) { // the close follows, and its code says what to do
    connection.wait = Math.max(connection.wait, retry_after_ms)
  } else if (ref === 'resume' && (code.startsWith('resume_') || code === 'credential_revoked')) {
    session.resumeToken = undefined // the session is over, or began with a credential that was revoked; the cursor is good
    join()
  } else if (publishing && retry === 'backoff') {
    setTimeout(() => joined && unanswered.has(ref) && send(publishing.frame), retry_after_ms + jitter(0))
  } else if (publishing) {
    unanswered.delete(ref)
    publishing.reject(new Error(code))
  } else if (ref === 'join' || ref === 'resume') {
    connection.wait = retry_after_ms
    if (retry === 'never') fatal(new Error(code))
    else socket.close(4200) // and come back
  }
}

// ---- The process ------------------------------------------------------------

function fatal(e) {
  console.error(e)
  process.exitCode = 1
  stop()
}

// stop leaves cleanly: with a close of 1000 the others see the agent go at once.
function stop() {
  stopping = true
  source?.close()
  socket?.close(1000)
}
process.once('SIGTERM', stop).once('SIGINT', stop)

followCanvas()
connect().catch(fatal)
