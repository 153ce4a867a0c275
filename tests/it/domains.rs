//! Domains as an administrator sets them up: keys, records, a check against DNS, and signatures
//! that dkimpy and a daemon of ours verify.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mailweir::clock::Timestamp;
use mailweir::domains::DomainKeys;
use mailweir::heavy::{self, Turn, Weight};
use mailweir::mail::Domain;
use mailweir::store::Settings;
use serde_json::Value;

use crate::outbound::{delivered, far, prepared, prepared_with_waiting_keys, submit};
use crate::support::daemon::{BINARY, Daemon, Setup, ZONE, rule, text};
use crate::support::dns::{Nsd, Responder, servers};
use crate::support::smtp::message;
use crate::support::wait_for;

const DOMAIN: &str = "example.test";
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python");
const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim_verify.py");
/// Our host has an address; without it nothing that names it is right.
const HOST: &str = "mx.example.test. 3600 IN A 127.0.0.1\n";
/// The present of every signature here.
const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_000);

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the command says when it fails.
fn fails(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.command(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Publishes records, and none beside them but our host's address.
fn publish(daemon: &Daemon, records: &str) {
    std::fs::write(daemon.path("demo.zone"), format!("{HOST}{records}")).expect("writes");
}

/// Publishes records beside those of the fixture.
fn publish_beside(daemon: &Daemon, records: &str) {
    std::fs::write(daemon.path("demo.zone"), format!("{ZONE}{records}")).expect("writes");
}

/// Status of each record, by purpose and name, and the exit status.
fn check(daemon: &Daemon) -> (Vec<(String, String)>, bool) {
    let output = daemon.command(&["domain", "check", DOMAIN, "--json"]);
    let found = text(&output.stdout);
    let field = |finding: &Value, key: &str| finding[key].as_str().expect("a text").to_owned();
    let findings = found.lines().map(json);
    let required = findings.filter(|finding| finding["required"] == true);
    let found = required.map(|it| (field(&it, "hostname"), field(&it, "status")));
    (found.collect(), output.status.success())
}

/// Does what a daemon does in its turn.
fn in_turn<T>(work: impl FnOnce(&Turn) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
    runtime.block_on(heavy::in_turn(Weight::of(b""), work))
}

fn sign(daemon: &Daemon, message: &[u8]) -> Vec<u8> {
    let keys = DomainKeys::load(&Settings::new(daemon.data())).expect("loads");
    let domain = Domain::parse(DOMAIN).expect("a domain");
    let signer = keys.signer_for(&domain).expect("has keys");
    let mut signed =
        in_turn(|turn| signer.sign(turn, &[message], NOW)).expect("signs").into_bytes();
    assert!(text(&signed).lines().all(|line| line.len() <= 78), "{}", text(&signed));
    signed.extend_from_slice(message);
    signed
}

/// What dkimpy says of each signature.
fn dkimpy(zone: &Path, message: &[u8]) -> String {
    let mut child = Command::new(PYTHON)
        .arg(VERIFIER)
        .arg(zone)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/setup.sh makes the virtual environment");
    child.stdin.take().expect("a pipe").write_all(message).expect("writes");
    let output = child.wait_with_output().expect("waits");
    assert!(output.status.success(), "dkimpy reads the message and the zone");
    text(&output.stdout)
}

#[test]
fn dkimpy_verifies_what_we_sign() {
    let daemon = Setup::default().prepare();
    let zone = daemon.path("keys.zone");
    std::fs::write(&zone, daemon.keys_that_sign(DOMAIN)).expect("writes");
    let long = "word ".repeat(5000) + "word";
    for message in [
        "From: a@example.test\r\nSubject: plain\r\n\r\nbody\r\n".to_owned(),
        "From: a@example.test\r\n\r\n".to_owned(),
        "From: a@example.test\r\n\r\nno line end".to_owned(),
        "From: a@example.test\r\n\r\nblank lines\r\n\r\n \t\r\n\r\n".to_owned(),
        "From: a@example.test\r\n\r\n\r\n\r\n".to_owned(),
        "From: a@example.test\r\nSubject: folded\r\n again \t and\r\n\tagain\r\n\r\nx\r\n"
            .to_owned(),
        "From: a@example.test\r\nTo: b\r\nX: y\r\nTo: c\r\nTo: d\r\n\r\nx\r\n".to_owned(),
        "From: \u{e4}\u{4e2d} <a@example.test>\r\nSubject: \u{1f375}\r\n\r\n8 bits \u{fc}\r\n"
            .into(),
        format!("From: a@example.test\r\nReferences:\r\n {long}\r\nSubject: {long}\r\n\r\n{long}"),
        "From: a@example.test\r\nDate: x\r\nMessage-ID: <1@x>\r\nSender: s\r\nReply-To: r\r\n\
         Cc: c\r\nIn-Reply-To: <2>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\
         Content-Transfer-Encoding: 8bit\r\nAuto-Submitted: no\r\nList-Id: <l>\r\n\
         List-Unsubscribe: <u>\r\nResent-From: f\r\nReceived: y\r\n\r\nall\r\n"
            .to_owned(),
    ] {
        let found = dkimpy(&zone, &sign(&daemon, message.as_bytes()));
        let expected = "mw1r rsa-sha256 pass\nmw1e ed25519-sha256 pass\n";
        assert_eq!(found, expected, "{}", message.chars().take(300).collect::<String>());
    }
    let latin1 = b"From: a@example.test\r\nSubject: \xe4\xf6\r\n\r\n\xfc\xff\x80\r\n";
    let signed = sign(&daemon, latin1);
    assert_eq!(dkimpy(&zone, &signed).matches(" pass").count(), 2);
    let changed = text(&sign(&daemon, b"From: a@example.test\r\nSubject: x\r\n\r\nbody\r\n"));
    for (from, to) in [("body", "other"), ("Subject: x", "Subject: y"), ("From", "Cc: z\r\nFrom")] {
        let changed = changed.replacen(from, to, 1);
        assert_eq!(dkimpy(&zone, changed.as_bytes()).matches(" fail").count(), 2, "{from}");
    }
}

#[test]
fn a_daemon_of_ours_verifies_what_we_sign() {
    let mut daemon = Setup::default().prepare();
    publish(&daemon, &daemon.keys_that_sign(DOMAIN));
    daemon.launch(Command::new(BINARY));
    let signed = sign(&daemon, &message("alice@example.test", "signed"));
    let mut client = daemon.client();
    client.envelope("alice@example.test", &["bob@example.test"]);
    let reply = client.data(&signed);
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(daemon.trace("signed")[0]["dkimVerdict"], "PASS");
}

#[test]
fn a_domain_is_set_up_as_the_commands_say() {
    let daemon = Setup::default().prepare();
    let error = fails(&daemon, &["domain", "keys", "elsewhere.test"]);
    assert!(error.contains("elsewhere.test is no organization's domain"), "{error}");
    let error = fails(&daemon, &["domain", "keys", DOMAIN, "--rotate"]);
    assert!(error.contains("example.test has no keys yet that sign"), "{error}");

    let printed = daemon.succeeds(&["domain", "keys", DOMAIN]);
    assert_eq!(printed, daemon.succeeds(&["domain", "keys", DOMAIN]), "nothing is made twice");
    assert!(printed.contains("; mw1r (rsa): waits: signs once DNS has this record"), "{printed}");
    let keys = daemon.lists(&["domain", "keys", DOMAIN]);
    assert_eq!(keys[0]["hostname"], "mw1e._domainkey.example.test");
    assert_eq!(keys[0]["stage"], "next");

    publish(&daemon, "");
    let (found, is_right) = check(&daemon);
    let names = ["", "mx.", "mw1e._domainkey.", "mw1r._domainkey.", "_dmarc.", ""];
    let all = |status: &str| names.map(|name| (format!("{name}{DOMAIN}"), status.to_owned()));
    let statuses: Vec<_> = found.iter().map(|(_, status)| &**status).collect();
    assert_eq!(statuses, ["MISSING", "MISSING", "PENDING", "PENDING", "MISSING", "MISSING"]);
    assert!(!is_right);
    let records = daemon.succeeds(&["domain", "records", DOMAIN]);
    publish(&daemon, &records);
    assert_eq!(check(&daemon), (all("VERIFIED").to_vec(), true));
    let told = daemon.succeeds(&["domain", "check", DOMAIN]);
    assert!(told.contains("Verified      example.test MX (MX)\n"), "{told}");
    assert!(
        told.contains("Missing       mail.example.test MX (MAIL FROM MX, optional)\n"),
        "{told}"
    );

    publish(&daemon, &records.replace("p=none", "p=nonsense").replace("rua=", "ruf="));
    let error = fails(&daemon, &["domain", "check", DOMAIN]);
    assert!(error.contains("example.test: 1 needed record not verified"), "{error}");
}

/// The selectors that sign mail now.
fn signing(daemon: &Daemon) -> Vec<String> {
    let keys = DomainKeys::load(&Settings::new(daemon.data())).expect("loads");
    let signer = keys.signer_for(&Domain::parse(DOMAIN).expect("a domain"));
    let selectors = signer.iter().flat_map(|signer| signer.selectors().map(str::to_owned));
    selectors.collect()
}

#[test]
fn keys_sign_only_after_they_are_published() {
    let daemon = Setup::default().prepare();
    let first = daemon.succeeds(&["domain", "keys", DOMAIN]);
    publish(&daemon, "");
    let error = fails(&daemon, &["domain", "keys", DOMAIN, "--use-next"]);
    assert!(error.contains("mw1e._domainkey.example.test is Pending in DNS"), "{error}");
    assert!(signing(&daemon).is_empty(), "unsigned is better than signed by nobody's key");
    let rsa: String = first.lines().filter(|line| line.starts_with("mw1r.")).collect();
    publish(&daemon, &format!("{rsa}\n"));
    fails(&daemon, &["domain", "keys", DOMAIN, "--use-next"]);
    assert_eq!(signing(&daemon), ["mw1r"], "each as soon as it can be found");
    publish(&daemon, &first);
    let printed = daemon.succeeds(&["domain", "keys", DOMAIN, "--use-next"]);
    assert!(printed.contains("; mw1r (rsa): signs"), "{printed}");
    assert_eq!(signing(&daemon), ["mw1r", "mw1e"]);

    let printed = daemon.succeeds(&["domain", "keys", DOMAIN, "--rotate"]);
    assert!(printed.contains("; mw2e (ed25519): waits"), "{printed}");
    let error = fails(&daemon, &["domain", "keys", DOMAIN, "--use-next"]);
    assert!(error.contains("mw2e._domainkey.example.test is Pending in DNS"), "{error}");
    assert_eq!(signing(&daemon), ["mw1r", "mw1e"]);
    publish(&daemon, &printed);
    let printed = daemon.succeeds(&["domain", "keys", DOMAIN, "--use-next"]);
    assert!(printed.contains("; mw2r (rsa): signs"), "{printed}");
    assert!(printed.contains("; mw1r (rsa): not used any more"), "{printed}");
    assert_eq!(signing(&daemon), ["mw2r", "mw2e"]);
    let error = fails(&daemon, &["domain", "keys", DOMAIN, "--use-next"]);
    assert!(error.contains("has no next keys"), "{error}");
}

/// Nobody has to say when: the daemon looks, and mail is signed by whatever key can be found.
#[test]
fn the_daemon_begins_to_sign_when_dns_has_the_record() {
    let far = far();
    let mut daemon = prepared_with_waiting_keys(far.address().port());
    let waiting = daemon.succeeds(&["domain", "keys", DOMAIN]);
    publish_beside(&daemon, "");
    daemon.launch(Command::new(BINARY));
    wait_for("the first look", || daemon.log().contains("does not sign yet").then_some(()));
    submit(&daemon, "carol@far.test", "before", &[]).accepted();
    assert!(!delivered(&far, "carol", "before").contains("DKIM-Signature"));

    publish_beside(&daemon, &waiting);
    daemon.signal("HUP");
    let begins = "the key signs from now on domain=example.test selector=\"mw1r\"";
    wait_for("the line of the first key", || daemon.log().contains(begins).then_some(()));
    submit(&daemon, "carol@far.test", "after", &[]).accepted();
    let stored = delivered(&far, "carol", "after");
    assert_eq!(stored.matches("DKIM-Signature:").count(), 2, "{stored}");

    // The next keys: the present ones go on until theirs can be found.
    let next = daemon.succeeds(&["domain", "keys", DOMAIN, "--rotate"]);
    daemon.succeeds(&["reload"]);
    submit(&daemon, "carol@far.test", "rotated", &[]).accepted();
    assert!(delivered(&far, "carol", "rotated").contains("s=mw1r;"));
    publish_beside(&daemon, &next);
    daemon.succeeds(&["reload"]);
    let begins = "the key signs from now on domain=example.test selector=\"mw2r\"";
    wait_for("the line of the next key", || daemon.log().contains(begins).then_some(()));
    submit(&daemon, "carol@far.test", "after the next", &[]).accepted();
    assert!(delivered(&far, "carol", "after the next").contains("s=mw2r;"));
}

/// A domain whose mail others handle today, on its way here: at every step DNS serves both.
#[test]
fn a_live_domain_is_moved_as_the_commands_say() {
    let daemon = Setup::default().prepare();
    let old = "example.test. IN MX 10 inbound.old.test.\n\
               example.test. IN TXT \"v=spf1 include:old.test -all\"\n\
               old.test. IN TXT \"v=spf1 ip4:198.51.100.0/24 -all\"\n";
    publish(&daemon, old);
    daemon.succeeds(&["domain", "keys", DOMAIN]);
    let before = ["domain", "check", DOMAIN, "--before-cutover"];
    assert!(fails(&daemon, &before).contains("5 needed records not verified"));

    let records = daemon.succeeds(&["domain", "records", DOMAIN]);
    assert!(records.contains("IN TXT \"v=spf1 a:mx.example.test include:old.test -all\"\n"));
    assert!(records.contains("\"v=DMARC1; p=none; rua=mailto:postmaster@example.test\"\n"));
    assert!(
        records.contains("\n; mail goes to inbound.old.test now\n;example.test. 3600 IN MX 10 ")
    );
    let summary = json(&daemon.succeeds(&["domain", "records", DOMAIN, "--json"]));
    let last = summary["records"].as_array().expect("a list").last().expect("is there");
    assert_eq!((&last["purpose"], &last["value"]), (&"MX".into(), &"10 mx.example.test".into()));

    // All that is printed, in place of what it is merged with; the MX is a comment.
    let rest: String = old
        .lines()
        .filter(|line| !line.contains("include:"))
        .fold(String::new(), |rest, line| rest + line + "\n");
    publish(&daemon, &format!("{rest}{records}"));
    let told = daemon.succeeds(&before);
    assert!(told.contains("(MX, the last step): mail goes to inbound.old.test first\n"), "{told}");
    let remains =
        "all is ready; what remains is to make this its only MX record: 10 mx.example.test";
    assert!(told.contains(remains), "{told}");
    assert!(fails(&daemon, &["domain", "check", DOMAIN]).contains("1 needed record not verified"));

    let moved = format!("{rest}{records}").replace("10 inbound.old.test.", "10 mx.example.test.");
    publish(&daemon, &moved);
    daemon.succeeds(&["domain", "check", DOMAIN]);
    assert!(!daemon.succeeds(&before).contains("what remains"));
    assert_eq!(daemon.succeeds(&["domain", "records", DOMAIN]).matches("v=spf1 a:").count(), 3);
}

/// Who pastes what is printed while DNS is silent moves nothing and breaks nothing.
#[test]
fn records_that_dns_did_not_help_with_are_comments() {
    let daemon = Setup::default().prepare();
    daemon.succeeds(&["domain", "keys", DOMAIN]);
    let config = std::fs::read_to_string(daemon.config()).expect("reads");
    for server in [Responder::servfail(), Responder::silent()] {
        let silent = config.replace("zone_file = \"demo.zone\"", &servers(server.address));
        std::fs::write(daemon.config(), silent).expect("writes");
        for more in [&[][..], &["--json"]] {
            let arguments = [&["domain", "records", DOMAIN][..], more].concat();
            let output = daemon.command(&arguments);
            assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
            assert!(text(&output.stderr).contains("DNS did not say all that stands there now"));
            let told = text(&output.stdout);
            assert!(told.contains("warning: DNS did not say where mail goes now"), "{told}");
            if more.is_empty() {
                let live: Vec<_> = told.lines().filter(|line| !line.starts_with(';')).collect();
                assert_eq!(live.len(), 2, "two keys and nothing else: {live:?}");
                assert!(live.iter().all(|line| line.contains("._domainkey.")), "{live:?}");
                assert!(told.contains("\n;example.test. 3600 IN MX 10 "), "{told}");
                assert_eq!(told.matches("so merge it by hand").count(), 6, "{told}");
            }
        }
    }
}

#[test]
fn a_real_name_server_takes_the_records() {
    let daemon = Setup::default().prepare();
    daemon.succeeds(&["domain", "keys", DOMAIN]);
    let records = daemon.succeeds(&["domain", "records", DOMAIN]);
    let nsd = Nsd::start(&format!("good.test. 60 IN A 127.0.0.1\n{HOST}{records}"));
    let config = std::fs::read_to_string(daemon.config()).expect("reads");
    let ask = |server: &str| {
        let config = config.replace("zone_file = \"demo.zone\"", server);
        std::fs::write(daemon.config(), config).expect("writes");
    };
    ask(&servers(nsd.address));
    let (found, is_right) = check(&daemon);
    assert!(is_right, "{found:?}");
    for server in [Responder::servfail(), Responder::silent()] {
        ask(&servers(server.address));
        let (found, is_right) = check(&daemon);
        assert!(!is_right && found.iter().all(|(_, status)| status == "PENDING"), "{found:?}");
    }
}

#[test]
fn a_backup_carries_the_keys() {
    let mut daemon = Setup::default().start();
    let keys = daemon.succeeds(&["domain", "keys", DOMAIN]);
    assert!(daemon.stop().success());
    assert!(daemon.succeeds(&["fsck"]).contains("domains: 2 keys opened"));
    let copy = daemon.path("copy").display().to_string();
    daemon.succeeds(&["backup", &copy]);
    let other = Setup::default().prepare();
    other.succeeds(&["restore", &copy]);
    let error = fails(&other, &["domain", "keys", DOMAIN]);
    assert!(error.contains("master.key"), "{error}");
    std::fs::copy(daemon.data().join("keys/master.key"), other.data().join("keys/master.key"))
        .expect("copies");
    assert_eq!(other.succeeds(&["domain", "keys", DOMAIN]), keys);
}

/// What we make ourselves has no envelope sender. A server that knows the published records, and
/// nothing else of us, takes it for genuine all the same.
#[test]
fn reports_and_journal_records_are_genuine_elsewhere() {
    let far = far();
    let organization = "[journaling]\njournaling_address = \"carol@far.test\"\n\
                        report_address = \"admin@example.test\"\n"
        .to_owned()
        + &rule("one-bounces", "BOUNCE", "*", "small@example.test");
    let zone = format!("{ZONE}far.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n");
    let mut daemon = prepared(Setup { zone, ..Setup::with(&organization) }, far.address().port());
    publish(&far, &daemon.succeeds(&["domain", "records", DOMAIN]));
    far.signal("HUP");
    wait_for("the reload", || far.log().contains("configuration reloaded").then_some(()));
    daemon.launch(Command::new(BINARY));

    let mut client = daemon.client();
    client.envelope("dave@far.test", &["bob@example.test", "small@example.test"]);
    let reply = client.data(&message("dave@far.test", "for one of two"));
    assert!(reply.starts_with("250"), "{reply}");
    for (user, subject) in [("carol", "for one of two"), ("dave", "Undelivered mail")] {
        delivered(&far, user, subject);
        let received = &far.trace(subject)[0];
        for verdict in ["spfVerdict", "dkimVerdict", "dmarcVerdict"] {
            assert_eq!(received[verdict], "PASS", "{verdict} of {received}");
        }
    }
}
