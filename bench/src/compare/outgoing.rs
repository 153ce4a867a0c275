//! Mail that users send: what it is handed to, the sink that it goes to, and the signature that
//! it must have there.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::sink::Sink;
use super::system::System;

/// The user who sends, and whose domain signs.
pub(super) const USER: &str = "alice@example.test";
pub(super) const DOMAIN: &str = "example.test";
/// Octets of a signature by an RSA key of 2048 bits.
const SIGNATURE_OCTETS: usize = 256;

/// What AUTH PLAIN says for the user (RFC 4616 §2).
pub(super) fn login(password: &str) -> String {
    STANDARD.encode(format!("\0{USER}\0{password}"))
}

/// A system whose mail goes to a sink.
pub(super) struct Sending {
    // Ended before the sink, which its connections are open to.
    pub(super) system: Box<dyn System>,
    pub(super) sink: Sink,
}

impl System for Sending {
    fn address(&self) -> SocketAddr {
        self.system.address()
    }

    fn login(&self) -> Option<&str> {
        self.system.login()
    }

    fn roots(&self) -> Vec<u32> {
        self.system.roots()
    }

    fn has_delivered(&self, count: usize) -> anyhow::Result<bool> {
        Ok(self.sink.count() >= count)
    }

    fn count(&self) -> anyhow::Result<usize> {
        Ok(self.sink.count())
    }

    fn sample(&self) -> anyhow::Result<String> {
        self.sink.sample().context("the sink has nothing")
    }

    fn log(&self) -> String {
        self.system.log()
    }
}

/// Fails unless a header section has one DKIM signature, of the user's domain, by an RSA key of
/// 2048 bits.
pub(super) fn check_signature(header: &str) -> anyhow::Result<()> {
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let mut signatures = Vec::new();
    for line in unfolded.lines() {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("DKIM-Signature") => {
                signatures.push(value);
            }
            _ => {}
        }
    }
    let [signature] = signatures[..] else {
        bail!("{} DKIM signatures where there must be one", signatures.len());
    };
    ensure!(tag(signature, "d") == DOMAIN, "a signature of another domain");
    ensure!(tag(signature, "a") == "rsa-sha256", "a signature by another algorithm");
    let octets = STANDARD.decode(tag(signature, "b")).context("a signature that is not base64")?;
    ensure!(octets.len() == SIGNATURE_OCTETS, "a signature by a key of another size");
    Ok(())
}

/// The value of a tag without its white space (RFC 6376 §3.2); empty if there is none.
fn tag(signature: &str, name: &str) -> String {
    for part in signature.split(';') {
        match part.split_once('=') {
            Some((found, value)) if found.trim() == name => {
                return value.split_whitespace().collect();
            }
            _ => {}
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_signature_of_the_domain_by_rsa_2048_will_do() {
        let field = |domain: &str, algorithm: &str, octets: usize| {
            let value = STANDARD.encode(vec![7; octets]);
            let (front, back) = value.split_at(60);
            format!(
                "DKIM-Signature: v=1; a={algorithm};\r\n\td={domain}; s=x; bh=;\r\n b={front}\r\n\t\
                 {back}\r\n"
            )
        };
        let right = field("example.test", "rsa-sha256", 256);
        for (fields, is_right) in [
            (right.clone(), true),
            (String::new(), false),
            (format!("{right}{right}"), false),
            (field("good.test", "rsa-sha256", 256), false),
            (field("example.test", "ed25519-sha256", 64), false),
            (field("example.test", "rsa-sha256", 128), false),
            (format!("X-{right}"), false),
        ] {
            let header = format!("Received: by x\r\n{fields}From: alice@example.test\r\n");
            let checked = check_signature(&header);
            assert_eq!(checked.is_ok(), is_right, "{header}: {checked:?}");
        }
    }

    #[test]
    fn a_login_names_the_user_and_the_password() {
        assert_eq!(login("secret"), "AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQ=");
    }
}
