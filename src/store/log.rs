//! The append-only log's writing end: segments of checksummed frames.
//!
//! A segment is a file named after the position of its first byte; its frames follow a header
//! (`header`). A frame is `length u32, crc32 u32, payload`, little-endian; what a payload says is
//! `codec`'s business. A frame is written once and never changed.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::header::{Epoch, HEADER, Header};
use super::segment::{Catalog, FIRST, FRAME_HEADER, SUFFIX, Scanned, Scanner};
use super::{StoreError, damaged, durable};
use crate::events::Lsn;

/// Stands in the log's folder while the next write has to begin another epoch.
const NEXT_EPOCH: &str = "next-epoch";

/// A frame, ready to be written.
#[derive(Debug)]
pub(super) struct Frame {
    /// The header and the payload's pieces, in order.
    parts: Vec<Vec<u8>>,
    length: u64,
}

impl Frame {
    /// Frames a payload given in pieces. `None` if it is longer than a frame can be (4 GiB).
    pub(super) fn new(mut payload: Vec<Vec<u8>>) -> Option<Self> {
        let mut hasher = crc32fast::Hasher::new();
        payload.iter().for_each(|part| hasher.update(part));
        let length: u64 = payload.iter().map(|part| part.len() as u64).sum();
        let mut header = u32::try_from(length).ok()?.to_le_bytes().to_vec();
        header.extend_from_slice(&hasher.finalize().to_le_bytes());
        payload.insert(0, header);
        Some(Self { parts: payload, length: length + FRAME_HEADER })
    }

    /// The payload's first piece.
    pub(super) fn payload_start(&self) -> &[u8] {
        self.parts.get(1).map_or(&[], Vec::as_slice)
    }

    /// The header and the payload's pieces, in order.
    #[cfg(any(test, fuzzing))]
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(Vec::as_slice)
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
    header: Header,
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
    ) -> Result<Self, StoreError> {
        durable::create_dir(dir)?;
        let catalog = Catalog::read(dir)?;
        for path in &catalog.superseded {
            durable::remove_if_there(path)?;
        }
        if catalog.segments.is_empty() {
            return Self::create_segment(dir.into(), segment_bytes, Header::first()?);
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
        Self::go_on(dir, segment_bytes, Catalog::read(dir)?)
    }

    /// Opens a log whose end is whole.
    fn go_on(dir: &Path, segment_bytes: u64, mut catalog: Catalog) -> Result<Self, StoreError> {
        let chain = catalog.chain()?;
        if let Some(path) = &chain.unfinished {
            // Not even its header had reached the disk when the power went.
            fs::remove_file(path).map_err(StoreError::file(path))?;
            catalog.segments.pop();
        }
        let is_epoch_over = durable::is_there(&dir.join(NEXT_EPOCH))?;
        let epoch = if is_epoch_over { chain.epoch.next()? } else { chain.epoch };
        let Some(header) = chain.last else {
            return Self::create_segment(dir.into(), segment_bytes, Header::first()?);
        };
        let end = catalog.end().0;
        let Some(last) = catalog.segments.pop().filter(|last| last.pack.is_none()) else {
            return Self::create_segment(dir.into(), segment_bytes, header.after(end, epoch));
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
            header,
            length: last.bytes,
            is_ragged: false,
        })
    }

    fn create_segment(
        dir: PathBuf,
        segment_bytes: u64,
        header: Header,
    ) -> Result<Self, StoreError> {
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
    pub(super) fn append(&mut self, frames: &[&Frame]) -> Result<Vec<Lsn>, StoreError> {
        if self.is_ragged {
            self.cut_off()?;
        }
        if self.is_closed || self.length >= self.segment_bytes {
            let header = self.header.after(self.end().0, self.next_epoch);
            *self = Self::create_segment(self.dir.clone(), self.segment_bytes, header)?;
        }
        let mut slices: Vec<IoSlice<'_>> =
            frames.iter().flat_map(|frame| &frame.parts).map(|part| IoSlice::new(part)).collect();
        if let Err(error) = durable::append(&self.file, &mut slices) {
            self.is_ragged = true;
            self.cut_off()?;
            return Err(StoreError::file(&self.path)(error));
        }
        let mut positions = Vec::with_capacity(frames.len());
        for frame in frames {
            positions.push(self.end());
            self.length += frame.length();
        }
        Ok(positions)
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
