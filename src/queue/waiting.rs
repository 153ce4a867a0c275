//! What waits, and whose turn it is: pure, told the time by its caller. Destinations take turns, so
//! that one with much mail, or one that cannot be reached, holds up nobody else's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::store::{Destination, QueueId, QueuedMail};

/// Mail that shares connections: a domain's, or that of an organization's gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    destination: Destination,
    /// Whose gateway; `None` for a domain, which is the same for all.
    organization: Option<Arc<str>>,
}

impl Lane {
    pub(super) fn of(mail: &QueuedMail) -> Self {
        let entry = &mail.entry;
        let organization = match entry.destination {
            Destination::Domain(_) => None,
            Destination::Gateway(_) => Some(Arc::clone(&entry.organization)),
        };
        Self { destination: entry.destination.clone(), organization }
    }
}

/// Everything that is in the queue and not being sent.
#[derive(Debug)]
pub(super) struct Waiting {
    connections_per_lane: usize,
    mails: HashMap<QueueId, QueuedMail>,
    due: BTreeSet<(Timestamp, QueueId)>,
    lanes: HashMap<Lane, LaneState>,
    /// Lanes with mail whose time has come and a connection to spare, in turn.
    turns: VecDeque<Lane>,
    /// When lanes that could not be reached are tried again.
    held: BTreeMap<(Timestamp, Lane), ()>,
}

#[derive(Debug, Default)]
struct LaneState {
    ready: VecDeque<QueueId>,
    connections: usize,
    held_until: Option<Timestamp>,
    has_turn: bool,
}

impl Waiting {
    pub(super) fn new(connections_per_lane: usize) -> Self {
        Self {
            connections_per_lane,
            mails: HashMap::new(),
            due: BTreeSet::new(),
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            held: BTreeMap::new(),
        }
    }

    /// Allows each lane so many connections from now on; those beyond end with the entry that
    /// they carry.
    pub(super) fn set_connections_per_lane(&mut self, most: usize) {
        self.connections_per_lane = most;
        let lanes: Vec<_> = self.lanes.keys().cloned().collect();
        for lane in &lanes {
            self.give_turn(lane);
        }
    }

    /// Adds an entry, new or tried before.
    pub(super) fn add(&mut self, mail: QueuedMail) {
        self.due.insert((mail.state.next_attempt, mail.id));
        self.mails.insert(mail.id, mail);
    }

    /// Makes an entry due at once, and its lane's hold end; false if it does not wait.
    pub(super) fn hurry(&mut self, id: QueueId, now: Timestamp) -> bool {
        let Some(mail) = self.mails.get_mut(&id) else { return false };
        if self.due.remove(&(mail.state.next_attempt, id)) {
            self.due.insert((now, id));
        }
        mail.state.next_attempt = now;
        let lane = Lane::of(mail);
        self.release(&lane);
        true
    }

    /// Takes an entry out for good; `None` if it does not wait.
    pub(super) fn remove(&mut self, id: QueueId) -> Option<QueuedMail> {
        let mail = self.mails.remove(&id)?;
        self.due.remove(&(mail.state.next_attempt, id));
        if let Some(lane) = self.lanes.get_mut(&Lane::of(&mail)) {
            lane.ready.retain(|ready| *ready != id);
        }
        Some(mail)
    }

