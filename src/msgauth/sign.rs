//! DKIM signing (RFC 6376 §5): one pass over the body, a signature by each of the domain's keys.
//!
//! relaxed/relaxed, because relays on the way may fold header fields anew and trim white space.
//! There is no `l=` (RFC 6376 §8.2: anybody could append to the message) and no `x=` (our own
//! queue and others' may keep a message for days).

use mail_auth::crypto::{Algorithm, Sha256, SigningKey as _};
use mail_auth::dkim::{DkimSigner, Signature};
use mail_auth::headers::Writable;
use memchr::memmem;

use super::signing_key::SigningKey;
use crate::clock::Timestamp;
use crate::heavy::Turn;
use crate::mail::{Domain, FieldLines};

/// Whether one more field of a name than the message has would break the signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sealed {
    /// Also where the message has none: a first or second of these would change who a reader
    /// thinks has written, to whom, and about what (RFC 6376 §8.15).
    Always,
    /// Where the message has one. A mailing list may add what is missing, such as a `Reply-To`,
    /// and leave the signature valid.
    IfPresent,
    /// More may be added on the way: above these (RFC 5322 §3.6.6), or by a list.
    Never,
}

/// The fields that are signed if they are there: what readers see, what they answer to, and what
/// says how the body is to be read. All others change on the way, as `Received` and `Return-Path`
/// do, or mean nothing to readers (RFC 6376 §5.4.1).
const FIELDS: [(&str, Sealed); 28] = [
    ("From", Sealed::Always),
    ("To", Sealed::Always),
    ("Cc", Sealed::Always),
    ("Subject", Sealed::Always),
    ("Date", Sealed::IfPresent),
    ("Message-ID", Sealed::IfPresent),
    ("Sender", Sealed::IfPresent),
    ("Reply-To", Sealed::IfPresent),
    ("In-Reply-To", Sealed::IfPresent),
    ("References", Sealed::IfPresent),
    ("MIME-Version", Sealed::IfPresent),
    ("Content-Type", Sealed::IfPresent),
    ("Content-Transfer-Encoding", Sealed::IfPresent),
    ("Auto-Submitted", Sealed::IfPresent),
    ("Resent-From", Sealed::Never),
    ("Resent-Sender", Sealed::Never),
    ("Resent-To", Sealed::Never),
    ("Resent-Cc", Sealed::Never),
    ("Resent-Date", Sealed::Never),
    ("Resent-Message-ID", Sealed::Never),
    ("List-Id", Sealed::Never),
    ("List-Help", Sealed::Never),
    ("List-Unsubscribe", Sealed::Never),
    ("List-Unsubscribe-Post", Sealed::Never),
    ("List-Subscribe", Sealed::Never),
    ("List-Post", Sealed::Never),
    ("List-Owner", Sealed::Never),
    ("List-Archive", Sealed::Never),
];
/// Fields of those names in one message. RFC 5322 §3.6 allows most of them once; verifiers,
/// ourselves included, give up on too many.
const MAX_SIGNED_FIELDS: usize = 200;
/// Columns of a line of the header field (RFC 5322 §2.1.1).
const MAX_COLUMNS: usize = 78;
/// Octets that are looked through at once for the end of the header section.
const CHUNK: usize = 64 * 1024;

/// Why a message cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It has no From field, which every signature has to cover (RFC 6376 §5.4).
    #[error("there is no From field to sign")]
    NoAuthor,
    /// It has too many header fields that a signature would cover.
    #[error("more than {MAX_SIGNED_FIELDS} header fields to sign")]
    TooManyFields,
    /// The crypto library refuses.
    #[error("the message cannot be signed: {0}")]
    Crypto(String),
}

/// A selector (RFC 6376 §3.1) and its key.
#[derive(Debug)]
pub struct SelectedKey {
    /// The value of `s=`.
    pub selector: String,
    /// The private key.
    pub key: SigningKey,
}

/// Signs the mail of one domain.
#[derive(Debug)]
pub struct Signer {
    domain: Domain,
    keys: Vec<SelectedKey>,
}

