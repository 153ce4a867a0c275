//! What a file has instead of a certificate or a key in PEM format, and what makes one of it: people
//! who make their pair by hand meet each of these.

use memchr::memmem;

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Certificate,
    PrivateKey,
}

impl Wanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
        }
    }

    /// The openssl command that reads it.
    fn command(self) -> &'static str {
        match self {
            Self::Certificate => "x509",
            Self::PrivateKey => "pkey",
        }
    }
}

/// Whether it is a key that nobody can use without its passphrase (in PKCS #8, or in openssl's
/// older form).
pub(super) fn is_encrypted(text: &[u8]) -> bool {
    has(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(text, b"Proc-Type: 4,ENCRYPTED")
}

/// Why a file holds nothing of a kind, and what to do.
pub(super) fn told(kind: Wanted, text: &[u8]) -> String {
    let command = kind.command();
    let is_swapped = match kind {
        Wanted::Certificate => has(text, b"PRIVATE KEY-----"),
        Wanted::PrivateKey => has(text, b"-----BEGIN CERTIFICATE-----"),
    };
    if kind == Wanted::PrivateKey && is_encrypted(text) {
        return "its private key is encrypted, and nobody is there to be asked; openssl pkey -in \
                OLD -out NEW writes it without a passphrase"
            .to_owned();
    }
    let holds = format!("holds no {} in PEM format", kind.as_str());
    if is_swapped {
        return format!("{holds}, but the other of the two; are the files swapped?");
    }
    if has(text, b"-----BEGIN CERTIFICATE REQUEST-----") {
        return format!("{holds}, but the request for one; take what the authority made of it");
    }
    // DER begins with a SEQUENCE (X.690 §8.9), and PKCS #12 is one too.
    match text.first() {
        None => "is empty".to_owned(),
        Some(0x30) => format!(
            "{holds}; if it is DER, openssl {command} -inform der -in OLD -out NEW writes it, and if \
             it is PKCS #12 (.p12, .pfx), openssl pkcs12 -in OLD -nodes -out NEW"
        ),
        Some(_) => format!("{holds}: nothing in it begins with -----BEGIN"),
    }
}

fn has(text: &[u8], words: &[u8]) -> bool {
    memmem::find(text, words).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_instead_is_known() {
        let check = |kind: Wanted, text: &[u8], expected: &str| {
            let told = told(kind, text);
            assert!(told.contains(expected), "{told} lacks {expected}");
        };
        let key = b"-----BEGIN EC PRIVATE KEY-----\n".as_slice();
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n".as_slice();
        let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".as_slice();
        let certificate = b"-----BEGIN CERTIFICATE-----\n".as_slice();
        let request = b"-----BEGIN CERTIFICATE REQUEST-----\n".as_slice();
        let der = b"\x30\x82\x03\x01".as_slice();
        check(Wanted::Certificate, key, "are the files swapped?");
        check(Wanted::PrivateKey, certificate, "are the files swapped?");
        check(Wanted::PrivateKey, encrypted, "openssl pkey -in OLD -out NEW");
        check(Wanted::PrivateKey, old, "openssl pkey -in OLD -out NEW");
        check(Wanted::Certificate, request, "but the request for one");
        check(Wanted::Certificate, der, "openssl x509 -inform der");
        check(Wanted::PrivateKey, der, "openssl pkey -inform der");
        check(Wanted::Certificate, b"", "is empty");
        check(Wanted::PrivateKey, b"hello", "holds no private key in PEM format: nothing in it");
        assert!(is_encrypted(old) && is_encrypted(encrypted) && !is_encrypted(key));
    }
}
