//! The MAC of what stands in the log, by which nobody who can write the disk and lacks the master key
//! can alter, move, swap, replay or leave out a record unseen: HMAC-SHA-256, cut to 16 octets.
//!
//! It is over where a record stands (folder, epoch, generation, its position and the next) and a hash
//! of its head, its events, and the tags of its sealed pieces, which stand for the pieces: so no
//! content is gone over twice. HMAC needs no nonce, of which one that came twice would give the key
//! away; and SHA-256 costs little on processors that have instructions for it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};

use crate::events::Lsn;

/// Octets of a MAC, and of the tag of a sealed piece.
pub(super) const MAC: usize = 16;
/// A MAC.
pub(super) type Mac = [u8; MAC];
/// A hash of what a record says.
pub(super) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// What a MAC is of, so that one of one kind is none of another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signed {
    Header = 1,
    Frame = 2,
    Pack = 3,
}

/// The key of the log's MACs.
#[derive(Clone)]
pub(super) struct LogKey(Arc<hmac::Key>);

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(..)")
    }
}

impl LogKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// The MAC of some octets, whose lengths are always the same for one kind.
    pub(super) fn mac(&self, what: Signed, octets: &[&[u8]]) -> Mac {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[what as u8]);
        octets.iter().for_each(|part| context.update(part));
        let tag = context.sign();
        // It has 32 octets.
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Whether a MAC is the one of these octets.
    pub(super) fn is_mac(&self, mac: &Mac, what: Signed, octets: &[&[u8]]) -> bool {
        verify_slices_are_equal(mac, &self.mac(what, octets)).is_ok()
    }
}

/// Where a record stands: all that its MAC is over beside what it says.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What the header of its file says of folder, epoch and generation.
    pub(super) file: Arc<[u8]>,
    pub(super) lsn: Lsn,
    /// The position after it.
    pub(super) next: Lsn,
    /// The MAC that it had when it was written, once it stands in a pack; else zeros.
    pub(super) first_mac: Mac,
}

impl Place {
    /// The MAC of a record that stands here.
    pub(super) fn mac(&self, key: &LogKey, digest: &Digest) -> Mac {
        let lsn = self.lsn.0.to_le_bytes();
        let next = self.next.0.to_le_bytes();
        key.mac(Signed::Frame, &[&self.file, &lsn, &next, &self.first_mac, digest])
    }

    /// Whether a MAC is the one of a record that stands here.
    pub(super) fn is_mac(&self, key: &LogKey, mac: &Mac, digest: &Digest) -> bool {
        let lsn = self.lsn.0.to_le_bytes();
        let next = self.next.0.to_le_bytes();
        key.is_mac(mac, Signed::Frame, &[&self.file, &lsn, &next, &self.first_mac, digest])
    }
}

/// Hashes what a record says: its head and events, then the tag of each of its sealed pieces.
pub(super) fn digest<'a>(start: &[u8], sealed: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(start);
    for piece in sealed {
        context.update(piece.last_chunk::<MAC>().map_or(piece, <[u8; MAC]>::as_slice));
    }
    octets_of(&context.finish())
}

/// Hashes a pack's table.
pub(super) fn digest_of_table(table: &[u8]) -> Digest {
    octets_of(&digest::digest(&digest::SHA256, table))
}

fn octets_of(digest: &digest::Digest) -> Digest {
    digest.as_ref().try_into().unwrap_or_default()
}
