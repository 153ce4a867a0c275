//! The path as a whole, where no stage alone shows what is meant.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::delivery::onward::Keys;
use super::delivery::spread::{self, Refused};
use super::facts::judged::Judged;
use super::facts::verdicts::Verdicts;
use super::inbound::decide::DecidedShare;
use super::login::Logins;
use super::snapshot::Policy;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::directory::{
    Directory, EntityState, Group, IndexedOrganization, Organization, OrganizationId, User,
};
use crate::dns::ZoneResolver;
use crate::events::audit::ArnSettings;
use crate::heavy::Way;
use crate::id::{EntityId, EntityKind};
use crate::mail::RcptParameters;
use crate::mail::{DeliveryMarks, Domain};
use crate::msgauth::DmarcResult;
use crate::rules::RuleSet;
use crate::rules::mailbox::{MailboxAction, MailboxRule, MailboxRules};
use crate::store::{CountAsk, CredentialStore, RoomAsk, UsageExceeded, UsageLimits, Written};

const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);
/// One more than a message may have without a way of its own.
const MANY: usize = 101;

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

/// The id of whoever has a name first in the organization.
fn id(name: &str) -> EntityId {
    EntityId::of_first(EntityKind::User, OrganizationId::of_alias("example").as_str(), name)
}

fn user(name: &str) -> User {
    let email = Address::from_parts(name, "example.test").expect("an address");
    let aliases = Vec::new();
    let (id, name, state) = (id(name), name.into(), EntityState::Enabled);
    User { id, name, email, aliases, state, quota_mb: 1 }
}

/// Alice, whose mail is forwarded to all; Bob, whose mail is his; and all.
fn snapshot() -> Snapshot {
    let others: Vec<_> = (0..MANY).map(|number| format!("u{number}")).collect();
    let names = ["alice", "bob"].into_iter().chain(others.iter().map(String::as_str));
    let organization = Organization {
        id: OrganizationId::of_alias("example"),
        alias: "example".into(),
        domains: vec!["example.test".parse().expect("a domain")],
        plus_addressing: false,
        postmaster: "alice".into(),
        reserved: address("journal@example.test"),
        users: names.map(user).collect(),
        groups: vec![Group {
            id: id("all"),
            name: "all".into(),
            email: address("all@example.test"),
            aliases: vec![],
            members: others.iter().map(|name| name.as_str().into()).collect(),
            is_enabled: true,
        }],
        resources: vec![],
        permissions: vec![],
    };
    let forward = MailboxRule {
        name: "to all".into(),
        conditions: Vec::new(),
        action: MailboxAction::Forward(address("all@example.test")),
        stop: false,
    };
    let rules = Arc::new(MailboxRules::new(vec![forward]).expect("is right"));
    let policy = Policy {
        rules: Arc::new(RuleSet::default()),
        outbound_rules: Arc::default(),
        gateways: HashMap::new(),
        mailbox_rules: Arc::new(HashMap::from([("alice".into(), rules)])),
        blocked_attachments: Arc::default(),
        recipient_quotas: RecipientQuotas::default(),
        journaling: None,
        dmarc_enforcement: true,
        on_reject: None,
        access: Arc::default(),
    };
    let policies = HashMap::from([(organization.id.clone(), policy)]);
    let indexed = IndexedOrganization::new(Arc::new(organization)).expect("no conflicts");
    let directory = Directory::new(vec![indexed]).expect("no conflicts");
    Snapshot { version: 1, directory, policies, settings: Settings::default(), scanner: None }
}

fn pipeline(dir: &std::path::Path) -> Pipeline {
    let events = crate::events::Settings::default();
    let settings = crate::store::Settings::new(dir.join("data"));
    let store = Store::open(&settings, &events).expect("opens");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
    let audit = AuditLog::open(&dir.join("audit"), events, ArnSettings::default());
    let audit = Arc::new(audit.expect("opens"));
    let credentials = Arc::new(CredentialStore::open(&settings.data_dir).expect("opens"));
    let parts = Parts {
        store,
        logins: Logins::new(credentials, Arc::clone(&audit), Arc::clone(&clock)),
        audit,
        domain_keys: Arc::new(DomainKeys::load(&settings).expect("loads")),
        refusals: RefusalLog::open(&dir.join("refusals")).expect("opens"),
        mail_log: Arc::new(MailLogWriter::start().expect("a thread")),
    };
    let zone = ZoneResolver::parse("", "none.zone".as_ref()).expect("a zone file");
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot()));
    Pipeline::new(snapshot, Arc::new(zone), crate::msgauth::Settings::default(), parts, clock)
}

