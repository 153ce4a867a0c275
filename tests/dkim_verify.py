"""Verifies every DKIM signature of the message on standard input with dkimpy.

    dkim_verify.py ZONEFILE

Keys are looked up in ZONEFILE, which dnspython reads. Writes a line for each signature, from the
top: its selector, its algorithm, and `pass` or `fail`.
"""

import sys

import dkim
import dns.zone


def txt_of(zonefile):
    with open(zonefile) as file:
        zone = dns.zone.from_text(file.read(), origin=".", relativize=False, check_origin=False)

    def lookup(name, timeout=5):
        records = zone.get_rdataset(name.decode() if isinstance(name, bytes) else name, "TXT")
        return b"".join(records[0].strings) if records else None

    return lookup


def main(zonefile):
    message = sys.stdin.buffer.read()
    lookup = txt_of(zonefile)
    names = [name.lower() for name, _ in dkim.DKIM(message).headers]
    for index in range(names.count(b"dkim-signature")):
        verifier = dkim.DKIM(message)
        try:
            result = "pass" if verifier.verify(index, dnsfunc=lookup) else "fail"
        except dkim.ValidationError:
            result = "fail"
        fields = verifier.signature_fields
        print(fields[b"s"].decode(), fields[b"a"].decode(), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
