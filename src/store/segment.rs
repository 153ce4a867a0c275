//! The log's files, for reading: segments as they were written, and packs, which took the place
//! of segments that had grown stale. Together they cover the log from its start to its end.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::{self, Decoded};
use super::entry::RecordHead;
use super::header::{Epoch, HEADER, Header};
use super::mac::{LogKey, MAC, Mac, Place};
use super::pack::{self, PACK_HEADER, TableCheck, Trailer};
use super::{StoreError, damaged, tampered};
use crate::events::Lsn;

/// How far behind a segment's base the position of its first frame is. Positions do not count how long
/// a header is.
pub(super) const FIRST: u64 = 8;
/// Octets of a segment's frame before its payload.
pub(super) const FRAME_HEADER: u64 = 8 + MAC as u64;
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
        let mut segment = Self { path, base, end: base, bytes, pack };
        segment.end =
            segment.pack.as_ref().map_or(segment.position_at(bytes), |trailer| trailer.end);
        Ok(Some(segment))
    }

    /// The position of what stands at a place of a segment's file.
    pub(super) fn position_at(&self, offset: u64) -> u64 {
        self.base + offset.saturating_sub(HEADER - FIRST)
    }

    /// Where in a segment's file a position is; that of the first frame for those before it.
    pub(super) fn offset_of(&self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(self.base).max(FIRST) - FIRST + HEADER
    }

    /// Its header; `None` if a crash came before it was whole, so that nothing stands behind it.
    pub(super) fn header(&self) -> Result<Option<Header>, StoreError> {
        let file = File::open(&self.path).map_err(StoreError::file(&self.path))?;
        self.header_of(&file)
    }

    fn header_of(&self, file: &File) -> Result<Option<Header>, StoreError> {
        let header = Header::read(file, &self.path, self.bytes)?;
        if header.is_none() && self.pack.is_some() {
            return Err(damaged(&self.path, 0, "it does not begin as a file of the log does"));
        }
        if header.as_ref().is_some_and(|header| header.base != self.base) {
            return Err(damaged(&self.path, 0, "its header is of a file of another name"));
        }
        Ok(header)
    }

    /// Where the frames end in the file.
    fn frames_end(&self) -> u64 {
        self.pack.as_ref().map_or(self.bytes, |trailer| trailer.table)
    }

    fn frame_header(&self) -> u64 {
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

    /// Reads the headers of all files: that this version knows all that may stand in them, also behind
    /// the index's cursor, since a later version may have written there; and that each continues the
    /// one before it. It is done before anything is opened for writing or made anew.
    ///
    /// # Errors
    /// [`StoreError::OtherFormat`], [`StoreError::LaterKind`]; a file that is none of this log.
    pub(super) fn chain(&self) -> Result<Chain, StoreError> {
        let mut chain = Chain::default();
        let mut end = 0;
        for (number, segment) in self.segments.iter().enumerate() {
            let Some(header) = segment.header()? else {
                if number + 1 < self.segments.len() {
                    return Err(damaged(&segment.path, 0, "its header is not whole"));
                }
                chain.unfinished = Some(segment.path.clone());
                break;
            };
            let linked = chain.link(&header, end);
            linked.map_err(|problem| tampered(&segment.path, 0, problem))?;
            chain.files.push((segment.clone(), header));
            end = segment.end;
        }
        Ok(chain)
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
        segment.header_of(&file)?;
        let at = match &segment.pack {
            None => segment.offset_of(lsn),
            Some(trailer) => pack::find(&file, &segment.path, trailer, lsn)?.ok_or_else(missing)?,
        };
        let mut length = [0; 4];
        file.read_exact_at(&mut length, at).map_err(StoreError::file(&segment.path))?;
        let start = at + segment.frame_header();
        let length = u64::from(u32::from_le_bytes(length));
        if start + length > segment.frames_end() {
            return Err(damaged(&segment.path, at, "a record ends before its content does"));
        }
        Ok(StoredFrame { file, path: segment.path.clone(), start, length })
    }
}

impl Catalog {
    /// The head of the record at a position, if it has its MAC; `None` if a pack has nothing left of
    /// it. The headers and trailers have been looked at.
    ///
    /// # Errors
    /// [`StoreError::Tampered`]; damage; a position at which there never was a record.
    pub(super) fn proven_head(
        &self,
        lsn: Lsn,
        key: &LogKey,
    ) -> Result<Option<RecordHead>, StoreError> {
        let missing = || StoreError::NotFound(format!("the log has no record {lsn}"));
        let segment = self.segment_of(lsn).ok_or_else(missing)?;
        if let Some(trailer) = &segment.pack {
            let file = File::open(&segment.path).map_err(StoreError::file(&segment.path))?;
            if pack::find(&file, &segment.path, trailer, lsn)?.is_none()
                && pack::is_left_out(&file, &segment.path, trailer, lsn)?
            {
                return Ok(None);
            }
        }
        let mut scanner = Scanner::over(vec![segment.clone()], lsn)?;
        match scanner.next_frame()? {
            Some(frame) if frame.place.lsn == lsn => Ok(Some(frame.record(key)?.head)),
            _ => Err(missing()),
        }
    }
}

