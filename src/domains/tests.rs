//! Keys through their lives, records as a zone file has them, and what a check says of DNS.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::clock::Timestamp;
use crate::dns::{Lookup, LookupError, RecordData, RecordType, Resolver, ZoneResolver};
use crate::mail::Domain;
use crate::msgauth::KeyType;
use crate::store::{DomainKeyFolder, Settings};

const HOST: &str = "mx.example.test";

fn domain() -> Domain {
    Domain::parse("example.test").expect("a domain")
}

struct Scratch {
    _dir: tempfile::TempDir,
    settings: Settings,
    folder: DomainKeyFolder,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::new(dir.path().into());
        let folder = DomainKeyFolder::open(&settings).expect("opens");
        Self { _dir: dir, settings, folder }
    }

    fn with_keys() -> Self {
        let scratch = Self::new();
        make_keys(&scratch.folder, &domain()).expect("makes");
        scratch.use_next().expect("uses them");
        scratch
    }

    /// All keys that wait, as if DNS had their records.
    fn use_next(&self) -> Result<(), DomainKeyError> {
        let selectors: Vec<_> = self.keys().into_iter().map(|key| key.selector).collect();
        use_next_keys(&self.folder, &domain(), &selectors)
    }

    fn keys(&self) -> Vec<ManagedKey> {
        keys_of(&self.folder, &domain()).expect("reads")
    }

    fn stages(&self) -> Vec<(String, Stage)> {
        self.keys().into_iter().map(|key| (key.selector, key.stage)).collect()
    }
}

fn stages(expected: &[(&str, Stage)]) -> Vec<(String, Stage)> {
    expected.iter().map(|(selector, stage)| ((*selector).to_owned(), *stage)).collect()
}

#[test]
fn keys_are_made_rotated_and_replaced() {
    use Stage::{Current, Next, Previous};
    let scratch = Scratch::new();
    let (folder, domain) = (&scratch.folder, domain());
    assert!(matches!(rotate_keys(folder, &domain), Err(DomainKeyError::NoKeys(_))));
    make_keys(folder, &domain).expect("makes");
    let waiting = stages(&[("mw1e", Next), ("mw1r", Next)]);
    assert_eq!(scratch.stages(), waiting);
    make_keys(folder, &domain).expect("does nothing");
    assert_eq!(scratch.stages(), waiting);
    assert!(matches!(rotate_keys(folder, &domain), Err(DomainKeyError::NoKeys(_))));
    scratch.use_next().expect("uses them");
    let first = stages(&[("mw1e", Current), ("mw1r", Current)]);
    assert_eq!(scratch.stages(), first);
    make_keys(folder, &domain).expect("does nothing");
    assert_eq!(scratch.stages(), first);
    assert!(matches!(scratch.use_next(), Err(DomainKeyError::NoNextKeys(_))));
    for _ in 0..2 {
        rotate_keys(folder, &domain).expect("makes the next, once");
        let with_next = [("mw1e", Current), ("mw1r", Current), ("mw2e", Next), ("mw2r", Next)];
        assert_eq!(scratch.stages(), stages(&with_next));
    }
    use_next_keys(folder, &domain, &["mw2r".to_owned()]).expect("uses one of them");
    let half = [("mw1e", Current), ("mw2r", Current), ("mw2e", Next), ("mw1r", Previous)];
    assert_eq!(scratch.stages(), stages(&half));
    scratch.use_next().expect("uses the other");
    let second = [("mw2e", Current), ("mw2r", Current), ("mw1e", Previous), ("mw1r", Previous)];
    assert_eq!(scratch.stages(), stages(&second));
    rotate_keys(folder, &domain).expect("makes");
    scratch.use_next().expect("uses them");
    let third = [("mw3e", Current), ("mw3r", Current), ("mw2e", Previous), ("mw2r", Previous)];
    assert_eq!(scratch.stages(), stages(&third));
}

