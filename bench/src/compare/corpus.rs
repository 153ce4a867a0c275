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

use super::outgoing;
use super::plan::Direction;

/// The author's domain, which signs; the fixture's zone lets 127.0.0.0/8 send for it.
const DOMAIN: &str = "good.test";
pub(super) const SELECTOR: &str = "compare";
/// Who writes from elsewhere, and whom users write to.
const PARTNER: &str = "bob@good.test";
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

/// Messages as they go over the wire after DATA, all with one envelope.
pub(super) struct Corpus {
    direction: Direction,
    first: Vec<u8>,
    others: Vec<Vec<u8>>,
}

impl Corpus {
    /// Which way they go.
    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// The reverse-path.
    pub(super) fn sender(&self) -> &'static str {
        match self.direction {
            Direction::Incoming => PARTNER,
            Direction::Outgoing => outgoing::USER,
        }
    }

    /// The forward-path.
    pub(super) fn recipient(&self) -> &'static str {
        match self.direction {
            Direction::Incoming => outgoing::USER,
            Direction::Outgoing => PARTNER,
        }
    }

    /// The message with a number; they begin again after the last.
    pub(super) fn message(&self, number: usize) -> &[u8] {
        let index = number % (self.others.len() + 1);
        index.checked_sub(1).and_then(|index| self.others.get(index)).unwrap_or(&self.first)
    }
}

/// Signs the corpus, and is in DNS for those who verify it.
pub(super) struct Signer {
    signer: DkimSigner<RsaKey<Sha256>, Ready>,
    private_key: Vec<u8>,
    public_key: Vec<u8>,
}

impl Signer {
    /// A new RSA key of 2048 bits.
    pub(super) fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let private: Pkcs8V1Der<'_> = pair.as_der()?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
        let private_key = private.as_ref().to_vec();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private.as_ref()));
        let key = RsaKey::<Sha256>::from_key_der(private)
            .map_err(|error| anyhow!("the signing key: {error}"))?;
        let signer = DkimSigner::from_key(key)
            .domain(DOMAIN)
            .selector(SELECTOR)
            .headers(SIGNED)
            .header_canonicalization(Canonicalization::Relaxed)
            .body_canonicalization(Canonicalization::Relaxed);
        Ok(Self { signer, private_key, public_key: public.as_ref().to_vec() })
    }

    /// The private key in PEM format (RFC 7468 §10), for a system that signs with it.
    pub(super) fn private_key(&self) -> String {
        let text = STANDARD.encode(&self.private_key);
        let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem + "-----END PRIVATE KEY-----\n"
    }

    /// The key as a line of a zone file (RFC 6376 §3.6.1).
    pub(super) fn zone_line(&self) -> String {
        let key = STANDARD.encode(&self.public_key);
        let (front, back) = key.split_at(key.len() / 2); // A string holds 255 octets at most.
        format!(
            "{SELECTOR}._domainkey.{DOMAIN}. IN TXT ( \"v=DKIM1; k=rsa; p={front}\" \"{back}\" )\n"
        )
    }

    /// `count` messages of about `octets`, one at least. Those that come from elsewhere are signed.
    pub(super) fn corpus(
        &self,
        direction: Direction,
        octets: usize,
        count: usize,
    ) -> anyhow::Result<Corpus> {
        let wire = |number| match direction {
            Direction::Incoming => self.signed(octets, number),
            Direction::Outgoing => Ok(dot_stuffed(&message(direction, octets, number)?)),
        };
        let others = (1..count).map(wire).collect::<anyhow::Result<_>>()?;
        Ok(Corpus { direction, first: wire(0)?, others })
    }

    fn signed(&self, octets: usize, number: usize) -> anyhow::Result<Vec<u8>> {
        let message = message(Direction::Incoming, octets, number)?;
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

fn message(direction: Direction, octets: usize, number: usize) -> anyhow::Result<String> {
    let mut noise = Noise::new(octets, number);
    let room = octets.checked_sub(FRAME_OCTETS).context("a message needs room for its header")?;
    let mut message = String::with_capacity(octets + FRAME_OCTETS);
    if octets >= ATTACHMENT_FROM {
        message.push_str(&header(direction, "mixed", number, &mut noise)?);
        let text = prose(&mut noise, COVER_LINES).join("\r\n");
        write!(message, "{}{text}\r\n", part("text/plain; charset=utf-8", "7bit"))?;
        let kind = "application/pdf; name=\"report.pdf\"";
        message.push_str(&part(kind, "base64\r\nContent-Disposition: attachment"));
        attach(&mut message, &mut noise, room - text.len());
    } else {
        message.push_str(&header(direction, "alternative", number, &mut noise)?);
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

/// What another server hands over has passed a server; what a user hands in has not.
fn header(
    direction: Direction,
    kind: &str,
    number: usize,
    noise: &mut Noise,
) -> anyhow::Result<String> {
    let mut header = String::new();
    match direction {
        Direction::Incoming => write!(
            header,
            "Received: from desk.good.test (desk.good.test [192.0.2.17])\r\n\
             \tby mail.good.test with ESMTPS id {:016x}\r\n\
             \tfor <alice@example.test>; Mon, 6 Jul 2026 09:12:31 +0000\r\n\
             From: Bob Good <bob@good.test>\r\n\
             To: Alice <alice@example.test>\r\n",
            noise.next(),
        )?,
        Direction::Outgoing => header.push_str(
            "From: Alice <alice@example.test>\r\n\
             To: Bob Good <bob@good.test>\r\n",
        ),
    }
    write!(
        header,
        "Subject: Order {number}: {} {}\r\n\
         Date: Mon, 6 Jul 2026 09:12:30 +0000\r\n\
         Message-ID: <{number}.{:016x}@mail.good.test>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/{kind}; boundary=\"{BOUNDARY}\"\r\n\
         X-Mailer: Mailer 4.2\r\n\r\n",
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
            let of = |number| message(Direction::Incoming, octets, number).expect("a message");
            let first = of(0);
            assert_ne!(first, of(1));
            // The signature comes on top, about 500 octets.
            let off = octets.abs_diff(first.len() + 500);
            assert!(off < 500 + octets / 50, "{octets}: {}", first.len());
            assert!(first.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
        }
    }

    #[test]
    fn users_hand_in_messages_that_nobody_has_signed_or_passed_on() {
        let signer = Signer::generate().expect("a key");
        for (direction, is_passed_on) in [(Direction::Incoming, true), (Direction::Outgoing, false)]
        {
            let corpus = signer.corpus(direction, 4 << 10, 3).expect("a corpus");
            let text = |number| String::from_utf8_lossy(corpus.message(number));
            assert_eq!(text(0), text(3), "they begin again");
            assert!(text(0) != text(1) && text(1) != text(2));
            for number in 0..3 {
                let text = text(number);
                assert!(text.contains(&format!("<{}>\r\nTo: ", corpus.sender())), "{text}");
                assert!(text.contains(&format!("<{}>\r\nSubject: ", corpus.recipient())), "{text}");
                for field in ["DKIM-Signature:", "Received:"] {
                    assert_eq!(text.contains(field), is_passed_on, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_private_key_is_read_as_pem() {
        let signer = Signer::generate().expect("a key");
        let pem = signer.private_key();
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
        let read = rcgen::KeyPair::from_pem(&pem).expect("a key in PEM");
        assert_eq!(read.serialized_der(), signer.private_key);
    }

    #[test]
    fn a_leading_dot_is_doubled() {
        assert_eq!(dot_stuffed("a\r\n.b\r\n"), b"a\r\n..b\r\n.\r\n");
    }
}
