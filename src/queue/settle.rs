//! What follows from an attempt: who has the message, who never will, who waits on. Pure.

use super::{Settings, schedule};
use crate::clock::Timestamp;
use crate::smtp::client::{EnhancedStatus, Failure, Outcome, Receipt, Stage};
use crate::store::{Purpose, QueueState, QueuedMail, Settled, SettledOutcome};

/// Delivery not authorized, message refused (RFC 3463 §3.8): here, by the operator.
const GIVEN_UP: EnhancedStatus = EnhancedStatus::new(5, 7, 1);
/// Other or undefined mail system status (RFC 3463 §3.4), which may pass.
const UNREADABLE: EnhancedStatus = EnhancedStatus::new(4, 3, 0);
/// How much of an outcome's words the entry keeps, in characters: a line or two.
const MAX_WORDS: usize = 200;

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The entry as it was tried.
    pub mail: QueuedMail,
    /// When.
    pub at: Timestamp,
    /// Recipients, by their place in the entry, whose server has the message now.
    pub sent: Vec<(usize, Receipt)>,
    /// Those that never get it, and why.
    pub failed: Vec<(usize, Failure)>,
    /// Those that wait on, if it is time to tell the sender so.
    pub delayed: Vec<(usize, Failure)>,
    /// Until when they are tried.
    pub delayed_until: Timestamp,
    /// How far the entry has come; `None` if nobody waits on.
    pub state: Option<QueueState>,
    /// Whether the sender is told of failures.
    pub is_told: bool,
    /// Whether an operator has given the entry up.
    pub is_given_up: bool,
}

/// The places of recipients that wait for an outcome.
pub(super) fn open_places(mail: &QueuedMail) -> Vec<usize> {
    let is_open = |place: &usize| mail.state.settled_at(*place).is_none();
    (0..mail.entry.recipients.len()).filter(is_open).collect()
}

/// What follows when the recipients that waited had these outcomes at servers that had, or had not,
/// taken mail lately. `chance` is from 0 to 1.
pub(super) fn settle(
    settings: &Settings,
    mail: QueuedMail,
    outcomes: Vec<(usize, Outcome)>,
    is_proven: bool,
    now: Timestamp,
    chance: f64,
) -> Settlement {
    let is_expired = now >= schedule::expiry(settings, mail.queued_at);
    let (mut sent, mut failed, mut deferred) = (Vec::new(), Vec::new(), Vec::new());
    for (place, outcome) in outcomes {
        match outcome {
            Outcome::Sent(receipt) => sent.push((place, receipt)),
            Outcome::Failed(failure) => failed.push((place, failure)),
            Outcome::Deferred(failure) if is_expired => failed.push((place, failure)),
            Outcome::Deferred(failure) => deferred.push((place, failure)),
        }
    }
    let settled = settled(&mail, &sent, &failed);
    let tells_delay = !mail.state.is_delay_told
        && !deferred.is_empty()
        && schedule::is_delayed(settings, mail.queued_at, now);
    let is_servers_fault = deferred.iter().all(|(_, it)| is_servers_fault(it, is_proven));
    let state = deferred.first().map(|(_, failure)| {
        let attempts = mail.state.attempts.saturating_add(1);
        QueueState {
            attempts,
            next_attempt: schedule::next_attempt(settings, mail.queued_at, attempts, now, chance),
            settled,
            is_delay_told: mail.state.is_delay_told || tells_delay,
            last_failure: Some(failure.to_string()),
            is_servers_fault,
            last_attempt: Some(now),
        }
    });
    let delayed = if tells_delay { deferred } else { Vec::new() };
    let delayed_until = schedule::expiry(settings, mail.queued_at);
    let (is_told, is_given_up) = (true, false);
    Settlement { mail, at: now, sent, failed, delayed, delayed_until, state, is_told, is_given_up }
}

/// Those that were settled before, and those that are now.
fn settled(
    mail: &QueuedMail,
    sent: &[(usize, Receipt)],
    failed: &[(usize, Failure)],
) -> Vec<Settled> {
    let words = |words: String| words.chars().take(MAX_WORDS).collect();
    let sent = sent.iter().map(|(place, receipt)| {
        let told = format!("{} ({})", receipt.reply, receipt.remote);
        Settled { place: *place, outcome: SettledOutcome::Sent(words(told)) }
    });
    let failed = failed.iter().map(|(place, failure)| {
        let told = failure.to_string();
        Settled { place: *place, outcome: SettledOutcome::Bounced(words(told)) }
    });
    mail.state.settled.iter().cloned().chain(sent).chain(failed).collect()
}

/// Whether an attempt may go better as soon as a server of the destination answers. That this
/// server cannot read a message says nothing of them; and where they take mail, what they turn
/// away is at fault itself.
fn is_servers_fault(failure: &Failure, is_proven: bool) -> bool {
    let is_ours = failure.code.is_none() && failure.enhanced == UNREADABLE;
    let is_theirs = if is_proven { failure.is_without_message() } else { failure.concerns_host() };
    is_theirs && !is_ours
}

/// What follows when an operator gives an entry up for the recipients at these places: they never
/// get it. Others wait on as before.
pub(super) fn give_up(
    mail: QueuedMail,
    places: &[usize],
    now: Timestamp,
    is_told: bool,
) -> Settlement {
    // The event of a message has this text, and no other word of what its sender knows.
    let text = match mail.entry.purpose {
        Purpose::Message if !is_told => "given up by the administrator; the sender was not told",
        Purpose::Message | Purpose::Report | Purpose::JournalRecord { .. } => {
            "given up by the administrator"
        }
    };
    let failure = own_failure(&mail, GIVEN_UP, text);
    let mut open = open_places(&mail);
    let mut failed = Vec::new();
    for place in places {
        if let Some(index) = open.iter().position(|open| open == place) {
            open.remove(index);
            failed.push((*place, failure.clone()));
        }
    }
    let rest = || QueueState { settled: settled(&mail, &[], &failed), ..mail.state.clone() };
    let state = (!open.is_empty()).then(rest);
    Settlement {
        at: now,
        sent: Vec::new(),
        failed,
        delayed: Vec::new(),
        delayed_until: now,
        state,
        is_told,
        is_given_up: true,
        mail,
    }
}

/// The outcomes of those who wait for a message that cannot be read: like any that may pass, until
/// the end of its lifetime.
pub(super) fn unreadable(mail: &QueuedMail) -> Vec<(usize, Outcome)> {
    let failure = own_failure(mail, UNREADABLE, "this server cannot read the message at present");
    let deferred = |place| (place, Outcome::Deferred(failure.clone()));
    open_places(mail).into_iter().map(deferred).collect()
}

/// A failure that no server has a part in.
fn own_failure(mail: &QueuedMail, enhanced: EnhancedStatus, text: &str) -> Failure {
    Failure {
        stage: Stage::Connect,
        code: None,
        enhanced,
        said: None,
        text: text.to_owned(),
        remote: mail.entry.destination.to_string(),
        address: None,
        maybe_delivered: false,
    }
}
