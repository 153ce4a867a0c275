//! What users' own rules do with a message that comes into their mailboxes, and where it goes on to
//! from there.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::directory::{Member, RemoteMember, Resolved};
use crate::mail::{Address, EnvelopeRecipient, body_offset, take_out};
use crate::pipeline::delivery::onward::{self, Target, Told};
use crate::pipeline::delivery::prefix::prefix;
use crate::pipeline::delivery::spread::Refused;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::OutgoingDisposition;
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::snapshot::Policy;
use crate::pipeline::facts::transaction::Addressee;
use crate::pipeline::inbound::decide::DecidedShare;
use crate::pipeline::outbound::dispatch;
use crate::rules::mailbox::{
    AppliedMailboxRule, Incoming, MAX_SECTION, MailboxOutcome, MailboxRules,
};
use crate::rules::{Withheld, may_go_on};
use crate::store::{CountAsk, Folder, MailboxOwner, Written};

/// Addresses that users' rules may send one message on to.
const MAX_TARGETS: usize = 1000;

/// Applies the rules of mailboxes to one message.
pub(in crate::pipeline) struct Sorter<'a> {
    mail: &'a Judged,
    /// Whom users are known to have written to too many of.
    refused: &'a Refused,
    /// Addresses that it goes on to so far.
    targets: Cell<usize>,
    /// Mailboxes here and addresses elsewhere that they come to.
    expanded: Cell<usize>,
    /// Whom a user's message was counted for in the user's own organization; filled in when it is
    /// first sent on there.
    inside: RefCell<Option<HashSet<Address>>>,
    /// Where fields of the content stand that pass for ours.
    forged: &'a [Range<usize>],
    /// The sender's header section without them.
    genuine: OnceCell<Cow<'a, [u8]>>,
}

/// What becomes of a message in a mailbox.
#[derive(Debug)]
pub(in crate::pipeline) struct Sorted {
    /// Where it goes, if it is kept.
    pub(in crate::pipeline) folder: Option<Folder>,
    /// Where it goes besides.
    pub(in crate::pipeline) copies: Vec<Folder>,
    /// To whom it goes on.
    pub(in crate::pipeline) targets: Vec<Target>,
    /// What the rules did, if any did something.
    pub(in crate::pipeline) ruled: Option<Ruled>,
    /// Targets outside, counted as recipients that the user writes to (guide 3416).
    pub(in crate::pipeline) counts: Vec<AskedCount>,
}

/// A count of recipients that is asked for.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct AskedCount {
    pub(in crate::pipeline) counted: Counted,
    pub(in crate::pipeline) ask: CountAsk,
}

/// For whose rule, and for which of its targets, recipients are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::pipeline) struct Counted {
    mailbox: MailboxOwner,
    target: String,
}

impl Sorted {
    /// What becomes of it where no rules are.
    fn unruled(folder: Folder) -> Self {
        let copies = Vec::new();
        let targets = Vec::new();
        let counts = Vec::new();
        Self { folder: Some(folder), copies, targets, ruled: None, counts }
    }
}

/// What the rules of a mailbox did.
#[derive(Debug)]
pub(in crate::pipeline) struct Ruled {
    /// The mailbox's primary address.
    pub(in crate::pipeline) mailbox: Address,
    /// The rules that applied, in their order.
    pub(in crate::pipeline) applied: Vec<AppliedMailboxRule>,
    /// Why the message does not go on, though a rule says so; then the mailbox keeps it.
    pub(in crate::pipeline) withheld: Option<Withheld>,
}

impl<'a> Sorter<'a> {
    pub(in crate::pipeline) fn new(
        mail: &'a Judged,
        forged: &'a [Range<usize>],
        refused: &'a Refused,
    ) -> Self {
        Self {
            mail,
            refused,
            targets: Cell::new(0),
            expanded: Cell::new(0),
            inside: RefCell::new(None),
            forged,
            genuine: OnceCell::new(),
        }
    }