/// What becomes of a message from somebody outside.
async fn sent(pipeline: &Pipeline, to: &str) -> Result<(), Reason> {
    let peer = Peer {
        ip: "192.0.2.1".parse().expect("an address"),
        port: 40_000,
        helo: "client.test".into(),
        esmtp: true,
        tls: None,
        login: None,
    };
    let sender = ReversePath::Address(address("carol@good.test"));
    let begun = pipeline.mail(TraceId::generate(), &peer, sender, MailParameters::default()).await;
    let mut transaction = begun.map_err(|refusal| refusal.reason)?;
    let parameters = RcptParameters::default();
    let recipient = EnvelopeRecipient { address: address(to), parameters };
    let added = pipeline.rcpt(&mut transaction, recipient).await;
    added.map_err(|refusal| refusal.reason)?;
    let content = b"From: carol@good.test\r\nSubject: x\r\n\r\nx\r\n".to_vec();
    let accepted = pipeline.message(transaction, content).await;
    accepted.map(drop).map_err(|refused| refused.refusal.reason)
}

type Waiting = Pin<Box<dyn Future<Output = Result<Way<'static>, NoWay>>>>;

/// All deliveries that may be on their way at once, and all that may wait for them.
fn all_ways() -> Vec<(Waiting, Poll<Result<Way<'static>, NoWay>>)> {
    let mut all = Vec::new();
    loop {
        let mut way: Waiting = Box::pin(heavy::way_to(usize::MAX));
        let polled = way.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if matches!(polled, Poll::Ready(Err(NoWay))) {
            return all;
        }
        all.push((way, polled));
    }
}

/// How many mailboxes a message comes to shows where those of its recipients send it on.
#[tokio::test]
async fn a_message_that_is_sent_on_to_many_waits_for_its_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipeline = pipeline(dir.path());
    let ways = all_ways();
    assert_eq!(sent(&pipeline, "all@example.test").await, Err(Reason::Overloaded));
    assert_eq!(sent(&pipeline, "alice@example.test").await, Err(Reason::Overloaded));
    assert_eq!(sent(&pipeline, "bob@example.test").await, Ok(()), "a few need none");
    drop(ways);
    assert_eq!(sent(&pipeline, "all@example.test").await, Ok(()));
    assert_eq!(sent(&pipeline, "alice@example.test").await, Ok(()));
    let used = |user: &str| {
        let organization = OrganizationId::of_alias("example").as_str().into();
        let owner = MailboxOwner { organization, entity: id(user) };
        pipeline.store.mailbox(&owner).expect("is there").used_bytes()
    };
    assert!(used("u0") > used("alice"), "both, and the first only one");
}

/// A message from Bob, who has logged in.
async fn begun(pipeline: &Pipeline) -> MailTransaction {
    let organization = OrganizationId::of_alias("example").as_str().into();
    let login = Login { organization, id: id("bob"), user: "bob".into(), token: None };
    let peer = Peer {
        ip: "192.0.2.1".parse().expect("an address"),
        port: 40_000,
        helo: "client.test".into(),
        esmtp: true,
        tls: Some("TLSv1.3".into()),
        login: Some(login),
    };
    let sender = ReversePath::Address(address("bob@example.test"));
    let begun = pipeline.mail(TraceId::generate(), &peer, sender, MailParameters::default()).await;
    let mut transaction = begun.expect("may begin");
    let parameters = RcptParameters::default();
    let recipient = EnvelopeRecipient { address: address("dan@far.test"), parameters };
    pipeline.rcpt(&mut transaction, recipient).await.expect("may be named");
    transaction
}

