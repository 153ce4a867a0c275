//! How much mail waits to leave: counted for each sender, each organization and in all, so that
//! none of them can fill queue and disk. Reports, which strangers can cause, are counted apart, and so
//! are journal records, which all mail makes: an archive that is away keeps nobody's mail out, and what
//! users send keeps no record out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::queued::{Destination, Purpose, QueueId, QueuedMail};
use crate::events::Lsn;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBound {
    /// Messages, however many destinations they have.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
}

/// How much may wait of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// Of one user, what the mailbox's rules send on included.
    pub sender: QueueBound,
    /// Of all users of an organization together; and again of its journal records.
    pub organization: QueueBound,
    /// Of all organizations; and again of their journal records.
    pub all: QueueBound,
    /// Reports for one destination.
    pub reports_per_destination: u64,
}

impl Default for QueueBounds {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            sender: QueueBound { messages: 20_000, octets: 10 * GIB },
            organization: QueueBound { messages: 200_000, octets: 50 * GIB },
            all: QueueBound { messages: 500_000, octets: 100 * GIB },
            reports_per_destination: 1000,
        }
    }
}

impl QueueBounds {
    /// Reports in all: a part of what other mail may come to.
    fn reports(&self) -> u64 {
        (self.all.messages / 10).max(self.reports_per_destination)
    }
}

/// Whose bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The sender's.
    Sender,
    /// The organization's.
    Organization,
    /// That of all.
    All,
}

/// A message that is to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueClaim {
    /// Whose it is: the organization's id.
    pub organization: Arc<str>,
    /// Whose it is in the organization.
    pub of: Claimant,
    /// Its octets.
    pub octets: u64,
}

/// Who has a message wait in the queue of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// A user, by the key of the address.
    User(Arc<str>),
    /// The organization, of which no user is known.
    Organization,
    /// The organization's journal.
    Journal,
}

/// Messages that are counted until they are durable, and counted by their entries then, or are
/// given up.
#[derive(Debug)]
pub struct QueueHold {
    backlog: Arc<Backlog>,
    claims: Vec<QueueClaim>,
}

impl QueueHold {
    /// Holds as well what another does.
    pub fn join(&mut self, mut other: Self) {
        self.claims.append(&mut other.claims);
    }
}

impl Drop for QueueHold {
    fn drop(&mut self) {
        let mut loads = self.backlog.loads();
        for claim in &self.claims {
            loads.remove(claim);
        }
    }
}

/// What waits, counted.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<Loads>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    messages: u64,
    octets: u64,
}

#[derive(Debug, Default)]
struct Loads {
    mail: Share,
    journals: Share,
    senders: HashMap<(Arc<str>, Arc<str>), Load>,
    reports: u64,
    reports_to: HashMap<Destination, u64>,
    /// The mails that entries wait of.
    waiting: HashMap<MailPlace, Counted>,
}

/// What is counted in all and for each organization.
#[derive(Debug, Default)]
struct Share {
    all: Load,
    organizations: HashMap<Arc<str>, Load>,
}

/// A mail by where it stands in the log.
type MailPlace = (Lsn, usize, usize);

/// How a mail is counted, and how many of its entries wait.
#[derive(Debug)]
struct Counted {
    entries: usize,
    by: CountedBy,
}

#[derive(Debug)]
enum CountedBy {
    Claim(QueueClaim),
    Report(Destination),
}

impl Backlog {
    /// What an earlier run left.
    pub(super) fn new(waiting: &[QueuedMail]) -> Arc<Self> {
        let backlog = Self::default();
        for queued in waiting {
            backlog.add(queued);
        }
        Arc::new(backlog)
    }

    /// Counts messages that are to wait.
    pub(super) fn claim(
        self: &Arc<Self>,
        claims: Vec<QueueClaim>,
        bounds: &QueueBounds,
    ) -> Result<QueueHold, QueueFull> {
        let mut loads = self.loads();
        for (number, claim) in claims.iter().enumerate() {
            if let Err(full) = loads.check(claim, bounds) {
                for counted in claims.iter().take(number) {
                    loads.remove(counted);
                }
                return Err(full);
            }
            loads.add(claim);
        }
        drop(loads);
        Ok(QueueHold { backlog: Arc::clone(self), claims })
    }

