"""Reads `From` fields as Python's mail library does, with both of its policies.

A field a line, as a JSON string; an answer a line: a JSON list of the domains that either policy
finds. Started by tests/it/author_readers.rs.
"""
import email
import email.policy
import json
import sys
from email.utils import getaddresses

for line in sys.stdin:
    message = "From: " + json.loads(line) + "\r\n\r\n"
    raw = message.encode("utf-8", "surrogateescape")
    domains = []
    try:
        parsed = email.message_from_bytes(raw, policy=email.policy.default)
        for field in parsed.get_all("from", []):
            domains += [address.domain for address in field.addresses]
    except Exception:  # The library's own faults say nothing of the author.
        pass
    try:
        parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
        fields = [str(field) for field in parsed.get_all("from", [])]
        for _, address in getaddresses(fields):
            domains += [address.rpartition("@")[2]] if "@" in address else []
    except Exception:
        pass
    # Octets that are not ASCII come as surrogates.
    octets = [domain.encode("utf-8", "surrogateescape") for domain in domains if domain]
    print(json.dumps([domain.decode("utf-8", "replace") for domain in octets]), flush=True)
