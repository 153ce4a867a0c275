//! What commands leave in the audit logs: they act beside the daemon, and are not less worth telling.

use super::output;
use super::owner::give_to_daemon;
use crate::config::Configuration;
use crate::events::audit::{self, AuditLine};
use crate::store::is_there;

/// Lines that are written at once.
const AT_ONCE: usize = 1000;

/// Appends lines of one kind to their log.
pub(super) fn record<L: Into<AuditLine>>(
    configuration: &Configuration,
    lines: impl IntoIterator<Item = L>,
) -> anyhow::Result<()> {
    let data_dir = &configuration.store.data_dir;
    if !is_there(data_dir)? {
        return Ok(()); // Nothing has been here that could be used.
    }
    let mut lines = lines.into_iter().map(L::into).peekable();
    let mut kind = None;
    while let Some(first) = lines.peek() {
        kind = Some(first.log_type());
        let some = lines.by_ref().take(AT_ONCE);
        audit::append_all(&data_dir.join("audit"), &configuration.arns, some)?;
    }
    let Some(kind) = kind else { return Ok(()) };
    give_to_daemon(data_dir, &["audit", &format!("audit/{}.jsonl", kind.as_str())])
}

/// The same for a command that does its work in any case: an administrator may have to read a
/// store on a disk that nothing can be written to.
pub(super) fn record_or_note<L: Into<AuditLine>>(
    configuration: &Configuration,
    lines: impl IntoIterator<Item = L>,
) {
    if let Err(error) = record(configuration, lines) {
        output::note(&format!("this is not in the audit logs: {}", output::described(&error)));
    }
}