impl Signer {
    /// Signs for `domain` with each of `keys`; the first one's signature comes first.
    pub fn new(domain: Domain, keys: Vec<SelectedKey>) -> Self {
        Self { domain, keys }
    }

    /// The value of `d=`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The values of `s=`, in the order of the signatures.
    pub fn selectors(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.selector)
    }

    /// The DKIM-Signature fields to put above a message, made at `now`. The message is given in
    /// pieces, cut anywhere, with CR LF at the ends of lines; its body is read once and not
    /// copied.
    ///
    /// # Errors
    /// [`SignError`]; the message should not leave unsigned then.
    pub fn sign(&self, turn: &Turn, parts: &[&[u8]], now: Timestamp) -> Result<String, SignError> {
        let covered = Covered::read(turn, parts, self.domain.as_str())?;
        self.keys.iter().map(|key| covered.signed_by(key, now)).collect()
    }
}

/// What a signature covers: the canonical header fields, and everything else as its tags.
struct Covered {
    canonical_fields: Vec<u8>,
    unsigned: Signature,
}

impl Covered {
    fn read(_: &Turn, parts: &[&[u8]], domain: &str) -> Result<Self, SignError> {
        let names = names_to_sign(&header_section(parts))?;
        let signer = DkimSigner::from_key(Octets).domain(domain).selector("").headers(names);
        let mut stream = signer.sign_streaming();
        for chunk in parts.iter().flat_map(|part| part.chunks(CHUNK)) {
            stream.write(chunk);
        }
        let mut unsigned = stream.finish().map_err(crypto)?;
        let mut canonical_fields = std::mem::take(&mut unsigned.b);
        let mut own_field = Vec::new();
        unsigned.write(&mut own_field, false);
        canonical_fields.truncate(canonical_fields.len().saturating_sub(own_field.len()));
        Ok(Self { canonical_fields, unsigned })
    }

    fn signed_by(&self, by: &SelectedKey, now: Timestamp) -> Result<String, SignError> {
        let mut signature = self.unsigned.clone();
        signature.a = by.key.key.algorithm();
        signature.s.clone_from(&by.selector);
        signature.t = now.as_secs();
        let mut octets = self.canonical_fields.clone();
        signature.write(&mut octets, false);
        signature.b = by.key.key.sign(octets.as_slice()).map_err(crypto)?;
        Ok(folded(&signature.to_string()))
    }
}

/// Stands for the domain's keys while the message is read, so that one pass serves all of them:
/// its "signature" is what is to be signed.
struct Octets;

impl mail_auth::crypto::SigningKey for Octets {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        let mut octets = Vec::new();
        input.write(&mut octets);
        Ok(octets)
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::RsaSha256
    }
}

fn crypto(error: mail_auth::Error) -> SignError {
    SignError::Crypto(error.to_string())
}

/// The header section with its empty line, if it has one.
fn header_section(parts: &[&[u8]]) -> Vec<u8> {
    let mut header = Vec::new();
    for chunk in parts.iter().flat_map(|part| part.chunks(CHUNK)) {
        // The empty line may begin in one piece and end in the next.
        let seam = header.len().saturating_sub(3);
        header.extend_from_slice(chunk);
        let end = header.get(seam..).and_then(|new| memmem::find(new, b"\r\n\r\n"));
        if let Some(end) = end {
            header.truncate(seam + end + 4);
            break;
        }
    }
    header
}

/// The names for `h=`, as mail-auth takes them: it signs every field of a name that is there, and
/// a name that is given once more than needed stands for the field that is not.
fn names_to_sign(header: &[u8]) -> Result<Vec<&'static str>, SignError> {
    let counts = count_fields(header);
    if counts.first() == Some(&0) {
        return Err(SignError::NoAuthor);
    }
    if counts.iter().sum::<usize>() > MAX_SIGNED_FIELDS {
        return Err(SignError::TooManyFields);
    }
    let names = FIELDS.iter().zip(counts).flat_map(|((name, sealed), count)| {
        let seal = match sealed {
            Sealed::Always => 1,
            Sealed::IfPresent => usize::from(count > 0),
            Sealed::Never => 0,
        };
        std::iter::repeat_n(*name, usize::from(count > 0) + seal)
    });
    Ok(names.collect())
}

