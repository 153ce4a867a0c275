//! A trace: what is known of a message, by whom it was found and to be told.

use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::pipeline::TransportOutcome;
use crate::pipeline::refusals::RefusalLine;
use crate::store::QueuedMail;

/// A trace: its events in order, and what they were decided from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    pub(super) trace_id: String,
    pub(super) events: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) story: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refusals: Vec<RefusalLine>,
    /// Traces that belong to it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) joined: Vec<Joined>,
    /// What of it waits in the queue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) waiting: Vec<Waiting>,
    /// What servers said of it, those who took it and those who did not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) transport: Vec<TransportOutcome>,
    /// The traces that its records have beside it: mail of our own that is about it, and what it was
    /// sent on from.
    #[serde(skip)]
    pub(super) beside: Vec<String>,
}

/// An entry of the queue, which is tried again.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) destination: String,
    pub(super) attempts: u32,
    pub(super) next_attempt: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<String>,
}

/// A trace that belongs to another.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Joined {
    pub(super) relation: Relation,
    pub(super) trace_id: String,
    /// For whom it is, as far as that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) to: Vec<String>,
    /// What became of it there, if it was sent on or is mail of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) became: Option<String>,
}

/// What the other trace is to the one that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Relation {
    /// What a user submitted, and this is what an organization here received of it.
    Outbound,
    /// What an organization here received of this submission.
    Inbound,
    /// This, sent on for a mailbox.
    SentOn,
    /// What this was sent on from.
    SentOnFrom,
    /// A delivery status notification that came of this.
    Report,
    /// A notice that came of this.
    Notice,
    /// A journal record of this.
    JournalRecord,
    /// What this mail of our own is about.
    About,
}

impl Trace {
    /// A trace of which only the id is known yet.
    pub(super) fn new(trace_id: &str) -> Self {
        Self {
            trace_id: trace_id.into(),
            events: Vec::new(),
            story: None,
            refusals: Vec::new(),
            joined: Vec::new(),
            waiting: Vec::new(),
            transport: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// The message's, with its angle brackets.
    pub(super) fn message_id(&self) -> Option<&str> {
        let mut events = self.events.iter();
        let told = events.find_map(|event| event.pointer("/event/messageId"));
        told.or_else(|| self.story.as_ref()?.pointer("/headers/messageId"))?.as_str()
    }

    /// Whether a user submitted it: the outbound half.
    pub(super) fn is_submitted(&self) -> bool {
        self.has("OUTGOING_EMAIL_SUBMITTED")
    }

    /// Whether an organization here received it: an inbound half, or mail from elsewhere.
    pub(super) fn is_received(&self) -> bool {
        self.has("ORGANIZATION_EMAIL_RECEIVED")
    }

    /// The trace that it is about, if it is mail that Mailweir made itself.
    pub(super) fn about(&self) -> Option<&str> {
        self.own()?.get("about")?.as_str()
    }

    /// What mail that Mailweir made itself is to the trace that it is about.
    pub(super) fn relation_to_that(&self) -> Relation {
        match self.own().map(|own| at(own, "/ownMail")) {
            Some("journalRecord") => Relation::JournalRecord,
            Some("notice") => Relation::Notice,
            _ => Relation::Report,
        }
    }

    /// For whom mail that Mailweir made itself is.
    pub(super) fn own_recipient(&self) -> Option<&str> {
        self.own()?.get("to")?.as_str()
    }

    /// Its story, if it is mail that Mailweir made itself.
    fn own(&self) -> Option<&Value> {
        self.story.as_ref().filter(|story| story.get("ownMail").is_some())
    }

    /// Whether nothing is told but where it was delivered.
    pub(super) fn is_delivered_only(&self) -> bool {
        let mut events = self.events.iter();
        !self.events.is_empty()
            && events.all(|event| at(event, "/event/eventName") == "MAILBOX_EMAIL_DELIVERED")
    }

    /// Whether its story is that of an outbound half, or of what is sent on elsewhere.
    pub(super) fn leaves(&self) -> bool {
        self.story.as_ref().is_some_and(|story| story.get("submittedAt").is_some())
    }

    /// Whether it leaves for a mailbox that sends it on, not for a user who submitted it.
    pub(super) fn is_sent_on(&self) -> bool {
        let by_nobody = |story: &Value| at(story, "/peer/login/user").is_empty();
        let mut joined = self.joined.iter();
        self.leaves()
            && (self.story.as_ref().is_some_and(by_nobody)
                || joined.any(|joined| joined.relation == Relation::SentOnFrom))
    }

    fn has(&self, name: &str) -> bool {
        self.events.iter().any(|event| at(event, "/event/eventName") == name)
    }

    /// Whom the first event names, which is that of its arrival.
    pub(super) fn recipients(&self) -> Vec<String> {
        let first = self.events.first().into_iter();
        let named = first.flat_map(|event| list(event, "/event/recipients"));
        named.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The ids under which it goes on for a mailbox, and where to.
    pub(super) fn sent_on(&self) -> impl Iterator<Item = (&str, &str)> {
        let story = self.story.iter();
        story.flat_map(|story| list(story, "/sentOn")).map(|on| (at(on, "/trace"), at(on, "/to")))
    }
}

impl Waiting {
    pub(super) fn of(mail: &QueuedMail) -> Self {
        Self {
            id: mail.id.to_string(),
            destination: mail.entry.destination.to_string(),
            attempts: mail.state.attempts,
            next_attempt: mail.state.next_attempt.max(mail.queued_at),
            last_failure: mail.state.last_failure.clone(),
        }
    }
}

/// The text at a place; empty where there is none.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What is in the list at a place.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
