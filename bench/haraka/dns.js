// Loaded before Haraka in each of its processes: every DNS question goes to the benchmark's own
// name server.
const dns = require('node:dns')
const servers = [process.env.BENCH_DNS]
for (const api of [dns, dns.promises]) {
  api.setServers(servers)
  const Plain = api.Resolver
  api.Resolver = class extends Plain {
    constructor(options) {
      super(options)
      this.setServers(servers)
    }
  }
}
