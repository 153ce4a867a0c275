//! What of a message's header section is the sender's own: all but the fields that pass for ours.

use std::ops::Range;

use crate::mail::{DeliveryMarks, Domain};
use crate::msgauth::{Ours, forged_fields};
use crate::pipeline::facts::judged::Judged;

/// Where the fields of a message stand that pass for ours, in order. They are not stored, and no
/// mailbox rule sees them.
pub(in crate::pipeline) fn forged(mail: &Judged, marks: &DeliveryMarks) -> Vec<Range<usize>> {
    let is_local = |domain: &Domain| mail.snapshot().directory.is_local(domain);
    let authserv_id = &mail.snapshot().settings.hostname;
    forged_fields(mail.content(), &Ours { authserv_id, is_local: &is_local, marks })
}
