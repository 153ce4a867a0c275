//! Which addresses of a route's servers are tried, and in which order: pure.

use std::net::{IpAddr, SocketAddr};

use crate::queue::hop::Hop;

/// The most connections that are tried in one attempt, so that a destination with many dead
/// servers does not hold it for long: four minutes where nobody answers at all. Addresses to which
/// no way leads from here do not count: that shows at once.
pub(super) const MAX_TRIES: usize = 8;
/// Addresses of one attempt, those included to which no way leads.
const MAX_ADDRESSES: usize = 60;

/// The tries of one attempt. Each server has its share of them, and each address family its share
/// of a server's, because a family may be broken somewhere on the way in a manner that only shows
/// by silence. Of servers that have one try each, every other one begins with the other family; the
/// first has one for each family.
pub(super) struct Tries<'a> {
    hops: &'a [Hop],
    /// The place of the server whose addresses are being tried.
    place: usize,
    /// Its addresses that are left, in turn.
    addresses: std::vec::IntoIter<IpAddr>,
    /// Tries that it has left.
    share: usize,
    /// Tries that are left in all.
    left: usize,
    /// Addresses that are left in all.
    addresses_left: usize,
    /// The address that is tried once more.
    again: Option<SocketAddr>,
    /// For each server, how many tries it had.
    asked: Vec<usize>,
}

impl<'a> Tries<'a> {
    pub(super) fn new(hops: &'a [Hop]) -> Self {
        let mut tries = Self {
            hops,
            place: 0,
            addresses: Vec::new().into_iter(),
            share: 0,
            left: MAX_TRIES,
            addresses_left: MAX_ADDRESSES,
            again: None,
            asked: vec![0; hops.len()],
        };
        tries.begin(0);
        tries
    }

    /// The next address that is to be tried.
    pub(super) fn next(&mut self) -> Option<(&'a Hop, SocketAddr)> {
        if let Some(again) = self.again.take() {
            return Some((self.hops.get(self.place)?, again));
        }
        while self.left > 0 && self.addresses_left > 0 {
            let hop = self.hops.get(self.place)?;
            let address = if self.share > 0 { self.addresses.next() } else { None };
            let Some(address) = address else {
                self.begin(self.place + 1);
                continue;
            };
            self.left -= 1;
            self.addresses_left -= 1;
            self.share -= 1;
            self.asked[self.place] += 1;
            return Some((hop, SocketAddr::new(address, hop.port)));
        }
        None
    }

    /// The last try did not leave this machine, so it does not count.
    pub(super) fn give_back(&mut self) {
        if let Some(asked) = self.asked.get_mut(self.place) {
            *asked = asked.saturating_sub(1);
        }
        self.left += 1;
        self.share += 1;
    }

    /// The address of the last try is the next one too, and that does not count: it was of use.
    pub(super) fn repeat(&mut self, address: SocketAddr) {
        self.again = Some(address);
    }

    /// Whether every server had a try that counts.
    pub(super) fn have_asked_all(&self) -> bool {
        self.asked.iter().all(|tries| *tries > 0)
    }

    fn begin(&mut self, place: usize) {
        self.place = place;
        let Some(hop) = self.hops.get(place) else { return };
        let has_both =
            hop.addresses.iter().any(IpAddr::is_ipv4) && hop.addresses.iter().any(IpAddr::is_ipv6);
        let hosts = self.hops.len();
        let of_all = MAX_TRIES / hosts + usize::from(place < MAX_TRIES % hosts);
        let least = if place == 0 && has_both { 2 } else { 1 };
        self.share = of_all.max(least);
        let mut addresses = in_turn(&hop.addresses);
        if self.share == 1 && has_both && place % 2 == 1 {
            addresses.swap(0, 1);
        }
        self.addresses = addresses.into_iter();
    }
}

