// Follows a canvas with npm's eventsource, which reconnects by itself, and
// prints what it sees, a line of JSON each:
//
//   {"open":true}                                a connection was made
//   {"id":"<last event id>","data":"<event>"}    an event, its text as it came
//   {"bad":"<why>"}                              what must not happen
//
// Its argument is JSON: {"url","headers","gate"}. With a gate it stops at its first
// event until there is a file of that name. It ends when its input does.
import { existsSync } from 'node:fs'
import { EventSource } from 'eventsource'

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

const source = new EventSource(input.url, {
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...input.headers } }),
})
source.addEventListener('error', (e) => {
  if (source.readyState === EventSource.CLOSED) print({ bad: `closed: ${e.code} ${e.message}` })
})
for (const own of ['reset', 'end']) {
  source.addEventListener(own, (e) => print({ bad: `${own}: ${e.data}` }))
}
// The rail's own event "open", and the one that says that a connection is made,
// have one name; only the first has data.
source.addEventListener('open', (e) => { if (e.data === undefined) print({ open: true }) })
for (const channel of ['commit', 'artifact']) {
  source.addEventListener(channel, (e) => {
    print({ id: e.lastEventId, data: e.data })
    stand()
  })
}
