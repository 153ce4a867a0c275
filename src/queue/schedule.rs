//! When an entry is tried again: a function of how often it was, and of chance. Reads no clock.

use std::time::Duration;

use super::Settings;
use crate::clock::Timestamp;

/// How far chance may move an attempt, as a part of the pause: entries that failed together are
/// not tried together again.
const JITTER: f64 = 0.2;

/// The pause after the given number of attempts, at least one: doubling, bounded. `chance` is
/// from 0 to 1.
pub(super) fn pause(settings: &Settings, attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(32);
    let doubled =
        settings.first_retry.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    let pause = doubled.min(settings.longest_retry);
    pause.mul_f64(1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0))
}

/// When an entry that was just tried for the `attempts`th time is tried again; never after the
/// moment at which it bounces.
pub(super) fn next_attempt(
    settings: &Settings,
    queued_at: Timestamp,
    attempts: u32,
    now: Timestamp,
    chance: f64,
) -> Timestamp {
    now.plus(pause(settings, attempts, chance)).min(expiry(settings, queued_at).max(now))
}

/// When recipients that were not reached bounce.
pub(super) fn expiry(settings: &Settings, queued_at: Timestamp) -> Timestamp {
    queued_at.plus(settings.lifetime)
}

/// Whether it is time to tell the sender of the delay.
pub(super) fn is_delayed(settings: &Settings, queued_at: Timestamp, now: Timestamp) -> bool {
    now >= queued_at.plus(settings.delay_warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUEUED: Timestamp = Timestamp::from_millis(1_795_235_486_123);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let settings = Settings::default();
        let minutes: Vec<_> =
            (1..=8).map(|attempts| pause(&settings, attempts, 0.5).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 240, 240]);
        assert_eq!(pause(&settings, 1, 0.0).as_secs(), 240);
        assert_eq!(pause(&settings, 1, 1.0).as_secs(), 360);
        assert_eq!(pause(&settings, u32::MAX, 0.5), settings.longest_retry);
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_lifetime() {
        let settings = Settings::default();
        let end = expiry(&settings, QUEUED);
        let shortly_before = end.minus(Duration::from_secs(60));
        assert_eq!(next_attempt(&settings, QUEUED, 30, shortly_before, 0.5), end);
        assert!(!is_delayed(&settings, QUEUED, QUEUED));
        assert!(is_delayed(&settings, QUEUED, QUEUED.plus(settings.delay_warning)));
    }

    proptest! {
        #[test]
        fn the_schedule_never_goes_back(attempts in 1..2000_u32, chance in 0.0..1.0, late in 0..1_000_000_u64) {
            let now = QUEUED.plus(Duration::from_secs(late));
            let next = next_attempt(&Settings::default(), QUEUED, attempts, now, chance);
            prop_assert!(next >= now);
            prop_assert!(pause(&Settings::default(), attempts + 1, 0.5) >= pause(&Settings::default(), attempts, 0.5));
        }
    }
}
