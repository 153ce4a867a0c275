//! What a mail domain of ours needs beside its users: keys that sign its mail, records in DNS, and
//! a check that the two agree.

mod check;
mod keys;
mod names;
mod records;
mod today;
mod unsigned;
mod watch;

#[cfg(test)]
mod tests;

pub use check::{Cutover, Finding, Host, Status, check};
pub use keys::{DomainKeys, ManagedKey, Stage, keys_of, make_keys, rotate_keys, use_next_keys};
pub use records::{DnsRecord, MTA_STS_MAX_AGE, Purpose, mta_sts_policy, records, zone_file};
pub use today::Today;
pub use unsigned::{Unsigned, unsigned};
pub use watch::CurrentResolver;

use crate::msgauth::KeyError;
use crate::store::StoreError;

/// What goes wrong with the keys of a domain.
#[derive(Debug, thiserror::Error)]
pub enum DomainKeyError {
    /// Files and seals.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key that cannot be made, or is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is nothing to rotate.
    #[error("{0} has no keys yet that sign")]
    NoKeys(crate::mail::Domain),
    /// There is nothing to take into use.
    #[error("{0} has no next keys; make them with --rotate")]
    NoNextKeys(crate::mail::Domain),
}
