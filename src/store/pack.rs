//! Packs: what is left of segments whose messages were removed or whose events have expired.
//!
//! A record keeps its position for ever, since event ids and the index name it, so a pack's
//! frames say theirs: `length u32, crc32 u32, lsn u64, next u64, first MAC, MAC, payload`,
//! little-endian; the first MAC is the one that the record had when it was written. After the frames
//! stand a table of `lsn u64, offset u64, MAC` and a trailer, whose MAC is also over a hash of the table. A pack is written and synced
//! under another name and takes its own with one rename, so it is whole or not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{HEADER, Header};
use super::mac::{self, Digest, LogKey, MAC, Mac, Place, Signed};
use super::segment::ReadFrame;
use super::{StoreError, damaged, durable, tampered};
use crate::clock::Timestamp;
use crate::events::Lsn;

/// Octets of a pack's frame before its payload.
pub(super) const PACK_HEADER: u64 = 24 + 2 * MAC as u64;
/// How a pack's file name ends.
pub(super) const SUFFIX: &str = "pack";
const TRAILER_MAGIC: &[u8; 8] = b"mwpack1\n";
const NUMBERS: usize = 6 * 8 + 4;
const TRAILER_LEN: usize = NUMBERS + 32 + MAC + 4 + TRAILER_MAGIC.len();
const TABLE_ENTRY: u64 = 16 + MAC as u64;
/// How much is written before it is synced, so that no sync of the log waits for much of ours.
const SYNC_BYTES: usize = 512 * 1024;

/// What a pack says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trailer {
    /// The position after the last that it covers.
    pub(super) end: u64,
    /// Removals and moves that stand before this position are worked in.
    pub(super) considered: u64,
    /// Events and stories from before this moment were left out.
    pub(super) expired_before: Timestamp,
    /// The newest moment of the events and stories that are in it.
    pub(super) newest: Timestamp,
    /// Where in the file the table begins.
    pub(super) table: u64,
    /// Frames.
    pub(super) count: u64,
    pub(super) table_crc: u32,
    /// Of the table.
    pub(super) digest: Digest,
    pub(super) mac: Mac,
}

impl Trailer {
    /// Reads a pack's trailer.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::file(path))?;
        let length = file.metadata().map_err(StoreError::file(path))?.len();
        let bad = || damaged(path, length, "its trailer is not a pack's");
        let start = length.checked_sub(TRAILER_LEN as u64).ok_or_else(bad)?;
        let mut bytes = [0; TRAILER_LEN];
        file.read_exact_at(&mut bytes, start).map_err(StoreError::file(path))?;
        let trailer = Self::parse(&bytes).ok_or_else(bad)?;
        let table_bytes = trailer.count.checked_mul(TABLE_ENTRY).ok_or_else(bad)?;
        if trailer.table.checked_add(table_bytes) != Some(start) {
            return Err(bad());
        }
        Ok(trailer)
    }

    fn parse(bytes: &[u8; TRAILER_LEN]) -> Option<Self> {
        let body = bytes.strip_suffix(TRAILER_MAGIC.as_slice())?;
        let (body, crc) = body.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (body, mac) = body.split_last_chunk::<MAC>()?;
        let (body, digest) = body.split_last_chunk::<32>()?;
        let (numbers, table_crc) = body.split_last_chunk::<4>()?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Self {
            end: numbers.next()?,
            considered: numbers.next()?,
            expired_before: Timestamp::from_millis(numbers.next()?),
            newest: Timestamp::from_millis(numbers.next()?),
            table: numbers.next()?,
            count: numbers.next()?,
            table_crc: u32::from_le_bytes(*table_crc),
            digest: *digest,
            mac: *mac,
        })
    }

    /// Its numbers.
    fn numbers(&self) -> Vec<u8> {
        let times = (self.expired_before.as_millis(), self.newest.as_millis());
        let mut bytes = Vec::with_capacity(TRAILER_LEN);
        for number in [self.end, self.considered, times.0, times.1, self.table, self.count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.table_crc.to_le_bytes());
        bytes
    }

    /// The same with its MAC.
    fn signed(mut self, key: &LogKey, header: &Header) -> Self {
        self.mac = key.mac(Signed::Pack, &[&header.mac, &self.numbers(), &self.digest]);
        self
    }

    /// Whether it has the MAC of what it says, behind this header.
    pub(super) fn is_signed(&self, key: &LogKey, header: &Header) -> bool {
        let octets: [&[u8]; 3] = [&header.mac, &self.numbers(), &self.digest];
        key.is_mac(&self.mac, Signed::Pack, &octets)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.numbers();
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&self.mac);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(TRAILER_MAGIC);
        bytes
    }
}