    /// What the rules of a mailbox do with the message that would go into `folder`.
    pub(in crate::pipeline) fn sort(
        &self,
        share: &DecidedShare,
        member: &Member,
        came_for: &Addressee,
        folder: Folder,
    ) -> Sorted {
        let policy = self.mail.snapshot().policies.get(&share.organization().id);
        let rules =
            policy.and_then(|policy| Some((policy, policy.mailbox_rules.get(&member.name)?)));
        let Some((policy, rules)) = rules else { return Sorted::unruled(folder) };
        let organization = (&share.organization().id).into();
        let mailbox = MailboxOwner { organization, entity: member.id.clone() };
        let counts = RefCell::new(Vec::new());
        let count = |target: &Target| {
            let target_key = target.recipient.address.key();
            let counted = Counted { mailbox: mailbox.clone(), target: target_key };
            if self.refused.has_count(&counted) {
                return Err(Withheld::Quota);
            }
            let ask = match target.inside(share.organization()) {
                Some(resolved) => self.count_inside(policy, share, resolved),
                None => Some(self.count_outside(policy, &mailbox)),
            };
            counts.borrow_mut().extend(ask.map(|ask| AskedCount { counted, ask }));
            Ok(())
        };
        let outcome = self.apply(rules, share, member, came_for, folder, count);
        Sorted { counts: counts.into_inner(), ..self.sorted(outcome, share, member, came_for) }
    }

    /// Tries the rules; `count` counts whom one sends the message on to.
    fn apply(
        &self,
        rules: &MailboxRules,
        share: &DecidedShare,
        member: &Member,
        came_for: &Addressee,
        folder: Folder,
        count: impl Fn(&Target) -> Result<(), Withheld>,
    ) -> MailboxOutcome {
        let headers = self.mail.headers();
        let section = match rules.look_at_fields() {
            true => Cow::Owned(self.stored_section(share)),
            false => Cow::Borrowed(self.genuine()),
        };
        let incoming = Incoming {
            recipient: &came_for.recipient.address,
            authors: headers.authors(),
            sender: headers.sender(),
            subject: headers.subject(),
            more_subjects: headers.more_subjects(),
            header_section: &section,
            folder,
        };
        rules.apply(&incoming, |to| {
            let recipient = EnvelopeRecipient { address: to.clone(), ..came_for.recipient.clone() };
            self.may_go_on(share, &member.address)?;
            if self.targets.get() >= MAX_TARGETS {
                return Err(Withheld::TooManyTargets);
            }
            self.targets.set(self.targets.get() + 1);
            let organization = share.organization();
            let target = onward::target(self.mail, organization, &member.address, recipient)?;
            let expanded = self.expanded.get() + target.count();
            let allowed = self.mail.snapshot().settings.max_expanded_recipients;
            if self.expanded.get() > 0 && expanded > allowed {
                return Err(Withheld::TooManyTargets);
            }
            count(&target)?;
            self.expanded.set(expanded);
            Ok(())
        })
    }

    /// A recipient outside, for the user whose rule it is (guide 3416).
    fn count_outside(&self, policy: &Policy, by: &MailboxOwner) -> CountAsk {
        let one = Written { outside: 1, inside: 0 };
        dispatch::count(policy, by, one, self.mail.received_at())
    }

    /// Users of the organization, for its own user who has written the message: each once,
    /// whether the message was for them or a rule sends it on to them. What others have written is
    /// nobody's: whoever writes to a user could else use up what the user may write.
    fn count_inside(
        &self,
        policy: &Policy,
        share: &DecidedShare,
        resolved: &Resolved,
    ) -> Option<CountAsk> {
        let login = self.mail.peer().login.as_ref()?;
        if *login.organization != *share.organization().id.as_str() {
            return None;
        }
        let mut inside = self.inside.borrow_mut();
        let counted = inside.get_or_insert_with(|| self.submitted_to());
        let more: Vec<_> = resolved.addresses().filter(|it| !counted.contains(*it)).collect();
        let organization = Arc::clone(&login.organization);
        let by = MailboxOwner { organization, entity: login.id.clone() };
        let written = Written { outside: 0, inside: more.len() as u64 };
        counted.extend(more.into_iter().cloned());
        Some(dispatch::count(policy, &by, written, self.mail.received_at()))
    }

