// The SPF plugin passes over clients on loopback, and here all clients are there.
exports.hook_connect = (next, connection) => {
  connection.remote.is_private = false
  next()
}