    /// Whether a report more may wait for a destination.
    pub(super) fn has_room_for_report(&self, to: &Destination, bounds: &QueueBounds) -> bool {
        let loads = self.loads();
        loads.reports < bounds.reports()
            && loads.reports_to.get(to).is_none_or(|count| *count < bounds.reports_per_destination)
    }

    /// An entry waits from now on.
    pub(super) fn add(&self, queued: &QueuedMail) {
        let QueueId { lsn, blob, mail, .. } = queued.id;
        let mut loads = self.loads();
        if let Some(counted) = loads.waiting.get_mut(&(lsn, blob, mail)) {
            counted.entries += 1;
            return;
        }
        let entry = &queued.entry;
        let by = if entry.purpose == Purpose::Report {
            loads.reports += 1;
            *loads.reports_to.entry(entry.destination.clone()).or_default() += 1;
            CountedBy::Report(entry.destination.clone())
        } else {
            let of = match (&entry.purpose, &entry.sender) {
                (Purpose::JournalRecord { .. }, _) => Claimant::Journal,
                (_, Some(sender)) => Claimant::User(sender.key().into()),
                (_, None) => Claimant::Organization,
            };
            let organization = Arc::clone(&entry.organization);
            let claim = QueueClaim { organization, of, octets: queued.size };
            loads.add(&claim);
            CountedBy::Claim(claim)
        };
        loads.waiting.insert((lsn, blob, mail), Counted { entries: 1, by });
    }

    /// An entry is gone.
    pub(super) fn remove(&self, id: QueueId) {
        let place = (id.lsn, id.blob, id.mail);
        let mut loads = self.loads();
        let Some(counted) = loads.waiting.get_mut(&place) else { return };
        counted.entries -= 1;
        if counted.entries > 0 {
            return;
        }
        match loads.waiting.remove(&place).map(|counted| counted.by) {
            Some(CountedBy::Claim(claim)) => loads.remove(&claim),
            Some(CountedBy::Report(to)) => {
                loads.reports = loads.reports.saturating_sub(1);
                subtract(&mut loads.reports_to, &to, |count| {
                    *count = count.saturating_sub(1);
                    *count == 0
                });
            }
            None => {}
        }
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        // Nothing panics while holding this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    fn has_room(self, octets: u64, bound: QueueBound) -> bool {
        self.messages < bound.messages && self.octets.saturating_add(octets) <= bound.octets
    }

    fn add(&mut self, octets: u64) {
        self.messages += 1;
        self.octets += octets;
    }

    /// Whether nothing is left.
    fn remove(&mut self, octets: u64) -> bool {
        self.messages = self.messages.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
        self.messages == 0
    }
}

impl Share {
    fn check(&self, claim: &QueueClaim, bounds: &QueueBounds) -> Result<(), QueueFull> {
        let load = self.organizations.get(&claim.organization).copied().unwrap_or_default();
        if !load.has_room(claim.octets, bounds.organization) {
            return Err(QueueFull::Organization);
        }
        if self.all.has_room(claim.octets, bounds.all) { Ok(()) } else { Err(QueueFull::All) }
    }

    fn add(&mut self, claim: &QueueClaim) {
        let organization = Arc::clone(&claim.organization);
        self.organizations.entry(organization).or_default().add(claim.octets);
        self.all.add(claim.octets);
    }

    fn remove(&mut self, claim: &QueueClaim) {
        let of_organization = |load: &mut Load| load.remove(claim.octets);
        subtract(&mut self.organizations, &claim.organization, of_organization);
        self.all.remove(claim.octets);
    }
}

impl Loads {
    fn share(&mut self, claim: &QueueClaim) -> &mut Share {
        match claim.of {
            Claimant::User(_) | Claimant::Organization => &mut self.mail,
            Claimant::Journal => &mut self.journals,
        }
    }

    fn check(&mut self, claim: &QueueClaim, bounds: &QueueBounds) -> Result<(), QueueFull> {
        if let Some(key) = sender_of(claim) {
            let load = self.senders.get(&key).copied().unwrap_or_default();
            if !load.has_room(claim.octets, bounds.sender) {
                return Err(QueueFull::Sender);
            }
        }
        self.share(claim).check(claim, bounds)
    }

    fn add(&mut self, claim: &QueueClaim) {
        if let Some(key) = sender_of(claim) {
            self.senders.entry(key).or_default().add(claim.octets);
        }
        self.share(claim).add(claim);
    }