    /// The users of its author's organization whom a submitted message is for.
    fn submitted_to(&self) -> HashSet<Address> {
        let mut users = HashSet::new();
        let Road::Submitted(outgoing) = self.mail.road() else { return users };
        for to in &outgoing.recipients {
            if let OutgoingDisposition::Here = to.disposition
                && let Ok(resolved) = self.mail.snapshot().resolve(&to.recipient.address)
                && resolved.organization.id == outgoing.organization.id
            {
                users.extend(resolved.addresses().cloned());
            }
        }
        users
    }

    fn sorted(
        &self,
        outcome: MailboxOutcome,
        share: &DecidedShare,
        member: &Member,
        came_for: &Addressee,
    ) -> Sorted {
        let MailboxOutcome { folder, copies, forwards, redirects, applied, withheld } = outcome;
        let is_kept = folder.is_some() || !copies.is_empty();
        let redirected = if is_kept { Told::Nothing } else { told(came_for) };
        let forwards = forwards.into_iter().map(|to| (to, Told::Nothing));
        let targets = forwards.chain(redirects.into_iter().map(|to| (to, redirected)));
        let targets = targets.filter_map(|(address, told)| {
            let parameters = onward::parameters(self.mail, &came_for.recipient, told);
            let recipient = EnvelopeRecipient { address, parameters };
            onward::target(self.mail, share.organization(), &member.address, recipient).ok()
        });
        let targets = targets.collect();
        let ruled = (!applied.is_empty() || withheld.is_some()).then(|| Ruled {
            mailbox: member.address.clone(),
            applied,
            withheld,
        });
        Sorted { folder, copies, targets, ruled, counts: Vec::new() }
    }

    /// Where mail for a remote user goes.
    ///
    /// # Errors
    /// Why it cannot go there.
    pub(in crate::pipeline) fn route_on(
        &self,
        share: &DecidedShare,
        remote: &RemoteMember,
        came_for: &Addressee,
    ) -> Result<Target, Withheld> {
        self.may_go_on(share, &remote.address)?;
        let told = told(came_for);
        let parameters = onward::parameters(self.mail, &came_for.recipient, told);
        let recipient = EnvelopeRecipient { address: remote.forward_to.clone(), parameters };
        onward::target(self.mail, share.organization(), &remote.address, recipient)
    }

    fn may_go_on(&self, share: &DecidedShare, mailbox: &Address) -> Result<(), Withheld> {
        may_go_on(self.genuine(), mailbox, share.forwarders().len())
    }

    /// The front of what a mailbox's reader will find on top of the message: our fields, and none of
    /// the sender's that pass for ours.
    fn stored_section(&self, share: &DecidedShare) -> Vec<u8> {
        let genuine = self.genuine();
        let mut section = prefix(self.mail, share);
        let room = MAX_SECTION.saturating_sub(section.len());
        section.extend_from_slice(genuine.get(..room).unwrap_or(genuine));
        section
    }

    /// The sender's header section, in which nothing is forged.
    fn genuine(&self) -> &[u8] {
        self.genuine.get_or_init(|| {
            let content = self.mail.content();
            let section = content.get(..body_offset(content)).unwrap_or(content);
            if self.forged.is_empty() {
                return Cow::Borrowed(section);
            }
            let mut genuine = section.to_vec();
            take_out(self.forged, &mut genuine);
            Cow::Owned(genuine)
        })
    }
}

/// What the sender learns of a mailbox that a message was not kept in.
fn told(came_for: &Addressee) -> Told {
    if came_for.expanded_from.is_some() { Told::NoSuccess } else { Told::AsAsked }
}