/// A pack's table as it stands in the file.
fn table(file: &File, path: &Path, trailer: &Trailer) -> Result<Vec<u8>, StoreError> {
    let length = usize::try_from(trailer.count * TABLE_ENTRY).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, trailer.table).map_err(StoreError::file(path))?;
    if crc32fast::hash(&bytes) != trailer.table_crc {
        return Err(damaged(path, trailer.table, "the table's checksum is wrong"));
    }
    Ok(bytes)
}

/// The table of a pack as its frames have it.
#[derive(Debug, Default)]
pub(super) struct TableCheck(Vec<u8>);

impl TableCheck {
    /// Adds the next frame.
    pub(super) fn push(&mut self, lsn: Lsn, offset: u64, mac: &Mac) {
        self.0.extend_from_slice(&lsn.0.to_le_bytes());
        self.0.extend_from_slice(&offset.to_le_bytes());
        self.0.extend_from_slice(mac);
    }
}

/// Whether a pack's table and trailer are of the frames that stand in it.
pub(super) fn check_table(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    found: &TableCheck,
) -> Result<(), StoreError> {
    let table = table(file, path, trailer)?;
    if table == found.0 && mac::digest_of_table(&table) == trailer.digest {
        return Ok(());
    }
    Err(tampered(path, trailer.table, "its table is not of the records that stand in it"))
}

/// Where in the file the frame of a position begins.
pub(super) fn find(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    lsn: Lsn,
) -> Result<Option<u64>, StoreError> {
    let number = frames_before(file, path, trailer, lsn)?;
    let found =
        if number < trailer.count { Some(entry(file, path, trailer, number)?) } else { None };
    let Some(found) = found.filter(|found| found.lsn == lsn.0) else {
        // Or its place is not where it should be.
        table(file, path, trailer)?;
        return Ok(None);
    };
    let mut said = [0; 8];
    file.read_exact_at(&mut said, found.offset.saturating_add(8))
        .map_err(StoreError::file(path))?;
    if u64::from_le_bytes(said) != lsn.0 {
        let problem = "another record stands where the table says that one does";
        return Err(damaged(path, found.offset, problem));
    }
    Ok(Some(found.offset))
}

/// Whether a pack, whose trailer has the right MAC, has nothing of a position.
pub(super) fn is_left_out(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    lsn: Lsn,
) -> Result<bool, StoreError> {
    let table = table(file, path, trailer)?;
    if mac::digest_of_table(&table) != trailer.digest {
        return Err(tampered(path, trailer.table, "its table is not the one that was written"));
    }
    let entries = table.as_chunks::<{ TABLE_ENTRY as usize }>().0;
    Ok(!entries.iter().any(|entry| entry.starts_with(&lsn.0.to_le_bytes())))
}

/// Where in the file the first frame at or after a position begins.
pub(super) fn find_from(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    lsn: Lsn,
) -> Result<u64, StoreError> {
    let number = frames_before(file, path, trailer, lsn)?;
    if number == trailer.count {
        return Ok(trailer.table);
    }
    Ok(entry(file, path, trailer, number)?.offset)
}

