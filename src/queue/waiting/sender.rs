//! Whose mail takes turns in a lane, and how many of its connections one may have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mail::{Address, ReversePath, Srs};
use crate::queue::lane::Limits;
use crate::store::QueueEntry;

/// Whose mail takes turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Sender {
    pub(super) user: User,
    pub(super) origin: Origin,
    /// Without its tag, if it is of this server.
    pub(super) reverse_path: ReversePath,
}

/// A user of an organization here; without an address, what the organization itself sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct User {
    organization: Arc<str>,
    address: Option<Address>,
}

/// Where the mail of a user comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Origin {
    /// From somebody here.
    Here,
    /// From strangers: it is sent on.
    Strangers,
}

impl Origin {
    /// What comes from elsewhere leaves under a rewritten reverse-path, a token, or none, as only
    /// what reports a failure does otherwise; and only what is sent on has a keeper.
    fn of(entry: &QueueEntry) -> Self {
        let is_from_here = entry.sender.is_none()
            || entry.token_domain.is_none()
                && entry.keeper.is_none()
                && entry.reverse_path.address().is_some_and(|path| !Srs::is_rewritten(path));
        if is_from_here { Self::Here } else { Self::Strangers }
    }
}

impl Sender {
    pub(super) fn of(entry: &QueueEntry) -> Self {
        let origin = Origin::of(entry);
        let reverse_path = match (origin, &entry.reverse_path) {
            (Origin::Here, ReversePath::Address(path)) => ReversePath::Address(without_tag(path)),
            (_, path) => path.clone(),
        };
        let organization = Arc::clone(&entry.organization);
        let user = User { organization, address: entry.sender.clone() };
        Self { user, origin, reverse_path }
    }

    /// Whether a user has submitted it for certain, under an address of its own: what one user
    /// writes to others here, who have it sent on, leaves in their name.
    pub(super) fn has_submitted(&self) -> bool {
        let address = self.user.address.as_ref().map(without_tag);
        let path = self.reverse_path.address();
        self.origin == Origin::Here
            && address.zip(path).is_some_and(|(address, path)| address.has_key_of(path))
    }
}

fn without_tag(address: &Address) -> Address {
    address.without_tag().unwrap_or_else(|| address.clone())
}

/// Who has how many of the connections of a lane.
#[derive(Debug)]
pub(super) struct Shares {
    limits: Limits,
    users: HashMap<User, usize>,
    strangers: usize,
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, users: HashMap::new(), strangers: 0 }
    }

    pub(super) fn count(&mut self, sender: Sender) {
        if sender.origin == Origin::Strangers {
            self.strangers += 1;
        }
        *self.users.entry(sender.user).or_default() += 1;
    }

    /// Whether a user, or strangers in all, may have one more if they may have so many.
    pub(super) fn have_room(&self, user: &User, origin: Origin, most: usize) -> bool {
        self.user_has_room(user, most) && (origin == Origin::Here || self.strangers < most)
    }

    pub(super) fn user_has_room(&self, user: &User, most: usize) -> bool {
        self.users.get(user).is_none_or(|connections| *connections < most)
    }

    /// How many connections one may have as long as others have mail, and how many else.
    pub(super) fn steps(&self) -> [usize; 2] {
        [self.limits.of_user(), self.limits.of_lone_user()]
    }
}