/// It is taken apart to look for names of files, which costs far more than its octets say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_takes_long_to_look_into_waits_for_its_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipeline = pipeline(dir.path());
    let refused = "From: bob@example.test\r\nFrom: bob@example.test\r\n\r\n";
    let all = heavy::all_turns().await;
    for (body, waits) in [(100, false), (9000, true)] {
        let content = format!("{refused}{}", "x\r\n".repeat(body / 3)).into_bytes();
        let transaction = begun(&pipeline).await;
        let mut answer = Box::pin(pipeline.message(transaction, content));
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(Err(refusal)) => {
                assert!(!waits, "of {body} octets");
                assert_eq!(refusal.refusal.reason, Reason::SeveralAuthors);
            }
            Poll::Ready(Ok(_)) => panic!("it has two authors"),
            Poll::Pending => assert!(waits, "of {body} octets"),
        }
    }
    drop(all);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "somebody else moves the file")]
async fn audit_logs_that_were_moved_away_are_opened_again_when_asked_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipeline = pipeline(dir.path());
    let current = dir.path().join("audit/mailbox-access.jsonl");
    std::fs::rename(&current, current.with_extension("1")).expect("moves");
    pipeline.reopen_logs();
    // The log ends with it, and what was asked before is done then.
    drop(pipeline);
    assert!(current.exists());
}

/// What the path writes is what commands read.
#[tokio::test]
async fn every_story_that_is_written_can_be_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipeline = pipeline(dir.path());
    assert_eq!(sent(&pipeline, "alice@example.test").await, Ok(()), "sends on to many");
    let content = b"From: bob@example.test\r\nSubject: x\r\n\r\nx\r\n".to_vec();
    let mut transaction = begun(&pipeline).await;
    let parameters = RcptParameters { notify: None, orcpt: Some("rfc822;u1@example.test".into()) };
    let recipient = EnvelopeRecipient { address: address("U1@example.test"), parameters };
    pipeline.rcpt(&mut transaction, recipient).await.expect("may be named");
    pipeline.message(transaction, content).await.expect("is taken");
    let settings = crate::store::Settings::new(dir.path().join("data"));
    drop(pipeline);
    let mut records = std::collections::BTreeSet::new();
    for path in crate::events::sink::files(&settings.data_dir.join("events")).expect("lists") {
        for line in std::fs::read_to_string(path).expect("reads").lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("is JSON");
            let id = line["eventId"].as_str().expect("an id");
            records.insert(id.parse::<crate::events::EventId>().expect("an id").lsn);
        }
    }
    let reader = crate::store::reader::Reader::open(&settings).expect("opens");
    let mut halves = Vec::new();
    let mut onward = Vec::new();
    let mut spelling = Vec::new();
    for record in records {
        for told in reader.contents(record).expect("reads").stories {
            match story::AnyStory::read(&told).expect("is known") {
                story::AnyStory::Received(story) => {
                    halves.extend(story.submitted_in);
                    onward.extend(story.sent_on_from);
                    let recipients = story.recipients.iter();
                    spelling.extend(recipients.map(|it| it.address.to_string()));
                    let again = serde_json::to_string(&story).expect("is written");
                    assert_eq!(again, told.told.get());
                }
                story::AnyStory::Leaving(story) => {
                    assert_eq!(*story.entity, id("bob"));
                    let again = serde_json::to_string(&story).expect("is written");
                    assert_eq!(again, told.told.get());
                }
                story::AnyStory::Settled(_) | story::AnyStory::Own(_) => {}
            }
        }
    }
    assert_eq!((halves.len(), onward.len()), (1, 1), "one submission, and one mailbox sends on");
    assert!(spelling.contains(&"U1@example.test".to_owned()), "{spelling:?}");
}

/// What is refused of all that a message needs takes nothing of the rest.
#[tokio::test]
async fn a_refused_quota_gives_all_rooms_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipeline = pipeline(dir.path());
    let store = &pipeline.store;
    let owner = |user: &str| MailboxOwner {
        organization: OrganizationId::of_alias("example").as_str().into(),
        entity: id(user),
    };
    let ask = |user: &str, quota, may_exceed| RoomAsk {
        owner: owner(user),
        size: 100,
        quota,
        may_exceed,
    };
    let limits = UsageLimits { user: 1, organization: 10, inside: 10 };
    let written = Written { outside: 1, inside: 0 };
    let count = CountAsk { by: owner("alice"), day: 1, written, limits };
    let rooms = [
        ask("alice", 100, false),
        ask("alice", 100, false),
        ask("bob", 99, false),
        ask("bob", 99, true),
    ];
    let reserved = store.reserve(&rooms, &[count.clone(), count]).expect("answers");
    let given: Vec<_> = reserved.rooms.iter().map(Option::is_some).collect();
    assert_eq!(given, [true, false, false, true]);
    assert!(matches!(reserved.counts[..], [Ok(_), Err(UsageExceeded::User)]));
    drop(reserved);
    for user in ["alice", "bob"] {
        assert_eq!(store.mailbox(&owner(user)).expect("is there").used_bytes(), 0, "{user}");
    }
}

