//! Accounts whose passwords are being guessed, and the networks that do. An account is closed to
//! the network that has failed often, not to its user elsewhere. Names that are nobody's are
//! counted like users, so that nobody can tell the one from the other.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::Timestamp;
use crate::smtp::network_of;

/// Failures of one network with an account in one window, after which it is throttled to the window's end.
const MAX_FAILURES: u32 = 10;
/// How long failures count, from an account's first.
const WINDOW: Duration = Duration::from_secs(600);
/// Windows remembered at once, about 4 MiB in all; the oldest is forgotten first. To push one out,
/// somebody would have to fail that often within ten minutes.
const MAX_WINDOWS: usize = 65_536;

/// An account and the client network that wants in: a user or a name of any length in 64 bits, which
/// nobody outside can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Account {
    whose: u64,
    network: IpNet,
}

/// The failures of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    names: RandomState,
    windows: HashMap<Account, Window>,
    /// All windows in the order in which they began, and some that are over.
    begun: VecDeque<(Timestamp, Account)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Timestamp,
    failures: u32,
}

impl Window {
    /// A window that begins in the future is none: the clock went back.
    fn is_open(self, now: Timestamp) -> bool {
        (self.since..self.since.plus(WINDOW)).contains(&now)
    }
}

impl Throttle {
    /// The account of a user, or of a name that is nobody's, as a client wants in.
    pub(super) fn account(&self, whose: impl Hash, client: IpAddr) -> Account {
        let (whose, network) = (self.names.hash_one(whose), network_of(client.to_canonical()));
        Account { whose, network }
    }

    /// Whether the account has had its failures.
    pub(super) fn is_throttled(&self, account: Account, now: Timestamp) -> bool {
        let window = self.windows.get(&account).filter(|window| window.is_open(now));
        window.is_some_and(|window| window.failures >= MAX_FAILURES)
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, account: Account, now: Timestamp) {
        if let Some(window) = self.windows.get_mut(&account).filter(|window| window.is_open(now)) {
            window.failures += 1;
            return;
        }
        self.windows.insert(account, Window { since: now, failures: 1 });
        self.begun.push_back((now, account));
        self.forget(now);
    }

    /// Forgets an account's failures.
    pub(super) fn succeeded(&mut self, account: Account) {
        self.windows.remove(&account);
    }

    /// Forgets a user's failures, from wherever they came; whether some network was throttled.
    pub(super) fn lift(&mut self, whose: impl Hash, now: Timestamp) -> bool {
        let whose = self.names.hash_one(whose);
        let mut was_throttled = false;
        self.windows.retain(|account, window| {
            let is_meant = account.whose == whose;
            was_throttled |= is_meant && window.is_open(now) && window.failures >= MAX_FAILURES;
            !is_meant
        });
        was_throttled
    }

    /// Which of these accounts' users some network is kept from.
    pub(super) fn throttled_of<T: Hash>(
        &self,
        users: impl Iterator<Item = T>,
        now: Timestamp,
    ) -> Vec<T> {
        let windows = self.windows.iter();
        let throttled = windows
            .filter(|(_, window)| window.is_open(now) && window.failures >= MAX_FAILURES)
            .map(|(account, _)| account.whose);
        let throttled: HashSet<u64> = throttled.collect();
        let mut found = Vec::new();
        if !throttled.is_empty() {
            found.extend(users.filter(|user| throttled.contains(&self.names.hash_one(user))));
        }
        found
    }

    /// Forgets the windows that are over, and the oldest of too many.
    fn forget(&mut self, now: Timestamp) {
        while let Some((since, account)) = self.begun.front().copied() {
            let is_open = Window { since, failures: 0 }.is_open(now);
            if is_open && self.begun.len() <= MAX_WINDOWS {
                return;
            }
            self.begun.pop_front();
            if self.windows.get(&account).is_some_and(|window| window.since == since) {
                self.windows.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";

    fn account(throttle: &Throttle, user: &str, client: &str) -> Account {
        throttle.account(("m-1", user), client.parse().expect("an address"))
    }

    #[test]
    fn an_account_is_closed_to_the_network_that_fails_until_it_is_lifted() {
        let mut throttle = Throttle::default();
        let guesser = account(&throttle, "alice", HERE);
        let neighbour = account(&throttle, "alice", "192.0.2.200");
        let owner = account(&throttle, "alice", "198.51.100.1");
        let mapped = account(&throttle, "alice", "::ffff:192.0.2.9");
        (0..10).for_each(|second| throttle.failed(guesser, at(second)));
        assert!(throttle.is_throttled(neighbour, at(10)), "the same /24");
        assert!(throttle.is_throttled(mapped, at(10)), "the same, on an IPv6 socket");
        assert!(!throttle.is_throttled(owner, at(10)));
        throttle.succeeded(owner);
        assert!(throttle.is_throttled(guesser, at(10)), "the owner's success is not the guesser's");
        let users = [("m-1", "bob"), ("m-1", "alice"), ("m-2", "alice")];
        let throttled = |throttle: &Throttle, now| throttle.throttled_of(users.into_iter(), now);
        assert_eq!(throttled(&throttle, at(10)), [("m-1", "alice")]);
        assert_eq!(throttled(&throttle, at(600)), [], "the window is over");
        assert!(!throttle.lift(("m-1", "bob"), at(10)));
        assert!(throttle.is_throttled(guesser, at(10)));
        assert!(throttle.lift(("m-1", "alice"), at(10)));
        assert!(!throttle.is_throttled(guesser, at(10)));
        assert!(!throttle.lift(("m-1", "alice"), at(10)));
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_795_235_486_000 + seconds * 1000)
    }

    #[test]
    fn ten_failures_close_an_account_until_the_window_ends() {
        let mut throttle = Throttle::default();
        let alice = account(&throttle, "alice", HERE);
        let bob = account(&throttle, "bob", HERE);
        for second in 0..10 {
            assert!(!throttle.is_throttled(alice, at(second)), "{second}");
            throttle.failed(alice, at(second));
        }
        assert!(throttle.is_throttled(alice, at(10)));
        assert!(throttle.is_throttled(alice, at(599)));
        assert!(!throttle.is_throttled(bob, at(10)));
        assert!(!throttle.is_throttled(alice, at(600)), "ten minutes after the first");
        assert!(!throttle.is_throttled(alice, Timestamp::from_millis(0)), "the clock went back");
        throttle.failed(alice, at(600));
        assert!(!throttle.is_throttled(alice, at(601)), "a new window");
    }

    #[test]
    fn success_forgets_failures() {
        let mut throttle = Throttle::default();
        let alice = account(&throttle, "alice", HERE);
        (0..9).for_each(|second| throttle.failed(alice, at(second)));
        throttle.succeeded(alice);
        (0..9).for_each(|second| throttle.failed(alice, at(10 + second)));
        assert!(!throttle.is_throttled(alice, at(20)));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut throttle = Throttle::default();
        let first = account(&throttle, "name 0", HERE);
        for number in 0..=MAX_WINDOWS {
            let account = account(&throttle, &format!("name {number}"), HERE);
            throttle.failed(account, at(0));
        }
        assert_eq!((throttle.windows.len(), throttle.begun.len()), (MAX_WINDOWS, MAX_WINDOWS));
        assert!(!throttle.windows.contains_key(&first), "the oldest is forgotten");
        throttle.failed(first, at(600));
        assert_eq!((throttle.windows.len(), throttle.begun.len()), (1, 1), "all others are over");
    }
}
