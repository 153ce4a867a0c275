//! Who is next: users take turns; each user's own mail and what strangers have it send on take
//! turns within that; and within these, reverse-paths do. However many addresses somebody writes
//! from, or strangers write to a user from, they are one user's turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::sender::{Origin, Sender, User};
use crate::mail::ReversePath;

/// Senders with mail, in turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    users: Circle<User, Circle<Origin, Circle<ReversePath, ()>>>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.users.turns.is_empty()
    }

    /// Adds a sender behind all others, once.
    pub(super) fn add(&mut self, sender: Sender) {
        let Sender { user, origin, reverse_path } = sender;
        self.users.member(user).member(origin).member(reverse_path);
    }

    /// The next one who may, who is the last one then.
    pub(super) fn next(&mut self, may: impl Fn(&User, Origin) -> bool) -> Option<Sender> {
        let (user, origins) = self.users.next(|user, origins| {
            let mut origins = origins.turns.iter();
            origins.any(|origin| may(user, *origin))
        })?;
        let (origin, paths) = origins.next(|origin, _| may(&user, *origin))?;
        let (reverse_path, ()) = paths.next(|_, ()| true)?;
        Some(Sender { user, origin, reverse_path })
    }

    pub(super) fn remove(&mut self, sender: &Sender) {
        let Some(origins) = self.users.members.get_mut(&sender.user) else { return };
        let Some(paths) = origins.members.get_mut(&sender.origin) else { return };
        paths.remove(&sender.reverse_path);
        if paths.turns.is_empty() {
            origins.remove(&sender.origin);
        }
        if origins.turns.is_empty() {
            self.users.remove(&sender.user);
        }
    }

    /// Takes everybody out, in turn.
    pub(super) fn drain(&mut self) -> Vec<Sender> {
        let mut senders = Vec::new();
        while let Some(sender) = self.next(|_, _| true) {
            self.remove(&sender);
            senders.push(sender);
        }
        senders
    }
}

/// Members that take turns.
#[derive(Debug)]
struct Circle<K, V> {
    turns: VecDeque<K>,
    members: HashMap<K, V>,
}

impl<K, V> Default for Circle<K, V> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), members: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Circle<K, V> {
    /// A member, which is the last one if it is new.
    fn member(&mut self, key: K) -> &mut V {
        if !self.members.contains_key(&key) {
            self.turns.push_back(key.clone());
        }
        self.members.entry(key).or_default()
    }

    /// The first member who may, who is the last one then.
    fn next(&mut self, may: impl Fn(&K, &V) -> bool) -> Option<(K, &mut V)> {
        let members = &self.members;
        let may = |key: &K| members.get(key).is_some_and(|member| may(key, member));
        let place = self.turns.iter().position(may)?;
        let key = self.turns.remove(place)?;
        self.turns.push_back(key.clone());
        let member = self.members.get_mut(&key)?;
        Some((key, member))
    }

    fn remove(&mut self, key: &K) {
        self.members.remove(key);
        // Who leaves has most often just had its turn.
        if let Some(place) = self.turns.iter().rposition(|turn| turn == key) {
            self.turns.remove(place);
        }
    }
}
