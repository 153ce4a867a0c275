//! Bounces of forwarded mail that go back to its first senders: how many a client network, and how
//! many a sender, has in an hour.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use moka::sync::Cache;

use crate::mail::Address;
use crate::pipeline::facts::settings::BounceLimits;
use crate::smtp::network_of;

/// How long bounces count, from the first of a network or to a sender.
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// Networks and senders remembered at once, a few hundred octets each; those that have little are
/// forgotten first.
const REMEMBERED: u64 = 10_000;

/// Bounces of the last hour.
#[derive(Debug)]
pub(in crate::pipeline) struct Bounces {
    networks: Cache<IpNet, Arc<AtomicUsize>>,
    senders: Cache<String, Arc<AtomicUsize>>,
}

impl Default for Bounces {
    fn default() -> Self {
        Self { networks: counters(), senders: counters() }
    }
}

fn counters<K: Hash + Eq + Send + Sync + 'static>() -> Cache<K, Arc<AtomicUsize>> {
    Cache::builder().max_capacity(REMEMBERED).time_to_live(WINDOW).build()
}

impl Bounces {
    /// Whether a client may bring a bounce more, to whomever it goes.
    pub(in crate::pipeline) fn has_room(&self, client: IpAddr, limits: BounceLimits) -> bool {
        let of_network = self.networks.get(&network_of(client));
        of_network.is_none_or(|count| count.load(Ordering::Relaxed) < limits.per_network)
    }

    /// Counts a bounce from a client to a first sender; false, and not counted, if either has as
    /// many as are allowed.
    pub(in crate::pipeline) fn count(
        &self,
        client: IpAddr,
        sender: &Address,
        limits: BounceLimits,
    ) -> bool {
        let of_network = self.networks.get_with(network_of(client), Arc::default);
        let of_sender = self.senders.get_with(sender.key(), Arc::default);
        let has_room = of_network.load(Ordering::Relaxed) < limits.per_network
            && of_sender.load(Ordering::Relaxed) < limits.per_sender;
        if has_room {
            of_network.fetch_add(1, Ordering::Relaxed);
            of_sender.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_a_sender_have_their_share_and_no_other_pays_for_it() {
        let bounces = Bounces::default();
        let limits = BounceLimits { per_network: 3, per_sender: 2 };
        let count = |ip: &str, sender: &str| {
            let sender = Address::parse(sender).expect("an address");
            bounces.count(ip.parse().expect("an address"), &sender, limits)
        };
        assert!(count("192.0.2.1", "bob@good.test"));
        assert!(count("198.51.100.1", "Bob@good.test"));
        assert!(!count("203.0.113.1", "bob@good.test"), "the sender has had two");
        assert!(count("192.0.2.77", "carol@good.test"));
        assert!(count("192.0.2.1", "dan@good.test"));
        assert!(!count("192.0.2.2", "erin@good.test"), "the network has sent three");
        let has_room = |ip: &str| bounces.has_room(ip.parse().expect("an address"), limits);
        assert!(!has_room("192.0.2.2") && has_room("198.51.100.1") && has_room("203.0.113.1"));
        assert!(count("203.0.113.1", "erin@good.test"), "what was refused does not count");
    }
}
