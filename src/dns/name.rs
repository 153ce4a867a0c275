//! Names as the octets under which answers are kept.

use super::RecordType;

/// The longest name in presentation form without the trailing dot: 255 octets on the wire
/// (RFC 1035 §2.3.4) less the root label and the first length octet.
const MAX_NAME: usize = 253;
/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

/// A record type and a name in lower case.
pub(super) type Key = Box<[u8]>;

/// Writes the key of a question into `buffer`; `None` for a name that DNS cannot carry.
pub(super) fn key<'b>(
    name: &str,
    record_type: RecordType,
    buffer: &'b mut [u8; 256],
) -> Option<&'b [u8]> {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    if !is_name(name) {
        return None;
    }
    let key = buffer.get_mut(..=name.len())?;
    let (first, rest) = key.split_first_mut()?;
    *first = type_octet(record_type);
    rest.copy_from_slice(name);
    rest.make_ascii_lowercase();
    Some(key)
}

/// Whether every label has 1 to 63 octets and the whole fits, whatever the octets are.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.len() <= MAX_NAME
        && name.split(|octet| *octet == b'.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

fn type_octet(record_type: RecordType) -> u8 {
    match record_type {
        RecordType::A => 1,
        RecordType::Ptr => 12,
        RecordType::Mx => 15,
        RecordType::Txt => 16,
        RecordType::Aaaa => 28,
        RecordType::Tlsa => 52,
    }
}
