// Reads `From` fields as nodemailer and postal-mime do. A field a line, as a JSON string; an answer a
// line: a JSON list of the domains that either finds. Started by tests/it/author_readers.rs.
"use strict";
const nodemailer = require("nodemailer/lib/addressparser");
const { addressParser: postalMime } = require("postal-mime");
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
  const field = JSON.parse(line);
  const found = [nodemailer, postalMime].flatMap((read) => domains(read(field)));
  process.stdout.write(JSON.stringify(found.filter((domain) => domain)) + "\n");
});
