//! Mail that shares connections, and how many of them it may have. What strangers can make this
//! server send, and what goes where nobody has answered yet, has a share of its own, so that
//! servers that accept and say nothing cannot take all there is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Settings;
use super::relays::{Relay, Relays};
use crate::clock::Timestamp;
use crate::mail::Domain;
use crate::store::{Destination, Purpose, QueuedMail};

/// How many lanes are known to be proven; beyond, the one that was proven first begins anew.
const MAX_PROVEN: usize = 10_000;

/// Mail that shares connections. Reports, which strangers can cause, go apart from users' mail to
/// the same servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    servers: Servers,
    is_report: bool,
}

/// Where the mail of a lane goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Servers {
    /// To the mail exchangers of a domain.
    Of(Domain),
    /// To a server that the operator has named, for one domain or for many.
    Relay(Relay),
    /// Through the gateway of this name of an organization.
    Gateway(Arc<str>, Arc<str>),
}

impl Lane {
    pub(super) fn of(mail: &QueuedMail, relays: &Relays) -> Self {
        let entry = &mail.entry;
        let servers = match &entry.destination {
            Destination::Domain(domain) => match relays.for_domain(domain) {
                Some(relay) => Servers::Relay(relay.clone()),
                None => Servers::Of(domain.clone()),
            },
            Destination::Gateway(name) => {
                Servers::Gateway(Arc::clone(&entry.organization), Arc::clone(name))
            }
        };
        Self { servers, is_report: entry.purpose == Purpose::Report }
    }

    pub(super) fn is_report(&self) -> bool {
        self.is_report
    }

    /// The other lane to the same destination.
    pub(super) fn sibling(&self) -> Self {
        Self { is_report: !self.is_report, ..self.clone() }
    }
}

/// What a lane's share is by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// Whether it carries reports.
    pub(super) is_report: bool,
    /// Whether a server of its destination has answered.
    pub(super) is_proven: bool,
}

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    connections: usize,
    pub(super) per_destination: usize,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings { connections, connections_per_destination: per_destination, .. } = *settings;
        Self { connections, per_destination }
    }

    /// Of one lane: one until somebody has answered there; of reports a quarter of what the
    /// destination may have.
    pub(super) fn of_lane(self, class: Class) -> usize {
        match class {
            Class { is_proven: false, .. } => 1,
            Class { is_report: true, .. } => self.of_lane_of_reports(),
            Class { is_report: false, .. } => self.per_destination,
        }
    }

    fn of_lane_of_reports(self) -> usize {
        (self.per_destination / 4).max(1)
    }

    /// Of one lane for one user, or for all that is sent on for strangers, while others have mail
    /// there: half.
    pub(super) fn of_user(self) -> usize {
        (self.per_destination / 2).max(1)
    }

    /// The same while nobody else has: all but those of reports and one, so that who comes next
    /// need not wait until a server says something.
    pub(super) fn of_lone_user(self) -> usize {
        let others = self.of_lane_of_reports() + 1;
        self.per_destination.saturating_sub(others).max(self.of_user())
    }

    /// Of all lanes.
    pub(super) fn connections(self) -> usize {
        self.connections
    }

    /// Of all lanes that have not proven themselves: half.
    fn unproven(self) -> usize {
        (self.connections / 2).max(1)
    }

    /// Of all reports: a quarter.
    fn reports(self) -> usize {
        (self.connections / 4).max(1)
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Open(BTreeMap<Class, usize>);

impl Open {
    /// Whether a lane of this class may have one more.
    pub(super) fn has_room(&self, class: Class, limits: Limits) -> bool {
        (class.is_proven || self.count(|it| !it.is_proven) < limits.unproven())
            && (!class.is_report || self.count(|it| it.is_report) < limits.reports())
    }

    pub(super) fn total(&self) -> usize {
        self.count(|_| true)
    }

    pub(super) fn add(&mut self, class: Class, connections: usize) {
        *self.0.entry(class).or_default() += connections;
    }

    pub(super) fn remove(&mut self, class: Class, connections: usize) {
        let open = self.0.entry(class).or_default();
        *open = open.saturating_sub(connections);
    }

    fn count(&self, is_meant: impl Fn(&Class) -> bool) -> usize {
        self.0.iter().filter(|(class, _)| is_meant(class)).map(|(_, open)| open).sum()
    }
}

/// Lanes at whose destination a server has answered, and none was in trouble since.
#[derive(Debug, Default)]
pub(super) struct Proven {
    since: HashMap<Lane, (u64, Timestamp)>,
    by_age: BTreeMap<u64, Lane>,
    next: u64,
}

impl Proven {
    pub(super) fn has(&self, lane: &Lane) -> bool {
        self.since.contains_key(lane)
    }

    /// Since when a lane is, if it is.
    pub(super) fn since(&self, lane: &Lane) -> Option<Timestamp> {
        self.since.get(lane).map(|(_, since)| *since)
    }

    pub(super) fn add(&mut self, lane: &Lane, now: Timestamp) {
        self.since.insert(lane.clone(), (self.next, now));
        self.by_age.insert(self.next, lane.clone());
        self.next += 1;
    }

    pub(super) fn remove(&mut self, lane: &Lane) {
        if let Some((number, _)) = self.since.remove(lane) {
            self.by_age.remove(&number);
        }
    }

    /// The one that has to go, if there are too many.
    pub(super) fn surplus(&self) -> Option<Lane> {
        let oldest = self.by_age.first_key_value().filter(|_| self.since.len() > MAX_PROVEN);
        oldest.map(|(_, lane)| lane.clone())
    }
}
