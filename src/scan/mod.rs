//! Spam scanners: rspamd over HTTP, SpamAssassin's spamd, and GTUBE when none is configured.
//! Knows messages and envelopes, no organization and no rule.

mod settings;

pub use settings::{ScannerKind, Settings};
