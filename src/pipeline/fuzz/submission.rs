//! The fuzzers' door: a message that a user submits, until it is ready to leave.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use mail_parser::{AddressList, Header, Message, MessageParser};

use super::{HOSTNAME, NOW, TRACE_ID, assert_one_result, stored};
use crate::directory::{
    AccessRules, Directory, EntityState, Group, IndexedOrganization, Organization, OrganizationId,
    Permission, User,
};
use crate::dns::ZoneResolver;
use crate::domains::{DomainKeys, keys_of, make_keys, use_next_keys};
use crate::fuzz::{assert_field, pieces, run, scratch, with_crlf};
use crate::heavy::{Turn, Weight};
use crate::id::{EntityId, EntityKind};
use crate::mail::{
    Address, Domain, EnvelopeRecipient, FieldLines, Login, MailParameters, Peer, RcptParameters,
    ReversePath,
};
use crate::msgauth::{self, Authenticator, DkimResult, Request, SignError};
use crate::pipeline::delivery::prefix::prefix;
use crate::pipeline::delivery::sign::Top;
use crate::pipeline::facts::begun::Begun;
use crate::pipeline::facts::judged::Judged;
use crate::pipeline::facts::outgoing::{Outgoing, OutgoingDisposition};
use crate::pipeline::facts::road::Road;
use crate::pipeline::facts::snapshot::{Policy, Snapshot};
use crate::pipeline::inbound::authenticate::Authenticated;
use crate::pipeline::inbound::decide::{DecidedShare, decide};
use crate::pipeline::outbound::dispatch::{Dispatched, dispatch};
use crate::pipeline::outbound::submission::{Submission, compose};
use crate::pipeline::{RecipientQuotas, Settings};
use crate::rules::{OutboundAction, Pattern, Rule, RuleSet};
use crate::smtp::reason::Reason;
use crate::store::{self, Destination, DomainKeyFolder, Store};

const DOMAIN: &str = "example.test";
/// Addresses of the user who submits; mail for `postmaster` is hers as well.
const OWN: [&str; 3] = ["alice@example.test", "al@example.test", "postmaster@example.test"];
/// In whose name she may write, if she says that it is her.
const ON_BEHALF: &str = "bob@example.test";
/// In whose name she may write.
const AS: &str = "team@example.test";
/// Recipients outside that she may have.
const QUOTA: u64 = 5;

/// Lines with a reverse-path (empty, the null path) and recipients, then a message.
///
/// It is refused, or nobody gets it, or each recipient has the one way that the rules say. What
/// leaves names only authors whom the user may write as, is whole, has no blind copies, and its
/// signatures verify; what stays has results of ours alone.
pub fn submission(input: &[u8]) {
    let [envelope, text] = pieces(input);
    let Some(submission) = begun(std::str::from_utf8(envelope).unwrap_or_default()) else { return };
    let recipients: Vec<Address> =
        submission.recipients().iter().map(|it| it.recipient().address.clone()).collect();
    let turn = Turn::of_a_test();
    let Ok(composed) = compose(&turn, submission, with_crlf(text), NOW) else { return };
    let veto = composed.message().veto.as_ref().map(|veto| veto.reason);
    let dispatched = dispatch(&turn, composed, &WORLD.store);
    assert_ways(&dispatched, &recipients, veto);
    let (mail, shares) = decide(Authenticated::submitted(dispatched)).into_parts();
    let Road::Submitted(outgoing) = mail.road() else { panic!("was submitted") };
    if outgoing.leaves() {
        match Top::of(&turn, &mail, &WORLD.keys) {
            Ok(top) => assert_leaves(top.fields(), mail.content()),
            Err(SignError::TooManyFields) => return,
            Err(error) => panic!("{error}"),
        }
    }
    if let Some(share) = shares.first() {
        assert_stays(mail, share);
    }
}

