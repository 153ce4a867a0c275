//! The messages that are sent: made at the start, each unlike the others, signed with a key that
//! exists for this run only.

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::crypto::{RsaKey, Sha256};
use mail_auth::dkim::{Canonicalization, DkimSigner};
use mail_auth::headers::HeaderWriter;
use mail_auth::signer::Ready;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The author's domain, which signs; the fixture's zone lets 127.0.0.0/8 send for it.
const DOMAIN: &str = "good.test";
const SELECTOR: &str = "compare";
const SIGNED: [&str; 7] =
    ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"];
/// From this size on the most of a message is an attachment.
const ATTACHMENT_FROM: usize = 512 << 10;
/// What header section and MIME structure take, about.
const FRAME_OCTETS: usize = 1500;
/// Octets in a line of 76 characters of base64.
const BASE64_LINE: usize = 57;
/// A line of text and its end, on average.
const LINE_OCTETS: usize = 65;
/// Lines of text with an attachment.
const COVER_LINES: usize = 30;
/// Around the HTML part's lines, and around each of them: as most HTML mail, more markup than text.
const PAGE: (&str, &str) = (
    "<!DOCTYPE html><html><head><title>Update</title></head><body bgcolor=\"#ffffff\">\r\n\
     <table width=\"600\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\">\r\n",
    "</table>\r\n<a href=\"https://www.good.test/orders\">Your orders</a></body></html>\r\n",
);
const ROW: (&str, &str) = (
    "<tr><td align=\"left\" valign=\"top\" style=\"padding:4px 12px;font-family:Arial,Helvetica,\
     sans-serif;font-size:14px;line-height:20px;color:#333333\"><p style=\"margin:0 0 8px 0\">\
     <span class=\"text\">",
    "</span></p></td></tr>",
);
const BOUNDARY: &str = "=_part-7d1f0c";

const WORDS: [&str; 40] = [
    "about", "agenda", "before", "budget", "change", "contract", "customer", "delivery", "details",
    "first", "Friday", "from", "invoice", "last", "meeting", "Monday", "need", "number", "offer",
    "order", "please", "price", "project", "question", "report", "review", "schedule", "send",
    "ship", "should", "team", "thanks", "the", "their", "travel", "update", "we", "week", "with",
    "your",
];

/// Signs the corpus, and is in DNS for those who verify it.
pub(super) struct Signer {
    signer: DkimSigner<RsaKey<Sha256>, Ready>,
    public_key: Vec<u8>,
}

impl Signer {
    /// A new RSA key of 2048 bits.
    pub(super) fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let private: Pkcs8V1Der<'_> = pair.as_der()?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private.as_ref()));
        let key = RsaKey::<Sha256>::from_key_der(private)
            .map_err(|error| anyhow!("the signing key: {error}"))?;
        let signer = DkimSigner::from_key(key)
            .domain(DOMAIN)
            .selector(SELECTOR)
            .headers(SIGNED)
            .header_canonicalization(Canonicalization::Relaxed)
            .body_canonicalization(Canonicalization::Relaxed);
        Ok(Self { signer, public_key: public.as_ref().to_vec() })
    }

    /// The key as a line of a zone file (RFC 6376 §3.6.1).
    pub(super) fn zone_line(&self) -> String {
        let key = STANDARD.encode(&self.public_key);
        let (front, back) = key.split_at(key.len() / 2); // A string holds 255 octets at most.
        format!(
            "{SELECTOR}._domainkey.{DOMAIN}. IN TXT ( \"v=DKIM1; k=rsa; p={front}\" \"{back}\" )\n"
        )
    }

    /// `count` messages of about `octets`, as they go over the wire after DATA.
    pub(super) fn corpus(&self, octets: usize, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        (0..count).map(|number| self.wire(octets, number)).collect()
    }

    fn wire(&self, octets: usize, number: usize) -> anyhow::Result<Vec<u8>> {
        let message = message(octets, number)?;
        let signature = self
            .signer
            .sign(message.as_bytes())
            .map_err(|error| anyhow!("a message cannot be signed: {error}"))?;
        Ok(dot_stuffed(&format!("{}{message}", signature.to_header())))
    }
}

