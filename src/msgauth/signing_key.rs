//! The private keys that sign for a domain, and the records that publish their other halves.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use mail_auth::crypto::{DkimKey, Ed25519Key, RsaKey};
use mail_auth::headers::Writer;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The crypto library gives no key.
    #[error("no {} key can be made", .0.as_str())]
    Generate(KeyType),
    /// These octets are no private key of the type.
    #[error("this is no {} private key", .0.as_str())]
    Unreadable(KeyType),
}

/// The kinds of keys, by their names in a key record's `k=` tag (RFC 6376 §3.6.1, RFC 8463 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// RSA with 2048 bits: every verifier knows it (RFC 8301 §3.2).
    Rsa,
    /// Ed25519: small records, fast to sign with (RFC 8463).
    Ed25519,
}

impl KeyType {
    /// Both. RSA comes first, so that its signature stands on top, for verifiers that look at one
    /// signature only and may not know the other.
    pub const ALL: [Self; 2] = [Self::Rsa, Self::Ed25519];

    /// The value of `k=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A private key, ready to sign.
pub struct SigningKey {
    pub(super) key: DkimKey,
    key_type: KeyType,
    /// What `p=` says, in base64.
    public: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, ..)", self.key_type.as_str())
    }
}

impl SigningKey {
    /// Makes a key; PKCS #8 in DER.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate(key_type: KeyType) -> Result<Vec<u8>, KeyError> {
        let made = match key_type {
            KeyType::Rsa => aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| pair.as_der().map(|der| der.as_ref().to_vec()))
                .ok(),
            KeyType::Ed25519 => Ed25519Key::generate_pkcs8().ok(),
        };
        made.ok_or(KeyError::Generate(key_type))
    }

    /// Reads what [`SigningKey::generate`] made.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`].
    pub fn from_pkcs8(key_type: KeyType, der: &[u8]) -> Result<Self, KeyError> {
        let parts = match key_type {
            KeyType::Rsa => rsa(der),
            KeyType::Ed25519 => ed25519(der),
        };
        let (key, public) = parts.ok_or(KeyError::Unreadable(key_type))?;
        Ok(Self { key, key_type, public: base64(&public) })
    }

    /// Its kind.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// What `p=` says: for RSA the SubjectPublicKeyInfo, for Ed25519 the 32 octets of the key
    /// (RFC 8463 §4), in base64.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// The text of the TXT record to publish at `SELECTOR._domainkey.DOMAIN`.
    pub fn record(&self) -> String {
        format!("v=DKIM1; k={}; p={}", self.key_type.as_str(), self.public)
    }
}

fn rsa(der: &[u8]) -> Option<(DkimKey, Vec<u8>)> {
    let public = RsaKeyPair::from_pkcs8(der).ok()?.public_key().as_der().ok()?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
    Some((DkimKey::Rsa(RsaKey::from_key_der(private).ok()?), public.as_ref().to_vec()))
}

fn ed25519(der: &[u8]) -> Option<(DkimKey, Vec<u8>)> {
    let key = Ed25519Key::from_pkcs8_der(der).ok()?;
    let public = key.public_key();
    Some((DkimKey::Ed25519(key), public))
}

fn base64(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    text.write_base64(bytes);
    String::from_utf8(text).expect("base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_read_and_published() {
        for (key_type, octets) in [(KeyType::Rsa, 392), (KeyType::Ed25519, 44)] {
            let der = SigningKey::generate(key_type).expect("generates");
            let key = SigningKey::from_pkcs8(key_type, &der).expect("reads");
            assert_eq!(key.public_key().len(), octets, "{key:?}");
            let record = key.record();
            let start = format!("v=DKIM1; k={}; p=", key_type.as_str());
            assert_eq!(record.strip_prefix(&start), Some(key.public_key()));
            assert_ne!(
                der,
                SigningKey::generate(key_type).expect("generates"),
                "another each time"
            );
            assert_eq!(format!("{key:?}"), format!("SigningKey({}, ..)", key_type.as_str()));
        }
    }

    #[test]
    fn a_key_of_the_other_type_is_not_taken() {
        let rsa = SigningKey::generate(KeyType::Rsa).expect("generates");
        let ed25519 = SigningKey::generate(KeyType::Ed25519).expect("generates");
        for (key_type, der) in
            [(KeyType::Rsa, &ed25519), (KeyType::Ed25519, &rsa), (KeyType::Rsa, &Vec::new())]
        {
            let error = SigningKey::from_pkcs8(key_type, der).expect_err("is another");
            assert_eq!(error.to_string(), format!("this is no {} private key", key_type.as_str()));
        }
    }
}
