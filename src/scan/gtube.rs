//! GTUBE, the generic test for unsolicited bulk email: a text that every scanner calls spam.

use memchr::memmem;

use crate::mail::body_offset;

/// Fixed by SpamAssassin; written in two halves, so that no scanner calls this file spam.
const GTUBE: &str =
    concat!("XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X");

/// Whether the body has the text as it is; a transfer encoding hides it.
pub(super) fn is_in(message: &[u8]) -> bool {
    let body = message.get(body_offset(message)..).unwrap_or_default();
    memmem::find(body, GTUBE.as_bytes()).is_some()
}
