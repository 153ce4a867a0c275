//! Clients that have waited for their banner. That they do is tried once in some hours: a device
//! that opens a connection for each of its messages would lose most of its time with it.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

/// How long a client is believed.
const BELIEVED: Duration = Duration::from_secs(4 * 3600);
/// Clients remembered at once, under 100 octets each; the one that has waited longest ago is
/// forgotten first.
const MAX_CLIENTS: usize = 20_000;

/// The clients that have waited: IPv4 addresses, and IPv6 networks of one site's machines. Their
/// neighbours have a silence of their own to show.
#[derive(Debug, Default)]
pub(crate) struct Waited(Mutex<Clients>);

#[derive(Debug, Default)]
struct Clients {
    known: HashSet<IpNet>,
    /// The same, in the order in which they have waited.
    since: VecDeque<(Instant, IpNet)>,
}

impl Clients {
    fn forget_old(&mut self, now: Instant) {
        while let Some((since, client)) = self.since.front()
            && (*since + BELIEVED <= now || self.since.len() > MAX_CLIENTS)
        {
            self.known.remove(client);
            self.since.pop_front();
        }
    }
}

impl Waited {
    /// Whether the client has waited in the last hours.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.with(|clients| clients.known.contains(&client_of(ip)))
    }

    /// The client has waited.
    pub(crate) fn add(&self, ip: IpAddr) {
        let client = client_of(ip);
        self.with(|clients| {
            if clients.known.insert(client) {
                clients.since.push_back((Instant::now(), client));
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Clients) -> T) -> T {
        // Nothing panics while holding this lock.
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.forget_old(Instant::now());
        let output = work(&mut clients);
        clients.forget_old(Instant::now());
        output
    }
}

fn client_of(ip: IpAddr) -> IpNet {
    let ip = ip.to_canonical();
    let length = if ip.is_ipv4() { 32 } else { 64 };
    IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_waited_is_believed_for_hours_and_its_neighbours_are_not() {
        let waited = Waited::default();
        for client in ["192.0.2.7", "2001:db8:0:1::7"] {
            waited.add(ip(client));
        }
        for (client, expected) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:0:1:ffff::1", true),
            ("2001:db8:0:2::7", false),
        ] {
            assert_eq!(waited.has(ip(client)), expected, "{client}");
        }
        tokio::time::advance(BELIEVED - Duration::from_secs(1)).await;
        waited.add(ip("192.0.2.7"));
        assert!(waited.has(ip("192.0.2.7")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!waited.has(ip("192.0.2.7")), "it was not made to wait the second time");
        waited.add(ip("192.0.2.7"));
        assert!(waited.has(ip("192.0.2.7")));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_remembered_and_no_more() {
        let waited = Waited::default();
        let client =
            |number: usize| IpAddr::from(u32::try_from(number).expect("small").to_be_bytes());
        for number in 0..=MAX_CLIENTS {
            waited.add(client(number));
        }
        assert!(!waited.has(client(0)), "the first is forgotten");
        assert!(waited.has(client(1)) && waited.has(client(MAX_CLIENTS)));
        let clients = waited.0.lock().expect("nobody panics");
        assert_eq!((clients.known.len(), clients.since.len()), (MAX_CLIENTS, MAX_CLIENTS));
    }
}