/// The addresses so that the families take turns, beginning with the first one's.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let is_like_first = |address: &&IpAddr| address.is_ipv4() == first.is_ipv4();
    let mut preferred = addresses.iter().filter(is_like_first);
    let mut others = addresses.iter().filter(|address| !is_like_first(address));
    let mut turns = Vec::with_capacity(addresses.len());
    loop {
        let one = preferred.next();
        let other = others.next();
        if one.is_none() && other.is_none() {
            return turns;
        }
        turns.extend(one);
        turns.extend(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::TlsDemand;

    /// A server with so many addresses of each family.
    fn hop(name: &str, v6: u16, v4: u8) -> Hop {
        let sixes = (1..=v6).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        let fours = (1..=v4).map(|last| IpAddr::from([192, 0, 2, last]));
        Hop {
            name: name.to_owned(),
            addresses: sixes.chain(fours).collect(),
            port: 25,
            tls: TlsDemand::Opportunistic,
            implicit_tls: false,
            credentials: None,
        }
    }

    fn many(count: usize, v6: u16, v4: u8) -> Vec<Hop> {
        (0..count).map(|number| hop(&number.to_string(), v6, v4)).collect()
    }

    /// The tries as `name family`, where addresses of these families lead nowhere; those are in
    /// brackets. Ends with `all` if every server was asked.
    fn check(hops: &[Hop], nowhere: fn(&IpAddr) -> bool, expected: &str) {
        let mut tries = Tries::new(hops);
        let mut told = Vec::new();
        while let Some((hop, address)) = tries.next() {
            let family = if address.is_ipv4() { 4 } else { 6 };
            if nowhere(&address.ip()) {
                tries.give_back();
                told.push(format!("({}-{family})", hop.name));
            } else {
                told.push(format!("{}-{family}", hop.name));
            }
        }
        if tries.have_asked_all() {
            told.push("all".to_owned());
        }
        assert_eq!(told.join(" "), expected);
    }

    fn neither(_: &IpAddr) -> bool {
        false
    }

    fn both(_: &IpAddr) -> bool {
        true
    }

    #[test]
    fn an_attempt_has_a_limit_and_every_server_its_share() {
        check(&[], neither, "all");
        check(&[hop("a", 0, 2), hop("b", 0, 1)], neither, "a-4 a-4 b-4 all");
        let four = "a-4 a-4 a-4 a-4 b-4 b-4 b-4 b-4 all";
        check(&[hop("a", 0, 20), hop("b", 0, 20)], neither, four);
        check(&many(20, 0, 3), neither, "0-4 1-4 2-4 3-4 4-4 5-4 6-4 7-4");
    }

    #[test]
    fn each_address_family_has_its_share() {
        check(&many(1, 20, 20), neither, "0-6 0-4 0-6 0-4 0-6 0-4 0-6 0-4 all");
        check(&many(1, 20, 1), neither, "0-6 0-4 0-6 0-6 0-6 0-6 0-6 0-6 all");
        check(&many(5, 1, 1), neither, "0-6 0-4 1-6 1-4 2-6 2-4 3-4 4-6 all");
        check(&many(7, 1, 1), neither, "0-6 0-4 1-4 2-6 3-4 4-6 5-4 6-6 all");
        check(&many(8, 1, 1), neither, "0-6 0-4 1-4 2-6 3-4 4-6 5-4 6-6");
    }

    #[test]
    fn an_address_to_which_no_way_leads_costs_no_try() {
        let five = "(0-6) 0-4 (1-6) 1-4 (2-6) 2-4 3-4 4-4 all";
        let no_v6: fn(&IpAddr) -> bool = IpAddr::is_ipv6;
        check(&many(5, 1, 1), no_v6, &five.replace("4-4", "(4-6) 4-4"));
        let no_v4: fn(&IpAddr) -> bool = IpAddr::is_ipv4;
        check(&many(2, 1, 1), no_v4, "0-6 (0-4) 1-6 (1-4) all");
        check(
            &many(2, 9, 1),
            no_v6,
            "(0-6) 0-4 (0-6) (0-6) (0-6) (0-6) (0-6) (0-6) (0-6) (0-6) \
             (1-6) 1-4 (1-6) (1-6) (1-6) (1-6) (1-6) (1-6) (1-6) (1-6) all",
        );
        check(&[hop("a", 0, 1), hop("b", 1, 0)], no_v6, "a-4 (b-6)");
        check(&many(2, 1, 1), both, "(0-6) (0-4) (1-6) (1-4)");
    }

    #[test]
    fn there_is_an_end_to_addresses_that_lead_nowhere() {
        let mut tries = Tries::new(&[]);
        assert!(tries.next().is_none());
        let hops = many(3, 200, 200);
        let mut tries = Tries::new(&hops);
        let mut count = 0;
        while tries.next().is_some() {
            tries.give_back();
            count += 1;
        }
        assert_eq!(count, MAX_ADDRESSES);
    }
}