/// How many frames of a pack stand before a position.
fn frames_before(file: &File, path: &Path, trailer: &Trailer, lsn: Lsn) -> Result<u64, StoreError> {
    let mut from = 0;
    let mut to = trailer.count;
    while from < to {
        let middle = from + (to - from) / 2;
        if entry(file, path, trailer, middle)?.lsn < lsn.0 {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    Ok(from)
}

/// A frame's place, as the table has it.
struct TableEntry {
    lsn: u64,
    offset: u64,
}

fn entry(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    number: u64,
) -> Result<TableEntry, StoreError> {
    let mut said = [0; 16];
    let at = trailer.table + number * TABLE_ENTRY;
    file.read_exact_at(&mut said, at).map_err(StoreError::file(path))?;
    let (lsn, offset) = said.split_at(8);
    let number = |octets: &[u8]| u64::from_le_bytes(octets.try_into().unwrap_or_default());
    Ok(TableEntry { lsn: number(lsn), offset: number(offset) })
}

/// The next frame; `None` if it is not whole.
pub(super) fn read_frame(
    file: &mut impl Read,
    remaining: u64,
) -> std::io::Result<Option<ReadFrame>> {
    let mut header = [0; PACK_HEADER as usize];
    file.read_exact(&mut header)?;
    let [length_and_crc, lsn, next, ..] = header.as_chunks::<8>().0 else { return Ok(None) };
    let Some((places, macs)) = header.split_last_chunk::<{ 2 * MAC }>() else { return Ok(None) };
    let [first_mac, mac] = macs.as_chunks::<MAC>().0 else { return Ok(None) };
    let [length, crc] = length_and_crc.as_chunks::<4>().0 else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if u64::from(length) > remaining - PACK_HEADER {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact(&mut payload)?;
    let said = [places.get(8..).unwrap_or_default(), macs].concat();
    if checksum(&said, &[&payload]) != u32::from_le_bytes(*crc) {
        return Ok(None);
    }
    let lsn = Lsn(u64::from_le_bytes(*lsn));
    let next = Lsn(u64::from_le_bytes(*next));
    Ok(Some(ReadFrame { lsn, next, first_mac: *first_mac, mac: *mac, payload }))
}

/// Of what a frame's header says behind the checksum, and its payload.
fn checksum(said: &[u8], payload: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(said);
    payload.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// A pack on its way to disk, under another name until it is whole.
#[derive(Debug)]
pub(super) struct PackWriter {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
    buffer: Vec<u8>,
    length: u64,
    table: TableCheck,
    key: LogKey,
    header: Header,
    place: Arc<[u8]>,
}

impl PackWriter {
    /// Begins the pack that has this header.
    pub(super) fn create(dir: &Path, header: Header, key: &LogKey) -> Result<Self, StoreError> {
        let header = header.signed(key);
        let path = dir.join(format!("{:016x}.{SUFFIX}", header.base));
        let unfinished = path.with_extension("pack.new");
        // What an interrupted attempt left.
        durable::remove_if_there(&unfinished)?;
        let file = durable::create_file(&unfinished, &header.encode())?;
        Ok(Self {
            path,
            unfinished,
            file,
            buffer: Vec::new(),
            length: HEADER,
            table: TableCheck::default(),
            key: key.clone(),
            place: header.place(),
            header,
        })
    }

    /// Adds a frame, whose payload is given in pieces, of which all but the first are sealed.
    pub(super) fn push(
        &mut self,
        lsn: Lsn,
        next: Lsn,
        first_mac: Mac,
        payload: &[&[u8]],
    ) -> Result<(), StoreError> {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let length_field = u32::try_from(length)
            .map_err(|_| StoreError::Key("a record cannot be longer than 4 GiB".into()))?;
        let place = Place { file: Arc::clone(&self.place), lsn, next, first_mac };
        let start = payload.first().copied().unwrap_or_default();
        let sealed = payload.iter().skip(1).copied();
        let mac = place.mac(&self.key, &mac::digest(start, sealed));
        let mut said = lsn.0.to_le_bytes().to_vec();
        said.extend_from_slice(&next.0.to_le_bytes());
        said.extend_from_slice(&first_mac);
        said.extend_from_slice(&mac);
        self.table.push(lsn, self.length, &mac);
        self.buffer.extend_from_slice(&length_field.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(&said, payload).to_le_bytes());
        self.buffer.extend_from_slice(&said);
        payload.iter().for_each(|part| self.buffer.extend_from_slice(part));
        self.length += PACK_HEADER + length as u64;
        if self.buffer.len() >= SYNC_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        for piece in self.buffer.chunks(SYNC_BYTES) {
            (&self.file).write_all(piece).map_err(StoreError::file(&self.unfinished))?;
            durable::sync(&self.file, &self.unfinished)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Writes the pack's end and makes all of it durable. `trailer` says all but table and count.
    pub(super) fn finish(&mut self, trailer: Trailer) -> Result<(), StoreError> {
        let trailer = Trailer {
            table: self.length,
            count: self.table.0.len() as u64 / TABLE_ENTRY,
            table_crc: crc32fast::hash(&self.table.0),
            digest: mac::digest_of_table(&self.table.0),
            ..trailer
        };
        let trailer = trailer.signed(&self.key, &self.header);
        self.buffer.append(&mut self.table.0);
        self.buffer.extend_from_slice(&trailer.encode());
        self.flush()
    }

    /// Gives a finished pack its name, in place of the segment or pack that had it.
    pub(super) fn take_place(self) -> Result<PathBuf, StoreError> {
        durable::rename(&self.unfinished, &self.path)?;
        Ok(self.path)
    }

    /// Gives up and removes what was written.
    pub(super) fn discard(self) {
        // What cannot be removed now is removed by the next attempt.
        drop(fs::remove_file(&self.unfinished));
    }
}
