//! Message authentication: SPF, DKIM, DMARC, ARC and iprev, and what they say in a message's
//! header. Knows DNS answers and messages, no organization and no rule. (`auth` would mean
//! logging in.)
//!
//! [`Authenticator::authenticate`] finds out who vouches for a message. SPF is our own; DKIM, DMARC
//! and ARC are mail-auth's, which gets every DNS answer from us and never asks the network itself.
//! [`Signer`] signs what leaves, and [`published`] says whether what a domain has in DNS is right.

mod answers;
mod arc;
mod authenticator;
mod body_length;
mod dkim;
mod dmarc;
mod forged;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod iprev;
mod outcome;
mod policy_record;
pub mod published;
mod results;
mod settings;
mod sign;
mod signing_key;
pub mod spf;
mod tags;
mod tree_walk;

pub use authenticator::{Authenticator, Request};
pub use forged::{Ours, forged_fields};
pub use outcome::{
    ArcOutcome, ArcResult, Authentication, DkimOutcome, DkimResult, DmarcOutcome, DmarcResult,
    IprevOutcome, IprevResult, Organization,
};
pub use settings::Settings;
pub use sign::{SelectedKey, SignError, Signer};
pub use signing_key::{KeyError, KeyType, SigningKey};
pub use tree_walk::TreeWalk;

#[cfg(test)]
mod tests;