/// What the session would have begun; `None` for a reverse-path that the user may not use.
fn begun(envelope: &str) -> Option<Submission> {
    let mut lines = envelope.lines();
    let reverse_path = match lines.next().unwrap_or_default() {
        "" => ReversePath::Null,
        text => ReversePath::Address(Address::parse(text).ok()?),
    };
    let organization = OrganizationId::of_alias("example");
    let login = Login {
        organization: (&organization).into(),
        id: EntityId::of_first(EntityKind::User, organization.as_str(), "alice"),
        user: "alice".into(),
        token: None,
    };
    let (id, snapshot) = (TRACE_ID.parse().expect("valid"), Arc::clone(&WORLD.snapshot));
    let (peer, parameters) = (peer(&login), MailParameters::default());
    let mut submission =
        Submission::begin(Begun { trace_id: id, snapshot, peer, reverse_path, parameters }, &login)
            .ok()?;
    for address in lines.filter_map(|line| Address::parse(line).ok()) {
        let parameters = RcptParameters::default();
        match submission.add(EnvelopeRecipient { address, parameters }) {
            // What leads nowhere is refused at RCPT, and the client goes on.
            Ok(()) | Err(_) => {}
        }
    }
    (!submission.recipients().is_empty()).then_some(submission)
}

fn peer(login: &Login) -> Peer {
    Peer {
        ip: "127.0.0.1".parse().expect("valid"),
        port: 45000,
        helo: "client.test".to_owned(),
        esmtp: true,
        tls: Some("TLSv1.3".to_owned()),
        login: Some(login.clone()),
    }
}

/// Every recipient goes one way, the one that rules and quotas say.
fn assert_ways(dispatched: &Dispatched, recipients: &[Address], veto: Option<Reason>) {
    let Road::Submitted(outgoing) = dispatched.mail().road() else { panic!("was submitted") };
    let shares = dispatched.shares();
    let outside = recipients.iter().filter(|address| address.domain().as_str() != DOMAIN).count();
    let veto = veto.or((outside as u64 > QUOTA).then_some(Reason::UserQuotaExceeded));
    let found: Vec<_> = outgoing.recipients.iter().map(|known| &known.disposition).collect();
    let expected: Vec<_> = recipients.iter().map(|address| way(address, veto)).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    let here = expected.iter().filter(|way| **way == OutgoingDisposition::Here).count();
    assert_eq!(shares.iter().map(|share| share.addressees.len()).sum::<usize>(), here);
    assert!(shares.iter().all(|share| share.trace_id != outgoing.trace_id));
    assert_entries(outgoing);
}

fn way(address: &Address, veto: Option<Reason>) -> OutgoingDisposition {
    match (veto, address.domain().as_str()) {
        (Some(reason), _) => OutgoingDisposition::Bounce(reason),
        (None, DOMAIN) => OutgoingDisposition::Here,
        (None, "drop.test") => OutgoingDisposition::Drop,
        (None, "bounce.test") => OutgoingDisposition::Bounce(Reason::OutboundRuleBounce),
        (None, "gateway.test") => OutgoingDisposition::Queue(Destination::Gateway("filter".into())),
        (None, _) => OutgoingDisposition::Queue(Destination::Domain(address.domain().clone())),
    }
}

/// One entry for each destination; whoever it leaves for is in one of them, once.
fn assert_entries(outgoing: &Outgoing) {
    let entries = outgoing.entries();
    let queued = |known: &Destination| {
        let to = OutgoingDisposition::Queue(known.clone());
        outgoing
            .recipients
            .iter()
            .filter(|it| it.disposition == to)
            .map(|it| &it.recipient)
            .collect::<Vec<_>>()
    };
    for (place, entry) in entries.iter().enumerate() {
        assert!(entries[..place].iter().all(|other| other.destination != entry.destination));
        assert_eq!(entry.recipients.iter().collect::<Vec<_>>(), queued(&entry.destination));
    }
    let leave = |it: &OutgoingDisposition| matches!(it, OutgoingDisposition::Queue(_));
    let leaving = outgoing.recipients.iter().filter(|it| leave(&it.disposition)).count();
    assert_eq!(entries.iter().map(|entry| entry.recipients.len()).sum::<usize>(), leaving);
}

