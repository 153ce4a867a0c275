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
            RecordData::Mx { preference: mx.preference, exchange: presentation(&mx.exchange) }
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

/// RFC 1035 §5.1 presentation form, odd octets escaped, without the trailing dot.
fn presentation(name: &Name) -> Box<str> {
    name.to_ascii().trim_end_matches('.').into()
}
