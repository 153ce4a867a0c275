//! The log's files, for reading: segments as they were written, and packs, which took the place
//! of segments that had grown stale. Together they cover the log from its start to its end.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::{self, Decoded};
use super::pack::{self, PACK_HEADER, Trailer};
use super::{StoreError, damaged};
use crate::events::Lsn;

/// The first bytes of every segment.
pub(super) const MAGIC: &[u8; 8] = b"mwlog-3\n";
/// What the files of all versions begin with; the format's number and a line end follow.
const ANY_FORMAT: &[u8; 6] = b"mwlog-";
/// Octets of a segment's frame before its payload.
pub(super) const FRAME_HEADER: u64 = 8;
/// How a segment's file name ends.
pub(super) const SUFFIX: &str = "log";
const READ_BUFFER: usize = 256 * 1024;
/// How often a folder is listed before a gap is taken for one.
const LISTINGS: usize = 10;

/// One file of the log and the positions that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The position of its first byte.
    pub(super) base: u64,
    /// The position after its last.
    pub(super) end: u64,
    /// Octets on disk.
    pub(super) bytes: u64,
    /// What a pack says of itself; a segment as it was written has nothing to say.
    pub(super) pack: Option<Trailer>,
}

impl Segment {
    fn read(path: PathBuf) -> Result<Option<Self>, StoreError> {
        let is_pack = match path.extension().and_then(|extension| extension.to_str()) {
            Some(SUFFIX) => false,
            Some(pack::SUFFIX) => true,
            _ => return Ok(None),
        };
        let base = path
            .file_stem()
            .and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok())
            .ok_or_else(|| damaged(&path, 0, "its name is not a position"))?;
        let bytes = fs::metadata(&path).map_err(StoreError::file(&path))?.len();
        let pack = is_pack.then(|| Trailer::read(&path)).transpose()?;
        let end = pack.as_ref().map_or(base + bytes, |trailer| trailer.end);
        Ok(Some(Self { path, base, end, bytes, pack }))
    }

    /// The first frame's place in the file.
    pub(super) fn start(&self) -> u64 {
        MAGIC.len() as u64
    }

    /// Where the frames end in the file.
    fn frames_end(&self) -> u64 {
        self.pack.as_ref().map_or(self.bytes, |trailer| trailer.table)
    }

    fn header(&self) -> u64 {
        if self.pack.is_some() { PACK_HEADER } else { FRAME_HEADER }
    }
}

/// All files of the log, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    pub(super) segments: Vec<Segment>,
    /// Files whose positions a pack covers: a crash came before they were removed.
    pub(super) superseded: Vec<PathBuf>,
}

impl Catalog {
    /// Lists a folder. Positions that no file covers are an error, if they stay so: while a long
    /// listing is read, two segments may begin, and only the second be in it.
    pub(super) fn read(dir: &Path) -> Result<Self, StoreError> {
        let mut listed = Self::list(dir);
        for _ in 1..LISTINGS {
            if !matches!(listed, Err(StoreError::Damaged { .. })) {
                break;
            }
            listed = Self::list(dir);
        }
        listed
    }

    /// Whether all files are of the format that this version reads and writes: a later version may have
    /// written the last ones. It is looked at before anything is made anew for a log that cannot be
    /// read.
    ///
    /// # Errors
    /// [`StoreError::OtherFormat`]; a file that is none of the log.
    pub(super) fn check_format(&self) -> Result<(), StoreError> {
        for segment in &self.segments {
            let file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
            check_magic(segment, &file)?;
        }
        Ok(())
    }

    fn list(dir: &Path) -> Result<Self, StoreError> {
        // All names before any size: a segment whose successor is listed grows no more.
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut all = Vec::new();
        for entry in entries.map_err(StoreError::file(dir))? {
            all.extend(Segment::read(entry.path())?);
        }
        // Of two that begin at one position, the pack, which covers more, comes first.
        all.sort_by_key(|segment| (segment.base, segment.pack.is_none()));
        let mut catalog = Self::default();
        if let Some(first) = all.first().filter(|first| first.base != 0) {
            return Err(damaged(&first.path, 0, "the segment before it is missing"));
        }
        for segment in all {
            match catalog.segments.last() {
                Some(last) if last.pack.is_some() && segment.end <= last.end => {
                    catalog.superseded.push(segment.path);
                    continue;
                }
                Some(last) if segment.base != last.end => {
                    return Err(damaged(&last.path, last.bytes, "the next segment is missing"));
                }
                _ => catalog.segments.push(segment),
            }
        }
        Ok(catalog)
    }