/// What leaves is whole, by an author who may be named, and signed by both keys.
fn assert_leaves(prefix: &[u8], content: &[u8]) {
    let mut whole = [prefix, content].concat();
    // The client ends the last line (RFC 5321 §4.1.1.4).
    if !whole.ends_with(b"\r\n") {
        whole.extend_from_slice(b"\r\n");
    }
    for line in whole.split_inclusive(|octet| *octet == b'\n') {
        // RFC 5322 §2.1.1, with its CR LF.
        assert!(line.len() <= 1000, "a line of {} octets leaves", line.len());
    }
    let mut ranges = FieldLines::new(&whole).map(|(_, range)| range);
    for (_, range) in FieldLines::new(prefix) {
        assert_eq!(ranges.next(), Some(range.clone()), "our fields go on in the sender's");
        assert_field(&prefix[range]);
    }
    let message = MessageParser::new().parse(&whole).expect("has a header section");
    assert!(message.bcc().is_none() && message.resent_bcc().is_none(), "a blind copy leaves");
    for (name, most) in [("From", 1), ("Date", usize::MAX), ("Message-ID", usize::MAX)] {
        let is_it = |header: &Header<'_>| header.name().as_str().eq_ignore_ascii_case(name);
        let count = message.headers().iter().filter(is_it).count();
        assert!((1..=most).contains(&count), "{count} of {name}");
    }
    assert_author(&message);
    assert_signed(&whole);
}

/// Whoever a reader takes it to be from has let the user write as that.
fn assert_author(message: &Message<'_>) {
    let keys = |addresses: &[&str]| -> BTreeSet<String> {
        addresses.iter().map(|text| Address::parse(text).expect("an address").key()).collect()
    };
    let read = |list: Option<AddressList<'_>>| -> BTreeSet<String> {
        let list = list.expect("is there");
        let texts: Vec<_> = list.mailboxes().filter_map(|it| it.address()).collect();
        keys(&texts)
    };
    let authors = read(message.from());
    let allowed = keys(&[OWN[0], OWN[1], OWN[2], ON_BEHALF, AS]);
    assert!(!authors.is_empty() && authors.is_subset(&allowed), "{authors:?}");
    if authors.contains(ON_BEHALF) {
        assert!(read(message.sender()).is_subset(&keys(&OWN)), "not said to be on behalf");
    }
}

fn assert_signed(whole: &[u8]) {
    let id = EntityId::of_first(EntityKind::User, "", "");
    let login = Login { organization: "".into(), id, user: "".into(), token: None };
    let request = Request {
        message: whole,
        weight: Weight::of(whole),
        peer: &peer(&login),
        reverse_path: &ReversePath::Null,
        authors: &[],
        trace_id: TRACE_ID.parse().expect("valid"),
        now: NOW,
    };
    let found = run(WORLD.authenticator.authenticate(&request));
    let passed = found
        .dkim
        .iter()
        .filter(|signature| signature.result == DkimResult::Pass && signature.domain == DOMAIN);
    let selectors: BTreeSet<_> = passed.map(|signature| signature.selector.as_str()).collect();
    assert!(selectors.is_superset(&BTreeSet::from(["mw1e", "mw1r"])), "{:?}", found.dkim);
}

/// What stays here says that the user was known, and nothing else says so.
fn assert_stays(mail: Judged, share: &DecidedShare) {
    let prefix = prefix(&mail, share);
    let stored = stored(mail);
    assert_one_result(&[prefix, stored].concat());
}

