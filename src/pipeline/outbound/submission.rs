//! A mail transaction of a user who has logged in, and what is found out about its message before
//! anything is decided: who wrote it, by what right, and whether it may leave at all.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::directory::{Organization, ResolveError, Resolved, SendRight};
use crate::heavy::Turn;
use crate::id::TraceId;
use crate::mail::{
    Address, AuthorFields, Authors, EnvelopeRecipient, FieldLines, Login, Peer, ReversePath,
    names_nobody,
};
use crate::pipeline::facts::begun::Begun;
use crate::pipeline::facts::completed::Completed;
use crate::pipeline::facts::headers::{self, Headers};
use crate::pipeline::facts::rejection::Rejection;
use crate::pipeline::facts::snapshot::Policy;
use crate::pipeline::facts::transaction::{ExpansionLimit, reason_of};
use crate::pipeline::outbound::attachments::{self, Objection};
use crate::pipeline::outbound::fixups;
use crate::pipeline::outbound::long_lines::{self, LongLine};
use crate::smtp::reason::Reason;

/// From MAIL to the message or its end; keeps the snapshot that it began with.
#[derive(Debug)]
pub struct Submission {
    begun: Begun,
    organization: Arc<Organization>,
    login: Login,
    /// The user's own address.
    email: Address,
    recipients: Vec<SubmittedRecipient>,
    expansion: ExpansionLimit,
}

/// A recipient and where it leads.
#[derive(Debug)]
pub(in crate::pipeline) struct SubmittedRecipient {
    recipient: EnvelopeRecipient,
    way: Way,
}

/// Where a recipient leads, before any rule.
#[derive(Debug)]
pub(in crate::pipeline) enum Way {
    /// To users of an organization here.
    Here(Resolved),
    /// To another server.
    Elsewhere,
}

impl Submission {
    /// Begins a transaction, if the user may use this reverse-path.
    ///
    /// # Errors
    /// [`Reason::SenderNotAllowed`], or [`Reason::ReservedAddress`], which is nobody's
    pub(in crate::pipeline) fn begin(begun: Begun, login: &Login) -> Result<Self, Reason> {
        let directory = &begun.snapshot.directory;
        let path = &begun.reverse_path;
        if path.address().is_some_and(|path| directory.is_reserved(path)) {
            return Err(Reason::ReservedAddress);
        }
        if let Err(denied) = directory.may_use_reverse_path(&login.organization, &login.id, path) {
            tracing::info!(trace_id = %begun.trace_id, user = %login.user, %denied,
                "MAIL is refused");
            return Err(Reason::SenderNotAllowed);
        }
        let (organization, user) = directory
            .sender(&login.organization, &login.id)
            .map_err(|_| Reason::SenderNotAllowed)?;
        let (organization, email) = (Arc::clone(organization), user.email.clone());
        let login = login.clone();
        let expansion = ExpansionLimit::default();
        Ok(Self { begun, organization, login, email, recipients: Vec::new(), expansion })
    }

    pub(in crate::pipeline) fn trace_id(&self) -> TraceId {
        self.begun.trace_id
    }

    pub(in crate::pipeline) fn peer(&self) -> &Peer {
        &self.begun.peer
    }

    pub(in crate::pipeline) fn reverse_path(&self) -> &ReversePath {
        &self.begun.reverse_path
    }

    pub(in crate::pipeline) fn organization(&self) -> &Arc<Organization> {
        &self.organization
    }

    pub(in crate::pipeline) fn login(&self) -> &Login {
        &self.login
    }

    pub(in crate::pipeline) fn recipients(&self) -> &[SubmittedRecipient] {
        &self.recipients
    }

    /// What MAIL began, the user's own address, and the recipients.
    pub(in crate::pipeline) fn into_parts(self) -> (Begun, Address, Vec<SubmittedRecipient>) {
        (self.begun, self.email, self.recipients)
    }

    /// Adds a recipient; the same address twice counts once.
    ///
    /// # Errors
    /// Why an address here leads nowhere.
    pub(in crate::pipeline) fn add(&mut self, recipient: EnvelopeRecipient) -> Result<(), Reason> {
        self.expansion.check_open()?;
        let way = match self.begun.snapshot.resolve(&recipient.address) {
            Ok(resolved) => {
                let so_far = self.expanded();
                self.expansion.check(so_far, &resolved, &self.begun.snapshot.settings)?;
                Way::Here(resolved)
            }
            Err(ResolveError::NotOurDomain) => Way::Elsewhere,
            Err(error) => return Err(reason_of(&error)),
        };
        let address = &recipient.address;
        let has_key = |known: &SubmittedRecipient| known.recipient.address.has_key_of(address);
        if !self.recipients.iter().any(has_key) {
            self.recipients.push(SubmittedRecipient { recipient, way });
        }
        Ok(())
    }

    /// The mailboxes and addresses elsewhere that its recipients lead to so far.
    pub(in crate::pipeline) fn expanded(&self) -> usize {
        let length = |way: &Way| match way {
            Way::Here(resolved) => resolved.count(),
            Way::Elsewhere => 1,
        };
        self.recipients.iter().map(|recipient| length(&recipient.way)).sum()
    }

