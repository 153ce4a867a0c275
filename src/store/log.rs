//! The append-only log: segments of checksummed frames.
//!
//! A segment is a file named after the position of its first byte; its frames follow a magic
//! number. A frame is `length u32, crc32 u32, payload`, little-endian; what a payload says is
//! `codec`'s business. A frame is written once and never changed.

use std::fs::{self, File};
use std::io::{IoSlice, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{StoreError, durable};
use crate::events::Lsn;

/// The first bytes of every segment.
pub(super) const MAGIC: &[u8; 8] = b"mwlog-1\n";
/// Octets of a frame before its payload.
pub(super) const FRAME_HEADER: u64 = 8;
const SUFFIX: &str = "log";

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

/// One segment file.
#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    base: u64,
    length: u64,
}

/// The segments of a folder in order; contiguous, or an error.
fn segments(dir: &Path) -> Result<Vec<Segment>, StoreError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::file(dir))? {
        let path = entry.map_err(StoreError::file(dir))?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let base = name
                .and_then(|name| u64::from_str_radix(&name, 16).ok())
                .ok_or_else(|| damaged(&path, 0, "its name is not a position"))?;
            let length = fs::metadata(&path).map_err(StoreError::file(&path))?.len();
            segments.push(Segment { path, base, length });
        }
    }
    segments.sort_by_key(|segment| segment.base);
    for pair in segments.windows(2) {
        if pair[0].base + pair[0].length != pair[1].base {
            return Err(damaged(&pair[0].path, pair[0].length, "the next segment is missing"));
        }
    }
    Ok(segments)
}

fn damaged(path: &Path, offset: u64, problem: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), offset, problem: problem.into() }
}

/// Reads frames from a position on.
#[derive(Debug)]
pub(super) struct Scanner {
    segments: std::vec::IntoIter<Segment>,
    current: Option<(Segment, File, u64)>,
}

/// What a scan comes upon.
#[derive(Debug)]
pub(super) enum Scanned {
    /// A whole frame's payload.
    Frame { lsn: Lsn, next: Lsn, payload: Vec<u8> },
    /// The rest of the last segment is not a whole frame: a write that did not end.
    Torn { path: PathBuf, offset: u64 },
}

impl Scanner {
    /// A scan of the log in `dir` from `from`, which is a frame's position or the log's end.
    pub(super) fn new(dir: &Path, from: Lsn) -> Result<Self, StoreError> {
        let mut segments = segments(dir)?;
        segments.retain(|segment| segment.base + segment.length > from.0);
        let mut scanner = Self { segments: segments.into_iter(), current: None };
        scanner.next_segment(from)?;
        Ok(scanner)
    }

    fn next_segment(&mut self, from: Lsn) -> Result<(), StoreError> {
        self.current = None;
        if let Some(segment) = self.segments.next() {
            let mut file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
            check_magic(&segment, &file)?;
            let start = from.0.saturating_sub(segment.base).max(MAGIC.len() as u64);
            file.seek(SeekFrom::Start(start)).map_err(StoreError::file(&segment.path))?;
            self.current = Some((segment, file, start));
        }
        Ok(())
    }

    /// The next frame, the torn end, or nothing at the end. Bytes that are not a frame anywhere
    /// but at the end of the last segment are an error.
    pub(super) fn next(&mut self) -> Result<Option<Scanned>, StoreError> {
        loop {
            let is_last = self.segments.len() == 0;
            let Some((segment, file, offset)) = &mut self.current else { return Ok(None) };
            if *offset >= segment.length {
                self.next_segment(Lsn(0))?;
                continue;
            }
            let payload = read_frame(file, segment.length - *offset)
                .map_err(StoreError::file(&segment.path))?;
            let Some(payload) = payload else {
                let (path, offset) = (segment.path.clone(), *offset);
                self.current = None;
                return match is_last {
                    true => Ok(Some(Scanned::Torn { path, offset })),
                    false => Err(damaged(&path, offset, "a record's checksum is wrong")),
                };
            };
            let lsn = Lsn(segment.base + *offset);
            *offset += FRAME_HEADER + payload.len() as u64;
            let next = Lsn(segment.base + *offset);
            return Ok(Some(Scanned::Frame { lsn, next, payload }));
        }
    }
}

