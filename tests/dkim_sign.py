"""Signs the message on standard input with dkimpy and writes it to standard output.

    dkim_sign.py ALGORITHM SELECTOR DOMAIN KEYFILE CANONICALIZATION [IDENTITY]

ALGORITHM is rsa-sha256 (KEYFILE in PEM) or ed25519-sha256 (KEYFILE holds the private key's 32
octets in base64, as RFC 8032 has them). CANONICALIZATION is header/body, as in relaxed/simple.
"""

import sys

import dkim


def main(algorithm, selector, domain, keyfile, canonicalization, identity=None):
    message = sys.stdin.buffer.read()
    with open(keyfile, "rb") as file:
        key = file.read().strip()
    header, body = (name.encode() for name in canonicalization.split("/"))
    signature = dkim.sign(
        message,
        selector.encode(),
        domain.encode(),
        key,
        identity=identity.encode() if identity else None,
        canonicalize=(header, body),
        signature_algorithm=algorithm.encode(),
        include_headers=[b"from", b"to", b"subject", b"date", b"message-id"],
    )
    sys.stdout.buffer.write(signature + message)


if __name__ == "__main__":
    main(*sys.argv[1:])
