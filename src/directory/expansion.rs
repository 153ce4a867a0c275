//! What groups come to: made when somebody first writes to one, and shared from then on by all who
//! do, for as long as the organization is as it is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::organization::{EntityState, Found, Group, User};
use crate::id::EntityId;
use crate::mail::Address;

/// Mailboxes and remote users that an organization's groups may come to in all and still be kept
/// for the next message, about 90 octets each. Past them all are forgotten, and made anew as somebody
/// writes to them.
const MAX_KEPT: usize = 500_000;

/// A mailbox that an address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose mailbox it is.
    pub id: EntityId,
    /// The user's or resource's name.
    pub name: Arc<str>,
    /// Its primary address.
    pub address: Address,
    /// What the mailbox may hold, in octets.
    pub quota_bytes: u64,
}

/// A remote user that an address leads to: mail is routed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteMember {
    /// Who it is.
    pub id: EntityId,
    /// The user's address here.
    pub address: Address,
    /// Where the mailbox is.
    pub forward_to: Address,
}

/// Why a group comes to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotExpanded {
    /// It has more members than allowed.
    TooLarge,
    /// It has no member that takes mail.
    Empty,
}

/// The mailboxes and remote users that a user or group comes to.
#[derive(Clone, Debug)]
pub(super) struct Expansion {
    pub(super) members: Arc<[Member]>,
    pub(super) remote: Arc<[RemoteMember]>,
}

impl Expansion {
    /// A single user's; `None` if no mail is taken for the user.
    pub(super) fn of_user(user: &User) -> Option<Self> {
        if let Some(member) = Member::of(user) {
            return Some(Self { members: Arc::new([member]), remote: Arc::default() });
        }
        let remote = RemoteMember::of(user)?;
        Some(Self { members: Arc::default(), remote: Arc::new([remote]) })
    }

    /// A group's: nested groups opened, each user once, those left out for whom no mail is taken.
    /// Who is behind a name in it, `named` says.
    fn of_group<'a>(
        group: &'a Group,
        named: impl Fn(&str) -> Option<Found<'a>>,
        max_members: usize,
    ) -> Result<Self, NotExpanded> {
        let mut members = Vec::new();
        let mut remote = Vec::new();
        let mut seen: HashSet<&str> = HashSet::from([&*group.name]);
        let mut open = vec![group];
        while let Some(group) = open.pop() {
            for name in &group.members {
                // A group inside itself, and a member of two groups, are seen once.
                if !seen.insert(name) {
                    continue;
                }
                match named(name) {
                    Some(Found::Mailbox(user)) => {
                        members.extend(Member::of(user));
                        remote.extend(RemoteMember::of(user));
                    }
                    Some(Found::Group(group)) if group.is_enabled => open.push(group),
                    Some(Found::Group(_)) | None => {}
                }
                if members.len() + remote.len() > max_members {
                    return Err(NotExpanded::TooLarge);
                }
            }
        }
        if members.is_empty() && remote.is_empty() {
            return Err(NotExpanded::Empty);
        }
        Ok(Self { members: members.into(), remote: remote.into() })
    }

    fn len(&self) -> usize {
        self.members.len() + self.remote.len()
    }
}

impl Member {
    /// A user's or resource's mailbox; `None` if it is elsewhere, or takes no mail.
    pub(super) fn of(user: &User) -> Option<Self> {
        match user.state {
            EntityState::Enabled => Some(Self {
                id: user.id.clone(),
                name: Arc::clone(&user.name),
                address: user.email.clone(),
                quota_bytes: user.quota_mb.saturating_mul(1024 * 1024),
            }),
            EntityState::Remote(_) | EntityState::Disabled => None,
        }
    }
}

impl RemoteMember {
    /// The user, if the mailbox is elsewhere.
    pub(super) fn of(user: &User) -> Option<Self> {
        match &user.state {
            EntityState::Remote(elsewhere) => {
                let (id, address) = (user.id.clone(), user.email.clone());
                Some(Self { id, address, forward_to: elsewhere.clone() })
            }
            EntityState::Enabled | EntityState::Disabled => None,
        }
    }
}

/// The expansions of an organization's groups that are known.
#[derive(Debug, Default)]
pub(super) struct Expansions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the group's name.
    groups: HashMap<Arc<str>, KnownGroup>,
    /// How many mailboxes and remote users they come to together.
    members: usize,
}

#[derive(Clone, Debug)]
enum KnownGroup {
    Expanded(Expansion),
    /// It has nobody who takes mail.
    Empty,
    /// It has more members than this.
    LargerThan(usize),
}