/// What the headers of a log say together.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The first file's.
    pub(super) first: Option<Header>,
    /// The last file's that has one.
    pub(super) last: Option<Header>,
    /// The newest epoch.
    pub(super) epoch: Epoch,
    /// The last file, if a crash came before its header was whole.
    pub(super) unfinished: Option<PathBuf>,
    files: Vec<(Segment, Header)>,
}

impl Chain {
    /// Whether any of the headers has a MAC that was made with this key, or there is none to tell by.
    pub(super) fn is_under(&self, key: &LogKey) -> bool {
        self.files.is_empty() || self.files.iter().any(|(_, header)| header.is_signed(key))
    }

    /// Whether nobody has altered what the files say of themselves.
    ///
    /// # Errors
    /// [`StoreError::Tampered`].
    pub(super) fn check(&self, key: &LogKey) -> Result<(), StoreError> {
        for (segment, header) in &self.files {
            if !header.is_signed(key) {
                return Err(tampered(
                    &segment.path,
                    0,
                    "its header is not the one that was written",
                ));
            }
            if let Some(trailer) = &segment.pack
                && !trailer.is_signed(key, header)
            {
                let problem = "its table is not the one that was written";
                return Err(tampered(&segment.path, trailer.table, problem));
            }
        }
        Ok(())
    }

    /// Adds the header of the next file; the one before it ends at `end`.
    fn link(&mut self, header: &Header, end: u64) -> Result<(), &'static str> {
        if header.continues != end || header.base != end {
            return Err("it continues from elsewhere than where the file before it ends");
        }
        let before = self.last.as_ref().map(|last| last.ends_in).unwrap_or_default();
        if self.first.as_ref().is_some_and(|first| first.folder != header.folder) {
            return Err("it is of another data folder");
        }
        let begins_epoch = header.ends_in.number > before.number;
        if header.follows != before.id || !(begins_epoch || header.ends_in == before) {
            return Err("it is of another life of this data folder");
        }
        if header.epoch.number == self.epoch.number && header.epoch != self.epoch {
            return Err("it is of another life of this data folder");
        }
        if header.epoch.number > self.epoch.number {
            self.epoch = header.epoch;
        }
        self.first.get_or_insert_with(|| header.clone());
        self.last = Some(header.clone());
        Ok(())
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
    path: Arc<Path>,
    file: BufReader<File>,
    offset: u64,
    /// What the header says of where its frames stand.
    place: Arc<[u8]>,
    /// Of a pack that is read from its first frame on.
    table: Option<TableCheck>,
}

/// What a scan comes upon.
#[derive(Debug)]
pub(super) enum Scanned {
    /// A whole frame's payload.
    Frame(ScannedFrame),
    /// The rest of the last segment is not a whole frame: a write that did not end.
    Torn { path: Arc<Path>, offset: u64, lsn: Lsn },
}

/// A frame whose checksum is right, where it stands. Whoever acts on what it says takes that from
/// [`ScannedFrame::record`], which looks at its MAC.
#[derive(Debug)]
pub(super) struct ScannedFrame {
    pub(super) path: Arc<Path>,
    pub(super) offset: u64,
    pub(super) place: Place,
    mac: Mac,
    pub(super) payload: Vec<u8>,
}

impl ScannedFrame {
    /// The MAC that its record had when it was written.
    pub(super) fn first_mac(&self) -> Mac {
        if self.place.first_mac == [0; MAC] { self.mac } else { self.place.first_mac }
    }

    /// Its head and events, if nobody has altered them.
    ///
    /// # Errors
    /// [`StoreError::Tampered`]; what cannot be read.
    pub(super) fn record(&self, key: &LogKey) -> Result<Decoded, StoreError> {
        let record = self.unproven_record()?;
        self.check(&record, key)?;
        Ok(record)
    }

    /// Its head and events, whoever has written them.
    pub(super) fn unproven_record(&self) -> Result<Decoded, StoreError> {
        codec::decode(&self.payload).map_err(|unreadable| unreadable.at(&self.path, self.offset))
    }

