//! What groups come to: made when somebody first writes to one, and shared from then on by all who
//! do, for as long as the organization is as it is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::organization::{Group, User};
use super::resolve::{Found, IndexedOrganization, Member, RemoteMember, ResolveError};

/// Mailboxes and remote users that an organization's groups may come to in all and still be kept
/// for the next message, about 60 octets each. Past them all are forgotten, and made anew as somebody
/// writes to them.
const MAX_KEPT: usize = 500_000;

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
    ///
    /// # Errors
    /// [`ResolveError::GroupTooLarge`] past `max_members`, [`ResolveError::EmptyGroup`]
    fn of_group(
        group: &Group,
        organization: &IndexedOrganization,
        max_members: usize,
    ) -> Result<Self, ResolveError> {
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
                match organization.named(name) {
                    Some(Found::Mailbox(user)) => {
                        members.extend(Member::of(user));
                        remote.extend(RemoteMember::of(user));
                    }
                    Some(Found::Group(group)) if group.is_enabled => open.push(group),
                    Some(Found::Group(_)) | None => {}
                }
                if members.len() + remote.len() > max_members {
                    return Err(ResolveError::GroupTooLarge);
                }
            }
        }
        if members.is_empty() && remote.is_empty() {
            return Err(ResolveError::EmptyGroup);
        }
        Ok(Self { members: members.into(), remote: remote.into() })
    }

    fn len(&self) -> usize {
        self.members.len() + self.remote.len()
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
    fn within(&self, max_members: usize) -> Option<Result<Expansion, ResolveError>> {
        match self {
            Self::Expanded(expansion) if expansion.len() <= max_members => {
                Some(Ok(expansion.clone()))
            }
            Self::Expanded(_) => Some(Err(ResolveError::GroupTooLarge)),
            Self::Empty => Some(Err(ResolveError::EmptyGroup)),
            Self::LargerThan(limit) if *limit >= max_members => {
                Some(Err(ResolveError::GroupTooLarge))
            }
            Self::LargerThan(_) => None,
        }
    }
}

impl Expansions {
    /// What a group comes to, from what is known or found out now.
    ///
    /// # Errors
    /// [`ResolveError::GroupTooLarge`] past `max_members`, [`ResolveError::EmptyGroup`]
    pub(super) fn of_group(
        &self,
        group: &Group,
        organization: &IndexedOrganization,
        max_members: usize,
    ) -> Result<Expansion, ResolveError> {
        // Nothing panics while holding this lock. Whoever else asks meanwhile waits, so that a group
        // is opened once.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.groups.get(&group.name).and_then(|group| group.within(max_members));
        if let Some(found) = found {
            return found;
        }
        let made = Expansion::of_group(group, organization, max_members);
        known.keep(
            &group.name,
            match &made {
                Ok(expansion) => KnownGroup::Expanded(expansion.clone()),
                Err(ResolveError::EmptyGroup) => KnownGroup::Empty,
                Err(_) => KnownGroup::LargerThan(max_members),
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

    fn expansion(members: usize) -> Expansion {
        let member = Member {
            mailbox: "alice".into(),
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
        check(&three, 2, Some(Err(ResolveError::GroupTooLarge)));
        check(&KnownGroup::Empty, 1, Some(Err(ResolveError::EmptyGroup)));
        check(&KnownGroup::LargerThan(5), 5, Some(Err(ResolveError::GroupTooLarge)));
        check(&KnownGroup::LargerThan(5), 4, Some(Err(ResolveError::GroupTooLarge)));
        check(&KnownGroup::LargerThan(5), 6, None);
    }

    #[test]
    fn a_group_is_opened_once_whoever_asks_and_however_it_ends() {
        let opened = |limit: usize, first: usize, second: usize| {
            let indexed = crate::directory::tests::indexed();
            let group = |members: &[&str]| crate::directory::tests::group("all", members);
            let known = Expansions::default();
            let first = known.of_group(&group(&["alice", "bob"]), &indexed, first);
            // Had it to be opened again, it would be found to have another member.
            let again = known.of_group(&group(&["alice"]), &indexed, second);
            assert!(known.0.lock().expect("is not poisoned").members <= limit);
            (first.map(|it| it.len()), again.map(|it| it.len()))
        };
        assert_eq!(opened(2, 2, 2), (Ok(2), Ok(2)));
        let too_large = ResolveError::GroupTooLarge;
        assert_eq!(opened(0, 1, 1), (Err(too_large.clone()), Err(too_large.clone())));
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