impl KnownGroup {
    /// What it comes to where so many members are allowed; `None` if that is not known.
    fn within(&self, max_members: usize) -> Option<Result<Expansion, NotExpanded>> {
        match self {
            Self::Expanded(expansion) if expansion.len() <= max_members => {
                Some(Ok(expansion.clone()))
            }
            Self::Expanded(_) => Some(Err(NotExpanded::TooLarge)),
            Self::Empty => Some(Err(NotExpanded::Empty)),
            Self::LargerThan(limit) if *limit >= max_members => Some(Err(NotExpanded::TooLarge)),
            Self::LargerThan(_) => None,
        }
    }
}

impl Expansions {
    /// What a group comes to, from what is known or found out now.
    pub(super) fn of_group<'a>(
        &self,
        group: &'a Group,
        named: impl Fn(&str) -> Option<Found<'a>>,
        max_members: usize,
    ) -> Result<Expansion, NotExpanded> {
        // Nothing panics while holding this lock. Whoever else asks meanwhile waits, so that a group
        // is opened once.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.groups.get(&group.name).and_then(|group| group.within(max_members));
        if let Some(found) = found {
            return found;
        }
        let made = Expansion::of_group(group, named, max_members);
        known.keep(
            &group.name,
            match &made {
                Ok(expansion) => KnownGroup::Expanded(expansion.clone()),
                Err(NotExpanded::Empty) => KnownGroup::Empty,
                Err(NotExpanded::TooLarge) => KnownGroup::LargerThan(max_members),
            },
        );
        made
    }
}

impl Known {
    fn keep(&mut self, name: &Arc<str>, group: KnownGroup) {
        let members = match &group {
            KnownGroup::Expanded(expansion) => expansion.len(),
            KnownGroup::Empty | KnownGroup::LargerThan(_) => 0,
        };
        if self.members + members > MAX_KEPT {
            *self = Self::default();
        }
        self.members += members;
        self.groups.insert(Arc::clone(name), group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EntityKind;

    fn expansion(members: usize) -> Expansion {
        let member = Member {
            id: EntityId::of_first(EntityKind::User, "m-1", "alice"),
            name: "alice".into(),
            address: "alice@example.test".parse().expect("an address"),
            quota_bytes: 1,
        };
        Expansion { members: vec![member; members].into(), remote: Arc::default() }
    }

    #[test]
    fn what_is_known_of_a_group_is_held_against_the_limit_of_the_day() {
        let check = |known: &KnownGroup, limit: usize, expected: Option<Result<usize, _>>| {
            let found = known.within(limit).map(|found| found.map(|it| it.len()));
            assert_eq!(found, expected, "{known:?} within {limit}");
        };
        let three = KnownGroup::Expanded(expansion(3));
        check(&three, 3, Some(Ok(3)));
        check(&three, 2, Some(Err(NotExpanded::TooLarge)));
        check(&KnownGroup::Empty, 1, Some(Err(NotExpanded::Empty)));
        check(&KnownGroup::LargerThan(5), 5, Some(Err(NotExpanded::TooLarge)));
        check(&KnownGroup::LargerThan(5), 4, Some(Err(NotExpanded::TooLarge)));
        check(&KnownGroup::LargerThan(5), 6, None);
    }

    #[test]
    fn a_group_is_opened_once_whoever_asks_and_however_it_ends() {
        let opened = |limit: usize, first: usize, second: usize| {
            let indexed = crate::directory::tests::indexed();
            let named = |name: &str| indexed.named(name);
            let whole = crate::directory::tests::group("all", &["alice", "bob"]);
            let smaller = crate::directory::tests::group("all", &["alice"]);
            let known = Expansions::default();
            let first = known.of_group(&whole, named, first);
            // Had it to be opened again, it would be found to have another member.
            let again = known.of_group(&smaller, named, second);
            assert!(known.0.lock().expect("is not poisoned").members <= limit);
            (first.map(|it| it.len()), again.map(|it| it.len()))
        };
        assert_eq!(opened(2, 2, 2), (Ok(2), Ok(2)));
        let too_large = NotExpanded::TooLarge;
        assert_eq!(opened(0, 1, 1), (Err(too_large), Err(too_large)));
        assert_eq!(opened(1, 1, 2), (Err(too_large), Ok(1)), "the limit has been raised");
    }

    #[test]
    fn what_is_kept_is_bounded_in_all() {
        let mut known = Known::default();
        let keep = |known: &mut Known, name: &str, members: usize| {
            known.keep(&name.into(), KnownGroup::Expanded(expansion(members)));
            (known.groups.len(), known.members)
        };
        assert_eq!(keep(&mut known, "a", MAX_KEPT - 2), (1, MAX_KEPT - 2));
        assert_eq!(keep(&mut known, "b", 2), (2, MAX_KEPT));
        assert_eq!(keep(&mut known, "c", 1), (1, 1), "the others are forgotten");
        known.keep(&"d".into(), KnownGroup::LargerThan(7));
        assert_eq!((known.groups.len(), known.members), (2, 1));
        assert_eq!(keep(&mut known, "e", MAX_KEPT + 1), (1, MAX_KEPT + 1), "the last one is kept");
    }
}
