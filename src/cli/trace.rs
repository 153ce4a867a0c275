//! A trace: what is known of a message, by whom it was found and to be told.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::Address;
use crate::pipeline::refusals::RefusalLine;
use crate::pipeline::story::{AnyStory, LeavingStory, ReceivedStory};
use crate::pipeline::{Headers, OwnMail, OwnMailKind, TransportOutcome};
use crate::store::QueuedMail;

/// A trace: its events in order, and what they were decided from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    pub(super) trace_id: String,
    pub(super) events: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub(super) story: Option<AnyStory>,
    /// Why its story is not told, if it has one that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unread_story: Option<String>,
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
    /// The traces that its records have beside it and that say that they belong to it.
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
            unread_story: None,
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
        told.and_then(Value::as_str).or_else(|| match self.story.as_ref()? {
            AnyStory::Received(story) => story.headers.message_id(),
            AnyStory::Leaving(story) => story.headers.message_id(),
            AnyStory::Settled(_) | AnyStory::Own(_) => None,
        })
    }

    /// The trace that it is about, if it is mail that Mailweir made itself.
    pub(super) fn about(&self) -> Option<TraceId> {
        self.own().map(|own| own.about)
    }

    /// What mail that Mailweir made itself is to the trace that it is about.
    pub(super) fn relation_to_that(&self) -> Relation {
        match self.own().map(|own| own.own_mail) {
            Some(OwnMailKind::JournalRecord) => Relation::JournalRecord,
            Some(OwnMailKind::Notice) => Relation::Notice,
            Some(OwnMailKind::Report) | None => Relation::Report,
        }
    }

    /// For whom mail that Mailweir made itself is.
    pub(super) fn own_recipient(&self) -> Option<&Address> {
        self.own().map(|own| &own.to)
    }

    /// Its story, if it is mail that Mailweir made itself.
    fn own(&self) -> Option<&OwnMail> {
        match &self.story {
            Some(AnyStory::Own(own)) => Some(own),
            _ => None,
        }
    }

    /// Its story, if it came to an organization here.
    pub(super) fn received(&self) -> Option<&ReceivedStory<'static>> {
        match &self.story {
            Some(AnyStory::Received(story)) => Some(story),
            _ => None,
        }
    }

    /// Its story, if it leaves or a user submits it.
    pub(super) fn leaving(&self) -> Option<&LeavingStory<'static>> {
        match &self.story {
            Some(AnyStory::Leaving(story)) => Some(story),
            _ => None,
        }
    }

    /// The trace of the submission that it is a part of.
    pub(super) fn submitted_in(&self) -> Option<TraceId> {
        self.received()?.submitted_in
    }

    /// The trace that it was sent on from.
    pub(super) fn sent_on_from(&self) -> Option<TraceId> {
        let received = self.received().and_then(|story| story.sent_on_from);
        received.or_else(|| self.leaving()?.sent_on_from)
    }

    /// Whether nothing is told but where it was delivered.
    pub(super) fn is_delivered_only(&self) -> bool {
        let mut events = self.events.iter();
        !self.events.is_empty()
            && events.all(|event| at(event, "/event/eventName") == "MAILBOX_EMAIL_DELIVERED")
    }

    /// Whom the first event names, which is that of its arrival.
    pub(super) fn recipients(&self) -> Vec<String> {
        let first = self.events.first().into_iter();
        let named = first.flat_map(|event| list(event, "/event/recipients"));
        named.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The ids under which it goes on for a mailbox, and where to.
    pub(super) fn sent_on(&self) -> impl Iterator<Item = (TraceId, &Address)> {
        let story = self.received().into_iter();
        story.flat_map(|story| &story.sent_on).map(|on| (on.trace, &*on.to))
    }

    /// Whether its id is this one.
    pub(super) fn is(&self, id: TraceId) -> bool {
        self.trace_id == id.to_string()
    }
}

/// A story as JSON shows it: all authors, where there are several, stand beside it.
#[derive(Serialize)]
struct Shown<'a, T> {
    #[serde(flatten)]
    story: &'a T,
    #[serde(skip_serializing_if = "<[Address]>::is_empty")]
    authors: &'a [Address],
}

fn shown<S: Serializer>(story: &Option<AnyStory>, serializer: S) -> Result<S::Ok, S::Error> {
    let several = |headers| match Headers::authors(headers) {
        [] | [_] => &[],
        several => several,
    };
    match story {
        None => serializer.serialize_none(),
        Some(AnyStory::Received(story)) => {
            Shown { story: &**story, authors: several(&story.headers) }.serialize(serializer)
        }
        Some(AnyStory::Leaving(story)) => {
            Shown { story: &**story, authors: several(&story.headers) }.serialize(serializer)
        }
        Some(AnyStory::Settled(story)) => story.serialize(serializer),
        Some(AnyStory::Own(story)) => story.serialize(serializer),
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
