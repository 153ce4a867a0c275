//! Keys and seals: AES-256-GCM, a key for each content, wrapped by the mailbox's key, wrapped by
//! the organization's, wrapped by the master key (guide 460–570). Where the keys of mailboxes and
//! organizations are kept, `keyring.rs` says.

use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;

use super::mac::LogKey;
use super::{StoreError, durable};
use crate::files::read_regular_text;

/// Octets of every key.
pub(super) const KEY_LEN: usize = 32;
/// Octets of a key as [`Key::wrap_sealed`] wraps it: a nonce, the key, its tag.
pub(super) const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + 16;

/// A key in memory. Overwritten by nobody: it lives in a cache for a minute, or in one message.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key([u8; KEY_LEN]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A fresh key.
    pub(super) fn generate() -> Result<Self, StoreError> {
        let mut bytes = [0; KEY_LEN];
        rand::fill(&mut bytes).map_err(|_| no_randomness())?;
        Ok(Self(bytes))
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0)
            .expect("AES-256-GCM takes 32 bytes, which is what a Key has");
        LessSafeKey::new(key)
    }

    /// Seals the `part`th piece of one message in place; its tag is appended. A message's key is
    /// used for that message alone, so the number of the piece is a nonce that never repeats.
    pub(super) fn seal(&self, part: u32, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        self.cipher()
            .seal_in_place_append_tag(part_nonce(part), Aad::empty(), bytes)
            .map_err(|_| StoreError::Key("content cannot be sealed".into()))
    }

    /// Opens what [`Key::seal`] sealed, in place.
    pub(super) fn open(&self, part: u32, bytes: &mut Vec<u8>) -> Result<(), StoreError> {
        let opened = self
            .cipher()
            .open_in_place(part_nonce(part), Aad::empty(), bytes)
            .map_err(|_| StoreError::Key("sealed content does not open: it was altered".into()))?;
        let length = opened.len();
        bytes.truncate(length);
        Ok(())
    }

    /// Wraps another key for `context`: nonce, sealed key and tag, as octets.
    pub(super) fn wrap_sealed(
        &self,
        key: &Key,
        context: &[u8],
    ) -> Result<[u8; WRAPPED_LEN], StoreError> {
        let mut wrapped = [0; WRAPPED_LEN];
        let (nonce, sealed) = wrapped.split_at_mut(NONCE_LEN);
        rand::fill(nonce).map_err(|_| no_randomness())?;
        let used = Nonce::try_assume_unique_for_key(nonce).map_err(|_| cannot_wrap())?;
        let (body, tag) = sealed.split_at_mut(KEY_LEN);
        body.copy_from_slice(&key.0);
        let made = self
            .cipher()
            .seal_in_place_separate_tag(used, Aad::from(context), body)
            .map_err(|_| cannot_wrap())?;
        tag.copy_from_slice(made.as_ref());
        Ok(wrapped)
    }

    /// Unwraps what [`Key::wrap_sealed`] wrapped for the same context; `None` if it does not open.
    pub(super) fn unwrap_sealed(&self, wrapped: &[u8; WRAPPED_LEN], context: &[u8]) -> Option<Key> {
        let (nonce, sealed) = wrapped.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.cipher().open_in_place(nonce, Aad::from(context), &mut sealed).ok()?;
        <[u8; KEY_LEN]>::try_from(&*opened).ok().map(Key)
    }

    /// Wraps another key for `context`: nonce, sealed key and tag, in hexadecimal.
    pub(super) fn wrap(&self, key: &Key, context: &[u8]) -> Result<String, StoreError> {
        self.seal_secret(&key.0, context)
    }

    /// Seals any secret for `context`: nonce, sealed octets and tag, in hexadecimal.
    pub(super) fn seal_secret(&self, secret: &[u8], context: &[u8]) -> Result<String, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| no_randomness())?;
        let mut wrapped = secret.to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut wrapped,
            )
            .map_err(|_| cannot_wrap())?;
        let mut text = to_hex(&nonce);
        text.push_str(&to_hex(&wrapped));
        Ok(text)
    }

    /// Unwraps what [`Key::wrap`] wrapped for the same context.
    pub(super) fn unwrap_key(&self, wrapped: &str, context: &[u8]) -> Result<Key, StoreError> {
        let opened = self.open_secret(wrapped, context)?;
        Ok(Key(<[u8; KEY_LEN]>::try_from(&*opened).map_err(|_| does_not_open())?))
    }

    /// Opens what [`Key::seal_secret`] sealed for the same context.
    pub(super) fn open_secret(&self, wrapped: &str, context: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = from_hex(wrapped).ok_or_else(does_not_open)?;
        let mut sealed = nonce.split_off_checked(NONCE_LEN).ok_or_else(does_not_open)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| does_not_open())?;
        let opened = self
            .cipher()
            .open_in_place(nonce, Aad::from(context), &mut sealed)
            .map_err(|_| does_not_open())?;
        Ok(opened.to_vec())
    }
}

