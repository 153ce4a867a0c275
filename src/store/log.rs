//! The append-only log's writing end: segments of checksummed frames.
//!
//! A segment is a file named after the position of its first byte; its frames follow a header
//! (`header`). A frame is `length u32, crc32 u32, MAC, payload`, little-endian, the CRC of payload and
//! MAC; what a payload says is `codec`'s business. A frame is written once and never changed.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{Epoch, HEADER, Header};
use super::mac::{self, Digest, LogKey, MAC, Mac, Place};
use super::segment::{Catalog, FIRST, FRAME_HEADER, SUFFIX, Scanned, Scanner};
use super::{StoreError, damaged, durable};
use crate::events::Lsn;

/// Stands in the log's folder while the next write has to begin another epoch.
const NEXT_EPOCH: &str = "next-epoch";

/// A frame, ready to be written.
#[derive(Debug)]
pub(super) struct Frame {
    /// Length, CRC and MAC, once it is known where it stands.
    header: [u8; FRAME_HEADER as usize],
    /// The payload's pieces, in order.
    payload: Vec<Vec<u8>>,
    length: u64,
    /// The payload's.
    crc: crc32fast::Hasher,
    digest: Digest,
}

impl Frame {
    /// Frames a payload given in pieces, of which all but the first are sealed. `None` if it is longer
    /// than a frame can be (4 GiB).
    pub(super) fn new(payload: Vec<Vec<u8>>) -> Option<Self> {
        let mut crc = crc32fast::Hasher::new();
        payload.iter().for_each(|part| crc.update(part));
        let length: u64 = payload.iter().map(|part| part.len() as u64).sum();
        let mut header = [0; FRAME_HEADER as usize];
        header[..4].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
        let sealed = payload.iter().skip(1).map(Vec::as_slice);
        let digest = mac::digest(payload.first()?, sealed);
        Some(Self { header, payload, length: length + FRAME_HEADER, crc, digest })
    }

    /// The payload's first piece.
    pub(super) fn payload_start(&self) -> &[u8] {
        self.payload.first().map_or(&[], Vec::as_slice)
    }

    /// Gives it its MAC, which only who knows its position can make.
    fn sign(&mut self, mac: &Mac) {
        let mut crc = self.crc.clone();
        crc.update(mac);
        self.header[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        self.header[8..].copy_from_slice(mac);
    }

    /// All of its octets.
    #[cfg(any(test, fuzzing))]
    pub(super) fn signed(mut self, mac: &Mac) -> Vec<u8> {
        self.sign(mac);
        [&self.header[..], &self.payload.concat()].concat()
    }

    fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let payload = self.payload.iter().map(|part| IoSlice::new(part));
        std::iter::once(IoSlice::new(&self.header)).chain(payload)
    }

    /// Octets on disk.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// The log's writing end.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    path: PathBuf,
    file: File,
    key: LogKey,
    header: Header,
    /// What its frames' MACs have of it.
    place: Arc<[u8]>,
    length: u64,
    /// What is written next is of another epoch, or may be of a kind that the segment's header does not
    /// name, so it stands in another segment.
    is_closed: bool,
    next_epoch: Epoch,
    /// A failed write could not be cut off, so the file does not end where the log does.
    is_ragged: bool,
}

impl Log {
    /// Opens the log in `dir`, making it on first use. Bytes after the last whole frame are what
    /// a crash left of a write that nobody was told of: they are set aside in a `.torn` file
    /// and cut off. `from` is a position known to be a frame's, to spare reading all before it;
    /// records before `acknowledged` were acknowledged, so if they cannot be read that is damage.
    pub(super) fn open(
        dir: &Path,
        segment_bytes: u64,
        from: Lsn,
        acknowledged: Lsn,
        key: &LogKey,
    ) -> Result<Self, StoreError> {
        durable::create_dir(dir)?;
        let catalog = Catalog::read(dir)?;
        for path in &catalog.superseded {
            durable::remove_if_there(path)?;
        }
        if catalog.segments.is_empty() {
            return Self::create_segment(dir.into(), segment_bytes, Header::first()?, key);
        }
        let mut scanner = Scanner::new(dir, from)?;
        while let Some(scanned) = scanner.next()? {
            if let Scanned::Torn { path, offset, lsn } = scanned {
                if lsn < acknowledged {
                    return Err(damaged(
                        &path,
                        offset,
                        "a record that was acknowledged is not whole",
                    ));
                }
                let noted = begin_next_epoch(dir);
                set_aside(&path, offset)?;
                match noted {
                    // What was cut off has left some.
                    Err(error) if error.is_out_of_space() => begin_next_epoch(dir)?,
                    noted => noted?,
                }
            }
        }
        Self::go_on(dir, segment_bytes, Catalog::read(dir)?, key)
    }

