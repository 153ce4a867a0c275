//! Sender Policy Framework (RFC 7208): what a check comes to.

mod outcome;

pub use outcome::{Identity, SpfOutcome, SpfResult};
