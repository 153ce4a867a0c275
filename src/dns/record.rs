//! Records as hickory reads them, as records of ours.

use hickory_proto::rr::{Name, RData};

use super::{RecordData, RecordType, Tlsa};

impl RecordData {
    /// The type of this record.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::Txt(_) => RecordType::Txt,
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::Aaaa,
            Self::Mx { .. } => RecordType::Mx,
            Self::Ptr(_) => RecordType::Ptr,
            Self::Tlsa(_) => RecordType::Tlsa,
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
        RData::TLSA(tlsa) => RecordData::Tlsa(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching_type: tlsa.matching.into(),
            data: tlsa.cert_data.as_slice().into(),
        }),
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

/// The name without its trailing dot, as [`super::Resolver::lookup`] takes it: visible characters
/// as they are. A name with other octets, or with a dot inside a label, is in presentation form
/// (RFC 1035 §5.1), where they are escaped: no lookup finds it, and no header field breaks on it.
fn presentation(name: &Name) -> Box<str> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let is_plain = label.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'.');
        let Some(label) = std::str::from_utf8(label).ok().filter(|_| is_plain) else {
            return name.to_ascii().trim_end_matches('.').into();
        };
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    text.into()
}
