//! A scanner that fails, told in the log without a line for each message.

use std::sync::{Mutex, PoisonError};

use super::ScanOutcome;
use crate::clock::Timestamp;
use crate::mail::Verdict;

/// It is told once in this time, in seconds; each message's story has it anyway.
const TELL_EVERY_S: u64 = 60;

/// How often the scanner has failed.
#[derive(Debug, Default)]
pub struct ScanFaults(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Until when nothing more is told, in seconds.
    quiet_until: u64,
    untold: u64,
}

impl ScanFaults {
    /// Warns of a scan that failed, with the number of those since the last warning.
    pub fn tell(&self, outcome: &ScanOutcome, now: Timestamp) {
        if outcome.verdict != Verdict::ProcessingFailed {
            return;
        }
        // A count is whole at every moment, so a panic elsewhere cannot have harmed it.
        let untold = self.0.lock().unwrap_or_else(PoisonError::into_inner).count(now.as_secs());
        if let Some(untold) = untold {
            let error = &outcome.detail;
            tracing::warn!(%error, untold, "mail is not scanned for spam, and flows");
        }
    }
}

impl Told {
    /// Counts one more: how many went untold before it, if it is to be told.
    fn count(&mut self, second: u64) -> Option<u64> {
        if second < self.quiet_until {
            self.untold += 1;
            return None;
        }
        let untold = std::mem::take(&mut self.untold);
        self.quiet_until = second.saturating_add(TELL_EVERY_S);
        Some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_that_is_down_is_told_once_a_minute() {
        let mut told = Told::default();
        assert_eq!(told.count(100), Some(0));
        assert_eq!([101, 130, 159].map(|second| told.count(second)), [None; 3]);
        assert_eq!(told.count(160), Some(3), "and how many there were");
        assert_eq!(told.count(220), Some(0));
    }
}
