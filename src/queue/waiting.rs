//! What waits, and whose turn it is: pure, told the time by its caller. Destinations take turns, so
//! that one with much mail, or one that cannot be reached, holds up nobody else's; and none has
//! many connections before it has shown what it does with one.

mod ready;
mod sender;
mod telling;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::ready::Ready;
use self::sender::{Sender, Shares};
use super::lane::{Class, Lane, Limits, Open, Proven};
use super::relays::Relays;
use crate::clock::Timestamp;
use crate::store::{QueueId, QueuedMail};

/// How many entries, whose time has not come, each answer of a server brings forward at a
/// destination that did not answer before: all of them before long, since each of them brings its
/// own, and none once it stops answering.
const BROUGHT_FORWARD: usize = 2;

/// Everything that is in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Nothing is taken.
    is_paused: bool,
    limits: Limits,
    relays: Relays,
    /// What is not being sent.
    mails: HashMap<QueueId, QueuedMail>,
    /// What is being sent, as it was when it was taken.
    under_way: HashMap<QueueId, UnderWay>,
    due: BTreeSet<(Timestamp, QueueId)>,
    lanes: HashMap<Lane, LaneState>,
    /// Lanes with mail whose time has come and a connection to spare, in turn; by class, so that
    /// those whose share is used up need not be looked at.
    turns: BTreeMap<Class, BTreeMap<u64, Lane>>,
    next_turn: u64,
    open: Open,
    proven: Proven,
    /// When lanes that could not be reached are tried again.
    held: BTreeMap<(Timestamp, Lane), ()>,
    /// When senders whose mail a lane's servers turned away have their turns again.
    resting: BTreeSet<(Timestamp, Lane, Sender)>,
}

#[derive(Debug, Default)]
struct LaneState {
    ready: Ready,
    connections: usize,
    held_until: Option<Timestamp>,
    turn: Option<u64>,
    /// Entries whose time has not come, and which only wait because no server did its part.
    servers_fault: BTreeSet<QueueId>,
}

/// An entry that is being sent.
#[derive(Debug)]
struct UnderWay {
    mail: QueuedMail,
    /// Over whose connections.
    lane: Lane,
    stage: Stage,
}

/// How far sending an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for room in memory.
    Memory,
    /// It is being sent, or what came of it recorded.
    Attempt,
    /// It went wrong, and nobody knows how far it has come; the next daemon tries it again.
    Broken,
}

/// An entry that was looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// It waits.
    Waiting(T),
    /// It is being sent.
    UnderWay,
    /// There is none.
    Nothing,
}

