//! Signatures of an independent signer, dkimpy.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, Setup, ZONE, text};
use crate::support::smtp::message;

fn shell(dir: &Path, command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).current_dir(dir).output().expect("runs");
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

struct Keys {
    dir: tempfile::TempDir,
    zone: String,
}

/// An RSA and an Ed25519 key, made with OpenSSL, and the zone with their records.
fn keys() -> Keys {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    shell(at, "openssl genrsa -out rsa.pem 2048 2>/dev/null");
    shell(at, "openssl genpkey -algorithm ed25519 -out ed.pem");
    // dkimpy takes the bare 32 bytes of the private key in base64; the record has the public ones.
    shell(at, "openssl pkey -in ed.pem -outform DER | tail -c 32 | base64 -w0 > ed.key");
    let rsa = shell(at, "openssl rsa -in rsa.pem -pubout -outform DER 2>/dev/null | base64 -w0");
    let ed = shell(at, "openssl pkey -in ed.pem -pubout -outform DER | tail -c 32 | base64 -w0");
    let (first, rest) = rsa.split_at(200);
    let zone = format!(
        "{ZONE}\nrsa._domainkey.reject.test. IN TXT \"v=DKIM1; k=rsa; p={first}\" \"{rest}\"\n\
         ed._domainkey.reject.test. IN TXT \"v=DKIM1; k=ed25519; p={ed}\"\n"
    );
    Keys { dir, zone }
}

impl Keys {
    fn sign(&self, kind: &str, selector: &str, message: &[u8]) -> Vec<u8> {
        let key = if kind == "rsa" { "rsa.pem" } else { "ed.key" };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(root.join("target/test-venv/bin/python"))
            .arg(root.join("tests/dkim_sign.py"))
            .args([kind, &self.dir.path().join(key).display().to_string(), selector, "reject.test"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the virtual environment is made by tests/setup.sh");
        child.stdin.take().expect("a pipe").write_all(message).expect("writes");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success());
        output.stdout
    }
}

fn verdicts(daemon: &Daemon, subject: &str, signed: &[u8]) -> (String, String, String) {
    let mut client = daemon.client();
    // The envelope is of a domain that passes SPF without alignment: DKIM decides DMARC.
    client.envelope("bounce@good.test", &["alice@example.test"]);
    let reply = client.data(signed);
    let received = daemon.trace(subject)[0].clone();
    let text = |key: &str| received[key].as_str().expect("a verdict").to_owned();
    (text("dkimVerdict"), text("dmarcVerdict"), reply[..3].to_owned())
}

#[test]
fn signatures_are_verified_and_decide_dmarc() {
    let keys = keys();
    let daemon = Setup { zone: keys.zone.clone(), ..Setup::default() }.start();
    let plain = |subject: &str| message("a@reject.test", subject);
    let check = |subject: &str, signed: &[u8], expected: (&str, &str, &str)| {
        let found = verdicts(&daemon, subject, signed);
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), expected, "{subject}");
    };
    check("unsigned", &plain("unsigned"), ("GRAY", "FAIL", "550"));
    check("rsa", &keys.sign("rsa", "rsa", &plain("rsa")), ("PASS", "PASS", "250"));
    check("ed", &keys.sign("ed25519", "ed", &plain("ed")), ("PASS", "PASS", "250"));
    let both = keys.sign("ed25519", "ed", &keys.sign("rsa", "rsa", &plain("both")));
    check("both", &both, ("PASS", "PASS", "250"));
    let mut altered = keys.sign("rsa", "rsa", &plain("altered body"));
    altered.extend_from_slice(b"P.S. send money\r\n");
    check("altered body", &altered, ("FAIL", "FAIL", "550"));
    let one_good = keys.sign("ed25519", "ed", &altered_twice(&keys));
    check("one of two", &one_good, ("PASS", "PASS", "250"));
    check("no key", &keys.sign("rsa", "missing", &plain("no key")), ("FAIL", "FAIL", "550"));
}

/// A message whose first signature no longer holds.
fn altered_twice(keys: &Keys) -> Vec<u8> {
    let mut signed = keys.sign("rsa", "rsa", &message("a@reject.test", "one of two"));
    signed.extend_from_slice(b"more\r\n");
    signed
}
