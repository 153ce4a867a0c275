//! What goes to an organization's postmaster because nobody else may be told of it, or has it: so
//! much in an hour, since strangers cause it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::directory::Organization;
use crate::mail::Address;

/// Messages that an organization's postmaster gets in an hour.
const MAX_IN_AN_HOUR: usize = 100;
/// Organizations remembered at once.
const REMEMBERED: u64 = 10_000;

/// What postmasters have got in the last hour, by organization.
#[derive(Debug)]
pub(in crate::pipeline) struct Postmasters(Cache<Arc<str>, Arc<AtomicUsize>>);

impl Default for Postmasters {
    fn default() -> Self {
        let hour = Duration::from_secs(60 * 60);
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(hour).build())
    }
}

impl Postmasters {
    /// Counts another message for the postmaster of an organization; false, if it is one too many.
    pub(in crate::pipeline) fn count(&self, organization: &str) -> bool {
        let count = self.0.get_with(Arc::from(organization), Arc::default);
        count.fetch_add(1, Ordering::Relaxed) < MAX_IN_AN_HOUR
    }
}

/// The address of an organization's postmaster, which every domain has (RFC 5321 §4.5.1).
pub(in crate::pipeline) fn address(organization: &Organization) -> Option<Address> {
    let domain = organization.domains.first()?;
    Address::from_parts("postmaster", domain.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_organization_has_so_many_in_an_hour() {
        let postmasters = Postmasters::default();
        let taken = (0..150).filter(|_| postmasters.count("m-1")).count();
        assert_eq!(taken, MAX_IN_AN_HOUR);
        assert!(postmasters.count("m-2"), "another organization has its own");
    }
}
