//! DKIM with an independent signer: dkimpy signs, Mailweir verifies. Keys are made anew each time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::daemon::{Daemon, Setup, ZONE, text};
use crate::support::smtp::message;

const ALICE: &str = "alice@example.test";
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python");
const SIGNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim_sign.py");

/// Everything of `signed.test` fails SPF and is rejected by DMARC unless a signature aligns.
const POLICIES: &str = "\
signed.test. IN SOA ns.good.test. hostmaster.good.test. 1 3600 600 86400 300
signed.test. IN TXT \"v=spf1 -all\"
_dmarc.signed.test. IN TXT \"v=DMARC1; p=reject\"
strict.test. IN SOA ns.good.test. hostmaster.good.test. 1 3600 600 86400 300
strict.test. IN TXT \"v=spf1 -all\"
_dmarc.strict.test. IN TXT \"v=DMARC1; p=reject; adkim=s\"
revoked._domainkey.signed.test. IN TXT \"v=DKIM1; k=rsa; p=\"
";

fn openssl(script: &str, dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .output()
        .expect("openssl is installed by tests/setup.sh");
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

struct Signer {
    dir: tempfile::TempDir,
    daemon: Daemon,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Rsa,
    Ed25519,
}

/// What a signature says of itself.
struct As<'a> {
    selector: &'a str,
    domain: &'a str,
    canonicalization: &'a str,
}

const AS_AUTHOR: As<'_> =
    As { selector: "key", domain: "signed.test", canonicalization: "relaxed/relaxed" };

impl Signer {
    /// Makes keys, publishes them, and starts a daemon that finds them.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let rsa = openssl(
            "openssl genpkey -quiet -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa.pem 2>&1 \
             || openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa.pem 2>/dev/null
             openssl pkey -in rsa.pem -pubout -outform DER | openssl base64 -A",
            dir.path(),
        );
        // The last 32 octets of either form are the key itself.
        let ed25519 = openssl(
            "openssl genpkey -algorithm ed25519 -out ed25519.pem
             openssl pkey -in ed25519.pem -outform DER | tail -c 32 | openssl base64 -A >ed25519.key
             openssl pkey -in ed25519.pem -pubout -outform DER | tail -c 32 | openssl base64 -A",
            dir.path(),
        );
        let rsa = rsa.lines().last().expect("a key");
        let (first, second) = rsa.split_at(200);
        let mut zone = format!("{ZONE}{POLICIES}");
        for domain in
            ["signed.test", "sub.signed.test", "strict.test", "mail.strict.test", "other.test"]
        {
            zone.push_str(&format!(
                "key._domainkey.{domain}. IN TXT \"v=DKIM1; k=rsa; p={first}\" \"{second}\"\n\
                 ed._domainkey.{domain}. IN TXT \"v=DKIM1; k=ed25519; p={ed25519}\"\n"
            ));
        }
        let daemon = Setup { zone, ..Setup::default() }.start();
        Self { dir, daemon }
    }

    fn sign(&self, message: &[u8], algorithm: Algorithm, signature: &As<'_>) -> Vec<u8> {
        let (name, key) = match algorithm {
            Algorithm::Rsa => ("rsa-sha256", "rsa.pem"),
            Algorithm::Ed25519 => ("ed25519-sha256", "ed25519.key"),
        };
        let mut child = Command::new(PYTHON)
            .args([SIGNER, name, signature.selector, signature.domain])
            .arg(self.dir.path().join(key))
            .arg(signature.canonicalization)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/setup.sh makes the virtual environment");
        child.stdin.take().expect("a pipe").write_all(message).expect("writes");
        let output = child.wait_with_output().expect("waits");
        assert!(output.status.success(), "dkimpy signs");
        output.stdout
    }

    /// Sends a message and gives the reply and the event of its reception.
    fn send(&self, message: &[u8], subject: &str) -> (String, Value) {
        let mut client = self.daemon.client();
        client.envelope("bounces@signed.test", &[ALICE]);
        let reply = client.data(message);
        (reply, self.daemon.trace(subject)[0].clone())
    }

    #[track_caller]
    fn check(&self, message: &[u8], subject: &str, dkim: &str, dmarc: &str) {
        let (reply, event) = self.send(message, subject);
        assert_eq!(event["dkimVerdict"], dkim, "{subject}: {event}");
        assert_eq!(event["dmarcVerdict"], dmarc, "{subject}: {event}");
        let expected = if dmarc == "FAIL" { "550 5.7.1" } else { "250" };
        assert!(reply.starts_with(expected), "{subject}: {reply}");
    }

    /// The `Authentication-Results` of the delivered message with this subject, on one line.
    fn results(&self, subject: &str) -> String {
        let needle = format!("\r\nSubject: {subject}\r\n");
        let messages = self.daemon.mailbox("alice");
        let stored = messages.iter().find(|(_, bytes)| text(bytes).contains(&needle));
        let stored = text(&stored.expect("is delivered").1);
        let (_, rest) = stored.split_once("Authentication-Results: ").expect("has one");
        rest.lines()
            .enumerate()
            .take_while(|(number, line)| *number == 0 || line.starts_with([' ', '\t']))
            .map(|(_, line)| line.trim().to_owned() + " ")
            .collect()
    }
}

