//! How many recipients outside of its organization, and how many mailboxes inside, each user has
//! written to in a day (guide 3425–3450; nothing in it bounds those inside): counted before a
//! message is taken, durable with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::mailbox::MailboxOwner;

/// What may be used in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// By a user.
    pub user: u64,
    /// By all users of an organization.
    pub organization: u64,
    /// Mailboxes of its own organization, by a user.
    pub inside: u64,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Recipients outside the organization.
    pub outside: u64,
    /// Mailboxes of the organization.
    pub inside: u64,
}

/// Whose limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageExceeded {
    /// The user's.
    User,
    /// The organization's.
    Organization,
    /// The user's, of mailboxes inside.
    Inside,
}

/// What was used, as a record holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    pub(super) by: MailboxOwner,
    /// Days since the Unix epoch, in UTC.
    pub(super) day: u64,
    /// Outside the organization.
    pub(super) recipients: u64,
    /// Mailboxes inside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) inside: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The counters of the current day.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<Day>);

#[derive(Debug, Default)]
struct Day {
    day: u64,
    users: HashMap<MailboxOwner, Written>,
    organizations: HashMap<Arc<str>, u64>,
}

/// Recipients that are counted, and given back unless the message becomes durable.
#[derive(Debug)]
pub struct UsageHold {
    usage: Arc<Usage>,
    used: Option<Used>,
}

impl Usage {
    /// The counters as records left them; of days before the newest nothing is kept.
    pub(super) fn new(used: impl IntoIterator<Item = Used>) -> Arc<Self> {
        let usage = Self::default();
        for used in used {
            usage.day(used.day).add(&used);
        }
        Arc::new(usage)
    }

    /// Counts recipients, unless a limit is in the way.
    pub(super) fn take(
        self: &Arc<Self>,
        by: &MailboxOwner,
        day: u64,
        written: Written,
        limits: UsageLimits,
    ) -> Result<UsageHold, UsageExceeded> {
        let mut counters = self.day(day);
        let of_user = counters.users.get(by).copied().unwrap_or_default();
        let of_all = counters.organizations.get(&by.organization).copied().unwrap_or_default();
        let Written { outside, inside } = written;
        if outside > 0 && of_user.outside.saturating_add(outside) > limits.user {
            return Err(UsageExceeded::User);
        }
        if outside > 0 && of_all.saturating_add(outside) > limits.organization {
            return Err(UsageExceeded::Organization);
        }
        if inside > 0 && of_user.inside.saturating_add(inside) > limits.inside {
            return Err(UsageExceeded::Inside);
        }
        // A clock that goes back counts on the newest day.
        let used = Used { by: by.clone(), day: counters.day, recipients: outside, inside };
        counters.add(&used);
        drop(counters);
        Ok(UsageHold { usage: Arc::clone(self), used: Some(used) })
    }

    /// The counters of a day, or of a newer one that was asked for before.
    fn day(&self, day: u64) -> MutexGuard<'_, Day> {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if day > counters.day {
            *counters = Day { day, ..Day::default() };
        }
        counters
    }
}

impl Day {
    fn add(&mut self, used: &Used) {
        if used.day == self.day {
            let of_user = self.users.entry(used.by.clone()).or_default();
            of_user.outside += used.recipients;
            of_user.inside += used.inside;
            let organization = Arc::clone(&used.by.organization);
            *self.organizations.entry(organization).or_default() += used.recipients;
        }
    }

    fn give_back(&mut self, used: &Used) {
        if used.day == self.day {
            let of_user = self.users.entry(used.by.clone()).or_default();
            of_user.outside = of_user.outside.saturating_sub(used.recipients);
            of_user.inside = of_user.inside.saturating_sub(used.inside);
            let organization = Arc::clone(&used.by.organization);
            let of_all = self.organizations.entry(organization).or_default();
            *of_all = of_all.saturating_sub(used.recipients);
        }
    }
}

impl UsageHold {
    /// What goes into the record.
    pub(super) fn used(&self) -> Option<&Used> {
        self.used.as_ref().filter(|used| used.recipients > 0 || used.inside > 0)
    }

    /// It is durable.
    pub(super) fn keep(mut self) {
        self.used = None;
    }
}

impl Drop for UsageHold {
    fn drop(&mut self) {
        if let Some(used) = self.used.take() {
            self.usage.day(0).give_back(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntityId, EntityKind};

    const LIMITS: UsageLimits = UsageLimits { user: 10, organization: 15, inside: 4 };

    fn outside(outside: u64) -> Written {
        Written { outside, inside: 0 }
    }

    fn name(user: &str) -> MailboxOwner {
        let entity = EntityId::of_first(EntityKind::User, "m-1", user);
        MailboxOwner { organization: "m-1".into(), entity }
    }

    #[test]
    fn limits_hold_for_a_day_and_what_fails_is_given_back() {
        let usage = Usage::new([]);
        usage.take(&name("alice"), 7, outside(8), LIMITS).expect("is free").keep();
        assert_eq!(
            usage.take(&name("alice"), 7, outside(3), LIMITS).err(),
            Some(UsageExceeded::User)
        );
        let held = usage.take(&name("alice"), 7, outside(2), LIMITS).expect("is free");
        assert_eq!(
            usage.take(&name("alice"), 7, outside(1), LIMITS).err(),
            Some(UsageExceeded::User)
        );
        drop(held);
        assert_eq!(
            usage.take(&name("bob"), 7, outside(8), LIMITS).err(),
            Some(UsageExceeded::Organization)
        );
        usage.take(&name("bob"), 7, outside(7), LIMITS).expect("is free").keep();
        usage.take(&name("alice"), 8, outside(10), LIMITS).expect("a new day").keep();
        assert_eq!(
            usage.take(&name("alice"), 7, outside(1), LIMITS).err(),
            Some(UsageExceeded::User)
        );
    }

    #[test]
    fn what_records_say_counts_after_a_restart() {
        let used = |day, recipients| Used { by: name("alice"), day, recipients, inside: 0 };
        let usage = Usage::new([used(6, 10), used(7, 4), used(7, 5)]);
        usage.take(&name("alice"), 7, outside(1), LIMITS).expect("one is left").keep();
        assert_eq!(
            usage.take(&name("alice"), 7, outside(1), LIMITS).err(),
            Some(UsageExceeded::User)
        );
    }

    #[test]
    fn mailboxes_inside_have_a_limit_of_their_own() {
        let usage = Usage::new([]);
        let inside = |inside| Written { outside: 0, inside };
        let take = |user: &str, written| usage.take(&name(user), 7, written, LIMITS);
        take("alice", inside(3)).expect("is free").keep();
        assert_eq!(take("alice", inside(2)).err(), Some(UsageExceeded::Inside));
        take("alice", outside(10)).expect("those outside are others").keep();
        take("bob", inside(4)).expect("is bob's own").keep();
        drop(take("alice", inside(1)).expect("given back"));
        take("alice", inside(1)).expect("is free again").keep();
        assert_eq!(take("alice", inside(1)).err(), Some(UsageExceeded::Inside));
        assert!(usage.take(&name("alice"), 8, inside(4), LIMITS).is_ok(), "another day");
    }
}
