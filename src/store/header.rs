//! What every file of the log begins with: whose folder it belongs to, in which of its lives it was
//! written and by which version, where it continues from, and what kinds of records may stand in it.
//! A start reads the headers of all files before it opens anything for writing, so what this version
//! does not know stops it wherever it stands.
//!
//! A header has 256 octets, little-endian: magic number, its length u32, generation u32, folder
//! identity, epoch (number u64, id), base u64, the position that it continues from u64, the id of the
//! epoch before it, the epoch at its end (number u64, id), the version that wrote it as text, pairs of
//! a kind and its version, zeros, a MAC, and a CRC-32 of all of it. Later formats keep all up
//! to the version that wrote them where it is, so that an older program can tell it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;

use super::mac::{LogKey, MAC, Mac, Signed};
use super::{StoreError, damaged};

/// Octets of a header.
pub(super) const HEADER: u64 = LEN as u64;
const LEN: usize = 256;
/// The first bytes of every file of the log.
const MAGIC: &[u8; 8] = b"mwlog-4\n";
/// What the files of all versions begin with; the format's number and a line end follow.
const ANY_FORMAT: &[u8; 6] = b"mwlog-";
/// Octets of the writer's version.
const WRITER: usize = 24;
/// Kinds of records that a header has room for.
const KINDS: usize = 32;
/// Where the MAC begins.
const MAC_AT: usize = LEN - 4 - MAC;

/// What may stand in a record, with the version of each that this program writes. It reads that and
/// all before it. Whoever adds a kind, or a field to one, adds here.
pub(super) const KNOWN: [(u8, u8, &str); 12] = [
    (1, 1, "births of mailboxes"),
    (2, 1, "facts of who is who"),
    (3, 1, "deliveries"),
    (4, 1, "entries of the queue"),
    (5, 1, "stories"),
    (6, 1, "changes of messages"),
    (7, 1, "changes of queue entries"),
    (8, 1, "recipients that were counted"),
    (9, 1, "senders of what was forwarded"),
    (10, 1, "events"),
    (11, 1, "what is said of organizations"),
    (12, 1, "erasures of mailboxes"),
];

/// Octets that were drawn once and tell one thing from all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drawn(pub(super) [u8; 16]);

impl Drawn {
    fn new() -> Result<Self, StoreError> {
        let mut octets = [0; 16];
        rand::fill(&mut octets)
            .map_err(|_| StoreError::Key("the system gives no random bytes".into()))?;
        Ok(Self(octets))
    }
}

/// A life of a data folder. A torn end that is cut off, and a restore, begin the next one, so that
/// what was written at a position in one life is not taken for what the other has there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) number: u64,
    /// Two restores of one backup have the same number, and each an id of its own.
    pub(super) id: Drawn,
}

impl Epoch {
    /// The one that follows.
    pub(super) fn next(self) -> Result<Self, StoreError> {
        Ok(Self { number: self.number + 1, id: Drawn::new()? })
    }
}

/// A file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Zero for a segment as it was written; what compaction writes counts from one.
    pub(super) generation: u32,
    /// The data folder's identity, made with it.
    pub(super) folder: Drawn,
    /// In which it was written.
    pub(super) epoch: Epoch,
    /// The position of its first byte.
    pub(super) base: u64,
    /// The position where the log ended before it.
    pub(super) continues: u64,
    /// The id of the epoch in which the log ended there.
    pub(super) follows: Drawn,
    /// The epoch in which it ends: of a pack, that of the last file whose place it took.
    pub(super) ends_in: Epoch,
    writer: String,
    kinds: Vec<(u8, u8)>,
    /// What tells it from what anybody else may write.
    pub(super) mac: Mac,
}

impl Header {
    /// The header of a new log's first file.
    pub(super) fn first() -> Result<Self, StoreError> {
        let epoch = Epoch::default().next()?;
        Ok(Self::of(Drawn::new()?, epoch, epoch, 0, Drawn::default()))
    }

    /// The header of a segment that is written in `epoch` behind the file that has this one, which
    /// ends at a position.
    pub(super) fn after(&self, end: u64, epoch: Epoch) -> Self {
        Self::of(self.folder, epoch, epoch, end, self.ends_in.id)
    }

    /// The header of a pack that takes the place of the files from the one with this header to the
    /// one with `last`, written in `epoch`.
    pub(super) fn of_pack(&self, last: &Self, epoch: Epoch, generation: u32) -> Self {
        let made = Self::of(self.folder, epoch, last.ends_in, self.base, self.follows);
        Self { generation, continues: self.continues, ..made }
    }