fn cannot_wrap() -> StoreError {
    StoreError::Key("a key cannot be wrapped".into())
}

fn does_not_open() -> StoreError {
    StoreError::Key("a wrapped key does not open with this master key".into())
}

trait SplitOffChecked: Sized {
    fn split_off_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitOffChecked for Vec<u8> {
    fn split_off_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_off(at))
    }
}

fn part_nonce(part: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&part.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The key that all others hang from, and that stands in a file of the operator's.
#[derive(Clone, Debug)]
pub(super) struct MasterKey(Key);

impl MasterKey {
    /// Reads the master key from its file: 64 hexadecimal digits.
    pub(super) fn load(path: &Path) -> Result<Self, StoreError> {
        let text = read_regular_text(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Key(format!(
                "{}: there is no such file; put the master key there",
                path.display()
            )),
            _ => StoreError::file(path)(error),
        })?;
        let key = from_hex(text.trim())
            .and_then(|bytes| <[u8; KEY_LEN]>::try_from(bytes).ok())
            .ok_or_else(|| {
                StoreError::Key(format!(
                    "{}: a master key is {} hexadecimal digits",
                    path.display(),
                    KEY_LEN * 2
                ))
            })?;
        Ok(Self(Key(key)))
    }

    /// Makes a master key file below the data folder unless there is one.
    pub(super) fn create_if_absent(data_dir: &Path, path: &Path) -> Result<(), StoreError> {
        if durable::is_there(path)? {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            durable::create_dir_below(data_dir, parent)?;
        }
        let text = to_hex(&Key::generate()?.0) + "\n";
        durable::create_file(path, text.as_bytes())?;
        durable::own_like(path, data_dir)?;
        let path = path.display();
        tracing::info!(%path, "a master key is made; without it no mail can be read: keep a copy");
        Ok(())
    }

    /// Tells one master key from another, and nothing of either.
    pub(super) fn check(&self) -> String {
        to_hex(self.derived("key check").0.get(..8).unwrap_or_default())
    }

    /// A key for one purpose of the whole folder, which needs no place of its own.
    fn derived(&self, purpose: &str) -> Key {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY_LEN
            }
        }
        let info = [b"mailweir organization ".as_slice(), purpose.as_bytes()];
        let mut bytes = [0; KEY_LEN];
        Salt::new(HKDF_SHA256, b"mailweir master key v1")
            .extract(&self.0.0)
            .expand(&info, Length)
            .and_then(|okm| okm.fill(&mut bytes))
            .expect("32 bytes are fewer than the 255 blocks that HKDF can give");
        Key(bytes)
    }

    /// The key that organizations' keys are wrapped with.
    pub(super) fn organizations(&self) -> Key {
        self.derived("keys of organizations")
    }

    /// The key that the private keys of mail domains are sealed with.
    pub(super) fn domain_keys(&self) -> Key {
        self.derived("domain keys")
    }

    /// The key that the senders of forwarded mail are rewritten with, for addresses of one domain.
    pub(super) fn sender_rewriting(&self, domain: &str) -> [u8; KEY_LEN] {
        self.derived(&format!("sender rewriting {domain}")).0
    }

    /// The key that we mark mail with that mailboxes here send on.
    pub(super) fn delivery_marks(&self) -> [u8; KEY_LEN] {
        self.derived("delivery marks").0
    }

    /// The key of the log's MACs. Whoever asks takes it from here alone, so another key can take its
    /// place.
    pub(super) fn log(&self) -> LogKey {
        LogKey::new(&self.derived("log").0)
    }
}

fn no_randomness() -> StoreError {
    StoreError::Key("the system gives no random bytes".into())
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_sealed_and_nothing_else() {
        let key = Key::generate().expect("random");
        let mut bytes = b"From: a@b.test\r\n".to_vec();
        key.seal(3, &mut bytes).expect("seals");
        assert!(memchr::memmem::find(&bytes, b"From").is_none());
        assert!(key.open(2, &mut bytes.clone()).is_err(), "another part");
        assert!(Key::generate().expect("random").open(3, &mut bytes.clone()).is_err());
        let mut altered = bytes.clone();
        altered[0] ^= 1;
        assert!(key.open(3, &mut altered).is_err());
        key.open(3, &mut bytes).expect("opens");
        assert_eq!(bytes, b"From: a@b.test\r\n");
    }

    #[test]
    fn a_bad_key_file_is_refused_by_name() {
        use std::fs;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("short.key");
        fs::write(&path, "abcd\n").expect("writes");
        let error = MasterKey::load(&path).expect_err("too short").to_string();
        assert!(error.ends_with("short.key: a master key is 64 hexadecimal digits"), "{error}");
    }
}
