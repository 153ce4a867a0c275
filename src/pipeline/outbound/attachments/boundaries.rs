//! Whether readers agree on whether a part is a multipart, and on its boundary. Pure.

use mail_parser::MessagePart;

use super::names::parameters;
use super::{composite_encodings, fields};
use crate::pipeline::outbound::delimiters;

const IS_NO_BOUNDARY: &str = "readers do not agree on its boundary";
const IS_NO_MULTIPART: &str = "only some readers find parts in it";

/// Why readers may find other parts in it than the parser, if they may. Honest mail is written so
/// too; it counts only where a file may be in such a part.
pub(super) fn dispute(part: MessagePart<'_>) -> Option<&'static str> {
    delimiters::dispute(part).or_else(|| {
        let kind = fields(part, "Content-Type").next()?;
        dispute_of_type(part, &kind)
    })
}

fn dispute_of_type(part: MessagePart<'_>, kind: &str) -> Option<&'static str> {
    let lower = kind.to_ascii_lowercase();
    if !lower.contains("multipart") && !lower.contains("boundary") {
        return None;
    }
    let media_type = lower.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let subtype = media_type.strip_prefix("multipart/");
    if !subtype.is_some_and(|it| !it.is_empty() && it.bytes().all(is_plain)) {
        return Some(IS_NO_MULTIPART);
    }
    if !has_plain_boundary(kind) {
        return Some(IS_NO_BOUNDARY);
    }
    // What is encoded as a whole has its delimiters in what is decoded.
    let is_encoded = !composite_encodings(part).is_empty();
    if is_encoded { None } else { delimiters::dispute_without_delimiter(part) }
}

/// Whether every reader finds this boundary: a token, or a quoted string with nothing in it that
/// some readers take for more than itself (RFC 2046 §5.1.1 allows more).
fn has_plain_boundary(kind: &str) -> bool {
    let mut found = parameters(kind).filter(|(key, _)| key.contains("boundary"));
    let Some((key, value)) = found.next() else { return false };
    let is_key = key.trim_matches([' ', '\t']) == "boundary";
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let is_value = match quoted {
        None => !value.is_empty() && value.bytes().all(is_plain),
        Some(quoted) => {
            let is_allowed = |octet: u8| is_plain(octet) || b"'(),/:=? ".contains(&octet);
            quoted.bytes().all(is_allowed) && !quoted.contains("=?") && !quoted.contains("''")
        }
    };
    is_key && is_value && found.next().is_none()
}

/// What stands for itself in a token for every reader.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"+-._".contains(&octet)
}
