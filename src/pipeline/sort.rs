//! What users' own rules do with a message that comes into their mailboxes, and where it goes on to
//! from there.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use super::admit::Ruled;
use super::decide::{DecidedShare, Judged};
use super::headers::prefix;
use super::onward::{self, Target, Told};
use super::outgoing;
use crate::directory::{Member, RemoteMember};
use crate::mail::{Address, EnvelopeRecipient, body_offset};
use crate::msgauth::strip_forged_fields;
use crate::rules::mailbox::{Incoming, MAX_SECTION, MailboxOutcome, MailboxRules};
use crate::rules::{Withheld, may_go_on};
use crate::store::{Folder, MailboxName, Store, UsageHold, Written};

/// Addresses that users' rules may send one message on to.
const MAX_TARGETS: usize = 1000;

/// Applies the rules of mailboxes to one message.
pub(super) struct Sorter<'a> {
    mail: &'a Judged,
    store: &'a Store,
    /// Addresses that it goes on to so far.
    targets: Cell<usize>,
    /// The sender's header section without fields that pass for ours.
    genuine: OnceCell<Cow<'a, [u8]>>,
}

/// What becomes of a message in a mailbox.
#[derive(Debug)]
pub(super) struct Sorted {
    /// Where it goes, if it is kept.
    pub(super) folder: Option<Folder>,
    /// Where it goes besides.
    pub(super) copies: Vec<Folder>,
    /// To whom it goes on.
    pub(super) targets: Vec<Target>,
    /// What the rules did, if any did something.
    pub(super) ruled: Option<Ruled>,
    /// Targets outside, counted as recipients that the user writes to (guide 3416).
    pub(super) usage: Vec<UsageHold>,
}

impl Sorted {
    /// What becomes of it where no rules are.
    fn unruled(folder: Folder) -> Self {
        let (copies, targets, usage) = (Vec::new(), Vec::new(), Vec::new());
        Self { folder: Some(folder), copies, targets, ruled: None, usage }
    }
}

impl<'a> Sorter<'a> {
    pub(super) fn new(mail: &'a Judged, store: &'a Store) -> Self {
        Self { mail, store, targets: Cell::new(0), genuine: OnceCell::new() }
    }

    /// What the rules of a mailbox do with the message that would go into `folder`.
    pub(super) fn sort(
        &self,
        share: &DecidedShare,
        member: &Member,
        came_for: &EnvelopeRecipient,
        folder: Folder,
    ) -> Sorted {
        let policy = self.mail.snapshot.policies.get(&share.organization.id);
        let rules =
            policy.and_then(|policy| Some((policy, policy.mailbox_rules.get(&member.mailbox)?)));
        let Some((policy, rules)) = rules else { return Sorted::unruled(folder) };
        let usage = RefCell::new(Vec::new());
        let count = || {
            let organization = share.organization.id.as_str().into();
            let by = MailboxName { organization, user: Arc::clone(&member.mailbox) };
            let one = Written { outside: 1, inside: 0 };
            let hold = outgoing::count(policy, &by, one, self.mail.received_at, self.store);
            usage.borrow_mut().push(hold.map_err(|_| Withheld::Quota)?);
            Ok(())
        };
        let outcome = self.apply(rules, share, member, came_for, folder, count);
        Sorted { usage: usage.into_inner(), ..self.sorted(outcome, share, member, came_for) }
    }

    /// Tries the rules; `count` counts a recipient outside.
    fn apply(
        &self,
        rules: &MailboxRules,
        share: &DecidedShare,
        member: &Member,
        came_for: &EnvelopeRecipient,
        folder: Folder,
        count: impl Fn() -> Result<(), Withheld>,
    ) -> MailboxOutcome {
        let headers = &self.mail.headers;
        let section = match rules.look_at_fields() {
            true => Cow::Owned(self.stored_section(share)),
            false => Cow::Borrowed(self.header_section()),
        };
        let incoming = Incoming {
            recipient: &came_for.address,
            authors: &headers.authors,
            sender: headers.sender.as_ref(),
            subject: headers.subject.as_deref(),
            header_section: &section,
            folder,
        };
        rules.apply(&incoming, |to| {
            let recipient = EnvelopeRecipient { address: to.clone(), ..came_for.clone() };
            self.may_go_on(share, &member.address)?;
            if self.targets.get() >= MAX_TARGETS {
                return Err(Withheld::TooManyTargets);
            }
            self.targets.set(self.targets.get() + 1);
            let organization = &share.organization;
            let target = onward::target(self.mail, organization, &member.address, recipient)?;
            if target.is_outside(organization) { count() } else { Ok(()) }
        })
    }

    fn sorted(
        &self,
        outcome: MailboxOutcome,
        share: &DecidedShare,
        member: &Member,
        came_for: &EnvelopeRecipient,
    ) -> Sorted {
        let MailboxOutcome { folder, copies, forwards, redirects, applied, withheld } = outcome;
        let is_kept = folder.is_some() || !copies.is_empty();
        let redirected = if is_kept { Told::Nothing } else { told(member.expanded_from.as_ref()) };
        let forwards = forwards.into_iter().map(|to| (to, Told::Nothing));
        let targets = forwards.chain(redirects.into_iter().map(|to| (to, redirected)));
        let targets = targets.filter_map(|(address, told)| {
            let parameters = onward::parameters(self.mail, came_for, told);
            let recipient = EnvelopeRecipient { address, parameters };
            onward::target(self.mail, &share.organization, &member.address, recipient).ok()
        });
        let targets = targets.collect();
        let ruled = (!applied.is_empty() || withheld.is_some()).then(|| Ruled {
            mailbox: member.address.clone(),
            applied,
            withheld,
        });
        Sorted { folder, copies, targets, ruled, usage: Vec::new() }
    }

    /// Where mail for a remote user goes.
    ///
    /// # Errors
    /// Why it cannot go there.
    pub(super) fn route_on(
        &self,
        share: &DecidedShare,
        remote: &RemoteMember,
        came_for: &EnvelopeRecipient,
    ) -> Result<Target, Withheld> {
        self.may_go_on(share, &remote.address)?;
        let told = told(remote.expanded_from.as_ref());
        let parameters = onward::parameters(self.mail, came_for, told);
        let recipient = EnvelopeRecipient { address: remote.forward_to.clone(), parameters };
        onward::target(self.mail, &share.organization, &remote.address, recipient)
    }

    fn may_go_on(&self, share: &DecidedShare, mailbox: &Address) -> Result<(), Withheld> {
        may_go_on(self.header_section(), mailbox, share.forwarders.len())
    }

    /// The front of what a mailbox's reader will find on top of the message: our fields, and none of
    /// the sender's that pass for ours.
    fn stored_section(&self, share: &DecidedShare) -> Vec<u8> {
        let hostname = &self.mail.snapshot.settings.hostname;
        let genuine =
            self.genuine.get_or_init(|| strip_forged_fields(self.header_section(), hostname));
        let mut section = prefix(self.mail, share);
        let room = MAX_SECTION.saturating_sub(section.len());
        section.extend_from_slice(genuine.get(..room).unwrap_or(genuine));
        section
    }

    fn header_section(&self) -> &'a [u8] {
        let content = &self.mail.content;
        content.get(..body_offset(content)).unwrap_or(content)
    }
}

/// What the sender learns of a mailbox that a message was not kept in.
fn told(expanded_from: Option<&Address>) -> Told {
    if expanded_from.is_some() { Told::NoSuccess } else { Told::AsAsked }
}
