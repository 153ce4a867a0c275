//! The fuzzers' door: a segment of the log, whatever stands in it.

use std::fs;
use std::path::Path;

use super::StoreError;
use super::codec::{self, Decoded};
use super::header::{HEADER, Header};
use super::index::messages_of;
use super::log::{Frame, Log};
use super::mac::{LogKey, MAC};
use super::pack::Trailer;
use super::segment::{Catalog, FIRST, FRAME_HEADER, Scanned, Scanner};
use crate::events::Lsn;
use crate::fuzz::scratch;

/// Larger than any input: a log here has one segment.
const SEGMENT_BYTES: u64 = 1 << 30;
/// What separates the payloads in an input.
const SEPARATOR: &[u8] = b"\n--\n";

/// A segment, by the first octet: `h`, the file itself; `r`, what stands behind its header; `p`, twelve octets that a trailer's numbers are made of, then what stands before the
/// trailer of a pack; `f`, payloads to be framed; `m`, four
/// octets that say which octet of the framed payloads is altered and how, then the payloads.
///
/// What was written is read, up to the first altered frame. Positions rise, nothing is larger
/// than the file, and after an opening for writing the log is whole and goes on where it ended.
pub fn segment(input: &[u8]) {
    match input {
        [b'h', file @ ..] => drop(checked_scan(file)),
        [b'r', frames @ ..] => drop(checked_scan(&[&header(), frames].concat())),
        [b'p', input @ ..] => scan_pack(input),
        [b'f', texts @ ..] => {
            let (payloads, file) = framed(texts);
            let scan = checked_scan(&file);
            assert_eq!(scan.payloads, payloads, "what was written is not what is read");
            assert_eq!(scan.torn_at, None);
        }
        [b'm', high, low, flip, cut, texts @ ..] => {
            let (payloads, mut file) = framed(texts);
            let altered = usize::from(u16::from_be_bytes([*high, *low])).max(HEADER as usize);
            file.truncate(file.len().saturating_sub(usize::from(*cut)).max(HEADER as usize));
            file.get_mut(altered).into_iter().for_each(|octet| *octet ^= flip);
            let scan = checked_scan(&file);
            let whole = whole_before(&payloads, altered.min(file.len()));
            assert!(scan.payloads.len() >= whole, "a whole frame is lost");
            assert_eq!(scan.payloads[..whole], payloads[..whole]);
        }
        _ => {}
    }
}

/// A pack is whole or an error, and what it says is below where it ends.
fn scan_pack(input: &[u8]) {
    let Some((numbers, body)) = input.split_first_chunk::<12>() else { return };
    let numbers = numbers.as_chunks::<2>().0;
    let mut numbers = numbers.iter().map(|pair| u64::from(u16::from_be_bytes(*pair)));
    let mut number = || numbers.next().unwrap_or_default();
    let (end, considered, table, count) = (number(), number(), number(), number());
    let entries = body.get((table as usize).saturating_sub(HEADER as usize)..).unwrap_or_default();
    let table_crc = crc32fast::hash(entries);
    let trailer = Trailer { end, considered, table, count, table_crc, ..Trailer::default() };
    let dir = scratch("segment");
    let file = [&header(), body, &trailer.encode()].concat();
    fs::write(dir.join(format!("{:016x}.pack", 0)), file).expect("writes");
    if let Ok(mut scanner) = Scanner::new(&dir, Lsn(0)) {
        while let Ok(Some(scanned)) = scanner.next() {
            let Scanned::Frame(frame) = scanned else { panic!("a pack has no torn end") };
            let lsn = frame.place.lsn;
            drop(Catalog::read(&dir).and_then(|log| log.frame(lsn)?.record()));
            drop(frame.record(&key()));
        }
    }
    fs::remove_dir_all(&dir).expect("is there");
}

fn key() -> LogKey {
    LogKey::new(&[7; 32])
}

fn header() -> Vec<u8> {
    Header::first().expect("random").encode()
}

/// Whether a file begins as ours do, or is what a crash leaves of one: behind a header that is not whole
/// nothing stands.
fn is_ours(file: &[u8]) -> bool {
    let is_short = file.len() as u64 <= HEADER && !file.starts_with(b"mwlog-");
    let begins_so = file.starts_with(&Header::first().expect("random").encode()[..12]);
    let is_whole = file.get(..HEADER as usize).is_none_or(|header| {
        let summed = header.split_last_chunk::<4>();
        summed.is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(*crc))
    });
    is_short || begins_so && (is_whole || file.len() as u64 <= HEADER)
}

/// Payloads made of an input's texts, and the segment that holds them.
fn framed(texts: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut file = header();
    let mut payloads = Vec::new();
    for text in split(texts) {
        let payload = payload(text);
        let frame = Frame::new(vec![payload.clone()]).expect("shorter than 4 GiB");
        file.extend_from_slice(&frame.signed(&[7; MAC]));
        payloads.push(payload);
    }
    (payloads, file)
}

