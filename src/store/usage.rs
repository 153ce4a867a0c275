//! How many recipients outside of its organization each user has written to in a day (guide
//! 3425–3450): counted before a message is taken, durable with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::mailbox::MailboxName;

/// What may be used in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// By a user.
    pub user: u64,
    /// By all users of an organization.
    pub organization: u64,
}

/// Whose limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageExceeded {
    /// The user's.
    User,
    /// The organization's.
    Organization,
}

/// What was used, as a record holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) by: MailboxName,
    /// Days since the Unix epoch, in UTC.
    pub(super) day: u64,
    pub(super) recipients: u64,
}

/// The counters of the current day.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<Day>);

#[derive(Debug, Default)]
struct Day {
    day: u64,
    users: HashMap<MailboxName, u64>,
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
        by: &MailboxName,
        day: u64,
        recipients: u64,
        limits: UsageLimits,
    ) -> Result<UsageHold, UsageExceeded> {
        let mut counters = self.day(day);
        let of_user = counters.users.get(by).copied().unwrap_or_default();
        let of_all = counters.organizations.get(&by.organization).copied().unwrap_or_default();
        if of_user.saturating_add(recipients) > limits.user {
            return Err(UsageExceeded::User);
        }
        if of_all.saturating_add(recipients) > limits.organization {
            return Err(UsageExceeded::Organization);
        }
        // A clock that goes back counts on the newest day.
        let used = Used { by: by.clone(), day: counters.day, recipients };
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
            *self.users.entry(used.by.clone()).or_default() += used.recipients;
            let organization = Arc::clone(&used.by.organization);
            *self.organizations.entry(organization).or_default() += used.recipients;
        }
    }

    fn give_back(&mut self, used: &Used) {
        if used.day == self.day {
            let of_user = self.users.entry(used.by.clone()).or_default();
            *of_user = of_user.saturating_sub(used.recipients);
            let organization = Arc::clone(&used.by.organization);
            let of_all = self.organizations.entry(organization).or_default();
            *of_all = of_all.saturating_sub(used.recipients);
        }
    }
}

impl UsageHold {
    /// What goes into the record.
    pub(super) fn used(&self) -> Option<&Used> {
        self.used.as_ref().filter(|used| used.recipients > 0)
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

    const LIMITS: UsageLimits = UsageLimits { user: 10, organization: 15 };

    fn name(user: &str) -> MailboxName {
        MailboxName { organization: "m-1".into(), user: user.into() }
    }

    #[test]
    fn limits_hold_for_a_day_and_what_fails_is_given_back() {
        let usage = Usage::new([]);
        usage.take(&name("alice"), 7, 8, LIMITS).expect("is free").keep();
        assert_eq!(usage.take(&name("alice"), 7, 3, LIMITS).err(), Some(UsageExceeded::User));
        let held = usage.take(&name("alice"), 7, 2, LIMITS).expect("is free");
        assert_eq!(usage.take(&name("alice"), 7, 1, LIMITS).err(), Some(UsageExceeded::User));
        drop(held);
        assert_eq!(usage.take(&name("bob"), 7, 8, LIMITS).err(), Some(UsageExceeded::Organization));
        usage.take(&name("bob"), 7, 7, LIMITS).expect("is free").keep();
        usage.take(&name("alice"), 8, 10, LIMITS).expect("a new day").keep();
        assert_eq!(usage.take(&name("alice"), 7, 1, LIMITS).err(), Some(UsageExceeded::User));
    }

    #[test]
    fn what_records_say_counts_after_a_restart() {
        let used = |day, recipients| Used { by: name("alice"), day, recipients };
        let usage = Usage::new([used(6, 10), used(7, 4), used(7, 5)]);
        usage.take(&name("alice"), 7, 1, LIMITS).expect("one is left").keep();
        assert_eq!(usage.take(&name("alice"), 7, 1, LIMITS).err(), Some(UsageExceeded::User));
    }
}