    /// Whether it has the MAC of its record at this place.
    pub(super) fn check(&self, record: &Decoded, key: &LogKey) -> Result<(), StoreError> {
        let digest = record.digest(&self.payload);
        if digest.is_some_and(|digest| self.place.is_mac(key, &self.mac, &digest)) {
            return Ok(());
        }
        let problem = "the record there is not the one that was written there";
        Err(tampered(&self.path, self.offset, problem))
    }
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
            let header = segment.header_of(&file)?;
            let offset = match &segment.pack {
                Some(trailer) => pack::find_from(&file, &segment.path, trailer, from)?,
                None => segment.offset_of(from),
            };
            file.seek(SeekFrom::Start(offset)).map_err(StoreError::file(&segment.path))?;
            let file = BufReader::with_capacity(READ_BUFFER, file);
            let is_all = segment.pack.is_some() && offset == HEADER;
            self.current = Some(Current {
                path: segment.path.as_path().into(),
                segment,
                file,
                offset,
                place: header.map_or_else(|| Vec::new().into(), |header| header.place()),
                table: is_all.then(TableCheck::default),
            });
        }
        Ok(())
    }

    /// The next frame, the torn end, or nothing at the end. Bytes that are not a frame anywhere
    /// but at the end of the last segment are an error.
    pub(super) fn next(&mut self) -> Result<Option<Scanned>, StoreError> {
        loop {
            let Some(current) = &mut self.current else { return Ok(None) };
            if current.offset >= current.segment.frames_end() {
                current.check_table()?;
                self.next_segment(Lsn(0))?;
                continue;
            }
            if let Some(frame) = current.frame()? {
                return Ok(Some(Scanned::Frame(frame)));
            }
            let may_be_torn = self.segments.len() == 0 && current.segment.pack.is_none();
            let path = Arc::clone(&current.path);
            let offset = current.offset;
            let lsn = Lsn(current.segment.position_at(offset));
            self.current = None;
            return match may_be_torn {
                true => Ok(Some(Scanned::Torn { path, offset, lsn })),
                false => Err(damaged(&path, offset, "a record's checksum is wrong")),
            };
        }
    }
}

impl Scanner {
    /// The next whole record that nobody has altered; a torn end is an end.
    pub(super) fn next_record(&mut self, key: &LogKey) -> Result<Option<LoggedRecord>, StoreError> {
        self.next_frame()?
            .map(|frame| {
                let record = frame.record(key)?;
                Ok(LoggedRecord { lsn: frame.place.lsn, next: frame.place.next, record })
            })
            .transpose()
    }

    /// The next whole frame; a torn end is an end.
    pub(super) fn next_frame(&mut self) -> Result<Option<ScannedFrame>, StoreError> {
        match self.next()? {
            Some(Scanned::Frame(frame)) => Ok(Some(frame)),
            Some(Scanned::Torn { .. }) | None => Ok(None),
        }
    }
}

impl Current {
    /// The frame at the current place; `None` if the bytes there are not a whole one.
    fn frame(&mut self) -> Result<Option<ScannedFrame>, StoreError> {
        let Self { segment, file, .. } = self;
        let offset = self.offset;
        let remaining = segment.frames_end() - offset;
        let header = segment.frame_header();
        if remaining < header {
            return Ok(None);
        }
        let read = match &segment.pack {
            Some(_) => pack::read_frame(file, remaining),
            None => read_frame(file, remaining, segment.position_at(offset)),
        };
        let Some(read) = read.map_err(StoreError::file(&segment.path))? else { return Ok(None) };
        let ReadFrame { lsn, next, first_mac, mac, payload } = read;
        if let Some(table) = &mut self.table {
            table.push(lsn, offset, &mac);
        }
        self.offset += header + payload.len() as u64;
        let place = Place { file: Arc::clone(&self.place), lsn, next, first_mac };
        Ok(Some(ScannedFrame { path: Arc::clone(&self.path), offset, place, mac, payload }))
    }

    /// Whether a pack that was read to its end has the frames that it says it has.
    fn check_table(&mut self) -> Result<(), StoreError> {
        match (self.table.take(), &self.segment.pack) {
            (Some(table), Some(trailer)) => {
                pack::check_table(self.file.get_ref(), &self.path, trailer, &table)
            }
            _ => Ok(()),
        }
    }
}

/// A frame as it is read from a segment or a pack.
pub(super) struct ReadFrame {
    pub(super) lsn: Lsn,
    pub(super) next: Lsn,
    pub(super) first_mac: Mac,
    pub(super) mac: Mac,
    pub(super) payload: Vec<u8>,
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

/// The next frame, which stands at `lsn`, or `None` if the `remaining` bytes do not begin with a whole
/// one.
fn read_frame(
    file: &mut impl Read,
    remaining: u64,
    lsn: u64,
) -> std::io::Result<Option<ReadFrame>> {
    let mut header = [0; FRAME_HEADER as usize];
    file.read_exact(&mut header)?;
    let [length, checksum, ..] = header.as_chunks::<4>().0 else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    let checksum = u32::from_le_bytes(*checksum);
    let mac: Mac = header.last_chunk().copied().unwrap_or_default();
    if length == 0 || u64::from(length) > remaining - FRAME_HEADER {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact(&mut payload)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&payload);
    crc.update(&mac);
    if crc.finalize() != checksum {
        return Ok(None);
    }
    let next = Lsn(lsn + FRAME_HEADER + payload.len() as u64);
    Ok(Some(ReadFrame { lsn: Lsn(lsn), next, first_mac: [0; MAC], mac, payload }))
}