    /// Opens a log whose end is whole.
    fn go_on(
        dir: &Path,
        segment_bytes: u64,
        mut catalog: Catalog,
        key: &LogKey,
    ) -> Result<Self, StoreError> {
        let chain = catalog.chain()?;
        if let Some(path) = &chain.unfinished {
            // Not even its header had reached the disk when the power went.
            fs::remove_file(path).map_err(StoreError::file(path))?;
            catalog.segments.pop();
        }
        let is_epoch_over = durable::is_there(&dir.join(NEXT_EPOCH))?;
        let epoch = if is_epoch_over { chain.epoch.next()? } else { chain.epoch };
        let Some(header) = chain.last else {
            return Self::create_segment(dir.into(), segment_bytes, Header::first()?, key);
        };
        let end = catalog.end().0;
        let Some(last) = catalog.segments.pop().filter(|last| last.pack.is_none()) else {
            return Self::create_segment(dir.into(), segment_bytes, header.after(end, epoch), key);
        };
        let file = durable::open_append(&last.path)?;
        // A killed process may have left frames in the page cache alone; from here on they count.
        file.sync_data().map_err(StoreError::file(&last.path))?;
        Ok(Self {
            dir: dir.into(),
            segment_bytes,
            path: last.path,
            file,
            is_closed: is_epoch_over || !header.takes_all(),
            next_epoch: epoch,
            key: key.clone(),
            place: header.place(),
            header,
            length: last.bytes,
            is_ragged: false,
        })
    }

    fn create_segment(
        dir: PathBuf,
        segment_bytes: u64,
        header: Header,
        key: &LogKey,
    ) -> Result<Self, StoreError> {
        let header = header.signed(key);
        let path = dir.join(format!("{:016x}.{SUFFIX}", header.base));
        let file = durable::create_file(&path, &header.encode())?;
        // If it comes back after a power loss, one more epoch begins.
        durable::remove_if_there(&dir.join(NEXT_EPOCH))?;
        Ok(Self {
            dir,
            segment_bytes,
            path,
            file,
            next_epoch: header.epoch,
            key: key.clone(),
            place: header.place(),
            header,
            length: HEADER,
            is_closed: false,
            is_ragged: false,
        })
    }

    /// Where the next frame will stand.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.header.base + FIRST + self.length - HEADER)
    }

    /// The folder that the segments are in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that is written to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes frames; not yet synced. Returns each one's position. On an error the log ends as
    /// it did before.
    pub(super) fn append(&mut self, frames: &mut [&mut Frame]) -> Result<Vec<Lsn>, StoreError> {
        if self.is_ragged {
            self.cut_off()?;
        }
        if self.is_closed || self.length >= self.segment_bytes {
            let header = self.header.after(self.end().0, self.next_epoch);
            let key = self.key.clone();
            *self = Self::create_segment(self.dir.clone(), self.segment_bytes, header, &key)?;
        }
        let positions = self.sign(frames);
        let mut slices: Vec<IoSlice<'_>> = frames.iter().flat_map(|frame| frame.slices()).collect();
        if let Err(error) = durable::append(&self.file, &mut slices) {
            self.is_ragged = true;
            self.cut_off()?;
            return Err(StoreError::file(&self.path)(error));
        }
        self.length += frames.iter().map(|frame| frame.length()).sum::<u64>();
        Ok(positions)
    }

    /// Gives frames their MACs for where they will stand, and tells where.
    fn sign(&self, frames: &mut [&mut Frame]) -> Vec<Lsn> {
        let mut positions = Vec::with_capacity(frames.len());
        let mut lsn = self.end();
        for frame in frames {
            let next = Lsn(lsn.0 + frame.length());
            let place = Place { file: Arc::clone(&self.place), lsn, next, first_mac: [0; MAC] };
            frame.sign(&place.mac(&self.key, &frame.digest));
            positions.push(lsn);
            lsn = next;
        }
        positions
    }

    /// The key of its MACs.
    pub(super) fn key(&self) -> &LogKey {
        &self.key
    }

    /// Takes away what a failed write left. Until that succeeds, nothing is written behind it.
    fn cut_off(&mut self) -> Result<(), StoreError> {
        self.file.set_len(self.length).map_err(StoreError::file(&self.path))?;
        self.is_ragged = false;
        Ok(())
    }

    /// Makes all that was appended durable. After an error nobody knows what is on disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::file(&self.path))
    }
}

/// Notes, durably, that what is written next is of another epoch: what was written after this moment's
/// end of the log, or elsewhere since it was copied, must never stand for what comes.
pub(super) fn begin_next_epoch(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(NEXT_EPOCH);
    match durable::create_file(&path, &[]) {
        Err(StoreError::File { source, .. }) if source.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn set_aside(path: &Path, offset: u64) -> Result<(), StoreError> {
    let file = durable::open_append(path)?;
    let mut torn = Vec::new();
    (&file)
        .seek(SeekFrom::Start(offset))
        .and_then(|_| (&file).read_to_end(&mut torn))
        .map_err(StoreError::file(path))?;
    let aside = path.with_extension(format!("{offset:x}.torn"));
    tracing::warn!(path = %path.display(), offset, bytes = torn.len(), aside = %aside.display(),
        "cut off a write that did not end");
    if !aside.exists()
        && let Err(error) = durable::create_file(&aside, &torn)
    {
        if !error.is_out_of_space() {
            return Err(error);
        }
        // Nobody was told of that write, and a copy of it is no reason not to start.
        tracing::warn!(aside = %aside.display(), "no room to keep what was cut off");
    }
    file.set_len(offset).and_then(|()| file.sync_all()).map_err(StoreError::file(path))
}
