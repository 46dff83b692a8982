// Follows a thread with npm's ws and prints what it sees as
// follow-eventsource.mjs does; data is the whole frame. It comes back by itself,
// and joins after the last cursor that it saw.
//
// Its argument is JSON: {"url","headers","routing","gate"}. It ends when its
// input does.
import { existsSync } from 'node:fs'
import WebSocket from 'ws'

const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const input = JSON.parse(process.argv[2])
process.stdin.on('end', () => process.exit()).resume()

// stand stops everything, reading too, until the file gate is there.
let { gate } = input
function stand() {
  const nothing = new Int32Array(new SharedArrayBuffer(4))
  while (gate && !existsSync(gate)) Atomics.wait(nothing, 0, 0, 20)
  gate = ''
}

let after = 'earliest'

function connect() {
  const socket = new WebSocket(input.url, ['twinrail.v1'], { headers: input.headers, handshakeTimeout: 5000 })
  socket.on('open', () => {
    print({ open: true })
    socket.send(JSON.stringify({ op: 'join', sub: 's', routing: input.routing, after }))
  })
  socket.on('message', (raw) => {
    const text = raw.toString()
    const frame = JSON.parse(text)
    switch (frame.op) {
      case 'event':
        after = frame.event.cursor
        print({ id: after, data: text })
        stand()
        break
      case 'ping':
        socket.send('{"op":"pong"}')
        break
      case 'error':
        if (frame.action === 'resume') break // it closes, and this comes back
        // falls through
      case 'reset':
        print({ bad: text })
    }
  })
  socket.on('error', () => {}) // 'close' follows
  socket.on('close', () => setTimeout(connect, 200 + 200 * Math.random()))
}
connect()
