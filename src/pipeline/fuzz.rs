//! The fuzzers' doors: what becomes of a message's header on its way into a mailbox, and of a
//! message that a user submits.

mod submission;

use std::sync::{Arc, LazyLock};

use mail_parser::MessageParser;

use super::delivery::genuine;
use super::delivery::prefix::prefix;
use super::facts::begun::Begun;
use super::facts::headers::inspect;
use super::facts::judged::Judged;
use super::facts::road::Road;
use super::facts::snapshot::Snapshot;
use super::facts::transaction::Transaction;
use super::inbound::authenticate::Checks;
use super::inbound::decide::{Decided, decide};
use super::outbound::attachments::{Objection, objection};
use super::outbound::fixups::{Completion, fix};
use super::record::commit::blobs;
use super::{Extensions, Settings};
use crate::clock::Timestamp;
use crate::directory::{Directory, IndexedOrganization, Organization, OrganizationId, Resolved};
use crate::dns::ZoneResolver;
use crate::fuzz::{assert_field, pieces, run, with_crlf};
use crate::heavy::{Turn, Weight};
use crate::id::TraceId;
use crate::mail::{
    Address, DeliveryMarks, EnvelopeRecipient, FieldLines, MailParameters, Peer, RcptParameters,
    ReversePath, author_domains, body_offset, hidden_names,
};
use crate::store::Mail;
pub use submission::submission;

const HOSTNAME: &str = "mx.example.test";
const TRACE_ID: &str = "019b0000-0000-7000-8000-000000000000";
const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);
/// Our fields in the order of the product contract's §6.
const OURS: [&str; 6] = [
    "Return-Path",
    "Received",
    "X-SES-Spam-Verdict",
    "X-SES-Virus-Verdict",
    "Received-SPF",
    "Authentication-Results",
];

/// Names in lower case that are ours when they come from outside, results only with our name, and
/// `Delivered-To` only with a mailbox of ours.
const OURS_ALONE: [&str; 6] = [
    "authentication-results",
    "received-spf",
    "x-ms-journal-report",
    "x-wm-journal-report",
    "delivered-to",
    "x-mailweir-delivered-to",
];

/// Lines with a HELO name and a reverse-path, then a message.
///
/// Our fields stand on top, whole and untouched by what follows; below them is what was sent but
/// for fields of ours; and no reader takes a field of the sender's for our results. Submitted, it
/// is refused or leaves whole, no reader finds a blind copy's address in it, and whoever it is
/// taken to be from is its author on the way in too.
pub fn message(input: &[u8]) {
    let [envelope, text] = pieces(input);
    let content = with_crlf(text);
    assert_submitted(&content);
    assert_submittable(&content);
    let Some(decided) = decided(envelope, content.clone()) else { return };
    let (mail, shares) = decided.into_parts();
    let authors = author_domains(mail.headers().authors());
    let Road::Received(arrival) = mail.road() else { panic!("nobody has submitted it") };
    if authors.iter().any(|author| !author.is_literal()) {
        let judged = arrival.verdicts.authentication.dmarc.domain.as_deref();
        let is_judged = authors.iter().any(|author| Some(author.as_str()) == judged);
        assert!(is_judged, "rules and DMARC see different authors");
    }
    let prefix = prefix(&mail, &shares[0]);
    let stored = stored(mail);
    assert_ours(&prefix);
    assert_kept(&content, &stored);
    let whole = [prefix.as_slice(), &stored].concat();
    let mut ranges = FieldLines::new(&whole).map(|(_, range)| range);
    assert!(FieldLines::new(&prefix).all(|(_, range)| ranges.next() == Some(range)));
    assert_one_result(&whole);
}

fn assert_submitted(content: &[u8]) {
    let place = objection(content, &Extensions::default()).map(|it| Objection::place(&it));
    assert!(!place.is_some_and(|place| place.chars().any(char::is_control)));
}

fn assert_submittable(content: &[u8]) {
    let submission = Completion {
        login: &Address::parse("alice@example.test").expect("valid"),
        sender: None,
        at: NOW,
        hostname: HOSTNAME,
        trace_id: TRACE_ID.parse().expect("valid"),
    };
    let Ok(fixups) = fix(content, &submission) else { return };
    let mut left = content.to_vec();
    fixups.take_out(&mut left);
    let sent = [fixups.prefix, left].concat();
    let again = fix(&sent, &submission).expect("was taken before");
    assert!(again.prefix.is_empty() && again.keeps_content(), "needs fixing twice");
    let message = MessageParser::new().parse(&sent).expect("has a header section");
    assert!(message.bcc().is_none() && message.resent_bcc().is_none(), "a blind copy leaves");
    let has = |name: &&str| message.headers().contains(*name);
    assert!(["From", "Date", "Message-ID"].iter().all(has), "is not whole");
}

/// The content as it would be stored.
fn stored(mail: Judged) -> Vec<u8> {
    let forged = genuine::forged(&mail, &DeliveryMarks::new(&[7; 32]));
    blobs(mail.into_parts().0, &forged, vec![nobodys_mail()], Vec::new()).remove(0).content
}

/// A content is stored for somebody's mail only.
fn nobodys_mail() -> Mail {
    Mail {
        id: TraceId::generate(),
        received_at: Timestamp::from_millis(0),
        prefix: Vec::new(),
        suffix: Vec::new(),
        deliveries: Vec::new(),
        queued: Vec::new(),
    }
}

