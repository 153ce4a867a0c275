//! The mail of a lane whose time has come. Its senders take turns, so that one with much mail, or
//! one whose mail the servers turn away, holds up nobody else's to the same destination.

use std::collections::{HashMap, HashSet, VecDeque};

use super::sender::{Sender, Shares, User};
use super::turns::Turns;
use crate::clock::Timestamp;
use crate::store::QueueId;

/// Whose fault it is that no server takes the mail of a lane: after so many users' in a row, its
/// servers'. Of what users send on, strangers choose whose it is, so it says nothing.
const USERS_TURNED_AWAY: usize = 3;

/// The entries of a lane that are due.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// What an operator wants before all else.
    first: VecDeque<QueueId>,
    /// What else each sender has, oldest first; none is empty.
    mails: HashMap<Sender, VecDeque<QueueId>>,
    /// Senders with mail that do not rest.
    turns: Turns,
    /// Those of them whose mail was turned away since the servers took somebody's; they are next
    /// when nobody else is.
    behind: Turns,
    /// Senders whose mail is left alone, and until when.
    resting: HashMap<Sender, Timestamp>,
    /// Senders whose mail the servers have turned away since they took somebody's.
    turned_away: HashSet<Sender>,
    /// Users who speak against the servers: what they submitted was turned away since then.
    witnesses: HashSet<User>,
}

impl Ready {
    /// Whether there is nothing to take now.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.turns.is_empty() && self.behind.is_empty()
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.mails.is_empty() && self.resting.is_empty()
    }

    /// Adds an entry behind what its sender has.
    pub(super) fn push(&mut self, sender: Sender, id: QueueId) {
        let mails = self.mails.entry(sender.clone()).or_default();
        mails.push_back(id);
        if mails.len() == 1 && !self.resting.contains_key(&sender) {
            self.give_turn(sender);
        }
    }

    fn give_turn(&mut self, sender: Sender) {
        if self.turned_away.contains(&sender) {
            self.behind.add(sender);
        } else {
            self.turns.add(sender);
        }
    }

    fn end_turns(&mut self, sender: &Sender) {
        self.turns.remove(sender);
        self.behind.remove(sender);
    }

    /// Adds an entry before all others, once.
    pub(super) fn push_first(&mut self, sender: &Sender, id: QueueId) {
        self.remove(sender, id);
        self.first.push_front(id);
    }

    /// The next entry, of the sender whose turn it is, and who may have one more connection.
    pub(super) fn pop(&mut self, shares: &Shares) -> Option<QueueId> {
        if let Some(id) = self.first.pop_front() {
            return Some(id);
        }
        for most in shares.steps() {
            let may = |user: &User, origin| shares.have_room(user, origin, most);
            if let Some(sender) = self.turns.next(may).or_else(|| self.behind.next(may)) {
                return self.pop_of(&sender);
            }
        }
        None
    }

    fn pop_of(&mut self, sender: &Sender) -> Option<QueueId> {
        let mails = self.mails.get_mut(sender)?;
        let id = mails.pop_front();
        if mails.is_empty() {
            self.mails.remove(sender);
            self.end_turns(sender);
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
            self.end_turns(sender);
        }
    }

    /// Takes everything out, in no order.
    pub(super) fn drain(&mut self) -> Vec<QueueId> {
        self.turns = Turns::default();
        self.behind = Turns::default();
        let mails = self.mails.drain().flat_map(|(_, mails)| mails);
        self.first.drain(..).chain(mails).collect()
    }

    /// Leaves a sender's mail alone until a moment, at which [`Ready::wake`] is to be called.
    pub(super) fn rest(&mut self, sender: Sender, until: Timestamp) {
        self.end_turns(&sender);
        self.resting.insert(sender, until);
    }

    /// Ends a sender's rest, unless it has become longer.
    pub(super) fn wake(&mut self, sender: Sender, now: Timestamp) {
        if self.resting.get(&sender).is_none_or(|until| *until > now) {
            return;
        }
        self.resting.remove(&sender);
        if self.mails.contains_key(&sender) {
            self.give_turn(sender);
        }
    }

    /// Until when an entry of a sender is left alone, if it is.
    pub(super) fn rests_until(&self, sender: &Sender, id: QueueId) -> Option<Timestamp> {
        self.resting.get(sender).copied().filter(|_| !self.first.contains(&id))
    }

    /// The servers have turned a sender's mail away, which may be for what it is. Whether so many
    /// users' mail in a row says that it is not; mail that was turned away before while the servers
    /// took other mail, `is_to_blame`, does not say so.
    pub(super) fn turn_away(&mut self, sender: &Sender, is_to_blame: bool) -> bool {
        self.turned_away.insert(sender.clone());
        if !is_to_blame && sender.has_submitted() {
            self.witnesses.insert(sender.user.clone());
        }
        let are_many = self.witnesses.len() >= USERS_TURNED_AWAY;
        if are_many {
            self.witnesses.clear();
        }
        are_many
    }

    /// The servers have answered to somebody's mail. If they are back, whom they turned away before
    /// need not rest: that may have been for their own sake.
    pub(super) fn answered(&mut self, are_back: bool) {
        self.turned_away.clear();
        self.witnesses.clear();
        for sender in self.behind.drain() {
            self.turns.add(sender);
        }
        if are_back {
            for (sender, _) in self.resting.drain() {
                if self.mails.contains_key(&sender) {
                    self.turns.add(sender);
                }
            }
        }
    }
}
