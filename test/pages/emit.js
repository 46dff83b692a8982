// emit gives a value to the test, in order, some milliseconds later.
let waiting = []
function emit(value) {
  if (waiting.push(value) === 1) setTimeout(flush, 20)
}

function flush() {
  const values = waiting
  waiting = []
  if (values.length > 0) emitAll(values)
}

// stand stops the page, reading too, until the test answers at gate.
function stand(gate) {
  flush()
  const request = new XMLHttpRequest()
  request.open('GET', gate, false)
  request.send()
}
