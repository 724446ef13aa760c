// Many execution environments in one Node process, each with its own instance of serverless-mysql,
// used as its README says: `query`, then `end`, with its default options. They share the process's
// event loop, which costs them less than a process each would.
//
// Orders come as JSON, one a line, on standard input:
//   {"callers": 10, "begin": <monotonic seconds>, "end": <monotonic seconds>, "sleep": <seconds>}
// and each is answered by one line with what its invocations saw. Ends when the input does.

'use strict'

const fs = require('fs')
const readline = require('readline')
const serverlessMysql = require('serverless-mysql')

const [size, timeout] = [Number(process.argv[2]), Number(process.argv[3])]
// CLOCK_MONOTONIC in seconds, the same clock as Python's time.monotonic().
const now = () => Number(process.hrtime.bigint()) / 1e9

class Environment {
  constructor () {
    this.attempts = 0
    this.connectedAt = 0
    const { DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, DATABASE_USER, DATABASE_PASSWORD } = process.env
    this.mysql = serverlessMysql({
      config: {
        host: DATABASE_HOST,
        port: Number(DATABASE_PORT),
        database: DATABASE_NAME,
        user: DATABASE_USER,
        password: DATABASE_PASSWORD,
        ssl: { ca: fs.readFileSync(process.env.DATABASE_CA_FILE), rejectUnauthorized: true }
      },
      onConnect: () => { this.attempts++ },
      onRetry: () => { this.attempts++ }
    })
  }

  async invoke (sleep) {
    await this.mysql.query(`SELECT SLEEP(${sleep})`)
    await this.mysql.end()
  }

  // Lambda ends an invocation at its timeout, whatever it is doing.
  async invokeWithin (seconds, sleep) {
    let timer
    const late = new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('timeout')), seconds * 1000)
    })
    const work = this.invoke(sleep)
    work.catch(() => {}) // when it loses the race
    try {
      await Promise.race([work, late])
    } finally {
      clearTimeout(timer)
    }
  }

  async run ({ begin, end, sleep }, sample) {
    for (let started = now(); started < end; started = now()) {
      this.attempts = 0
      let failure = null
      try {
        await this.invokeWithin(timeout, sleep)
      } catch (error) {
        failure = error.message.includes('Too many connections') ? '1040' : error.message
        // A failure that costs nothing would starve the event loop and every other environment.
        await new Promise(resolve => setImmediate(resolve))
      }
      const ended = now()
      if (failure === null && begin <= ended && ended <= end) sample.completed++
      if (started < begin) continue
      sample.attempts += this.attempts
      if (failure === null) sample.latencies.push(ended - started)
      else sample.failures[failure] = (sample.failures[failure] || 0) + 1
    }
  }
}

async function main () {
  const environments = Array.from({ length: size }, () => new Environment())
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line)
    const sample = { latencies: [], attempts: 0, completed: 0, failures: {} }
    await Promise.all(environments.slice(0, order.callers).map(one => one.run(order, sample)))
    // Nobody's connection may stand in the next side's way: frozen environments would keep them.
    environments.forEach(one => one.mysql.quit())
    process.stdout.write(JSON.stringify(sample) + '\n')
  }
  process.exit(0)
}

main()
