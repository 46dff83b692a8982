// Runs a Chromium and its pages as told on standard input, a line of JSON each:
//
//   {"page":"<name>","open":"<url>","headers":{}}    opens a page under that name;
//                                                    its requests get the headers
//   {"page":"<name>","call":"<function>","args":[]}  calls a function of the page
//
// It prints what the pages give to emit(), and what calls return, a line each:
//
//   {"page":"<name>","emitted":<value>}
//   {"page":"<name>","returned":<value>} or {"page":"<name>","threw":"<why>"}
//
// It ends, and the browser with it, when its input does. Arguments: the
// browser's path, and an empty directory for its data.
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const [executablePath, userDataDir] = process.argv.slice(2)
const context = await chromium.launchPersistentContext(userDataDir, {
  executablePath,
  headless: true,
  chromiumSandbox: false,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
})
const pages = new Map()
// A page gives a list of values at once: one call across processes for each
// would be slow.
await context.exposeBinding('emitAll', ({ page }, values) => {
  const name = [...pages].find(([, p]) => p === page)?.[0]
  for (const emitted of values) print({ page: name, emitted })
})

async function open(name, url, headers) {
  const page = await context.newPage()
  pages.set(name, page)
  page.on('pageerror', (e) => print({ page: name, emitted: { bad: String(e) } }))
  await page.goto(url)
  await page.setExtraHTTPHeaders(headers ?? {})
  return true
}

for await (const line of createInterface(process.stdin)) {
  const command = JSON.parse(line)
  const { page: name } = command
  try {
    const returned = command.open
      ? await open(name, command.open, command.headers)
      : await pages.get(name).evaluate(([fn, args]) => globalThis[fn](...args), [command.call, command.args])
    print({ page: name, returned })
  } catch (e) {
    print({ page: name, threw: String(e) })
  }
}
await context.close()
