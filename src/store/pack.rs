//! Packs: what is left of segments whose messages were removed or whose events have expired.
//!
//! A record keeps its position for ever, since event ids and the index name it, so a pack's
//! frames say theirs: `length u32, crc32 u32, lsn u64, next u64, payload`, little-endian. After
//! the frames stand a table of `lsn u64, offset u64` and a trailer. A pack is written and synced
//! under another name and takes its own with one rename, so it is whole or not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::header::{HEADER, Header};
use super::{StoreError, damaged, durable};
use crate::clock::Timestamp;
use crate::events::Lsn;

/// Octets of a pack's frame before its payload.
pub(super) const PACK_HEADER: u64 = 24;
/// How a pack's file name ends.
pub(super) const SUFFIX: &str = "pack";
const TRAILER_MAGIC: &[u8; 8] = b"mwpack1\n";
const TRAILER_LEN: usize = 6 * 8 + 2 * 4 + TRAILER_MAGIC.len();
const TABLE_ENTRY: u64 = 16;
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
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let times = (self.expired_before.as_millis(), self.newest.as_millis());
        let mut bytes = Vec::with_capacity(TRAILER_LEN);
        for number in [self.end, self.considered, times.0, times.1, self.table, self.count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.table_crc.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(TRAILER_MAGIC);
        bytes
    }
}

/// A pack's table: position and place in the file of each frame, in order.
fn table(file: &File, path: &Path, trailer: &Trailer) -> Result<Vec<(u64, u64)>, StoreError> {
    let length = usize::try_from(trailer.count * TABLE_ENTRY).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, trailer.table).map_err(StoreError::file(path))?;
    if crc32fast::hash(&bytes) != trailer.table_crc {
        return Err(damaged(path, trailer.table, "the table's checksum is wrong"));
    }
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let pairs = bytes.as_chunks::<8>().0.as_chunks::<2>().0;
    Ok(pairs.iter().map(|[lsn, offset]| (number(lsn), number(offset))).collect())
}

/// Where in the file the frame of a position begins.
pub(super) fn find(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    lsn: Lsn,
) -> Result<Option<u64>, StoreError> {
    let table = table(file, path, trailer)?;
    let found = table.binary_search_by_key(&lsn.0, |(lsn, _)| *lsn).ok();
    Ok(found.and_then(|at| Some(table.get(at)?.1)))
}

/// Where in the file the first frame at or after a position begins.
pub(super) fn find_from(
    file: &File,
    path: &Path,
    trailer: &Trailer,
    lsn: Lsn,
) -> Result<u64, StoreError> {
    let table = table(file, path, trailer)?;
    let at = table.partition_point(|(at, _)| *at < lsn.0);
    Ok(table.get(at).map_or(trailer.table, |(_, offset)| *offset))
}

/// The next frame: position, the position after it, payload; `None` if it is not whole.
pub(super) fn read_frame(
    file: &mut impl Read,
    remaining: u64,
) -> std::io::Result<Option<(Lsn, Lsn, Vec<u8>)>> {
    let mut header = [0; PACK_HEADER as usize];
    file.read_exact(&mut header)?;
    let [length_and_crc, lsn, next] = header.as_chunks::<8>().0 else { return Ok(None) };
    let [length, crc] = length_and_crc.as_chunks::<4>().0 else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if u64::from(length) > remaining - PACK_HEADER {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact(&mut payload)?;
    let is_whole = checksum(lsn, next, &[&payload]) == u32::from_le_bytes(*crc);
    let positions = (Lsn(u64::from_le_bytes(*lsn)), Lsn(u64::from_le_bytes(*next)));
    Ok(is_whole.then_some((positions.0, positions.1, payload)))
}

fn checksum(lsn: &[u8; 8], next: &[u8; 8], payload: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lsn);
    hasher.update(next);
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
    table: Vec<(u64, u64)>,
}

impl PackWriter {
    /// Begins the pack that has this header.
    pub(super) fn create(dir: &Path, header: &Header) -> Result<Self, StoreError> {
        let path = dir.join(format!("{:016x}.{SUFFIX}", header.base));
        let unfinished = path.with_extension("pack.new");
        // What an interrupted attempt left.
        durable::remove_if_there(&unfinished)?;
        let file = durable::create_file(&unfinished, &header.encode())?;
        let (buffer, table) = (Vec::new(), Vec::new());
        Ok(Self { path, unfinished, file, buffer, length: HEADER, table })
    }

    /// Adds a frame.
    pub(super) fn push(
        &mut self,
        lsn: Lsn,
        next: Lsn,
        payload: &[&[u8]],
    ) -> Result<(), StoreError> {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let length_field = u32::try_from(length)
            .map_err(|_| StoreError::Key("a record cannot be longer than 4 GiB".into()))?;
        let (lsn_field, next_field) = (lsn.0.to_le_bytes(), next.0.to_le_bytes());
        self.table.push((lsn.0, self.length));
        self.buffer.extend_from_slice(&length_field.to_le_bytes());
        self.buffer.extend_from_slice(&checksum(&lsn_field, &next_field, payload).to_le_bytes());
        self.buffer.extend_from_slice(&lsn_field);
        self.buffer.extend_from_slice(&next_field);
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
        let mut table = Vec::with_capacity(self.table.len() * TABLE_ENTRY as usize);
        for (lsn, offset) in &self.table {
            table.extend_from_slice(&lsn.to_le_bytes());
            table.extend_from_slice(&offset.to_le_bytes());
        }
        let trailer = Trailer {
            table: self.length,
            count: self.table.len() as u64,
            table_crc: crc32fast::hash(&table),
            ..trailer
        };
        self.buffer.append(&mut table);
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