fn replaced(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = text(message);
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn both_algorithms_and_all_canonicalizations_pass() {
    let signer = Signer::start();
    for (name, algorithm, selector) in
        [("rsa", Algorithm::Rsa, "key"), ("ed25519", Algorithm::Ed25519, "ed")]
    {
        for canonicalization in
            ["simple/simple", "relaxed/simple", "simple/relaxed", "relaxed/relaxed"]
        {
            let subject = format!("{name} {}", canonicalization.replace('/', " "));
            let signature = As { selector, canonicalization, ..AS_AUTHOR };
            let mut plain = message("a@signed.test", &subject);
            plain.extend_from_slice(b".a dot\r\n..two\r\n  spaces  and\ttabs \r\n\r\n\r\n");
            let signed = signer.sign(&plain, algorithm, &signature);
            signer.check(&signed, &subject, "PASS", "PASS");
            let results = signer.results(&subject);
            assert!(results.contains("dkim=pass"), "{results}");
            assert!(results.contains(&format!("header.a={name}-sha256")), "{results}");
            assert!(results.contains("spf=fail"), "DMARC passes by DKIM alone: {results}");
        }
    }
}

#[test]
fn two_signatures_are_both_reported_and_one_that_holds_is_enough() {
    let signer = Signer::start();
    let ed = As { selector: "ed", ..AS_AUTHOR };
    let twice = |subject: &str| {
        let once = signer.sign(&message("a@signed.test", subject), Algorithm::Rsa, &AS_AUTHOR);
        signer.sign(&once, Algorithm::Ed25519, &ed)
    };
    signer.check(&twice("both"), "both", "PASS", "PASS");
    assert_eq!(signer.results("both").matches("dkim=pass").count(), 2);
    let broken = replaced(&twice("one broken"), "s=key", "s=gone");
    signer.check(&broken, "one broken", "PASS", "PASS");
    let results = signer.results("one broken");
    assert_eq!(results.matches("dkim=pass").count(), 1, "{results}");
    assert_eq!(results.matches("dkim=").count(), 2, "{results}");
}

#[test]
fn what_was_altered_fails() {
    let signer = Signer::start();
    for (subject, from, to) in [
        ("altered body", "Hello.", "Hello!"),
        ("longer body", "Hello.\r\n", "Hello.\r\nAnd send money.\r\n"),
        ("altered from", "From: <a@signed.test>", "From: <ceo@signed.test>"),
        ("altered date", "09:00:00", "10:00:00"),
    ] {
        for (algorithm, selector) in [(Algorithm::Rsa, "key"), (Algorithm::Ed25519, "ed")] {
            let subject = format!("{subject} {selector}");
            let signature = As { selector, ..AS_AUTHOR };
            let signed = signer.sign(&message("a@signed.test", &subject), algorithm, &signature);
            signer.check(&replaced(&signed, from, to), &subject, "FAIL", "FAIL");
        }
    }
}

#[test]
fn a_key_that_is_not_there_or_was_withdrawn_fails() {
    let signer = Signer::start();
    for (subject, selector) in [("missing key", "nobody"), ("revoked key", "revoked")] {
        let signature = As { selector, ..AS_AUTHOR };
        let signed = signer.sign(&message("a@signed.test", subject), Algorithm::Rsa, &signature);
        signer.check(&signed, subject, "FAIL", "FAIL");
    }
    let unsigned = message("a@signed.test", "unsigned");
    signer.check(&unsigned, "unsigned", "GRAY", "FAIL");
}

#[test]
fn only_a_signature_of_the_authors_domain_counts_for_dmarc() {
    let signer = Signer::start();
    for (subject, author, domain, dmarc) in [
        ("same", "a@signed.test", "signed.test", "PASS"),
        ("signed by a subdomain", "a@signed.test", "sub.signed.test", "PASS"),
        ("author in a subdomain", "a@sub.signed.test", "signed.test", "PASS"),
        ("signed by somebody else", "a@signed.test", "other.test", "FAIL"),
        ("strict and same", "a@strict.test", "strict.test", "PASS"),
        ("strict and a subdomain", "a@strict.test", "mail.strict.test", "FAIL"),
    ] {
        let signature = As { domain, ..AS_AUTHOR };
        let signed = signer.sign(&message(author, subject), Algorithm::Rsa, &signature);
        signer.check(&signed, subject, "PASS", dmarc);
    }
}
