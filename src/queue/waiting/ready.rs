//! The mail of a lane whose time has come. Its senders take turns, so that one with much mail, or
//! one whose mail the servers turn away, holds up nobody else's to the same destination.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::mail::{Address, ReversePath};
use crate::store::{QueueEntry, QueueId};

/// Whose fault it is that no server takes the mail of a lane: after so many users' in a row, its
/// servers'.
const USERS_TURNED_AWAY: usize = 3;

/// Whose mail takes turns. What strangers send through a user has turns of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Sender {
    user: User,
    reverse_path: ReversePath,
}

/// A user of an organization here; without an address, what the organization itself sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct User {
    organization: Arc<str>,
    address: Option<Address>,
}

impl Sender {
    pub(super) fn of(entry: &QueueEntry) -> Self {
        let QueueEntry { organization, sender, reverse_path, .. } = entry;
        let user = User { organization: Arc::clone(organization), address: sender.clone() };
        Self { user, reverse_path: reverse_path.clone() }
    }
}

/// The entries of a lane that are due.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// What an operator wants before all else.
    first: VecDeque<QueueId>,
    /// What else each sender has, oldest first; none is empty.
    mails: HashMap<Sender, VecDeque<QueueId>>,
    /// Senders with mail that do not rest, in turn.
    turns: VecDeque<Sender>,
    /// Senders whose mail is left alone, and until when.
    resting: HashMap<Sender, Timestamp>,
    /// Users of whose mail the servers have taken none since they took somebody's.
    turned_away: HashSet<User>,
}

impl Ready {
    /// Whether there is nothing to take now.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.turns.is_empty()
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.mails.is_empty() && self.resting.is_empty()
    }

    /// Adds an entry behind what its sender has.
    pub(super) fn push(&mut self, sender: Sender, id: QueueId) {
        let mails = self.mails.entry(sender.clone()).or_default();
        if mails.is_empty() && !self.resting.contains_key(&sender) {
            self.turns.push_back(sender);
        }
        mails.push_back(id);
    }

    /// Adds an entry before all others, once.
    pub(super) fn push_first(&mut self, sender: &Sender, id: QueueId) {
        self.remove(sender, id);
        self.first.push_front(id);
    }

    /// The next entry, of the sender whose turn it is.
    pub(super) fn pop(&mut self) -> Option<QueueId> {
        if let Some(id) = self.first.pop_front() {
            return Some(id);
        }
        let sender = self.turns.pop_front()?;
        let mails = self.mails.get_mut(&sender)?;
        let id = mails.pop_front();
        if mails.is_empty() {
            self.mails.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        id
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, sender: &Sender, id: QueueId) {
        self.first.retain(|first| *first != id);
        let Some(mails) = self.mails.get_mut(sender) else { return };
        mails.retain(|mail| *mail != id);
        if mails.is_empty() {
            self.mails.remove(sender);
            self.turns.retain(|turn| turn != sender);
        }
    }

    /// Takes everything out, in no order.
    pub(super) fn drain(&mut self) -> Vec<QueueId> {
        self.turns.clear();
        let mails = self.mails.drain().flat_map(|(_, mails)| mails);
        self.first.drain(..).chain(mails).collect()
    }

    /// Leaves a sender's mail alone until a moment, at which [`Ready::wake`] is to be called.
    pub(super) fn rest(&mut self, sender: Sender, until: Timestamp) {
        self.turns.retain(|turn| *turn != sender);
        self.resting.insert(sender, until);
    }

    /// Ends a sender's rest, unless it has become longer.
    pub(super) fn wake(&mut self, sender: Sender, now: Timestamp) {
        if self.resting.get(&sender).is_none_or(|until| *until > now) {
            return;
        }
        self.resting.remove(&sender);
        if self.mails.contains_key(&sender) {
            self.turns.push_back(sender);
        }
    }

    /// Until when an entry of a sender is left alone, if it is.
    pub(super) fn rests_until(&self, sender: &Sender, id: QueueId) -> Option<Timestamp> {
        self.resting.get(sender).copied().filter(|_| !self.first.contains(&id))
    }

    /// The servers have turned a sender's mail away, which may be for what it is. Whether so many
    /// users' mail in a row says that it is not.
    pub(super) fn turn_away(&mut self, sender: &Sender) -> bool {
        self.turned_away.insert(sender.user.clone());
        let are_many = self.turned_away.len() >= USERS_TURNED_AWAY;
        if are_many {
            self.turned_away.clear();
        }
        are_many
    }

    /// The servers have answered to somebody's mail. If they are back, whom they turned away before
    /// need not rest: that may have been for their own sake.
    pub(super) fn answered(&mut self, are_back: bool) {
        self.turned_away.clear();
        if are_back {
            let resting = self.resting.drain().map(|(sender, _)| sender);
            self.turns.extend(resting.filter(|sender| self.mails.contains_key(sender)));
        }
    }
}
