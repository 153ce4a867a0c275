//! The queue by destination.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::shown::States;
use crate::cli::output;
use crate::clock::Timestamp;
use crate::store::{Destination, QueuedMail};

/// What waits for a destination.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summed<'a> {
    destination: String,
    /// Whose gateway it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    messages: u64,
    octets: u64,
    oldest_queued_at: Timestamp,
    oldest_age_seconds: u64,
    /// The earliest.
    next_attempt: Timestamp,
    /// The latest, and its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a str>,
    /// How many messages wait for what, by the word for it.
    waits_for: BTreeMap<&'static str, u64>,
    /// Until when nobody is asked there, since nobody has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    down_until: Option<Timestamp>,
}

/// All destinations, the one with the most messages first.
pub(super) fn of<'a>(queue: &'a [QueuedMail], states: &States, now: Timestamp) -> Vec<Summed<'a>> {
    let mut destinations = BTreeMap::new();
    for mail in queue {
        let organization = match &mail.entry.destination {
            Destination::Domain(_) => None,
            Destination::Gateway(_) => Some(&*mail.entry.organization),
        };
        let key = (&mail.entry.destination, organization);
        let new = || Summed::new(mail, organization);
        let summed: &mut Summed<'a> = destinations.entry(key).or_insert_with(new);
        summed.add(mail, states);
    }
    let mut all: Vec<_> = destinations.into_values().collect();
    for summed in &mut all {
        let age = now.as_millis().saturating_sub(summed.oldest_queued_at.as_millis());
        summed.oldest_age_seconds = age / 1000;
    }
    all.sort_by_key(|summed| std::cmp::Reverse(summed.messages));
    all
}

impl<'a> Summed<'a> {
    fn new(first: &'a QueuedMail, organization_id: Option<&'a str>) -> Self {
        Self {
            destination: first.entry.destination.to_string(),
            organization_id,
            messages: 0,
            octets: 0,
            oldest_queued_at: first.queued_at,
            oldest_age_seconds: 0,
            next_attempt: first.state.next_attempt.max(first.queued_at),
            last_attempt: None,
            last_failure: None,
            waits_for: BTreeMap::new(),
            down_until: None,
        }
    }

    fn add(&mut self, mail: &'a QueuedMail, states: &States) {
        self.messages += 1;
        self.octets += mail.size;
        self.oldest_queued_at = self.oldest_queued_at.min(mail.queued_at);
        self.next_attempt = self.next_attempt.min(mail.state.next_attempt.max(mail.queued_at));
        if let Some(failure) = &mail.state.last_failure
            && (self.last_failure.is_none() || mail.state.last_attempt > self.last_attempt)
        {
            self.last_attempt = mail.state.last_attempt;
            self.last_failure = Some(failure);
        }
        let state = states.of(mail.id);
        *self.waits_for.entry(state.reason).or_default() += 1;
        if state.reason == "destination-down" {
            self.down_until = self.down_until.max(state.until);
        }
    }

    pub(super) fn line(&self) -> String {
        let age = Duration::from_secs(self.oldest_age_seconds);
        let mut line = format!(
            "{}: {}, {} bytes, oldest {}",
            self.destination,
            output::counted(self.messages, "message"),
            self.octets,
            rounded(age)
        );
        for (reason, words) in [
            ("in-flight", "being sent"),
            ("connection", "waiting for a free connection"),
            ("paused", "waiting, because the queue is paused"),
        ] {
            if let Some(count) = self.waits_for.get(reason) {
                line += &format!(", {count} {words}");
            }
        }
        match self.down_until {
            Some(until) => line += &format!(", nobody takes mail, left alone until {until}"),
            None => line += &format!(", next attempt {}", self.next_attempt),
        }
        if let Some(failure) = self.last_failure {
            line += &format!("; {failure}");
        }
        line
    }
}

/// As `3 d 4 h`, `12 min` or `5 s`.
fn rounded(age: Duration) -> String {
    let seconds = age.as_secs();
    let minutes = seconds / 60;
    let hours = minutes / 60;
    match (hours / 24, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        (days, ..) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (4 * 86_400 + 3 * 3600, "4 d 3 h"),
        ] {
            assert_eq!(rounded(Duration::from_secs(seconds)), expected);
        }
    }
}