    fn remove(&mut self, claim: &QueueClaim) {
        if let Some(key) = sender_of(claim) {
            subtract(&mut self.senders, &key, |load| load.remove(claim.octets));
        }
        self.share(claim).remove(claim);
    }
}

/// The user whose message it is, in the organization.
fn sender_of(claim: &QueueClaim) -> Option<(Arc<str>, Arc<str>)> {
    match &claim.of {
        Claimant::User(user) => Some((Arc::clone(&claim.organization), Arc::clone(user))),
        Claimant::Organization | Claimant::Journal => None,
    }
}

/// Takes from a counter, and forgets it if nothing is left.
fn subtract<K: Hash + Eq, V>(
    counters: &mut HashMap<K, V>,
    key: &K,
    take: impl FnOnce(&mut V) -> bool,
) {
    if counters.get_mut(key).is_some_and(take) {
        counters.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Backlog {
        fn is_free(&self) -> bool {
            let loads = self.loads();
            let is_free =
                |share: &Share| share.organizations.is_empty() && share.all == Load::default();
            loads.senders.is_empty() && is_free(&loads.mail) && is_free(&loads.journals)
        }
    }

    const fn bound(messages: u64, octets: u64) -> QueueBound {
        QueueBound { messages, octets }
    }

    const BOUNDS: QueueBounds = QueueBounds {
        sender: bound(2, 100),
        organization: bound(3, 150),
        all: bound(4, 180),
        reports_per_destination: 2,
    };

    fn claim(organization: &str, sender: &str, octets: u64) -> QueueClaim {
        let of = match sender {
            "" => Claimant::Organization,
            "journal" => Claimant::Journal,
            user => Claimant::User(user.into()),
        };
        QueueClaim { organization: organization.into(), of, octets }
    }

    #[test]
    fn each_bound_holds_and_what_is_given_up_is_free_again() {
        let backlog = Backlog::new(&[]);
        let take = |organization: &str, sender: &str, octets: u64| {
            backlog.claim(vec![claim(organization, sender, octets)], &BOUNDS)
        };
        let first = take("a", "x", 60).expect("is free");
        assert_eq!(take("a", "x", 41).err(), Some(QueueFull::Sender), "octets");
        let second = take("a", "x", 40).expect("is free");
        assert_eq!(take("a", "x", 0).err(), Some(QueueFull::Sender), "messages");
        assert_eq!(take("a", "y", 51).err(), Some(QueueFull::Organization), "octets");
        let third = take("a", "y", 50).expect("is free");
        assert_eq!(take("a", "", 0).err(), Some(QueueFull::Organization), "messages");
        assert_eq!(take("b", "x", 31).err(), Some(QueueFull::All), "octets");
        let fourth = take("b", "x", 30).expect("is free");
        assert_eq!(take("c", "x", 0).err(), Some(QueueFull::All), "messages");
        drop((first, second, third, fourth));
        assert!(backlog.is_free());
    }

    #[test]
    fn journal_records_and_mail_do_not_take_each_others_room() {
        let backlog = Backlog::new(&[]);
        let take = |organization: &str, sender: &str, octets: u64| {
            backlog.claim(vec![claim(organization, sender, octets)], &BOUNDS)
        };
        // As many as an organization may have, however many that is for a sender.
        let records = [50, 50, 50].map(|octets| take("a", "journal", octets).expect("is free"));
        assert_eq!(take("a", "journal", 0).err(), Some(QueueFull::Organization), "messages");
        let fourth = take("b", "journal", 30).expect("is free");
        assert_eq!(take("c", "journal", 0).err(), Some(QueueFull::All), "messages");
        let mut mail = take("a", "x", 60).expect("records do not count");
        mail.join(take("a", "y", 90).expect("records do not count"));
        assert_eq!(take("a", "z", 1).err(), Some(QueueFull::Organization), "octets");
        drop((records, fourth));
        let record = take("a", "journal", 150).expect("mail does not count");
        assert_eq!(take("a", "journal", 1).err(), Some(QueueFull::Organization), "octets");
        drop((mail, record));
        assert!(backlog.is_free());
    }

    #[test]
    fn of_several_messages_all_have_room_or_none_is_counted() {
        let backlog = Backlog::new(&[]);
        let three = vec![claim("a", "x", 1), claim("a", "x", 1), claim("a", "x", 1)];
        assert_eq!(backlog.claim(three, &BOUNDS).err(), Some(QueueFull::Sender));
        assert!(backlog.is_free());
    }
}