    /// The position where the log ends.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.segments.last().map_or(0, |segment| segment.end))
    }

    /// The segment that covers a position.
    pub(super) fn segment_of(&self, lsn: Lsn) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.base <= lsn.0);
        self.segments.get(after.checked_sub(1)?).filter(|segment| lsn.0 < segment.end)
    }

    /// The frame at a position, ready to be read in parts.
    pub(super) fn frame(&self, lsn: Lsn) -> Result<StoredFrame, StoreError> {
        let missing = || StoreError::NotFound(format!("the log has no record {lsn}"));
        let segment = self.segment_of(lsn).ok_or_else(missing)?;
        let file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
        check_magic(segment, &file)?;
        let at = match &segment.pack {
            None => lsn.0 - segment.base,
            Some(trailer) => pack::find(&file, &segment.path, trailer, lsn)?.ok_or_else(missing)?,
        };
        let mut length = [0; 4];
        file.read_exact_at(&mut length, at).map_err(StoreError::file(&segment.path))?;
        let start = at + segment.header();
        let length = u64::from(u32::from_le_bytes(length));
        if start + length > segment.frames_end() {
            return Err(damaged(&segment.path, at, "a record ends before its content does"));
        }
        Ok(StoredFrame { file, path: segment.path.clone(), start, length })
    }
}

/// A frame's payload, where it stands.
#[derive(Debug)]
pub(super) struct StoredFrame {
    file: File,
    path: PathBuf,
    start: u64,
    length: u64,
}

impl StoredFrame {
    /// Reads a part of the payload.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        if range.end > self.length || range.start > range.end {
            return Err(damaged(&self.path, self.start, "a record ends before its content does"));
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut bytes, self.start + range.start)
            .map_err(StoreError::file(&self.path))?;
        Ok(bytes)
    }

    /// The record's head and events, without its sealed tail.
    pub(super) fn record(&self) -> Result<Decoded, StoreError> {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            let at = bytes.len() as u64;
            let mut size = self.read(at..at + 4)?;
            let field: [u8; 4] = size.as_slice().try_into().unwrap_or_default();
            let length = u64::from(u32::from_le_bytes(field));
            bytes.append(&mut size);
            bytes.append(&mut self.read(at + 4..at + 4 + length)?);
        }
        codec::decode(&bytes).map_err(|unreadable| unreadable.at(&self.path, self.start))
    }
}

/// Reads frames from a position on.
#[derive(Debug)]
pub(super) struct Scanner {
    segments: std::vec::IntoIter<Segment>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    segment: Segment,
    file: BufReader<File>,
    offset: u64,
}

/// What a scan comes upon.
#[derive(Debug)]
pub(super) enum Scanned {
    /// A whole frame's payload.
    Frame { lsn: Lsn, next: Lsn, payload: Vec<u8> },
    /// The rest of the last segment is not a whole frame: a write that did not end.
    Torn { path: Arc<Path>, base: u64, offset: u64 },
}

/// A whole record, as a scan comes upon it.
#[derive(Debug)]
pub(super) struct LoggedRecord {
    pub(super) lsn: Lsn,
    /// The position after it.
    pub(super) next: Lsn,
    pub(super) record: Decoded,
}

impl Scanner {
    /// A scan of the log in `dir` from `from`, which is a frame's position or the log's end.
    pub(super) fn new(dir: &Path, from: Lsn) -> Result<Self, StoreError> {
        Self::over(Catalog::read(dir)?.segments, from)
    }

    /// A scan of some files.
    pub(super) fn over(mut segments: Vec<Segment>, from: Lsn) -> Result<Self, StoreError> {
        segments.retain(|segment| segment.end > from.0);
        let mut scanner = Self { segments: segments.into_iter(), current: None };
        scanner.next_segment(from)?;
        Ok(scanner)
    }

    fn next_segment(&mut self, from: Lsn) -> Result<(), StoreError> {
        self.current = None;
        if let Some(segment) = self.segments.next() {
            let mut file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
            check_magic(&segment, &file)?;
            let offset = match &segment.pack {
                Some(trailer) => pack::find_from(&file, &segment.path, trailer, from)?,
                None => from.0.saturating_sub(segment.base).max(segment.start()),
            };
            file.seek(SeekFrom::Start(offset)).map_err(StoreError::file(&segment.path))?;
            let file = BufReader::with_capacity(READ_BUFFER, file);
            self.current = Some(Current { segment, file, offset });
        }
        Ok(())
    }