#[test]
fn what_was_cut_off_is_finished() {
    let scratch = Scratch::with_keys();
    let lost = scratch.folder.list().expect("lists").remove(0);
    scratch.folder.remove(&lost).expect("removes");
    make_keys(&scratch.folder, &domain()).expect("makes the other");
    assert_eq!(scratch.keys().len(), 2);
    scratch.use_next().expect("uses the other");
    rotate_keys(&scratch.folder, &domain()).expect("makes");
    let next = scratch.folder.list().expect("lists").into_iter().find(|name| name.is_next);
    scratch.folder.use_next(&next.expect("there is one")).expect("renames");
    let keys = DomainKeys::load(&scratch.settings).expect("loads");
    let signer = keys.signer_for(&domain()).expect("has keys");
    assert_eq!(signer.selectors().collect::<Vec<_>>(), ["mw1r", "mw2e"], "each type's newest");
    scratch.use_next().expect("uses the other");
    assert!(keys.refresh().expect("reads"));
    let signer = keys.signer_for(&domain()).expect("has keys");
    assert_eq!(signer.selectors().collect::<Vec<_>>(), ["mw2r", "mw2e"]);
}

#[test]
fn the_daemon_finds_what_changed() {
    let scratch = Scratch::new();
    let keys = DomainKeys::load(&scratch.settings).expect("loads");
    assert!(keys.signer_for(&domain()).is_none());
    assert!(!keys.refresh().expect("reads"));
    make_keys(&scratch.folder, &domain()).expect("makes");
    assert!(keys.refresh().expect("reads"));
    assert!(keys.signer_for(&domain()).is_none(), "they wait");
    scratch.use_next().expect("uses them");
    assert!(keys.refresh().expect("reads"));
    let signer = keys.signer_for(&domain()).expect("has keys");
    assert_eq!(signer.domain(), &domain());
    assert_eq!(signer.selectors().collect::<Vec<_>>(), ["mw1r", "mw1e"]);
    assert!(keys.signer_for(&Domain::parse("sub.example.test").expect("a domain")).is_none());
    assert!(!keys.refresh().expect("reads"));
    let path = scratch.settings.data_dir.join("keys/dkim/mw1e.other.test");
    std::fs::write(path, "nonsense").expect("writes");
    let error = keys.refresh().expect_err("does not open").to_string();
    assert!(error.ends_with("mw1e.other.test does not open with this master key"), "{error}");
    assert!(keys.signer_for(&domain()).is_some(), "the others stay in use");
}

/// The watch with this DNS, until `done`.
async fn watched(
    keys: &std::sync::Arc<DomainKeys>,
    zones: &[&str],
    done: impl Fn(&DomainKeys) -> bool,
) {
    let zone = |text: &str| -> std::sync::Arc<dyn Resolver> {
        std::sync::Arc::new(ZoneResolver::parse(text, Path::new("test.zone")).expect("a zone file"))
    };
    let mut zones = zones.iter().map(|text| zone(text));
    let resolver = tokio::sync::watch::Sender::new(zones.next().expect("a first one"));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watch =
        std::sync::Arc::clone(keys).watch(Duration::from_secs(5), resolver.subscribe(), stopped);
    let watch = tokio::spawn(watch);
    while !done(keys) {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
        if let Some(next) = zones.next() {
            resolver.send_replace(next);
        }
    }
    stop.send_replace(true);
    watch.await.expect("ends");
}

