//! Client networks that guess: recipients who do not exist, because addresses are being tried or a
//! list is old, and passwords. Past a number a minute, a network is deferred until the minute is
//! over.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use moka::sync::Cache;

use super::budget::network_of;

/// How long guesses count, from a network's first.
const WINDOW: Duration = Duration::from_secs(60);
/// Networks remembered at once, about 200 octets each; those that guess little are forgotten
/// first.
const MAX_NETWORKS: u64 = 10_000;

/// Wrong guesses of the last minute, of one kind, by client network.
#[derive(Debug)]
pub(crate) struct Guesses(Cache<IpNet, Arc<AtomicUsize>>);

impl Default for Guesses {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_NETWORKS).time_to_live(WINDOW).build())
    }
}

impl Guesses {
    /// Whether the client's network has made so many wrong guesses as are `allowed`. Those that
    /// its other connections are making at this moment do not count yet.
    pub(crate) fn are_spent(&self, ip: IpAddr, allowed: usize) -> bool {
        self.0.get(&network_of(ip)).is_some_and(|count| count.load(Ordering::Relaxed) >= allowed)
    }

    /// Counts a wrong guess.
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
        let are_spent = |ip: &str| guesses.are_spent(ip.parse().expect("valid"), 3);
        for host in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert!(!are_spent(host));
            guesses.count(host.parse().expect("valid"));
        }
        assert!(are_spent("192.0.2.200"), "the same /24");
        assert!(!are_spent("192.0.3.1"));
        guesses.count("2001:db8::1".parse().expect("valid"));
        assert!(!are_spent("2001:db8::1"));
    }
}
