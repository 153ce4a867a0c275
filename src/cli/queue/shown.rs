//! Entries of the queue, as they are printed.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use crate::cli::output;
use crate::clock::Timestamp;
use crate::daemon::control::{self, Answer, Request};
use crate::mail::{Address, ReversePath};
use crate::queue::WaitsFor;
use crate::store::{Purpose, QueueId, QueuedMail, SettledOutcome};

/// What entries wait for, as the daemon says.
pub(super) struct States {
    known: Known,
    /// Whether the whole queue is paused; without a daemon, whether the configuration says so.
    pub(super) is_paused: bool,
}

enum Known {
    Entries(HashMap<QueueId, WaitsFor>),
    /// The daemon cannot be asked, and why.
    Nothing(String),
}

/// What an entry waits for, as it is printed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// A word for programs.
    pub(super) reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Timestamp>,
    /// The same for people.
    pub(super) text: String,
}

impl States {
    /// Asks the daemon of a data folder. `would_pause` says whether the next one to start would
    /// begin with a pause.
    pub(super) fn ask(data_dir: &Path, would_pause: bool) -> Self {
        match control::ask::<Answer>(data_dir, &Request::QueueState) {
            Ok(Answer { problem: Some(problem), paused, .. }) => {
                Self { known: Known::Nothing(problem), is_paused: paused }
            }
            Ok(Answer { waiting, paused, .. }) => {
                let entries = waiting.into_iter().map(|entry| (entry.id, entry.waits_for));
                Self { known: Known::Entries(entries.collect()), is_paused: paused }
            }
            Err(error) => Self { known: Known::Nothing(error.to_string()), is_paused: would_pause },
        }
    }

    pub(super) fn of(&self, id: QueueId) -> State {
        let states = match &self.known {
            Known::Entries(states) => states,
            Known::Nothing(why) => {
                return State { reason: "no-daemon", until: None, text: why.clone() };
            }
        };
        match states.get(&id) {
            Some(state) => {
                State { reason: state.reason(), until: state.until(), text: state.to_string() }
            }
            // The daemon was asked before the queue was read.
            None => State { reason: "new", until: None, text: "has just come".to_owned() },
        }
    }
}

/// An entry as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    id: QueueId,
    trace_id: String,
    organization_id: &'a str,
    destination: String,
    purpose: &'static str,
    reverse_path: &'a ReversePath,
    /// Those that wait for an outcome.
    recipients: Vec<String>,
    /// Those that have it.
    settled: Vec<ShownOutcome<'a>>,
    size: u64,
    queued_at: Timestamp,
    attempts: u32,
    next_attempt: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'a str>,
    waits_for: State,
}

/// What came of a recipient, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownOutcome<'a> {
    recipient: String,
    /// `sent` or `bounced`.
    outcome: &'static str,
    text: &'a str,
}

impl<'a> ShownOutcome<'a> {
    fn of(recipient: &Address, outcome: &'a SettledOutcome) -> Self {
        let (outcome, text) = match outcome {
            SettledOutcome::Sent(text) => ("sent", text.as_str()),
            SettledOutcome::Bounced(text) => ("bounced", text.as_str()),
        };
        Self { recipient: recipient.to_string(), outcome, text }
    }

    fn line(&self) -> String {
        format!("{}: {}, {}", self.recipient, self.outcome, self.text)
    }
}

impl<'a> Shown<'a> {
    pub(super) fn of(mail: &'a QueuedMail, states: &States) -> Self {
        let mut waiting = Vec::new();
        let mut settled = Vec::new();
        for (place, recipient) in mail.entry.recipients.iter().enumerate() {
            match mail.state.settled_at(place) {
                None => waiting.push(recipient.address.to_string()),
                Some(known) => {
                    settled.push(ShownOutcome::of(&recipient.address, &known.outcome));
                }
            }
        }
        Self {
            id: mail.id,
            trace_id: mail.trace_id.to_string(),
            organization_id: &mail.entry.organization,
            destination: mail.entry.destination.to_string(),
            purpose: match mail.entry.purpose {
                Purpose::Message => "message",
                Purpose::Report => "report",
                Purpose::JournalRecord { .. } => "journal record",
            },
            reverse_path: &mail.entry.reverse_path,
            recipients: waiting,
            settled,
            size: mail.size,
            queued_at: mail.queued_at,
            attempts: mail.state.attempts,
            next_attempt: mail.state.next_attempt.max(mail.queued_at),
            last_attempt: mail.state.last_attempt,
            last_failure: mail.state.last_failure.as_deref(),
            waits_for: states.of(mail.id),
        }
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{:<14} {} {:>9} bytes  {} -> {} ({}), attempts {}, {}{}",
            self.id.to_string(),
            self.queued_at,
            self.size,
            self.reverse_path,
            self.destination,
            self.recipients.join(", "),
            self.attempts,
            self.waits_for.text,
            self.last_failure.map(|failure| format!("; {failure}")).unwrap_or_default(),
        )
    }

    /// All of it, a fact a line.
    pub(super) fn print(&self, subject: Option<&str>) -> anyhow::Result<()> {
        for (name, value) in [
            ("entry", self.id.to_string()),
            ("trace", self.trace_id.clone()),
            ("what", self.purpose.to_owned()),
            ("subject", subject.unwrap_or("(none)").to_owned()),
            ("from", self.reverse_path.to_string()),
            ("to", self.destination.clone()),
            ("recipients that wait", self.recipients.join(", ")),
            ("bytes", self.size.to_string()),
            ("queued at", self.queued_at.to_string()),
            ("attempts", self.attempts.to_string()),
            ("state", self.waits_for.text.clone()),
            ("next attempt", self.next_attempt.to_string()),
            ("last failure", self.last_failure.unwrap_or("(none)").to_owned()),
        ] {
            // The state is that it waits for this.
            if name == "next attempt" && self.waits_for.reason == "next-attempt" {
                continue;
            }
            output::line(&format!("{name:<21} {value}"))?;
        }
        for settled in &self.settled {
            output::line(&format!("{:<21} {}", "settled", settled.line()))?;
        }
        Ok(())
    }
}