fn split(mut texts: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some(at) = memchr::memmem::find(texts, SEPARATOR) {
        pieces.push(&texts[..at]);
        texts = &texts[at + SEPARATOR.len()..];
    }
    pieces.push(texts);
    pieces
}

/// A head of JSON, an event line, and a tail: what [`codec`] makes, if the text is a head.
fn payload(text: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for part in [text, b"{}\n"] {
        payload.extend_from_slice(&u32::try_from(part.len()).expect("short").to_le_bytes());
        payload.extend_from_slice(part);
    }
    payload.extend_from_slice(&[0x5e; 64]);
    payload
}

/// How many frames end at or before `offset`.
fn whole_before(payloads: &[Vec<u8>], offset: usize) -> usize {
    let mut end = HEADER as usize;
    let ends_before = |payload: &&Vec<u8>| {
        end += FRAME_HEADER as usize + payload.len();
        end <= offset
    };
    payloads.iter().take_while(ends_before).count()
}

/// What a scan came upon.
#[derive(Debug, Default, PartialEq)]
struct Scan {
    payloads: Vec<Vec<u8>>,
    end: Lsn,
    torn_at: Option<u64>,
}

/// Scans a log of one segment, then opens it for writing and scans it again.
fn checked_scan(file: &[u8]) -> Scan {
    let dir = scratch("segment");
    fs::write(dir.join(format!("{:016x}.log", 0)), file).expect("writes");
    let found = scan(&dir, file.len() as u64);
    match &found {
        Ok(found) => assert_opens(&dir, found),
        Err(_) => assert!(!is_ours(file), "a last segment's end is torn, not an error"),
    }
    fs::remove_dir_all(&dir).expect("is there");
    let found = found.unwrap_or_default();
    assert!(found.torn_at.is_none_or(|torn| torn < file.len() as u64), "torn after the end");
    found
}

/// The log's writing end stands where its whole frames end, and what it writes is read.
fn assert_opens(dir: &Path, found: &Scan) {
    let log = match Log::open(dir, SEGMENT_BYTES, Lsn(0), Lsn(0), &key()) {
        // A scan does not look into a file that is shorter than any record's place in it.
        Err(StoreError::OtherFormat { .. }) if found.payloads.is_empty() => return,
        log => log,
    };
    let mut log = log.expect("a torn end is cut off");
    assert_eq!(log.end(), found.end.max(Lsn(FIRST)));
    let mut frame = Frame::new(vec![b"next".to_vec()]).expect("short");
    log.append(&mut [&mut frame]).expect("appends");
    let after = scan(dir, u64::MAX).expect("is whole");
    assert_eq!(after.torn_at, None);
    let (last, before) = after.payloads.split_last().expect("has one");
    assert_eq!((last.as_slice(), before), (b"next".as_slice(), found.payloads.as_slice()));
}

fn scan(dir: &Path, file_length: u64) -> Result<Scan, super::StoreError> {
    let mut found = Scan::default();
    let mut scanner = Scanner::new(dir, Lsn(0))?;
    while let Some(scanned) = scanner.next()? {
        match scanned {
            Scanned::Frame(frame) => {
                let lsn = frame.place.lsn;
                let next = frame.place.next;
                let payload = frame.payload;
                assert_eq!(found.torn_at, None, "a frame after the torn end");
                assert!(lsn >= found.end && next > lsn, "positions rise");
                assert!(next.0 - FIRST + HEADER <= file_length, "a frame ends after its file");
                assert_eq!(next.0 - lsn.0, FRAME_HEADER + payload.len() as u64);
                assert_decodes(dir, lsn, &payload);
                found.payloads.push(payload);
                found.end = next;
            }
            Scanned::Torn { offset, .. } => {
                assert!(offset + FIRST >= found.end.0 + HEADER, "torn within a frame");
                found.torn_at = Some(offset);
            }
        }
    }
    Ok(found)
}

/// A payload that cannot be read is nothing; one that can be names octets of the log or none.
fn assert_decodes(dir: &Path, lsn: Lsn, payload: &[u8]) {
    let Ok(record) = codec::decode(payload) else { return };
    for message in messages_of(lsn, &record.head) {
        for range in ranges(&record, message.at.blob, message.at.mail) {
            let length = range.end.checked_sub(range.start).expect("a range has a length");
            let read = Catalog::read(dir).and_then(|log| log.frame(lsn)?.read(range));
            if let Ok(octets) = read {
                assert_eq!(octets.len() as u64, length);
            }
        }
    }
}

fn ranges(record: &Decoded, blob: usize, mail: usize) -> Vec<std::ops::Range<u64>> {
    record.ranges(blob, mail).map(|(prefix, content)| vec![prefix, content]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_hold() {
        crate::fuzz::replay("segment", segment);
    }
}
