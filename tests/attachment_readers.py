"""Names the files of messages as Python's mail library finds them, with both of its policies.

A message a line, as a JSON string of octets; an answer a line: a JSON list of names. What is encoded
as a whole is decoded and read again, and uuencoded files in texts have names too. Started by
tests/it/attachment_readers.rs.
"""
import base64
import email
import email.policy
import json
import quopri
import re
import sys
from email.header import decode_header

BEGIN = re.compile(rb"^begin(?:-base64)? [0-7]{3,4} +([^\r\n]+)", re.MULTILINE)


def shown(name):
    """A name without encoded words (RFC 2047)."""
    pieces = decode_header(name)
    return "".join(
        text.decode(charset or "latin-1", "replace") if isinstance(text, bytes) else text
        for text, charset in pieces
    )


def names(octets, policy, depth):
    found = []
    for part in email.message_from_bytes(octets, policy=policy).walk():
        try:
            name = part.get_filename()
            found += [shown(str(name))] if name else []
        except Exception:  # The library's own faults say nothing of the file.
            pass
        try:
            if part.get_content_maintype() == "text":
                text = part.get_payload(decode=True) or b""
                found += [name.decode("latin-1") for name in BEGIN.findall(text)]
            encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
            if part.get_content_maintype() == "message" and depth < 2:
                inner = part.get_payload(0).as_bytes()
                if encoding == "base64":
                    found += names(base64.b64decode(inner), policy, depth + 1)
                if encoding == "quoted-printable":
                    found += names(quopri.decodestring(inner), policy, depth + 1)
        except Exception:
            pass
    return found


for line in sys.stdin:
    raw = json.loads(line).encode("latin-1")
    found = []
    for policy in (email.policy.default, email.policy.compat32):
        try:
            found += names(raw, policy, 0)
        except Exception:
            pass
    print(json.dumps([name.encode("utf-8", "replace").decode() for name in found]), flush=True)
