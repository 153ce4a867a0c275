"""Signs a message with dkimpy: dkim_sign.py rsa|ed25519 KEY_FILE SELECTOR DOMAIN < message."""

import sys

import dkim

kind, key_file, selector, domain = sys.argv[1:]
with open(key_file, "rb") as file:
    key = file.read()
message = sys.stdin.buffer.read()
signature = dkim.sign(
    message, selector.encode(), domain.encode(), key,
    canonicalize=(b"relaxed", b"relaxed"),
    signature_algorithm=b"rsa-sha256" if kind == "rsa" else b"ed25519-sha256",
    include_headers=[b"from", b"to", b"subject"],
)
sys.stdout.buffer.write(signature + message)