    fn of(folder: Drawn, epoch: Epoch, ends_in: Epoch, base: u64, follows: Drawn) -> Self {
        Self {
            generation: 0,
            folder,
            epoch,
            base,
            continues: base,
            follows,
            ends_in,
            writer: env!("CARGO_PKG_VERSION").chars().take(WRITER).collect(),
            kinds: KNOWN.iter().map(|(kind, version, _)| (*kind, *version)).collect(),
            mac: [0; MAC],
        }
    }

    /// The same with its MAC.
    pub(super) fn signed(mut self, key: &LogKey) -> Self {
        self.mac = key.mac(Signed::Header, &[&self.body()]);
        self
    }

    /// Whether it has the MAC of what it says.
    pub(super) fn is_signed(&self, key: &LogKey) -> bool {
        key.is_mac(&self.mac, Signed::Header, &[&self.body()])
    }

    /// What it says of where the file's records stand, as their MACs have it.
    pub(super) fn place(&self) -> Arc<[u8]> {
        let mut octets = self.folder.0.to_vec();
        push_epoch(&mut octets, self.epoch);
        octets.extend_from_slice(&self.generation.to_le_bytes());
        octets.into()
    }

    /// Whether all that this program writes may stand behind it.
    pub(super) fn takes_all(&self) -> bool {
        KNOWN.iter().all(|(kind, version, _)| self.kinds.contains(&(*kind, *version)))
    }

    /// Reads the header of a file of so many octets. `None` is a file that ends within it, or with it
    /// and says nothing whole: what a crash leaves of a new segment. A file of a foreign or later
    /// format holds no frames: taken for a torn end, all of it would be cut off.
    ///
    /// # Errors
    /// [`StoreError::OtherFormat`], [`StoreError::LaterKind`]; damage.
    pub(super) fn read(file: &File, path: &Path, bytes: u64) -> Result<Option<Self>, StoreError> {
        let mut octets = [0; LEN];
        let there = octets.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        let start = octets.get_mut(..there).unwrap_or_default();
        file.read_exact_at(start, 0).map_err(StoreError::file(path))?;
        // A file that is shorter than that has zeros there.
        let magic = octets.first_chunk::<{ MAGIC.len() }>().unwrap_or(MAGIC);
        if let Some([format @ b'0'..=b'9', b'\n']) = magic.strip_prefix(ANY_FORMAT)
            && magic != MAGIC
        {
            let writer = match format {
                b'0'..=b'3' => "builds of mailweir from before 2 December 2026 wrote".to_owned(),
                _ => {
                    Self::parse(&octets).map_or_else(
                        || "a later mailweir".into(),
                        |it| format!("mailweir {}", it.writer),
                    ) + " has written"
                }
            };
            let path = path.to_owned();
            let format = char::from(*format);
            return Err(StoreError::OtherFormat { path, format, writer });
        }
        if bytes < HEADER {
            return Ok(None);
        }
        // What it says beside what this version knows would be no part of its MAC.
        match Self::parse(&octets).filter(|header| header.encode() == octets) {
            Some(header) => header.check_kinds(path).map(|()| Some(header)),
            // Its content is synced before a frame stands behind it.
            None if bytes == HEADER => Ok(None),
            None => Err(damaged(path, 0, "it does not begin as a file of the log does")),
        }
    }

    fn check_kinds(&self, path: &Path) -> Result<(), StoreError> {
        for (kind, version) in &self.kinds {
            let what = match KNOWN.iter().find(|(known, ..)| known == kind) {
                Some((_, known, _)) if version <= known => continue,
                Some((.., name)) => format!("{name} of version {version}"),
                None => format!("records of kind {kind}"),
            };
            let writer = self.writer.clone();
            return Err(StoreError::LaterKind { path: path.to_owned(), what, writer });
        }
        Ok(())
    }

    fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let (body, crc) = octets.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(body.get(MAGIC.len()..)?);
        if fields.u32()? as usize != LEN {
            return None;
        }
        Some(Self {
            generation: fields.u32()?,
            folder: fields.drawn()?,
            epoch: fields.epoch()?,
            base: fields.u64()?,
            continues: fields.u64()?,
            follows: fields.drawn()?,
            ends_in: fields.epoch()?,
            writer: {
                let text = fields.take::<WRITER>()?;
                String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()
            },
            kinds: {
                let pairs = fields.take::<{ 2 * KINDS }>()?.as_chunks::<2>().0.iter();
                pairs.map(|[kind, version]| (*kind, *version)).filter(|it| it.0 != 0).collect()
            },
            mac: *octets.get(MAC_AT..)?.first_chunk()?,
        })
    }

    /// All of its octets.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut octets = self.body();
        octets.extend_from_slice(&self.mac);
        octets.extend_from_slice(&crc32fast::hash(&octets).to_le_bytes());
        octets
    }

    /// What stands before its MAC.
    fn body(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(LEN);
        octets.extend_from_slice(MAGIC);
        octets.extend_from_slice(&(LEN as u32).to_le_bytes());
        octets.extend_from_slice(&self.generation.to_le_bytes());
        octets.extend_from_slice(&self.folder.0);
        push_epoch(&mut octets, self.epoch);
        octets.extend_from_slice(&self.base.to_le_bytes());
        octets.extend_from_slice(&self.continues.to_le_bytes());
        octets.extend_from_slice(&self.follows.0);
        push_epoch(&mut octets, self.ends_in);
        let mut writer = self.writer.clone().into_bytes();
        writer.resize(WRITER, 0);
        octets.append(&mut writer);
        let mut kinds: Vec<u8> = self.kinds.iter().flat_map(|it| [it.0, it.1]).collect();
        kinds.resize(2 * KINDS, 0);
        octets.append(&mut kinds);
        octets.resize(MAC_AT, 0);
        octets
    }
}

fn push_epoch(octets: &mut Vec<u8>, epoch: Epoch) {
    octets.extend_from_slice(&epoch.number.to_le_bytes());
    octets.extend_from_slice(&epoch.id.0);
}

/// Takes fields from the start of what is left.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(|field| u32::from_le_bytes(*field))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(|field| u64::from_le_bytes(*field))
    }

    fn drawn(&mut self) -> Option<Drawn> {
        self.take().map(|field| Drawn(*field))
    }

    fn epoch(&mut self) -> Option<Epoch> {
        Some(Epoch { number: self.u64()?, id: self.drawn()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Header {
        let first = Header::first().expect("random");
        let later = first.after(0x1234, first.epoch.next().expect("random"));
        let mut pack = first.of_pack(&later, later.epoch.next().expect("random"), 7);
        pack.mac = [9; MAC];
        pack
    }

    fn read(octets: &[u8]) -> Result<Option<Header>, StoreError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        std::fs::write(&path, octets).expect("writes");
        Header::read(&File::open(&path).expect("opens"), &path, octets.len() as u64)
    }

    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let header = full();
        let octets = header.encode();
        assert_eq!(octets.len(), LEN);
        assert_eq!(read(&octets).expect("reads"), Some(header.clone()));
        for short in 0..LEN {
            assert_eq!(read(&octets[..short]).expect("unfinished"), None, "{short}");
        }
        for at in 0..LEN {
            let mut altered = octets.clone();
            altered[at] ^= 0x20;
            assert_eq!(read(&altered).expect("a new segment"), None, "{at}");
            altered.push(0);
            assert!(matches!(read(&altered), Err(StoreError::Damaged { .. })), "{at}");
        }
    }

    #[test]
    fn what_a_later_version_may_have_written_is_told_with_the_version() {
        let later = |kinds: &[(u8, u8)]| {
            let mut header = Header { writer: "9.9.9".into(), ..full() };
            header.kinds.extend_from_slice(kinds);
            read(&header.encode()).map(|header| header.is_some())
        };
        for (kinds, told) in [
            (&[(31, 1)][..], "may hold records of kind 31, which this mailweir"),
            (&[(3, 2)], "may hold deliveries of version 2, which"),
            (&[(30, 255)], "does not know: mailweir 9.9.9 has written it"),
        ] {
            let error = later(kinds).expect_err("later").to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(later(&[]).expect("reads"));
        assert!(Header { kinds: Vec::new(), ..full() }.check_kinds(Path::new("")).is_ok(), "less");
        let mut octets = Header { writer: "9.9.9".into(), ..full() }.encode();
        octets[..8].copy_from_slice(b"mwlog-7\n");
        let crc = crc32fast::hash(&octets[..LEN - 4]).to_le_bytes();
        octets[LEN - 4..].copy_from_slice(&crc);
        let error = read(&octets).expect_err("later").to_string();
        assert!(error.contains("is of log format 7, which mailweir 9.9.9 has written"), "{error}");
    }
}