/// Whose keys sign.
fn signing(keys: &DomainKeys) -> Vec<String> {
    let signer = keys.signer_for(&domain());
    signer.iter().flat_map(|signer| signer.selectors().map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_watch_has_keys_sign_whose_records_it_finds() {
    let scratch = Scratch::new();
    let keys = std::sync::Arc::new(DomainKeys::load(&scratch.settings).expect("loads"));
    make_keys(&scratch.folder, &domain()).expect("makes");
    let zone = zone_file(&domain(), HOST, &scratch.keys(), &Today::default());
    let rsa_alone = changed(&zone, "mw1e._domainkey", "");
    let other = zone_file(&domain(), HOST, &Scratch::with_keys().keys(), &Today::default());
    watched(&keys, &[&other, "$TTL 60\nx.test. IN A 192.0.2.1\n", &rsa_alone], |keys| {
        signing(keys) == ["mw1r"]
    })
    .await;
    watched(&keys, &[&zone], |keys| signing(keys) == ["mw1r", "mw1e"]).await;
    rotate_keys(&scratch.folder, &domain()).expect("makes");
    watched(&keys, &[&zone], |keys| keys.waiting().len() == 2).await;
    assert_eq!(signing(&keys), ["mw1r", "mw1e"], "the present ones go on");
    let zone = zone_file(&domain(), HOST, &scratch.keys(), &Today::default());
    watched(&keys, &[&zone], |keys| signing(keys) == ["mw2r", "mw2e"]).await;
}

/// Counts the questions, and answers none.
#[derive(Default)]
struct Asked(std::sync::atomic::AtomicUsize);

impl Resolver for Asked {
    fn lookup<'a>(&'a self, _: &'a str, _: RecordType) -> Lookup<'a> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(std::future::ready(Err(LookupError::NoSuchName)))
    }
}

#[tokio::test(start_paused = true)]
async fn dns_is_asked_once_a_minute_for_keys_that_wait_and_never_for_others() {
    for (scratch, most) in [(Scratch::with_keys(), 0), (Scratch::new(), 2 * 11)] {
        make_keys(&scratch.folder, &domain()).expect("makes");
        let keys = std::sync::Arc::new(DomainKeys::load(&scratch.settings).expect("loads"));
        let asked = std::sync::Arc::new(Asked::default());
        let count = || asked.0.load(std::sync::atomic::Ordering::Relaxed);
        let shared: std::sync::Arc<dyn Resolver> = std::sync::Arc::clone(&asked) as _;
        let resolver = tokio::sync::watch::Sender::new(shared);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let watch = keys.watch(Duration::from_secs(5), resolver.subscribe(), stopped);
        let watch = tokio::spawn(watch);
        tokio::time::sleep(Duration::from_secs(600)).await;
        stop.send_replace(true);
        watch.await.expect("ends");
        assert!(count() <= most && (count() > 10 || most == 0), "{} questions", count());
    }
}

/// The golden zone file, with the keys' octets left out, which are others each time.
#[test]
fn the_records_are_a_zone_file() {
    let scratch = Scratch::with_keys();
    rotate_keys(&scratch.folder, &domain()).expect("makes");
    let keys = scratch.keys();
    let mut text = zone_file(&domain(), HOST, &keys, &Today::default());
    ZoneResolver::parse(&text, Path::new("golden.zone")).expect("is a zone file");
    for key in keys {
        let strings = records(&domain(), HOST, &[key], &Today::default());
        let record = strings.iter().find(|record| record.purpose == Purpose::Dkim);
        let line = record.expect("has one").zone_line();
        let (start, _) = line.split_once("p=").expect("has a key");
        text = text.replace(&line, &format!("{start}p=...\""));
    }
    let path = format!("{}/fixtures/golden/domain/records.zone", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("writes");
    }
    assert_eq!(text, std::fs::read_to_string(&path).expect("a golden file"));
}

#[test]
fn mail_of_our_own_is_signed_by_the_nearest_domain_above() {
    let scratch = Scratch::with_keys();
    let keys = DomainKeys::load(&scratch.settings).expect("loads");
    let other = Domain::parse("other.test").expect("a domain");
    let signs = |author: &str, domains: &[Domain]| {
        let signer = keys.signer_of_our_own_mail(author, domains);
        signer.map(|signer| signer.domain().to_string())
    };
    for author in ["example.test", "mx.example.test", "MX.a.example.test"] {
        assert_eq!(signs(author, &[]).as_deref(), Some("example.test"), "{author}");
    }
    assert_eq!(signs("mx.notexample.test", &[]), None);
    let ours = [other.clone(), domain()];
    assert_eq!(signs("mx.host.test", &ours).as_deref(), Some("example.test"), "the organization's");
    assert_eq!(signs("localhost", &[other]), None);
}

#[test]
fn a_domain_without_keys_is_told_how_to_get_them() {
    let text = zone_file(&domain(), HOST, &[], &Today::default());
    assert!(text.contains("; DKIM: there are no keys yet; `mailweir domain keys example.test`"));
    assert!(!text.contains("_domainkey"), "{text}");
}

#[tokio::test]
async fn long_texts_are_split_and_come_back_whole() {
    for length in [1, 254, 255, 256, 510, 511, 700] {
        for value in ["x".repeat(length), format!("{}\\\"", "x".repeat(length - 1))] {
            let record = DnsRecord {
                purpose: Purpose::Dkim,
                r#type: "TXT",
                hostname: "x.test".into(),
                value: value.clone(),
                required: true,
                notes: Vec::new(),
            };
            let line = record.zone_line();
            let strings = line.split('"').skip(1).step_by(2);
            assert!(value.contains('"') || strings.map(str::len).max() <= Some(255), "{line}");
            let zone = ZoneResolver::parse(&line, Path::new("test.zone")).expect("a zone file");
            let answer = zone.lookup("x.test", RecordType::Txt).await.expect("is there");
            assert_eq!(answer.records[0], RecordData::Txt(value.into_bytes().into()));
        }
    }
}

async fn findings(zone: &str, keys: &[ManagedKey]) -> Vec<Finding> {
    findings_at(zone, keys, Cutover::Done).await
}

async fn findings_at(zone: &str, keys: &[ManagedKey], cutover: Cutover) -> Vec<Finding> {
    let today = today(zone).await;
    let zone = ZoneResolver::parse(zone, Path::new("test.zone")).expect("a zone file");
    let records = records(&domain(), HOST, keys, &today);
    let host = Host { name: HOST, now: Timestamp::from_millis(0), cutover };
    check(&zone, records, keys, host, Instant::now() + Duration::from_secs(5)).await
}

/// A zone with everything that is needed, and `mx.example.test` at 192.0.2.1.
fn right(keys: &[ManagedKey]) -> String {
    let records = zone_file(&domain(), HOST, keys, &Today::default());
    format!("{records}{HOST}. 60 IN A 192.0.2.1\n")
}

fn of(findings: &[Finding], purpose: Purpose) -> (Status, &str) {
    let finding = findings.iter().find(|finding| finding.record.purpose == purpose);
    let finding = finding.expect("was looked up");
    (finding.status, finding.reason.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn what_is_published_as_printed_is_verified() {
    let keys = Scratch::with_keys().keys();
    for finding in findings(&right(&keys), &keys).await {
        let is_mail_from =
            matches!(finding.record.purpose, Purpose::MailFromMx | Purpose::MailFromSpf);
        assert_eq!(finding.status == Status::Verified, !is_mail_from, "{finding:?}");
    }
    for finding in findings("$TTL 60\nother.test. IN A 192.0.2.1\n", &keys).await {
        let is_proof = matches!(finding.record.purpose, Purpose::Dkim | Purpose::MailFromSpf);
        let expected = if is_proof { Status::Pending } else { Status::Missing };
        assert_eq!(finding.status, expected, "{finding:?}");
    }
}

/// The zone with the lines that contain `pattern` taken out, and others put in.
fn changed(zone: &str, pattern: &str, lines: &str) -> String {
    let kept: Vec<_> = zone.lines().filter(|line| !line.contains(pattern)).collect();
    assert!(kept.len() < zone.lines().count(), "{pattern} is not in {zone}");
    format!("{}\n$TTL 60\n{lines}\n", kept.join("\n"))
}

#[tokio::test]
async fn our_host_is_the_only_mail_exchanger() {
    let keys = Scratch::with_keys().keys();
    for (lines, status, reason) in [
        ("example.test. IN MX 5 MX.example.TEST.", Status::Verified, ""),
        (
            "example.test. IN MX 5 mx.example.test.\nexample.test. IN MX 9 b.test.",
            Status::Inconsistent,
            "b.test is an entry too, with preference 9; mx.example.test should be the only one",
        ),
        (
            "example.test. IN MX 5 mx.example.test.\nexample.test. IN MX 5 b.test.",
            Status::Inconsistent,
            "b.test is an entry too, with preference 5; mx.example.test should be the only one",
        ),
        (
            "example.test. IN MX 5 mx.example.test.\nexample.test. IN MX 9 mx.example.test.",
            Status::Verified,
            "",
        ),
        (
            "example.test. IN MX 10 mx.example.test.\nexample.test. IN MX 5 filter.test.",
            Status::Inconsistent,
            "mail goes to filter.test first",
        ),
        ("example.test. IN MX 0 .", Status::Inconsistent, "the domain takes no mail (a null MX)"),
    ] {
        let zone = changed(&right(&keys), "example.test. 3600 IN MX", lines);
        assert_eq!(of(&findings(&zone, &keys).await, Purpose::Mx), (status, reason), "{lines}");
    }
    let zone = changed(&right(&keys), "192.0.2.1", "");
    let found = findings(&zone, &keys).await;
    assert_eq!(of(&found, Purpose::Mx), (Status::Inconsistent, "mx.example.test has no address"));
}

#[tokio::test]
async fn an_spf_record_counts_by_what_it_permits() {
    let keys = Scratch::with_keys().keys();
    for (record, status, reason) in [
        ("v=spf1 mx -all", Status::Verified, ""),
        (
            "v=spf1 ip4:192.0.2.0/24 include:other.test ?all",
            Status::Verified,
            "for others it cannot be evaluated: include of other.test, which has no record",
        ),
        (
            "v=spf1 ip4:198.51.100.1 -all",
            Status::Inconsistent,
            "v=spf1 ip4:198.51.100.1 -all is fail for 192.0.2.1",
        ),
        ("v=spf1 ip4:bad -all", Status::Inconsistent, "the term \"ip4:bad\" is invalid"),
        ("v=spf2 mx", Status::Missing, ""),
    ] {
        let line = format!("example.test. IN TXT \"{record}\"");
        let zone = changed(&right(&keys), "v=spf1 a:", &line);
        assert_eq!(of(&findings(&zone, &keys).await, Purpose::Spf), (status, reason), "{record}");
    }
    let zone = right(&keys) + "example.test. 60 IN TXT \"v=spf1 -all\"\n";
    let expected = (Status::Inconsistent, "there are several SPF records");
    assert_eq!(of(&findings(&zone, &keys).await, Purpose::Spf), expected);
}

#[tokio::test]
async fn other_keys_and_weaker_policies_are_told_apart() {
    let (ours, others) = (Scratch::with_keys().keys(), Scratch::with_keys().keys());
    let found = findings(&right(&others), &ours).await;
    let expected = (Status::Failed, "another key stands there");
    assert_eq!(of(&found, Purpose::Dkim), expected);
    assert_eq!(of(&found, Purpose::Spf).0, Status::Verified);
    for (record, status, reason) in [
        ("v=DMARC1; p=none", Status::Verified, "v=DMARC1; p=none asks for no policy yet"),
        ("v=DMARC1; p=reject", Status::Verified, ""),
        ("v=DMARC1; p=nonsense", Status::Inconsistent, "its policy cannot be read"),
    ] {
        let line = format!("_dmarc.example.test. IN TXT \"{record}\"");
        let found = findings(&changed(&right(&ours), "_dmarc", &line), &ours).await;
        assert_eq!(of(&found, Purpose::Dmarc), (status, reason));
    }
}

#[tokio::test]
async fn a_custom_mail_from_domain_is_checked_where_there_is_one() {
    let keys = Scratch::with_keys().keys();
    for (txt, status) in [
        ("v=spf1 a:mx.example.test ~all", Status::Verified),
        ("v=spf1 ip4:192.0.2.1 -all", Status::Verified),
        ("v=spf1 -all", Status::Failed),
        ("unrelated", Status::Pending),
    ] {
        let lines = "$TTL 60\nmail.example.test. IN MX 10 mx.example.test.";
        let zone = format!("{}{lines}\nmail.example.test. IN TXT \"{txt}\"\n", right(&keys));
        let found = findings(&zone, &keys).await;
        assert_eq!(of(&found, Purpose::MailFromMx).0, Status::Verified);
        assert_eq!(of(&found, Purpose::MailFromSpf).0, status, "{txt}");
    }
}

#[tokio::test]
async fn the_next_keys_are_looked_up_but_not_required() {
    let scratch = Scratch::with_keys();
    let zone = right(&scratch.keys());
    rotate_keys(&scratch.folder, &domain()).expect("makes");
    let keys = scratch.keys();
    let found = findings(&zone, &keys).await;
    let dkim: Vec<_> = found
        .iter()
        .filter(|finding| finding.record.purpose == Purpose::Dkim)
        .map(|finding| (finding.record.required, finding.status))
        .collect();
    let (used, next) = ((true, Status::Verified), (false, Status::Pending));
    assert_eq!(dkim, [used, used, next, next]);
    assert_eq!(keys.iter().filter(|key| key.key.key_type() == KeyType::Rsa).count(), 2);
}

/// Answers nothing, or only with trouble.
struct Trouble {
    is_silent: bool,
}

impl Resolver for Trouble {
    fn lookup<'a>(&'a self, _: &'a str, _: RecordType) -> Lookup<'a> {
        match self.is_silent {
            true => Box::pin(std::future::pending()),
            false => Box::pin(std::future::ready(Err(LookupError::Transient("SERVFAIL".into())))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_dns_does_not_answer_is_pending() {
    for (is_silent, reason) in [(true, "no answer within the deadline"), (false, "SERVFAIL")] {
        let records = records(&domain(), HOST, &[], &Today::default());
        let host = Host { name: HOST, now: Timestamp::from_millis(0), cutover: Cutover::Done };
        let deadline = Instant::now() + Duration::from_secs(30);
        for finding in check(&Trouble { is_silent }, records, &[], host, deadline).await {
            assert_eq!(finding.status, Status::Pending, "{finding:?}");
            assert_eq!(finding.reason.as_deref(), Some(reason));
        }
    }
}

async fn today(zone: &str) -> Today {
    let zone = ZoneResolver::parse(zone, Path::new("test.zone")).expect("a zone file");
    Today::look_up(&zone, &domain(), HOST, Instant::now() + Duration::from_secs(5)).await
}

/// The record of a purpose, merged with what this zone has.
async fn merged(lines: &str, purpose: Purpose) -> DnsRecord {
    let zone = format!("$TTL 60\n{HOST}. IN A 192.0.2.1\n{lines}\n");
    let records = records(&domain(), HOST, &[], &today(&zone).await);
    records.into_iter().find(|record| record.purpose == purpose).expect("is one of them")
}

#[tokio::test]
async fn what_a_live_domain_publishes_is_merged() {
    let none = "v=DMARC1; p=none; rua=mailto:postmaster@example.test";
    for (lines, purpose, value, note) in [
        ("", Purpose::Spf, "v=spf1 a:mx.example.test ~all", ""),
        (
            "example.test. IN TXT \"v=spf1 ip4:198.51.100.1 -all\"",
            Purpose::Spf,
            "v=spf1 a:mx.example.test ip4:198.51.100.1 -all",
            "in place of \"v=spf1 ip4:198.51.100.1 -all\", which is part of it",
        ),
        (
            "example.test. IN TXT \"v=spf1 a:mx.example.test +all\"",
            Purpose::Spf,
            "v=spf1 a:mx.example.test +all",
            "warning: +all in it lets everybody send as the domain",
        ),
        (
            "mx.example.test. IN TXT \"v=spf1 a -all\"",
            Purpose::HeloSpf,
            "v=spf1 a:mx.example.test a -all",
            "in place of \"v=spf1 a -all\", which is part of it",
        ),
        (
            "mail.example.test. IN TXT \"v=spf1 ip4:198.51.100.1 ~all\"",
            Purpose::MailFromSpf,
            "v=spf1 a:mx.example.test ip4:198.51.100.1 ~all",
            "in place of \"v=spf1 ip4:198.51.100.1 ~all\", which is part of it",
        ),
        ("", Purpose::Dmarc, none, ""),
        (
            "_dmarc.example.test. IN TXT \"v=DMARC1; p=reject; sp=none\"",
            Purpose::Dmarc,
            "v=DMARC1; p=reject; sp=none",
            "it stands there already: what is neither is kept out at once",
        ),
        (
            "_dmarc.example.test. IN TXT \"v=DMARC1; p=none\"",
            Purpose::Dmarc,
            "v=DMARC1; p=none",
            "it stands there already",
        ),
        (
            "_dmarc.example.test. IN TXT \"v=DMARC1; p=nonsense\"",
            Purpose::Dmarc,
            none,
            "in place of what nobody can use: its policy cannot be read",
        ),
        (
            "_smtp._tls.example.test. IN TXT \"v=TLSRPTv1; rua=mailto:x@y.test\"",
            Purpose::TlsRpt,
            "v=TLSRPTv1; rua=mailto:x@y.test",
            "",
        ),
        (
            "_mta-sts.example.test. IN TXT \"v=STSv1; id=20260101\"",
            Purpose::MtaSts,
            "v=STSv1; id=20260101",
            "warning: before the MX moves, have the policy name mx.example.test: senders that know \
             the policy which is served now go to no other host",
        ),
        (
            "example.test. IN MX 10 old.test.",
            Purpose::Mx,
            "10 mx.example.test",
            "mail goes to old.test now",
        ),
        ("example.test. IN MX 10 mx.example.test.", Purpose::Mx, "10 mx.example.test", ""),
    ] {
        let record = merged(lines, purpose).await;
        assert_eq!((record.value.as_str(), record.notes.join("; ").as_str()), (value, note));
    }
}

#[tokio::test]
async fn a_merged_record_that_needs_too_many_lookups_is_told() {
    let mut lines = String::new();
    for number in 1..=10 {
        lines += &format!("s{number}.test. IN TXT \"v=spf1 ip4:198.51.100.{number} ~all\"\n");
    }
    for (includes, is_told) in [(9, false), (10, true)] {
        let terms: Vec<_> =
            (1..=includes).map(|number| format!("include:s{number}.test")).collect();
        let terms = terms.join(" ");
        let zone = format!("{lines}example.test. IN TXT \"v=spf1 {terms} -all\"");
        let record = merged(&zone, Purpose::Spf).await;
        assert_eq!(record.value, format!("v=spf1 a:mx.example.test {terms} -all"));
        let warned =
            record.notes.iter().any(|note| note.contains("receivers cannot evaluate it: "));
        assert_eq!(warned, is_told, "{:?}", record.notes);
    }
}

#[tokio::test]
async fn nothing_that_is_pasted_moves_a_live_domain() {
    let old = "$TTL 60\nexample.test. IN MX 10 old.test.\n";
    for (zone, mark) in [(old, ";"), ("$TTL 60\nx.test. IN A 192.0.2.1\n", "")] {
        let text = zone_file(&domain(), HOST, &[], &today(zone).await);
        let last = text.lines().rfind(|line| line.contains(" MX ")).expect("an MX");
        assert_eq!(last, format!("{mark}example.test. 3600 IN MX 10 mx.example.test."), "{text}");
        assert!(text.find("IN MX 10").is_some_and(|at| at > text.find("v=DMARC1").unwrap_or(0)));
    }
    let long = "include:a-rather-long-name-of-a-service.test ".repeat(9);
    let (start, end) = long.split_at(200);
    let zone = format!("$TTL 60\nexample.test. IN TXT \"v=spf1 {start}\" \"{end} -all\"\n");
    let text = zone_file(&domain(), HOST, &[], &today(&zone).await);
    let line = text.lines().find(|line| line.contains("\"v=spf1 a:mx")).expect("a record");
    assert!(line.split('"').skip(1).step_by(2).all(|string| string.len() <= 255), "{line}");
    assert_eq!(line.matches("v=spf1").count(), 1);
}

#[tokio::test]
async fn dns_that_does_not_answer_is_told_beside_the_record() {
    let trouble = Trouble { is_silent: false };
    let deadline = Instant::now() + Duration::from_secs(5);
    let today = Today::look_up(&trouble, &domain(), HOST, deadline).await;
    for record in records(&domain(), HOST, &[], &today) {
        let is_told = record.notes.iter().any(|note| note.contains("merge it by hand: SERVFAIL"));
        let needs_merging = matches!(
            record.purpose,
            Purpose::Spf
                | Purpose::HeloSpf
                | Purpose::MailFromSpf
                | Purpose::Dmarc
                | Purpose::TlsRpt
                | Purpose::MtaSts
        );
        assert_eq!(is_told, needs_merging, "{record:?}");
    }
}

#[tokio::test]
async fn before_the_cutover_all_but_the_mx_is_wanted() {
    let keys = Scratch::with_keys().keys();
    let open = |findings: &[Finding]| {
        let open = findings.iter().filter(|it| it.record.required && it.status != Status::Verified);
        open.map(|finding| finding.record.purpose).collect::<Vec<_>>()
    };
    for (mx, status, reason) in [
        ("example.test. IN MX 10 old.test.", Status::Pending, "mail goes to old.test first"),
        ("", Status::Pending, "there is no record yet"),
        ("example.test. IN MX 10 mx.example.test.", Status::Verified, ""),
    ] {
        let zone = changed(&right(&keys), "example.test. 3600 IN MX", mx);
        let before = findings_at(&zone, &keys, Cutover::Before).await;
        assert_eq!(of(&before, Purpose::Mx), (status, reason));
        assert_eq!(open(&before), [], "{mx}");
        let done = findings(&zone, &keys).await;
        assert_eq!(open(&done).is_empty(), status == Status::Verified, "{mx}");

        // Everything else is wanted as ever, and an address to send mail to.
        let zone = changed(&zone, "_dmarc", "");
        assert_eq!(open(&findings_at(&zone, &keys, Cutover::Before).await), [Purpose::Dmarc]);
        let zone = changed(&zone, "192.0.2.1", "");
        let without = findings_at(&zone, &keys, Cutover::Before).await;
        assert!(open(&without).contains(&Purpose::Mx), "{without:?}");
    }
}