    /// The next frame, the torn end, or nothing at the end. Bytes that are not a frame anywhere
    /// but at the end of the last segment are an error.
    pub(super) fn next(&mut self) -> Result<Option<Scanned>, StoreError> {
        loop {
            let Some(current) = &mut self.current else { return Ok(None) };
            if current.offset >= current.segment.frames_end() {
                self.next_segment(Lsn(0))?;
                continue;
            }
            if let Some((lsn, next, payload)) = current.frame()? {
                return Ok(Some(Scanned::Frame { lsn, next, payload }));
            }
            let may_be_torn = self.segments.len() == 0 && current.segment.pack.is_none();
            let (path, base) = (current.segment.path.clone(), current.segment.base);
            let offset = current.offset;
            self.current = None;
            return match may_be_torn {
                true => Ok(Some(Scanned::Torn { path: path.into(), base, offset })),
                false => Err(damaged(&path, offset, "a record's checksum is wrong")),
            };
        }
    }
}

impl Scanner {
    /// The next whole record; a torn end is an end.
    pub(super) fn next_record(&mut self) -> Result<Option<LoggedRecord>, StoreError> {
        match self.next()? {
            Some(Scanned::Frame { lsn, next, payload }) => {
                let record = codec::decode(&payload);
                let record = record.map_err(|unreadable| unreadable.at(Path::new("log"), lsn.0))?;
                Ok(Some(LoggedRecord { lsn, next, record }))
            }
            Some(Scanned::Torn { .. }) | None => Ok(None),
        }
    }
}

impl Current {
    /// The frame at the current place; `None` if the bytes there are not a whole one.
    fn frame(&mut self) -> Result<Option<(Lsn, Lsn, Vec<u8>)>, StoreError> {
        let Self { segment, file, offset } = self;
        let remaining = segment.frames_end() - *offset;
        let header = segment.header();
        if remaining < header {
            return Ok(None);
        }
        let read = match &segment.pack {
            Some(_) => pack::read_frame(file, remaining),
            None => read_frame(file, remaining).map(|payload| {
                let lsn = segment.base + *offset;
                let next = |payload: &Vec<u8>| Lsn(lsn + FRAME_HEADER + payload.len() as u64);
                payload.map(|payload| (Lsn(lsn), next(&payload), payload))
            }),
        };
        let frame = read.map_err(StoreError::file(&segment.path))?;
        if let Some((_, _, payload)) = &frame {
            *offset += header + payload.len() as u64;
        }
        Ok(frame)
    }
}

/// The first place in a file of the log at which there is no whole record; `None` for another file,
/// and for one whose records are all whole.
pub(super) fn first_damage(path: &Path) -> Option<StoreError> {
    let whole_to_its_end = || {
        let Some(segment) = Segment::read(path.into())? else { return Ok(()) };
        let mut scanner = Scanner::over(vec![segment], Lsn(0))?;
        while let Some(scanned) = scanner.next()? {
            if let Scanned::Torn { path, offset, .. } = scanned {
                return Err(damaged(&path, offset, "the record that begins there is not whole"));
            }
        }
        Ok(())
    };
    whole_to_its_end().err()
}

/// A file of a foreign or later format holds no frames: taken for a torn end, all of it would be
/// cut off. One that ends within the magic number is what a crash leaves of a new segment.
fn check_magic(segment: &Segment, file: &File) -> Result<(), StoreError> {
    let mut magic = [0; MAGIC.len()];
    if segment.bytes < magic.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(&mut magic, 0).map_err(StoreError::file(&segment.path))?;
    if &magic == MAGIC {
        return Ok(());
    }
    match magic.strip_prefix(ANY_FORMAT) {
        Some([format @ b'0'..=b'9', b'\n']) => {
            let (path, format) = (segment.path.clone(), char::from(*format));
            Err(StoreError::OtherFormat { path, format })
        }
        _ => Err(damaged(&segment.path, 0, "it does not begin as a file of the log does")),
    }
}

/// The next frame's payload, or `None` if the `remaining` bytes do not begin with a whole one.
fn read_frame(file: &mut impl Read, remaining: u64) -> std::io::Result<Option<Vec<u8>>> {
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
