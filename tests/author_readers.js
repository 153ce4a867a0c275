// Reads `From` fields as nodemailer does. A field a line, as a JSON string; an answer a line: a
// JSON list of the domains that it finds. Started by tests/it/author_readers.rs.
"use strict";
const addressparser = require("nodemailer/lib/addressparser");
const lines = require("readline").createInterface({ input: process.stdin });

function domains(entries) {
  return entries.flatMap((entry) => {
    if (entry.group) return domains(entry.group);
    const address = entry.address || "";
    const at = address.lastIndexOf("@");
    return at < 0 ? [] : [address.slice(at + 1)];
  });
}

lines.on("line", (line) => {
  const found = domains(addressparser(JSON.parse(line)));
  process.stdout.write(JSON.stringify(found.filter((domain) => domain)) + "\n");
});
