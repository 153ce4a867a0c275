//! Message authentication: SPF, DKIM, DMARC, ARC and iprev, and what they say in a message's
//! header. Knows DNS answers and messages, no organization and no rule. (`auth` would mean
//! logging in.)
//!
//! [`Authenticator::authenticate`] finds out who vouches for a message. SPF is our own; DKIM, DMARC
//! and ARC are mail-auth's, which gets every DNS answer from us and never asks the network itself.

mod answers;
mod arc;
mod authenticator;
mod dkim;
mod dmarc;
mod forged;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod iprev;
mod outcome;
mod results;
mod settings;
pub mod spf;

pub use authenticator::{Authenticator, Request};
pub use forged::{forged_results, strip_forged_results};
pub use outcome::{
    ArcOutcome, ArcResult, Authentication, DkimOutcome, DkimResult, DmarcOutcome, DmarcResult,
    IprevOutcome, IprevResult,
};
pub use settings::Settings;

#[cfg(test)]
mod tests;
