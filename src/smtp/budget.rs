//! What all connections share and none may use up: places, and memory for messages on their way in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::reason::Reason;
use super::settings::Limits;
use super::turns::Share;
use crate::memory;

/// Connections at once, in all and for each client network.
#[derive(Debug, Default)]
pub(crate) struct Places {
    total: AtomicUsize,
    /// As many as the map below has, to be read without a lock.
    network_count: AtomicUsize,
    networks: Mutex<HashMap<IpNet, Network>>,
}

/// A client network that has connections.
#[derive(Debug)]
struct Network {
    connections: usize,
    share: Arc<Share>,
}

impl Places {
    /// A place among all connections.
    ///
    /// # Errors
    /// [`Reason::TooManyConnections`]
    pub(crate) fn take(self: &Arc<Self>, limits: &Limits) -> Result<Place, Reason> {
        let taken = self.total.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        if taken >= limits.connections { Err(Reason::TooManyConnections) } else { Ok(place) }
    }

    /// A place among the connections of the client's network.
    ///
    /// # Errors
    /// [`Reason::TooManyFromNetwork`]
    pub(crate) fn take_in_network(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &Limits,
    ) -> Result<NetworkPlace, Reason> {
        let network = network_of(ip);
        let mut networks = self.networks();
        let known = networks
            .entry(network)
            .or_insert_with(|| Network { connections: 0, share: Arc::new(Share::new(limits)) });
        if known.connections >= limits.connections_per_network {
            return Err(Reason::TooManyFromNetwork);
        }
        known.connections += 1;
        let share = Arc::clone(&known.share);
        self.network_count.store(networks.len(), Ordering::Relaxed);
        Ok(NetworkPlace { places: Arc::clone(self), network, share })
    }

    /// Whether there is more than one network to be fair to.
    pub(crate) fn are_shared(&self) -> bool {
        self.network_count.load(Ordering::Relaxed) > 1
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<IpNet, Network>> {
        // The map is whole between statements, so a panic elsewhere cannot have harmed it.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection counts as its network's: an IPv4 /24 or an IPv6 /56.
pub(crate) fn network_of(ip: IpAddr) -> IpNet {
    let length = if ip.is_ipv4() { 24 } else { 56 };
    IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
}

/// A place among all connections, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the connections of a network, given back when dropped.
#[derive(Debug)]
pub(crate) struct NetworkPlace {
    places: Arc<Places>,
    network: IpNet,
    share: Arc<Share>,
}

impl NetworkPlace {
    /// The network's turns.
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }
}

impl Drop for NetworkPlace {
    fn drop(&mut self) {
        let mut networks = self.places.networks();
        if let Entry::Occupied(mut known) = networks.entry(self.network) {
            known.get_mut().connections -= 1; // this place was counted when it was taken
            if known.get().connections == 0 {
                known.remove();
            }
        }
        self.places.network_count.store(networks.len(), Ordering::Relaxed);
    }
}

/// Octets of messages on their way in, on all connections.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicU64);

/// Reservations change in steps of this many octets, to be rare.
const STEP: u64 = 16 * 1024;

/// One connection's part of what is in flight, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    in_flight: Arc<InFlight>,
    reserved: u64,
}

impl Reservation {
    /// Nothing yet.
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        Self { in_flight, reserved: 0 }
    }

    /// Makes the reservation what `octets` need.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when `limit` octets are in flight; the reservation is as it was.
    pub(crate) fn resize(&mut self, octets: usize, limit: u64) -> Result<(), Reason> {
        let wanted = (octets as u64).next_multiple_of(STEP);
        if wanted > self.reserved {
            let more = wanted - self.reserved;
            let total = &self.in_flight.0;
            if total.fetch_add(more, Ordering::Relaxed).saturating_add(more) > limit {
                total.fetch_sub(more, Ordering::Relaxed);
                return Err(Reason::Overloaded);
            }
        } else {
            self.in_flight.0.fetch_sub(self.reserved - wanted, Ordering::Relaxed);
            memory::freed(self.reserved - wanted);
        }
        self.reserved = wanted;
        Ok(())
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        self.in_flight.0.fetch_sub(self.reserved, Ordering::Relaxed);
        memory::freed(self.reserved);
        self.reserved = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_network() {
        let limits = Limits { connections: 3, connections_per_network: 2, ..Limits::default() };
        let places = Arc::new(Places::default());
        let first: Vec<_> = (0..3).map(|_| places.take(&limits).expect("free")).collect();
        assert_eq!(places.take(&limits).err(), Some(Reason::TooManyConnections));
        drop(first);
        assert!(places.take(&limits).is_ok());

        let take = |ip: &str| places.take_in_network(ip.parse().expect("valid"), &limits);
        let one = take("192.0.2.1").expect("free");
        let _two = take("192.0.2.200").expect("free");
        assert_eq!(take("192.0.2.7").err(), Some(Reason::TooManyFromNetwork));
        assert!(take("192.0.3.1").is_ok(), "another /24");
        drop(one);
        assert!(take("192.0.2.7").is_ok());
        let _six = (take("2001:db8::1").expect("free"), take("2001:db8:0:ff::1").expect("free"));
        assert!(take("2001:db8:0:0:1::1").is_err(), "the same /56");
        assert!(take("2001:db8:0:100::1").is_ok(), "another /56");
    }

    #[test]
    fn networks_without_connections_are_forgotten() {
        let places = Arc::new(Places::default());
        let limits = Limits::default();
        let place = places.take_in_network("192.0.2.1".parse().expect("valid"), &limits);
        drop(place.expect("free"));
        assert!(places.networks().is_empty());
    }

    #[test]
    fn memory_in_flight_is_bounded_and_given_back() {
        let in_flight = Arc::new(InFlight::default());
        let mut one = Reservation::new(Arc::clone(&in_flight));
        let mut two = Reservation::new(Arc::clone(&in_flight));
        assert_eq!(one.resize(30_000, 65_536), Ok(()));
        assert_eq!(two.resize(40_000, 65_536), Err(Reason::Overloaded));
        assert_eq!(two.resize(10_000, 65_536), Ok(()));
        one.clear();
        assert_eq!(two.resize(40_000, 65_536), Ok(()));
        assert_eq!(two.resize(0, 65_536), Ok(()));
        drop((one, two));
        assert_eq!(in_flight.0.load(Ordering::Relaxed), 0);
    }
}
