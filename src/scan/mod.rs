//! Spam scanners: rspamd over HTTP, SpamAssassin's spamd, and GTUBE when none is configured.
//! Knows messages and envelopes, no organization and no rule.

mod faults;
mod gtube;
mod outcome;
mod rspamd;
mod settings;
mod spamd;

use tokio::time::timeout;

use crate::id::TraceId;
use crate::mail::{Address, Peer, ReversePath, Verdict};

pub use faults::ScanFaults;
use outcome::ScanError;
pub use outcome::ScanOutcome;
pub use settings::{ScannerKind, Settings};

/// A message to scan.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The message as it came.
    pub message: &'a [u8],
    /// Who sent it.
    pub peer: &'a Peer,
    /// The envelope's sender.
    pub reverse_path: &'a ReversePath,
    /// The envelope's recipients.
    pub recipients: &'a [&'a Address],
    /// Under which the scanner's log can be compared with ours.
    pub trace_id: TraceId,
}

/// Asks the scanner, if there is one. Never fails: a scanner that is out of reach, late or not
/// understood is PROCESSING_FAILED, and mail flows.
pub async fn scan(settings: Option<&Settings>, request: &Request<'_>) -> ScanOutcome {
    let Some(settings) = settings else { return without_scanner(request.message) };
    let size_octets = u64::try_from(request.message.len()).unwrap_or(u64::MAX);
    if size_octets > settings.max_bytes {
        let detail = format!("messages above {} octets are not scanned", settings.max_bytes);
        return ScanOutcome::without_score(Verdict::Disabled, detail);
    }
    let answer = async {
        match settings.kind {
            ScannerKind::Rspamd => rspamd::ask(&settings.address, request).await,
            ScannerKind::Spamd => spamd::ask(&settings.address, request).await,
        }
    };
    // Boxed, so that messages that are not scanned do not carry its room.
    let answer = Box::pin(timeout(settings.timeout, answer)).await;
    answer.unwrap_or(Err(ScanError::TimedOut)).unwrap_or_else(|error| {
        ScanOutcome::without_score(Verdict::ProcessingFailed, error.to_string())
    })
}

fn without_scanner(message: &[u8]) -> ScanOutcome {
    if gtube::is_in(message) {
        ScanOutcome::without_score(Verdict::Fail, "GTUBE")
    } else {
        ScanOutcome::without_score(Verdict::Disabled, "no scanner is configured")
    }
}

#[cfg(test)]
mod tests;