/// The message after all stages that need no store; `None` if it was refused.
fn decided(envelope: &[u8], content: Vec<u8>) -> Option<Decided> {
    let mut lines = std::str::from_utf8(envelope).unwrap_or_default().lines();
    let helo = lines.next().filter(|name| is_helo(name)).unwrap_or("client.test");
    let sender = lines.next().and_then(|line| Address::parse(line).ok());
    let mut transaction = Transaction::begin(Begun {
        trace_id: TRACE_ID.parse::<TraceId>().expect("valid"),
        snapshot: Arc::clone(&SNAPSHOT),
        peer: Peer {
            ip: "127.0.0.1".parse().expect("valid"),
            port: 45000,
            helo: helo.to_owned(),
            esmtp: true,
            tls: None,
            login: None,
        },
        reverse_path: sender.map_or(ReversePath::Null, ReversePath::Address),
        parameters: MailParameters::default(),
    });
    let organization = SNAPSHOT.directory.organizations().next().expect("there is one");
    let address = Address::parse("alice@example.test").expect("valid");
    let recipient = EnvelopeRecipient { address, parameters: RcptParameters::default() };
    let organization = Arc::clone(organization);
    let members = Arc::default();
    let remote = Arc::default();
    let resolved = Resolved { organization, expanded_from: None, members, remote };
    transaction.add(recipient, resolved);
    let headers = inspect(&Turn::of_a_test(), &content, &SNAPSHOT.settings).ok()?;
    let weight = Weight::of(&content);
    let authenticated = run(CHECKS.authenticate(transaction, content, headers, weight, NOW));
    Some(decide(authenticated))
}

/// What EHLO takes for a name.
fn is_helo(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    (1..=255).contains(&name.len()) && name.chars().all(allowed)
}

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let organization = Organization {
        id: OrganizationId::of_alias("example"),
        alias: "example".to_owned(),
        domains: vec!["example.test".parse().expect("valid")],
        plus_addressing: false,
        postmaster: "alice".into(),
        reserved: Address::parse("journal@example.test").expect("valid"),
        users: Vec::new(),
        groups: Vec::new(),
        resources: Vec::new(),
        permissions: Vec::new(),
    };
    let indexed = IndexedOrganization::new(Arc::new(organization)).expect("no conflicts");
    let directory = Directory::new(vec![indexed]).expect("no conflicts");
    let settings = Settings { hostname: HOSTNAME.to_owned(), ..Settings::default() };
    let policies = std::collections::HashMap::new();
    Arc::new(Snapshot { version: 1, directory, policies, settings, scanner: None })
});

static CHECKS: LazyLock<Checks> = LazyLock::new(|| {
    let zone = include_str!("../../fixtures/dns/demo.zone");
    let zone = ZoneResolver::parse(zone, "demo.zone".as_ref()).expect("a zone file");
    let authserv_id = HOSTNAME.to_owned();
    Checks::new(
        Arc::new(zone),
        crate::msgauth::Settings { authserv_id, ..crate::msgauth::Settings::default() },
    )
});

fn assert_ours(prefix: &[u8]) {
    let fields: Vec<_> = FieldLines::new(prefix).collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, OURS);
    fields.into_iter().for_each(|(_, range)| assert_field(&prefix[range]));
    let end = body_offset(prefix);
    assert_eq!(end, prefix.len(), "our fields are followed by nothing but an empty line");
}

/// What is stored is what was sent, less whole fields that have a name of ours.
fn assert_kept(sent: &[u8], stored: &[u8]) {
    let mut rest = stored;
    for (name, range) in FieldLines::new(sent) {
        match rest.strip_prefix(&sent[range.clone()]) {
            Some(after) => rest = after,
            None => assert!(may_be_ours(&sent[range], name), "a field of the sender's is missing"),
        }
    }
    let end = FieldLines::new(sent).last().map_or(0, |(_, range)| range.end);
    assert!(rest == &sent[end..], "the body is not what was sent");
}

/// A field that has a name of ours, or one without a proper name that some reader may take for one.
fn may_be_ours(field: &[u8], name: &[u8]) -> bool {
    let is_ours = |name: &[u8]| {
        let name = name.to_ascii_lowercase();
        name.starts_with(b"x-ses-") || OURS_ALONE.iter().any(|ours| name == ours.as_bytes())
    };
    is_ours(name) || hidden_names(name, field).any(is_ours)
}

/// A mail reader finds our results once, and first.
fn assert_one_result(whole: &[u8]) {
    let message = MessageParser::new().parse(whole).expect("has a header section");
    let results: Vec<_> = message
        .headers()
        .iter()
        .filter(|header| header.name().as_str().eq_ignore_ascii_case("Authentication-Results"))
        .map(|header| &whole[header.offset_start() as usize..header.offset_end() as usize])
        .collect();
    let ours = results.iter().filter(|value| names_us(value)).count();
    assert_eq!(ours, 1, "our results stand there once");
    assert!(names_us(results[0]), "the first results are ours");
}

/// Whether a field's value begins with our name, as a simple reader sees it.
fn names_us(value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value).trim_start().to_ascii_lowercase();
    value.strip_prefix(HOSTNAME).is_some_and(|rest| {
        rest.chars().next().is_none_or(|c| c == ';' || c == '(' || c.is_ascii_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold() {
        crate::fuzz::replay("headers", message);
    }
}