/// What does not change from input to input.
struct World {
    snapshot: Arc<Snapshot>,
    store: Arc<Store>,
    keys: DomainKeys,
    authenticator: Authenticator,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let dir = scratch("submission");
    let settings = store::Settings::new(dir.clone());
    let store = Store::open(&settings, &crate::events::Settings::default()).expect("opens");
    let folder = DomainKeyFolder::open(&settings).expect("opens");
    let domain = Domain::parse(DOMAIN).expect("a domain");
    make_keys(&folder, &domain).expect("makes");
    let keys = keys_of(&folder, &domain).expect("reads");
    let selectors: Vec<_> = keys.iter().map(|key| key.selector.clone()).collect();
    use_next_keys(&folder, &domain, &selectors).expect("uses");
    let lines = keys.into_iter().map(|key| {
        let record = key.key.record();
        let strings: Vec<_> = record.as_bytes().chunks(200).map(String::from_utf8_lossy).collect();
        format!("{}._domainkey.{DOMAIN}. 60 IN TXT \"{}\"\n", key.selector, strings.join("\" \""))
    });
    let zone = ZoneResolver::parse(&lines.collect::<String>(), "keys".as_ref()).expect("a zone");
    let keys = DomainKeys::load(&settings).expect("loads");
    // Nothing is written any more.
    std::fs::remove_dir_all(dir).expect("is there");
    let authenticator = Authenticator::new(Arc::new(zone), msgauth::Settings::default());
    World { snapshot: Arc::new(snapshot()), store, keys, authenticator }
});

fn snapshot() -> Snapshot {
    let organization = organization();
    let policies = HashMap::from([(organization.id.clone(), policy())]);
    let indexed = IndexedOrganization::new(Arc::new(organization)).expect("no conflicts");
    let directory = Directory::new(vec![indexed]).expect("no conflicts");
    let settings = Settings { hostname: HOSTNAME.to_owned(), ..Settings::default() };
    Snapshot { version: 1, directory, policies, settings, scanner: None }
}

fn organization() -> Organization {
    let address = |text: &str| Address::parse(text).expect("an address");
    let organization = OrganizationId::of_alias("example");
    let id = |name: &str| EntityId::of_first(EntityKind::User, organization.as_str(), name);
    let user = |name: &str, aliases: &[&str]| User {
        id: id(name),
        name: name.into(),
        email: address(&format!("{name}@{DOMAIN}")),
        aliases: aliases.iter().map(|alias| address(alias)).collect(),
        state: EntityState::Enabled,
        quota_mb: 1,
    };
    let grant = |owner: &str, send_as: bool| Permission {
        owner: owner.into(),
        grantee: "alice".into(),
        full_access: false,
        send_as,
        send_on_behalf: !send_as,
    };
    Organization {
        id: organization.clone(),
        alias: "example".to_owned(),
        domains: vec![DOMAIN.parse().expect("a domain")],
        plus_addressing: false,
        postmaster: "alice".into(),
        reserved: address("journal@example.test"),
        users: vec![user("alice", &[OWN[1]]), user("bob", &[]), user("carol", &[])],
        groups: vec![Group {
            id: id("team"),
            name: "team".into(),
            email: address(AS),
            aliases: Vec::new(),
            members: vec!["alice".into(), "bob".into()],
            is_enabled: true,
        }],
        resources: Vec::new(),
        permissions: vec![grant("bob", false), grant("team", true)],
    }
}

fn policy() -> Policy {
    let rule = |to: &str, action: OutboundAction| Rule {
        name: to.replace('.', "-").into(),
        action,
        senders: vec![Pattern::parse("*").expect("a pattern")],
        destinations: vec![Pattern::parse(to).expect("a pattern")],
    };
    let gateway = OutboundAction::RouteToSmtpGateway { gateway: "filter".into() };
    let rules = RuleSet::new(vec![
        rule("drop.test", OutboundAction::Drop),
        rule("bounce.test", OutboundAction::Bounce),
        rule("gateway.test", gateway),
    ]);
    Policy {
        rules: Arc::default(),
        outbound_rules: Arc::new(rules.expect("rules")),
        gateways: HashMap::new(),
        mailbox_rules: Arc::default(),
        blocked_attachments: Arc::default(),
        recipient_quotas: RecipientQuotas {
            per_user: QUOTA,
            per_organization: QUOTA,
            ..RecipientQuotas::default()
        },
        journaling: None,
        dmarc_enforcement: true,
        on_reject: None,
        access: Arc::new(AccessRules::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_hold() {
        crate::fuzz::replay("submission", submission);
    }
}
