//! Client networks that ask for recipients who do not exist: addresses are being guessed, or a
//! list is old. Past a number a minute, a network is deferred until the minute is over.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use moka::sync::Cache;

use super::budget::network_of;
use super::reason::Reason;
use super::settings::Limits;

/// How long guesses count, from a network's first.
const WINDOW: Duration = Duration::from_secs(60);
/// Networks remembered at once, about 200 octets each; those that guess little are forgotten
/// first.
const MAX_NETWORKS: u64 = 10_000;

/// Unknown recipients of the last minute, by client network.
#[derive(Debug)]
pub(crate) struct Guesses(Cache<IpNet, Arc<AtomicUsize>>);

impl Default for Guesses {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_NETWORKS).time_to_live(WINDOW).build())
    }
}

impl Guesses {
    /// Whether the client's network may go on asking.
    ///
    /// # Errors
    /// [`Reason::TooManyUnknownUsers`]
    pub(crate) fn check(&self, ip: IpAddr, limits: &Limits) -> Result<(), Reason> {
        let count = self.0.get(&network_of(ip)).map_or(0, |count| count.load(Ordering::Relaxed));
        let is_spent = count >= limits.unknown_users_per_network;
        if is_spent { Err(Reason::TooManyUnknownUsers) } else { Ok(()) }
    }

    /// Counts a recipient who does not exist.
    pub(crate) fn count(&self, ip: IpAddr) {
        self.0.get_with(network_of(ip), Arc::default).fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_guesses_is_stopped_and_no_other() {
        let guesses = Guesses::default();
        let limits = Limits { unknown_users_per_network: 3, ..Limits::default() };
        let check = |ip: &str| guesses.check(ip.parse().expect("valid"), &limits);
        for host in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(check(host), Ok(()));
            guesses.count(host.parse().expect("valid"));
        }
        assert_eq!(check("192.0.2.200"), Err(Reason::TooManyUnknownUsers), "the same /24");
        assert_eq!(check("192.0.3.1"), Ok(()));
        guesses.count("2001:db8::1".parse().expect("valid"));
        assert_eq!(check("2001:db8::1"), Ok(()));
    }
}