/// How many fields there are of each name in [`FIELDS`]; From's is the first.
fn count_fields(header: &[u8]) -> [usize; FIELDS.len()] {
    let mut counts = [0; FIELDS.len()];
    for (name, _) in FieldLines::new(header) {
        let is_name = |(known, _): &(&str, Sealed)| name.eq_ignore_ascii_case(known.as_bytes());
        if let Some(count) = FIELDS.iter().position(is_name).and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
    }
    counts
}

/// The field for the header, from its canonical form: on lines of 78 columns at most, but for a
/// domain that is longer. Broken only where the canonical form has a space, so that it remains
/// what was signed.
fn folded(canonical: &str) -> String {
    let value = canonical.split_once(':').map_or(canonical, |(_, value)| value);
    let mut field = String::from("DKIM-Signature:");
    let mut column = field.len();
    for word in value.split(' ') {
        if column + 1 + word.len() > MAX_COLUMNS {
            field.push_str("\r\n\t");
            column = 1 + word.len();
        } else {
            field.push(' ');
            column += 1 + word.len();
        }
        field.push_str(word);
    }
    field.push_str("\r\n");
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> String {
        names_to_sign(header.as_bytes()).map_or_else(|e| e.to_string(), |names| names.join(":"))
    }

    #[test]
    fn what_is_there_is_signed_and_what_must_not_be_added_is_sealed() {
        for (header, expected) in [
            ("From: a\r\n\r\n", "From:From:To:Cc:Subject"),
            ("from : a\r\nSUBJECT: b\r\n\r\n", "From:From:To:Cc:Subject:Subject"),
            ("From: a\r\nTo: b\r\nTo: c\r\n", "From:From:To:To:Cc:Subject"),
            ("From: a\r\nDate: x\r\n", "From:From:To:Cc:Subject:Date:Date"),
            ("From: a\r\nList-Id: x\r\nReceived: y\r\n", "From:From:To:Cc:Subject:List-Id"),
            ("To: a\r\n\r\nFrom: body\r\n", "there is no From field to sign"),
            ("\r\nFrom: body\r\n", "there is no From field to sign"),
            ("", "there is no From field to sign"),
        ] {
            assert_eq!(names(header), expected, "{header:?}");
        }
        let many = |count: usize| format!("From: a\r\n{}", "List-Id: x\r\n".repeat(count));
        assert!(names(&many(MAX_SIGNED_FIELDS - 1)).starts_with("From"));
        assert_eq!(names(&many(MAX_SIGNED_FIELDS)), "more than 200 header fields to sign");
    }

    #[test]
    fn the_header_section_is_found_wherever_the_message_is_cut() {
        let message = b"From: a\r\nTo: b\r\n\r\nbody\r\n\r\nmore";
        for first in 0..message.len() {
            for second in first..message.len() {
                let parts = [&message[..first], &message[first..second], &message[second..]];
                assert_eq!(header_section(&parts), b"From: a\r\nTo: b\r\n\r\n");
            }
        }
        assert_eq!(header_section(&[b"From: a\r\n"]), b"From: a\r\n");
    }

    #[test]
    fn a_field_is_folded_at_its_spaces_only() {
        let long = "x".repeat(100);
        let canonical = format!("dkim-signature:v=1; d={long}; {} b=", "h=From:To; ".repeat(9));
        let field = folded(&canonical);
        assert_eq!(field.replace("\r\n\t", " ").trim_end().split_once(": "), {
            canonical.split_once(':').map(|(_, value)| ("DKIM-Signature", value))
        });
        let lines: Vec<_> = field.split_terminator("\r\n").collect();
        assert_eq!(lines[..2], ["DKIM-Signature: v=1;", &format!("\td={long};")]);
        assert!(lines.iter().skip(2).all(|line| line.len() <= 78 && line.starts_with('\t')));
        assert!(lines.len() < 6, "{lines:?}");
    }
}