impl Waiting {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            is_paused: false,
            limits,
            relays: Relays::default(),
            mails: HashMap::new(),
            under_way: HashMap::new(),
            due: BTreeSet::new(),
            lanes: HashMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            open: Open::default(),
            proven: Proven::default(),
            held: BTreeMap::new(),
            resting: BTreeSet::new(),
        }
    }

    /// Has everything wait that is not being sent, or lets it go on.
    pub(super) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Allows so many connections from now on; those beyond end with the entry that they carry.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let lanes: Vec<_> = self.lanes.keys().cloned().collect();
        for lane in &lanes {
            self.give_turn(lane);
        }
    }

    /// Leads mail to these relays from now on.
    pub(super) fn set_relays(&mut self, relays: Relays) {
        if self.relays == relays {
            return;
        }
        self.relays = relays;
        let mut due = Vec::new();
        for state in self.lanes.values_mut() {
            state.servers_fault.clear();
            due.extend(state.ready.drain());
        }
        for id in due {
            if let Some(mail) = self.mails.get(&id) {
                self.due.insert((mail.state.next_attempt, id));
            }
        }
        for mail in self.mails.values().filter(|mail| mail.state.is_servers_fault) {
            let lane = Lane::of(mail, &self.relays);
            self.lanes.entry(lane).or_default().servers_fault.insert(mail.id);
        }
        let lanes: Vec<_> = self.lanes.keys().cloned().collect();
        for lane in &lanes {
            self.forget_if_idle(lane);
        }
    }

    fn lane_of(&self, mail: &QueuedMail) -> Lane {
        Lane::of(mail, &self.relays)
    }

    /// Whether a lane carries reports, and whether a server of its destination has answered.
    pub(super) fn class(&self, lane: &Lane) -> Class {
        Class { is_report: lane.is_report(), is_proven: self.proven.has(lane) }
    }

    /// Adds an entry, new or tried before.
    pub(super) fn add(&mut self, mut mail: QueuedMail) {
        self.under_way.remove(&mail.id);
        let lane = self.lane_of(&mail);
        if mail.state.is_servers_fault
            && let (Some(last), Some(since)) = (mail.state.last_attempt, self.proven.since(&lane))
            && last < since
        {
            // Somebody has answered there since, while it was recorded that nobody did.
            mail.state.next_attempt = last;
        }
        self.due.insert((mail.state.next_attempt, mail.id));
        if mail.state.is_servers_fault {
            self.lanes.entry(lane).or_default().servers_fault.insert(mail.id);
        }
        self.mails.insert(mail.id, mail);
    }

    /// Makes entries due at once, in the order in which they are named and before what else waits
    /// in their lanes, and ends the hold of these. A lane where nobody answers may have but one
    /// attempt before it is on hold again, and that is to be for an entry that was named.
    pub(super) fn hurry(&mut self, ids: &[QueueId], now: Timestamp) -> Vec<(QueueId, Found<()>)> {
        let mut found = Vec::with_capacity(ids.len());
        let mut lanes: Vec<Lane> = Vec::new();
        let mut named: HashMap<Lane, Vec<QueueId>> = HashMap::new();
        for id in ids {
            let Some(mail) = self.mails.get_mut(id) else {
                found.push((*id, self.under_way(*id)));
                continue;
            };
            self.due.remove(&(mail.state.next_attempt, *id));
            mail.state.next_attempt = mail.state.next_attempt.min(now);
            let lane = Lane::of(mail, &self.relays);
            let of_lane = named.entry(lane.clone()).or_default();
            if of_lane.is_empty() {
                lanes.push(lane);
            }
            of_lane.push(*id);
            found.push((*id, Found::Waiting(())));
        }
        for lane in lanes {
            let Some(ids) = named.remove(&lane) else { continue };
            self.put_first(&lane, &ids);
            self.release(&lane);
            self.give_turn(&lane);
        }
        found
    }

    /// Puts entries before all that are ready in their lane, each of them once.
    fn put_first(&mut self, lane: &Lane, ids: &[QueueId]) {
        let state = self.lanes.entry(lane.clone()).or_default();
        for id in ids.iter().rev() {
            let Some(mail) = self.mails.get(id) else { continue };
            state.servers_fault.remove(id);
            state.ready.push_first(&Sender::of(&mail.entry), *id);
        }
    }

    /// Makes an entry due, if its time has not come.
    fn bring_forward(&mut self, lane: &Lane, id: QueueId, now: Timestamp) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.servers_fault.remove(&id);
        }
        let Some(mail) = self.mails.get_mut(&id) else { return };
        if self.due.remove(&(mail.state.next_attempt, id)) {
            let next_attempt = mail.state.next_attempt.min(now);
            mail.state.next_attempt = next_attempt;
            self.due.insert((next_attempt, id));
        }
    }

    /// Takes an entry out for good.
    pub(super) fn remove(&mut self, id: QueueId) -> Found<QueuedMail> {
        let Some(mail) = self.mails.remove(&id) else { return self.under_way(id) };
        self.due.remove(&(mail.state.next_attempt, id));
        let lane = self.lane_of(&mail);
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.ready.remove(&Sender::of(&mail.entry), id);
            state.servers_fault.remove(&id);
        }
        self.forget_if_idle(&lane);
        Found::Waiting(mail)
    }

    fn under_way<T>(&self, id: QueueId) -> Found<T> {
        if self.under_way.contains_key(&id) { Found::UnderWay } else { Found::Nothing }
    }

    /// Notes how far sending an entry has come.
    pub(super) fn note(&mut self, id: QueueId, stage: Stage) {
        if let Some(entry) = self.under_way.get_mut(&id) {
            entry.stage = stage;
        }
    }

    /// An entry that was being sent is gone: every recipient has an outcome.
    pub(super) fn settled(&mut self, id: QueueId) {
        self.under_way.remove(&id);
    }

    fn begin(&mut self, lane: &Lane, id: QueueId) -> Option<QueuedMail> {
        let mail = self.mails.remove(&id)?;
        let entry = UnderWay { mail: mail.clone(), lane: lane.clone(), stage: Stage::Attempt };
        self.under_way.insert(id, entry);
        Some(mail)
    }

    /// The next entry whose time has come, of the lane whose turn it is, with a new connection.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Lane, QueuedMail)> {
        if self.is_paused {
            return None;
        }
        self.promote(now);
        while let Some(lane) = self.pop_turn() {
            let class = self.class(&lane);
            let may_open = self.may_open(&lane);
            let shares = self.shares(&lane);
            let state = self.lanes.get_mut(&lane).filter(|_| may_open);
            let next = state.and_then(|it| it.ready.pop(&shares).map(|id| (it, id)));
            // Whoever has its share goes on when one of its connections has done its work.
            let Some((state, id)) = next else {
                self.forget_if_idle(&lane);
                continue;
            };
            if !self.mails.contains_key(&id) {
                continue;
            }
            state.connections += 1;
            self.open.add(class, 1);
            let Some(mail) = self.begin(&lane, id) else { continue };
            self.give_turn(&lane);
            return Some((lane, mail));
        }
        None
    }

    /// Another entry for a connection that is open, unless everything waits, or its lane has too
    /// many, is on hold, or keeps others from their share.
    pub(super) fn take_more(&mut self, lane: &Lane, now: Timestamp) -> Option<QueuedMail> {
        if self.is_paused {
            return None;
        }
        self.promote(now);
        let class = self.class(lane);
        let most = self.limits.of_lane(class);
        if self.connections_at(lane) > self.limits.per_destination || self.gives_way(lane, class) {
            return None;
        }
        let may = |state: &&mut LaneState| state.connections <= most && state.held_until.is_none();
        let shares = self.shares(lane);
        let id = self.lanes.get_mut(lane).filter(may)?.ready.pop(&shares)?;
        self.begin(lane, id)
    }

    /// Who has how many connections of a lane, as far as it matters: reports are nobody's.
    fn shares(&self, lane: &Lane) -> Shares {
        let mut shares = Shares::new(self.limits);
        let connections = self.lanes.get(lane).map_or(0, |state| state.connections);
        if lane.is_report() || connections < self.limits.of_user() {
            return shares;
        }
        for UnderWay { mail, lane: over, stage } in self.under_way.values() {
            if over == lane && *stage != Stage::Broken {
                shares.count(Sender::of(&mail.entry));
            }
        }
        shares
    }

    /// A connection has ended.
    pub(super) fn close(&mut self, lane: &Lane) {
        let class = self.class(lane);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.connections = state.connections.saturating_sub(1);
            self.open.remove(class, 1);
        }
        self.give_turn(lane);
        self.give_turn(&lane.sibling());
        self.forget_if_idle(lane);
    }

    /// A server has answered there: the lane may have as many connections as any, and entries
    /// that wait because none did need not wait for their time.
    pub(super) fn prove(&mut self, lane: &Lane, now: Timestamp) {
        let is_back = !self.proven.has(lane);
        if let Some(state) = self.lanes.get_mut(lane) {
            state.ready.answered(is_back);
        }
        self.set_proven(lane, Some(now));
        if let Some(oldest) = self.proven.surplus() {
            self.set_proven(&oldest, None);
        }
        self.give_turn(lane);
        let sibling = lane.sibling();
        for _ in 0..BROUGHT_FORWARD {
            if let Some(id) = self.oldest_unanswered(lane) {
                self.bring_forward(lane, id, now);
            } else if let Some(id) = self.oldest_unanswered(&sibling) {
                self.bring_forward(&sibling, id, now);
            }
        }
    }

    /// The oldest entry of a lane that need not wait once a server answers.
    fn oldest_unanswered(&self, lane: &Lane) -> Option<QueueId> {
        self.lanes.get(lane)?.servers_fault.first().copied()
    }

    /// Nobody answers there: its mail waits until a moment without being tried, and then goes over
    /// one connection until somebody does.
    pub(super) fn hold(&mut self, lane: &Lane, until: Timestamp) {
        self.release(lane);
        self.set_proven(lane, None);
        self.lanes.entry(lane.clone()).or_default().held_until = Some(until);
        self.held.insert((until, lane.clone()), ());
    }

    /// The servers there have turned an entry away, which may be for what it is: the rest of its
    /// sender's mail to them waits until a moment, and everybody's if so many users' was in a row.
    pub(super) fn turn_away(&mut self, lane: &Lane, mail: &QueuedMail, until: Timestamp) {
        let sender = Sender::of(&mail.entry);
        let is_to_blame = mail.state.attempts > 0 && !mail.state.is_servers_fault;
        let ready = &mut self.lanes.entry(lane.clone()).or_default().ready;
        ready.rest(sender.clone(), until);
        let are_many = ready.turn_away(&sender, is_to_blame);
        self.resting.insert((until, lane.clone(), sender));
        if are_many {
            self.hold(lane, until);
        }
    }

    /// When something may be taken next, if it is not due already.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        if self.is_paused {
            return None;
        }
        let mail = self.due.first().map(|(at, _)| *at);
        let lane = self.held.first_key_value().map(|((at, _), ())| *at);
        let sender = self.resting.first().map(|(at, ..)| *at);
        [mail, lane, sender].into_iter().flatten().min()
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
        while let Some((at, lane, sender)) = self.resting.pop_first() {
            if at > now {
                self.resting.insert((at, lane, sender));
                break;
            }
            self.wake(&lane, sender, now);
        }
        while let Some((at, id)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, id));
                break;
            }
            let Some(mail) = self.mails.get(&id) else { continue };
            let lane = self.lane_of(mail);
            let state = self.lanes.entry(lane.clone()).or_default();
            state.servers_fault.remove(&id);
            state.ready.push(Sender::of(&mail.entry), id);
            self.give_turn(&lane);
        }
    }

    fn release(&mut self, lane: &Lane) {
        let until = self.lanes.get_mut(lane).and_then(|state| state.held_until.take());
        if let Some(until) = until {
            self.held.remove(&(until, lane.clone()));
            self.give_turn(lane);
            self.forget_if_idle(lane);
        }
    }

    fn wake(&mut self, lane: &Lane, sender: Sender, now: Timestamp) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.ready.wake(sender, now);
            self.give_turn(lane);
            self.forget_if_idle(lane);
        }
    }

    fn give_turn(&mut self, lane: &Lane) {
        let (may_open, class) = (self.may_open(lane), self.class(lane));
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if may_open && state.turn.is_none() {
            state.turn = Some(self.next_turn);
            self.turns.entry(class).or_default().insert(self.next_turn, lane.clone());
            self.next_turn += 1;
        }
    }

    /// The lane that has waited longest, of those whose share is not used up.
    fn pop_turn(&mut self) -> Option<Lane> {
        let with_room = self.turns.iter().filter(|(class, _)| self.has_room(**class));
        let first = with_room.filter_map(|(class, lanes)| Some((lanes.keys().next()?, class)));
        let class = *first.min()?.1;
        let (_, lane) = self.turns.get_mut(&class)?.pop_first()?;
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.turn = None;
        }
        Some(lane)
    }

    fn has_room(&self, class: Class) -> bool {
        self.open.has_room(class, self.limits)
    }

    /// Whether the lane and its destination have mail and a connection to spare.
    fn may_open(&self, lane: &Lane) -> bool {
        let Some(state) = self.lanes.get(lane) else { return false };
        !state.ready.is_empty()
            && state.held_until.is_none()
            && state.connections < self.limits.of_lane(self.class(lane))
            && self.connections_at(lane) < self.limits.per_destination
    }

    /// Whether an open connection ends although its lane has more mail: its share is used up and
    /// another lane waits for it, or the destination has no connection for its other lane.
    fn gives_way(&self, lane: &Lane, class: Class) -> bool {
        let others_wait = self.turns.get(&class).is_some_and(|lanes| !lanes.is_empty());
        let sibling = self.lanes.get(&lane.sibling());
        let sibling_waits = sibling.is_some_and(|it| {
            it.connections == 0 && !it.ready.is_empty() && it.held_until.is_none()
        });
        others_wait && !self.has_room(class)
            || sibling_waits && self.connections_at(lane) >= self.limits.per_destination
    }

    /// The connections to a lane's destination.
    fn connections_at(&self, lane: &Lane) -> usize {
        let of = |lane: &Lane| self.lanes.get(lane).map_or(0, |state| state.connections);
        of(lane) + of(&lane.sibling())
    }

    /// Its connections, and its turn, count in its class.
    fn set_proven(&mut self, lane: &Lane, since: Option<Timestamp>) {
        let before = self.class(lane);
        if before.is_proven == since.is_some() {
            return;
        }
        if let Some(since) = since {
            self.proven.add(lane, since);
        } else {
            self.proven.remove(lane);
        }
        let Some(state) = self.lanes.get(lane) else { return };
        let after = self.class(lane);
        self.open.remove(before, state.connections);
        self.open.add(after, state.connections);
        if let Some(turn) = state.turn
            && let Some(lane) = self.turns.get_mut(&before).and_then(|lanes| lanes.remove(&turn))
        {
            self.turns.entry(after).or_default().insert(turn, lane);
        }
    }

    fn forget_if_idle(&mut self, lane: &Lane) {
        let is_idle = |state: &LaneState| {
            let LaneState { ready, connections, held_until, turn, servers_fault } = state;
            let is_empty = ready.is_idle() && servers_fault.is_empty();
            *connections == 0 && is_empty && held_until.is_none() && turn.is_none()
        };
        if self.lanes.get(lane).is_some_and(is_idle) {
            self.lanes.remove(lane);
        }
    }
}

#[cfg(test)]
mod tests;