/// RFC 5321 §4.5.2: a leading dot is doubled, and a lone dot ends the message.
fn dot_stuffed(message: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + 3);
    for line in message.split_inclusive("\r\n") {
        if line.starts_with('.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line.as_bytes());
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

fn message(octets: usize, number: usize) -> anyhow::Result<String> {
    let mut noise = Noise::new(octets, number);
    let room = octets.checked_sub(FRAME_OCTETS).context("a message needs room for its header")?;
    let mut message = String::with_capacity(octets + FRAME_OCTETS);
    if octets >= ATTACHMENT_FROM {
        message.push_str(&header("mixed", number, &mut noise)?);
        let text = prose(&mut noise, COVER_LINES).join("\r\n");
        write!(message, "{}{text}\r\n", part("text/plain; charset=utf-8", "7bit"))?;
        let kind = "application/pdf; name=\"report.pdf\"";
        message.push_str(&part(kind, "base64\r\nContent-Disposition: attachment"));
        attach(&mut message, &mut noise, room - text.len());
    } else {
        message.push_str(&header("alternative", number, &mut noise)?);
        let lines = prose(&mut noise, room / (2 * LINE_OCTETS + ROW.0.len() + ROW.1.len()));
        let text = lines.join("\r\n");
        write!(message, "{}{text}\r\n", part("text/plain; charset=utf-8", "7bit"))?;
        message.push_str(&part("text/html; charset=utf-8", "7bit"));
        message.push_str(PAGE.0);
        for line in lines {
            write!(message, "{}{line}{}\r\n", ROW.0, ROW.1)?;
        }
        message.push_str(PAGE.1);
    }
    write!(message, "--{BOUNDARY}--\r\n")?;
    Ok(message)
}

fn header(kind: &str, number: usize, noise: &mut Noise) -> anyhow::Result<String> {
    let mut header = String::new();
    write!(
        header,
        "Received: from desk.good.test (desk.good.test [192.0.2.17])\r\n\
         \tby mail.good.test with ESMTPS id {:016x}\r\n\
         \tfor <alice@example.test>; Mon, 6 Jul 2026 09:12:31 +0000\r\n\
         From: Bob Good <bob@good.test>\r\n\
         To: Alice <alice@example.test>\r\n\
         Subject: Order {number}: {} {}\r\n\
         Date: Mon, 6 Jul 2026 09:12:30 +0000\r\n\
         Message-ID: <{number}.{:016x}@mail.good.test>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/{kind}; boundary=\"{BOUNDARY}\"\r\n\
         X-Mailer: Mailer 4.2\r\n\r\n",
        noise.next(),
        noise.word(),
        noise.word(),
        noise.next(),
    )?;
    Ok(header)
}

fn part(kind: &str, encoding: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n")
}

/// Lines of words.
fn prose(noise: &mut Noise, lines: usize) -> Vec<String> {
    let line = |_| {
        let mut line = String::with_capacity(LINE_OCTETS);
        while line.len() < 60 {
            line.push_str(noise.word());
            line.push(' ');
        }
        line.truncate(line.trim_end().len());
        line
    };
    (0..lines).map(line).collect()
}

/// Appends random octets in base64, `octets` when encoded.
fn attach(message: &mut String, noise: &mut Noise, octets: usize) {
    let mut line = [0; BASE64_LINE];
    for _ in 0..octets / (BASE64_LINE / 3 * 4 + 2) {
        for chunk in line.chunks_mut(8) {
            let random = noise.next().to_le_bytes();
            chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
        }
        STANDARD.encode_string(line, message);
        message.push_str("\r\n");
    }
}

/// Pseudo-random numbers (xorshift64*), so that every run sends the same texts.
struct Noise(u64);

impl Noise {
    fn new(octets: usize, number: usize) -> Self {
        Self(((octets as u64) << 20 ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn word(&mut self) -> &'static str {
        let index = (self.next() >> 32) as usize % WORDS.len();
        WORDS.get(index).copied().unwrap_or("and")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_size_and_differ() {
        for octets in [4 << 10, 50 << 10, 1 << 20] {
            let first = message(octets, 0).expect("a message");
            assert_ne!(first, message(octets, 1).expect("a message"));
            // The signature comes on top, about 500 octets.
            let off = octets.abs_diff(first.len() + 500);
            assert!(off < 500 + octets / 50, "{octets}: {}", first.len());
            assert!(first.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
        }
    }

    #[test]
    fn a_leading_dot_is_doubled() {
        assert_eq!(dot_stuffed("a\r\n.b\r\n"), b"a\r\n..b\r\n.\r\n");
    }
}
