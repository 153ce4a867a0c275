//! Commits that come together share a sync. Who is on the way says so, and the committer waits a
//! moment for them where they are several.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// From so many on, others are on their way with a commit.
const COMPANY: usize = 4;
/// How long the next sync waits for each of them, about what one takes to come, and for all.
const GATHERING: Duration = Duration::from_micros(100);
const LONGEST_GATHERING: Duration = Duration::from_millis(2);
/// As many as come in the longest time.
const MOST_EXPECTED: usize = 20;
/// Rounds without waiting after one to which few came that it waited for: those on the way take their
/// time, or only say that they are.
const ROUNDS_ALONE: usize = 8;

/// How many are on the way to a commit.
#[derive(Clone, Debug, Default)]
pub(super) struct Company(Arc<AtomicUsize>);

impl Company {
    /// One more, until it is dropped.
    pub(super) fn expect(&self) -> Coming {
        self.0.fetch_add(1, Ordering::Relaxed);
        Coming(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Somebody who is on the way to a commit, or has just made one.
#[derive(Debug)]
pub struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says how long to wait before each sync.
#[derive(Debug)]
pub(super) struct Gathering {
    company: Company,
    /// How many the last round waited for.
    waited_for: usize,
    rounds_alone: usize,
}

impl Gathering {
    pub(super) fn new(company: Company) -> Self {
        Self { company, waited_for: 0, rounds_alone: 0 }
    }

    /// How long the round after one of so many commits waits; asked before those are answered.
    pub(super) fn after(&mut self, commits: usize) -> Duration {
        self.rounds_alone = self.rounds_alone.saturating_sub(1);
        let expected = self.waited_for.min(MOST_EXPECTED);
        if expected > 0 && commits < (expected / 4).max(2) {
            self.rounds_alone = ROUNDS_ALONE;
        }
        let coming = commits.max(self.company.count());
        let waits = coming >= COMPANY && self.rounds_alone == 0;
        self.waited_for = if waits { coming } else { 0 };
        if !waits {
            return Duration::ZERO;
        }
        (GATHERING.saturating_mul(u32::try_from(coming).unwrap_or(u32::MAX))).min(LONGEST_GATHERING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the committer waits after rounds of so many commits, one after the other.
    fn waits(company: &Company, rounds: &[usize]) -> Vec<bool> {
        let mut gathering = Gathering::new(company.clone());
        rounds.iter().map(|commits| gathering.after(*commits) > Duration::ZERO).collect()
    }

    #[test]
    fn several_have_the_next_sync_wait_and_few_do_not() {
        let company = Company::default();
        assert_eq!(waits(&company, &[1, 3, 4, 3, 1]), [false, false, true, false, false]);
        let coming: Vec<_> = (0..COMPANY).map(|_| company.expect()).collect();
        assert_eq!(waits(&company, &[1, 2, 4]), [true, true, true]);
        drop(coming.into_iter().next());
        assert_eq!(waits(&company, &[1, 2, 4]), [false, false, true]);
    }

    /// Two who send, among many who only began, are not held up by those.
    #[test]
    fn few_of_many_who_are_expected_do_not_wait_for_the_rest() {
        let company = Company::default();
        let _idle: Vec<_> = (0..30).map(|_| company.expect()).collect();
        let waited = waits(&company, &[2; 20]);
        assert_eq!(waited.iter().filter(|waits| **waits).count(), 3, "{waited:?}");
        assert_eq!(waits(&company, &[5; 20]), [true; 20]);
    }

    #[test]
    fn the_more_are_coming_the_longer_they_are_waited_for() {
        let company = Company::default();
        let mut gathering = Gathering::new(company.clone());
        let wait = gathering.after(COMPANY);
        assert_eq!(wait, GATHERING * 4);
        let _coming: Vec<_> = (0..10).map(|_| company.expect()).collect();
        assert_eq!(gathering.after(2), GATHERING * 10);
        assert_eq!(gathering.after(1_000_000), LONGEST_GATHERING);
    }

    #[test]
    fn nobody_waits_long_for_those_who_do_not_come() {
        let company = Company::default();
        let _slow: Vec<_> = (0..20).map(|_| company.expect()).collect();
        let waited = waits(&company, &[1; 20]);
        let expected = (0..20).map(|round| round % (ROUNDS_ALONE + 1) == 0);
        assert_eq!(waited, expected.collect::<Vec<_>>());
    }
}
