//! Records as hickory reads them, as records of ours.

use hickory_proto::rr::{Name, RData};

use super::{RecordData, RecordType};

impl RecordData {
    /// The type of this record.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::Txt(_) => RecordType::Txt,
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::Aaaa,
            Self::Mx { .. } => RecordType::Mx,
            Self::Ptr(_) => RecordType::Ptr,
        }
    }
}

/// A record of a type that mail needs; `None` for all others.
pub(super) fn from_rdata(data: &RData) -> Option<RecordData> {
    Some(match data {
        RData::TXT(txt) => RecordData::Txt(txt.txt_data.concat().into()),
        RData::A(address) => RecordData::A(address.0),
        RData::AAAA(address) => RecordData::Aaaa(address.0),
        RData::MX(mx) => {
            RecordData::Mx { preference: mx.preference, exchange: askable(&mx.exchange) }
        }
        RData::PTR(name) => RecordData::Ptr(presentation(name)),
        _ => return None,
    })
}

/// The target of a CNAME record.
pub(super) fn cname(data: &RData) -> Option<&Name> {
    match data {
        RData::CNAME(name) => Some(name),
        _ => None,
    }
}

/// A name as it is asked for again: with its printable octets as they are, not escaped.
fn askable(name: &Name) -> Box<str> {
    let is_plain = |octet: &u8| octet.is_ascii_graphic() && !b".\\".contains(octet);
    let mut text = String::new();
    for label in name.iter() {
        match std::str::from_utf8(label) {
            Ok(label) if label.as_bytes().iter().all(is_plain) => {
                let dot = if text.is_empty() { "" } else { "." };
                text.push_str(dot);
                text.push_str(label);
            }
            _ => return presentation(name),
        }
    }
    text.into()
}

/// RFC 1035 §5.1 presentation form, odd octets escaped, without the trailing dot.
fn presentation(name: &Name) -> Box<str> {
    name.to_ascii().trim_end_matches('.').into()
}