    /// The next entry whose time has come, of the lane whose turn it is, with a new connection.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Lane, QueuedMail)> {
        self.promote(now);
        while let Some(lane) = self.turns.pop_front() {
            let state = self.lanes.entry(lane.clone()).or_default();
            state.has_turn = false;
            if state.connections >= self.connections_per_lane || state.held_until.is_some() {
                continue;
            }
            let Some(mail) = state.ready.pop_front().and_then(|id| self.mails.remove(&id)) else {
                continue;
            };
            state.connections += 1;
            self.give_turn(&lane);
            return Some((lane, mail));
        }
        None
    }

    /// Another entry for a connection that is open, unless its lane has too many.
    pub(super) fn take_more(&mut self, lane: &Lane, now: Timestamp) -> Option<QueuedMail> {
        self.promote(now);
        let most = self.connections_per_lane;
        let state = self.lanes.get_mut(lane).filter(|state| state.connections <= most)?;
        let id = state.ready.pop_front()?;
        self.mails.remove(&id)
    }

    /// A connection has ended.
    pub(super) fn close(&mut self, lane: &Lane) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.connections = state.connections.saturating_sub(1);
            if state.connections == 0 && state.ready.is_empty() && state.held_until.is_none() {
                self.lanes.remove(lane);
                return;
            }
        }
        self.give_turn(lane);
    }

    /// Nobody answers there: its mail waits until a moment without being tried.
    pub(super) fn hold(&mut self, lane: &Lane, until: Timestamp) {
        self.release(lane);
        self.lanes.entry(lane.clone()).or_default().held_until = Some(until);
        self.held.insert((until, lane.clone()), ());
    }

    /// When something may be taken next, if it is not due already.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let mail = self.due.first().map(|(at, _)| *at);
        let lane = self.held.first_key_value().map(|((at, _), ())| *at);
        match (mail, lane) {
            (Some(mail), Some(lane)) => Some(mail.min(lane)),
            (mail, lane) => mail.or(lane),
        }
    }

    /// Puts everything whose time has come into its lane.
    fn promote(&mut self, now: Timestamp) {
        while let Some(((at, lane), ())) = self.held.pop_first() {
            if at > now {
                self.held.insert((at, lane), ());
                break;
            }
            self.release(&lane);
        }
        while let Some((at, id)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, id));
                break;
            }
            let Some(mail) = self.mails.get(&id) else { continue };
            let lane = Lane::of(mail);
            self.lanes.entry(lane.clone()).or_default().ready.push_back(id);
            self.give_turn(&lane);
        }
    }

    fn release(&mut self, lane: &Lane) {
        let until = self.lanes.get_mut(lane).and_then(|state| state.held_until.take());
        if let Some(until) = until {
            self.held.remove(&(until, lane.clone()));
            self.give_turn(lane);
        }
    }

    fn give_turn(&mut self, lane: &Lane) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let may = state.connections < self.connections_per_lane && state.held_until.is_none();
        if may && !state.ready.is_empty() && !state.has_turn {
            state.has_turn = true;
            self.turns.push_back(lane.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::TraceId;
    use crate::mail::{Address, MailParameters, ReversePath};
    use crate::store::{Authorship, Purpose, QueueEntry, QueueState};
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    fn mail(number: usize, destination: &str, due: Timestamp) -> QueuedMail {
        let address = Address::parse(&format!("x@{destination}")).expect("an address");
        QueuedMail {
            id: format!("{number:x}.0.0.0").parse().expect("an id"),
            trace_id: TraceId::generate(),
            queued_at: NOW,
            size: 1,
            entry: Arc::new(QueueEntry {
                organization: "m-1".into(),
                purpose: Purpose::Message,
                destination: Destination::Domain(address.domain().clone()),
                reverse_path: ReversePath::Null,
                parameters: MailParameters::default(),
                recipients: Vec::new(),
                authorship: Authorship::default(),
            }),
            state: QueueState { next_attempt: due, ..QueueState::default() },
        }
    }

    fn take(waiting: &mut Waiting, now: Timestamp) -> Option<String> {
        waiting.take(now).map(|(_, mail)| mail.id.to_string())
    }

    #[test]
    fn destinations_take_turns_within_their_connections() {
        let mut waiting = Waiting::new(2);
        for number in 1..=4 {
            waiting.add(mail(number, "many.test", NOW));
        }
        waiting.add(mail(5, "one.test", NOW));
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut waiting, NOW)).collect();
        assert_eq!(taken, ["1.0.0.0", "5.0.0.0", "2.0.0.0"], "two connections to many.test");
        let lane = Lane::of(&mail(1, "many.test", NOW));
        let more = waiting.take_more(&lane, NOW).expect("a third for an open connection");
        assert_eq!(more.id.to_string(), "3.0.0.0");
        waiting.close(&lane);
        assert_eq!(take(&mut waiting, NOW).as_deref(), Some("4.0.0.0"));
        assert_eq!(waiting.take_more(&lane, NOW), None);
    }

    #[test]
    fn nothing_is_taken_before_its_time() {
        let mut waiting = Waiting::new(2);
        waiting.add(mail(1, "a.test", at(60)));
        waiting.add(mail(2, "b.test", at(30)));
        assert_eq!((take(&mut waiting, at(29)), waiting.next_due()), (None, Some(at(30))));
        assert_eq!(take(&mut waiting, at(30)).as_deref(), Some("2.0.0.0"));
        assert_eq!((take(&mut waiting, at(59)), waiting.next_due()), (None, Some(at(60))));
        assert!(waiting.hurry("1.0.0.0".parse().expect("an id"), at(31)));
        assert_eq!(take(&mut waiting, at(31)).as_deref(), Some("1.0.0.0"));
        assert!(!waiting.hurry("1.0.0.0".parse().expect("an id"), at(31)), "it is being sent");
    }

    #[test]
    fn a_held_lane_waits_and_no_other() {
        let mut waiting = Waiting::new(2);
        let lane = Lane::of(&mail(1, "down.test", NOW));
        waiting.hold(&lane, at(60));
        waiting.add(mail(1, "down.test", NOW));
        waiting.add(mail(2, "up.test", NOW));
        assert_eq!(take(&mut waiting, NOW).as_deref(), Some("2.0.0.0"));
        assert_eq!((take(&mut waiting, NOW), waiting.next_due()), (None, Some(at(60))));
        assert_eq!(take(&mut waiting, at(60)).as_deref(), Some("1.0.0.0"));
        waiting.hold(&lane, at(120));
        waiting.add(mail(3, "down.test", NOW));
        assert_eq!(take(&mut waiting, at(61)), None);
        assert!(waiting.hurry("3.0.0.0".parse().expect("an id"), at(61)), "an operator insists");
        assert_eq!(take(&mut waiting, at(61)).as_deref(), Some("3.0.0.0"));
    }

    #[test]
    fn another_number_of_connections_holds_for_those_that_are_open() {
        let mut waiting = Waiting::new(1);
        for number in 1..=6 {
            waiting.add(mail(number, "a.test", NOW));
        }
        let lane = Lane::of(&mail(1, "a.test", NOW));
        assert_eq!(take(&mut waiting, NOW).as_deref(), Some("1.0.0.0"));
        assert_eq!(take(&mut waiting, NOW), None);
        waiting.set_connections_per_lane(2);
        assert_eq!(take(&mut waiting, NOW).as_deref(), Some("2.0.0.0"));
        assert_eq!(take(&mut waiting, NOW), None);
        waiting.set_connections_per_lane(1);
        assert_eq!(waiting.take_more(&lane, NOW), None, "one of the two ends");
        waiting.close(&lane);
        let more = waiting.take_more(&lane, NOW).expect("the other goes on");
        assert_eq!(more.id.to_string(), "3.0.0.0");
        assert_eq!(take(&mut waiting, NOW), None);
    }

    #[test]
    fn what_is_removed_is_not_taken() {
        let mut waiting = Waiting::new(1);
        let id = |number: usize| format!("{number:x}.0.0.0").parse().expect("an id");
        for number in 1..=3 {
            waiting.add(mail(number, "a.test", NOW));
        }
        assert_eq!(take(&mut waiting, NOW).as_deref(), Some("1.0.0.0"));
        assert!(waiting.remove(id(2)).is_some());
        assert!(waiting.remove(id(2)).is_none());
        let lane = Lane::of(&mail(1, "a.test", NOW));
        assert_eq!(waiting.take_more(&lane, NOW).map(|mail| mail.id), Some(id(3)));
    }
}