/// A segment of a foreign or later format holds no frames: taken for a torn end, all of it would
/// be cut off. One that ends within the magic number is what a crash leaves of a new segment.
fn check_magic(segment: &Segment, file: &File) -> Result<(), StoreError> {
    let mut magic = [0; MAGIC.len()];
    if segment.length < magic.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(&mut magic, 0).map_err(StoreError::file(&segment.path))?;
    match &magic == MAGIC {
        true => Ok(()),
        false => Err(damaged(&segment.path, 0, "it does not begin as a segment of this version")),
    }
}

/// The next frame's payload, or `None` if the `remaining` bytes do not begin with a whole one.
fn read_frame(file: &mut File, remaining: u64) -> std::io::Result<Option<Vec<u8>>> {
    if remaining < FRAME_HEADER {
        return Ok(None);
    }
    let mut header = [0; FRAME_HEADER as usize];
    file.read_exact(&mut header)?;
    let (length, checksum) = parse_header(header);
    if length == 0 || u64::from(length) > remaining - FRAME_HEADER {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact(&mut payload)?;
    Ok((crc32fast::hash(&payload) == checksum).then_some(payload))
}

fn parse_header(header: [u8; FRAME_HEADER as usize]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Reads `length` bytes at `offset` of the payload of the frame at `lsn`.
pub(super) fn read_at(
    dir: &Path,
    lsn: Lsn,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, StoreError> {
    let segments = segments(dir)?;
    let segment = segments
        .iter()
        .find(|segment| (segment.base..segment.base + segment.length).contains(&lsn.0))
        .ok_or_else(|| StoreError::NotFound(format!("the log has no record {lsn}")))?;
    let payload = lsn.0 - segment.base + FRAME_HEADER;
    // A record's head says where its pieces are, and a damaged one may say anything.
    let start = payload.saturating_add(offset);
    if start.saturating_add(length) > segment.length {
        return Err(damaged(&segment.path, start, "a record ends before its content does"));
    }
    let file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start).map_err(StoreError::file(&segment.path))?;
    Ok(bytes)
}

/// The log's writing end.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    path: PathBuf,
    file: File,
    base: u64,
    length: u64,
    /// A failed write could not be cut off, so the file does not end where the log does.
    is_ragged: bool,
}

impl Log {
    /// Opens the log in `dir`, making it on first use. Bytes after the last whole frame are what
    /// a crash left of a write that nobody was told of: they are set aside in a `.torn` file
    /// and cut off. `from` is a position known to be a frame's, to spare reading all before it.
    pub(super) fn open(dir: &Path, segment_bytes: u64, from: Lsn) -> Result<Self, StoreError> {
        durable::create_dir(dir)?;
        if segments(dir)?.is_empty() {
            return Self::create_segment(dir.into(), segment_bytes, 0);
        }
        let mut scanner = Scanner::new(dir, from)?;
        while let Some(scanned) = scanner.next()? {
            if let Scanned::Torn { path, offset } = scanned {
                set_aside(&path, offset)?;
            }
        }
        let last = segments(dir)?.pop().ok_or_else(|| damaged(dir, 0, "no segment is left"))?;
        if last.length < MAGIC.len() as u64 {
            // Not even its first bytes had reached the disk when the power went.
            fs::remove_file(&last.path).map_err(StoreError::file(&last.path))?;
            return Self::create_segment(dir.into(), segment_bytes, last.base);
        }
        let file = durable::open_append(&last.path)?;
        // A killed process may have left frames in the page cache alone; from here on they count.
        file.sync_data().map_err(StoreError::file(&last.path))?;
        let (base, length) = (last.base, last.length);
        let dir = dir.into();
        Ok(Self { dir, segment_bytes, path: last.path, file, base, length, is_ragged: false })
    }

    fn create_segment(dir: PathBuf, segment_bytes: u64, base: u64) -> Result<Self, StoreError> {
        let path = dir.join(format!("{base:016x}.{SUFFIX}"));
        let file = durable::create_file(&path, MAGIC)?;
        let length = MAGIC.len() as u64;
        Ok(Self { dir, segment_bytes, path, file, base, length, is_ragged: false })
    }

    /// Where the next frame will stand.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.base + self.length)
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
        if self.length >= self.segment_bytes {
            let next = self.end().0;
            *self = Self::create_segment(self.dir.clone(), self.segment_bytes, next)?;
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
    if !aside.exists() {
        durable::create_file(&aside, &torn)?;
    }
    file.set_len(offset).and_then(|()| file.sync_all()).map_err(StoreError::file(path))
}