/// A message as it is once its verdicts are made, for these recipients.
fn judged(to: &[&str]) -> (Judged, Vec<Arc<DecidedShare>>) {
    let peer = Peer {
        ip: "192.0.2.1".parse().expect("an address"),
        port: 40_000,
        helo: "client.test".into(),
        esmtp: true,
        tls: None,
        login: None,
    };
    let snapshot = Arc::new(snapshot());
    let mut transaction = Transaction::begin(Begun {
        trace_id: TraceId::generate(),
        snapshot: Arc::clone(&snapshot),
        peer,
        reverse_path: ReversePath::Address(address("carol@good.test")),
        parameters: MailParameters::default(),
    });
    for to in to {
        let address = address(to);
        let resolved = snapshot.resolve(&address).expect("is somebody");
        let parameters = RcptParameters::default();
        transaction.add(EnvelopeRecipient { address, parameters }, resolved);
    }
    let content = b"From: carol@good.test\r\nSubject: x\r\n\r\nx\r\n".to_vec();
    let turn = Turn::of_a_test();
    let headers = headers::inspect(&turn, &content, &snapshot.settings).expect("is taken");
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/stories/received.json");
    let story = std::fs::read_to_string(story).expect("reads");
    let story: story::ReceivedStory<'_> = serde_json::from_str(&story).expect("is one");
    let mut authentication = story.authentication.expect("is there").into_owned();
    authentication.dmarc.result = DmarcResult::Pass;
    let verdicts = Verdicts { authentication, spam: story.spam.into_owned() };
    let (mail, shares) = Judged::received(transaction, content, headers, verdicts, NOW);
    let decide = |share| Arc::new(decide::decide_share(share, &mail));
    let shares = shares.into_iter().map(decide).collect();
    (mail, shares)
}

/// Without a store: where something is refused, the message goes another way, and no more is asked for
/// than it takes then.
#[test]
fn where_a_message_goes_depends_on_nothing_but_what_is_refused() {
    let (mail, shares) = judged(&["alice@example.test", "bob@example.test"]);
    let marks = DeliveryMarks::new(&[7; 32]);
    let rewriting = |domain: &Domain| Srs::new(domain.clone(), &[7; 32]);
    let keys = Keys { marks: &marks, rewriting: &rewriting };
    let mut refused = Refused::default();
    let spread = spread::spread(&mail, &shares, &[], keys, &refused);
    // Alice's copy, Bob's, and those of all whom Alice forwards to.
    assert_eq!(spread.rooms().len(), 2 + MANY);
    let again = spread::spread(&mail, &shares, &[], keys, &refused);
    assert_eq!(again.rooms(), spread.rooms());
    let all = |is_given: &dyn Fn(usize) -> bool| {
        (0..spread.rooms().len()).map(is_given).collect::<Vec<_>>().into_iter()
    };
    let counts = || std::iter::empty();
    assert!(!refused.note(&spread, all(&|_| true), counts()), "nothing is refused");
    assert!(refused.note(&spread, all(&|place| place != 0), counts()));
    assert!(!refused.note(&spread, all(&|place| place != 0), counts()), "it is known");
    let without = spread::spread(&mail, &shares, &[], keys, &refused);
    // Who has no room sends nothing on.
    let owners: Vec<_> = without.rooms().iter().map(|ask| ask.owner.entity.clone()).collect();
    assert_eq!(owners, [id("bob")]);
    assert_eq!(without.shares().len(), 1);
    assert_eq!(
        without.shares()[0].full().iter().map(|it| it.id().clone()).collect::<Vec<_>>(),
        [id("alice")]
    );
}