    /// What the user's organization wants.
    pub(in crate::pipeline) fn policy(&self) -> Option<&Policy> {
        self.begun.snapshot.policies.get(&self.organization.id)
    }
}

impl SubmittedRecipient {
    #[cfg(any(test, fuzzing))]
    pub(in crate::pipeline) fn recipient(&self) -> &EnvelopeRecipient {
        &self.recipient
    }

    pub(in crate::pipeline) fn way(&self) -> &Way {
        &self.way
    }

    pub(in crate::pipeline) fn into_parts(self) -> (EnvelopeRecipient, Way) {
        (self.recipient, self.way)
    }
}

/// A message that a user sends, whole as RFC 6409 wants it, and whether anything speaks against
/// it. Nothing but this file makes one.
#[derive(Debug)]
pub(in crate::pipeline) struct Composed {
    submission: Submission,
    message: Completed,
}

impl Composed {
    pub(in crate::pipeline) fn submission(&self) -> &Submission {
        &self.submission
    }

    #[cfg(any(test, fuzzing))]
    pub(in crate::pipeline) fn message(&self) -> &Completed {
        &self.message
    }

    pub(in crate::pipeline) fn into_parts(self) -> (Submission, Completed) {
        (self.submission, self.message)
    }
}

/// Completes a message and finds out whether its author may send it.
///
/// # Errors
/// What no server takes from anybody: loops, too many attachments, header sections and authors
/// that readers do not agree on, lines that are too long and stay so.
pub(in crate::pipeline) fn compose(
    turn: &Turn,
    submission: Submission,
    mut content: Vec<u8>,
    now: Timestamp,
) -> Result<Composed, Rejection> {
    let inspected = headers::inspect(turn, &content, &submission.begun.snapshot.settings)?;
    // Unlike on the way in, a Sender field that cannot be read is not passed over: nobody could say
    // whom it names.
    let written_sender = AuthorFields::of(&content).sender().map_err(headers::reason_of)?;
    let right = submission.may_send(inspected.authors(), written_sender.as_ref());
    let right = right.and_then(|right| submission.may_resend(&content).map(|()| right));
    let sender = match &right {
        Ok(SendRight::OnBehalf { sender, .. }) if written_sender.is_none() => Some(sender),
        _ => None,
    };
    let completion = fixups::Completion {
        login: &submission.email,
        sender,
        at: now,
        hostname: &submission.begun.snapshot.settings.hostname,
        trace_id: submission.begun.trace_id,
    };
    let mut fixups = fixups::fix(&content, &completion)?;
    let veto = right.err().map(Rejection::from).or_else(|| submission.blocked(&content));
    long_lines::take_out_and_mend(&mut content, &mut fixups)
        .map_err(|LongLine(line)| Rejection::at(Reason::LongLine, format!("line {line}")))?;
    let headers = completed(turn, inspected, &fixups.prefix, &submission);
    let added = fixups.prefix;
    let submitted_at = now;
    let message = Completed { content, added, headers, submitted_at, veto };
    Ok(Composed { submission, message })
}

impl Submission {
    /// Who says nothing of an author writes as the login's own address, which is put in.
    fn may_send(&self, authors: &[Address], sender: Option<&Address>) -> Result<SendRight, Reason> {
        let Login { organization, id, user, .. } = &self.login;
        let own = std::slice::from_ref(&self.email);
        let authors = if authors.is_empty() { own } else { authors };
        let right = self.begun.snapshot.directory.may_send(organization, id, authors, sender);
        right.map_err(|denied| {
            tracing::info!(trace_id = %self.begun.trace_id, user = %user, %denied, "a message is refused");
            Reason::SenderNotAllowed
        })
    }

    /// Whoever sends again what was sent before says so with an address of the user's own, or of
    /// somebody the user may send as (RFC 5322 §3.6.6: the fields mean what `From` and `Sender` do).
    /// What only a lenient reader takes for one of them is refused where the message is completed.
    fn may_resend(&self, content: &[u8]) -> Result<(), Reason> {
        for (name, range) in FieldLines::new(content) {
            let field = content.get(range).unwrap_or_default();
            let is_one =
                fixups::RESENT.iter().any(|resent| name.eq_ignore_ascii_case(resent.as_bytes()));
            if !is_one || names_nobody(field) {
                continue;
            }
            let named = Authors::of_field(field).map_err(headers::reason_of)?;
            self.may_send(named.addresses(), None)?;
        }
        Ok(())
    }

    fn blocked(&self, content: &[u8]) -> Option<Rejection> {
        let objection = attachments::objection(content, &self.policy()?.blocked_attachments)?;
        let reason = match objection {
            Objection::Blocked { .. } => Reason::BlockedAttachment,
            Objection::Malformed { .. } => Reason::MalformedMime,
        };
        Some(Rejection::at(reason, objection.place()))
    }
}

/// The headers with what was added.
fn completed(turn: &Turn, headers: Headers, added: &[u8], submission: &Submission) -> Headers {
    let settings = &submission.begun.snapshot.settings;
    match headers::inspect(turn, added, settings) {
        Ok(fields) => headers.completed(fields),
        Err(_) => headers,
    }
}
