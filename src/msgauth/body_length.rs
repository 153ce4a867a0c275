//! DKIM signatures with a body length (RFC 6376 §3.5, `l=`).
//!
//! One that covers the whole body is as good as one without. Where the body is longer, anybody may
//! have appended the rest (§8.2), and the signature does not count.

use std::borrow::Cow;
use std::cmp::Ordering;

use mail_auth::dkim::{Canonicalization, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, Error};

use super::outcome::DkimOutcome;
use crate::heavy::Turn;

/// Signatures and seals of one message that mail-auth has left out, those with a body length among
/// them. Read once more, each may cost a hash of the body for a length of its own, in whatever
/// spelling; real messages have one or two.
const MAX_LEFT_OUT: usize = 4;
/// A body whose canonical form has to be made is copied, up to this size.
const MAX_COPIED: usize = 8 * 1024 * 1024;

/// How much of a body a signature covers by its `l=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The whole canonical body, which one of the [`Form`]s has.
    Whole,
    /// Not the end of it, or nobody has measured.
    Part,
    /// More than there is, which RFC 6376 §3.5 forbids.
    Beyond,
}

/// The signatures with `l=` of one message: mail-auth has left them out.
#[derive(Debug, Default)]
pub(super) struct Lengths<'a> {
    reaches: Vec<(&'a [u8], Reach)>,
    simple: Option<Form<'a>>,
    relaxed: Option<Form<'a>>,
}

/// A message as it came.
struct Whole<'a> {
    header: &'a [u8],
    body: &'a [u8],
    raw: &'a [u8],
}

/// A message with a body for which `l=` needs no cutting: mail-auth would count its octets in the
/// body as it came, not in the canonical one (RFC 6376 §3.7).
#[derive(Debug)]
struct Form<'a> {
    canonicalization: Canonicalization,
    /// Octets of the canonical body.
    length: u64,
    message: Option<Cow<'a, [u8]>>,
}

impl<'a> Lengths<'a> {
    /// Of the first `max` signatures with `l=` of a message that mail-auth has read.
    pub(super) fn measure(
        _: &Turn,
        raw: &'a [u8],
        message: &AuthenticatedMessage<'a>,
        max: usize,
    ) -> Self {
        let fields: Vec<&'a [u8]> = message
            .errors()
            .iter()
            .filter(|field| matches!(field.header, Error::Dkim(DkimError::BodyLengthTag)))
            .take(max)
            .map(|field| field.value)
            .collect();
        let mut lengths = Self::default();
        if fields.is_empty() || message.errors().len() > MAX_LEFT_OUT {
            return lengths;
        }
        let (header, body) = raw.split_at(message.body_offset().min(raw.len()));
        let whole = Whole { header, body, raw };
        for field in fields {
            let Ok(signature) = Signature::parse(field) else { continue };
            let place = match signature.cb {
                Canonicalization::Simple => &mut lengths.simple,
                Canonicalization::Relaxed => &mut lengths.relaxed,
            };
            let form = place.get_or_insert_with(|| Form::new(&whole, signature.cb));
            let reach = match signature.l.cmp(&form.length) {
                Ordering::Less => Reach::Part,
                Ordering::Equal if form.make(&whole) => Reach::Whole,
                Ordering::Equal => Reach::Part,
                Ordering::Greater => Reach::Beyond,
            };
            lengths.reaches.push((field, reach));
        }
        lengths
    }

    /// How far the signature in a field reaches.
    pub(super) fn reach(&self, field: &[u8]) -> Reach {
        let known = self.reaches.iter().find(|(value, _)| *value == field);
        known.map_or(Reach::Part, |(_, reach)| *reach)
    }

    /// Whether any signature covers the whole body.
    pub(super) fn any_covers(&self) -> bool {
        self.reaches.iter().any(|(_, reach)| *reach == Reach::Whole)
    }

    /// The message once for each canonicalization, with no signatures but those that cover its
    /// whole body by their `l=`, and what `screen` says of each.
    pub(super) fn covered(
        &self,
        _: &Turn,
        screen: impl Fn(&mut AuthenticatedMessage<'_>) -> Vec<DkimOutcome>,
    ) -> (Vec<AuthenticatedMessage<'_>>, Vec<DkimOutcome>) {
        let mut covered = Vec::new();
        let mut refused = Vec::new();
        for form in [&self.simple, &self.relaxed].into_iter().flatten() {
            let Some(content) = &form.message else { continue };
            let parsed = AuthenticatedMessage::parse_with_opts(content, None, false);
            let Some(mut message) = parsed else { continue };
            message.retain_dkim_signatures(|signature| {
                let is_whole = signature.l == form.length && signature.cb == form.canonicalization;
                if is_whole { Ok(()) } else { Err(DkimError::BodyLengthTag) }
            });
            refused.append(&mut screen(&mut message));
            covered.push(message);
        }
        (covered, refused)
    }
}

impl<'a> Form<'a> {
    fn new(whole: &Whole<'a>, canonicalization: Canonicalization) -> Self {
        let length = canonical_length(whole.body, canonicalization);
        Self { canonicalization, length, message: None }
    }

    /// Makes the message, if that has not been done; whether it is there.
    fn make(&mut self, whole: &Whole<'a>) -> bool {
        // mail-auth cuts at the octet `l=`. Up to there a simple body is its own canonical form.
        let is_cut_well = self.canonicalization == Canonicalization::Simple
            || whole.body.len() as u64 <= self.length;
        if self.message.is_none() && is_cut_well {
            self.message = Some(Cow::Borrowed(whole.raw));
        } else if self.message.is_none() && whole.body.len() <= MAX_COPIED {
            let mut content = whole.header.to_vec();
            relaxed(whole.body, |octets| content.extend_from_slice(octets));
            self.message = Some(Cow::Owned(content));
        }
        self.message.is_some()
    }
}

fn canonical_length(body: &[u8], canonicalization: Canonicalization) -> u64 {
    match canonicalization {
        Canonicalization::Simple => {
            // RFC 6376 §3.4.3: no empty lines at the end, and one line end in any case.
            let mut body = body;
            while let Some(shorter) = body.strip_suffix(b"\r\n") {
                body = shorter;
            }
            body.len() as u64 + 2
        }
        Canonicalization::Relaxed => {
            let mut length = 0;
            relaxed(body, |octets| length += octets.len() as u64);
            length
        }
    }
}

/// RFC 6376 §3.4.4: runs of white space are one space, none stands at the end of a line, and no
/// empty line at the end of the body.
fn relaxed(body: &[u8], mut write: impl FnMut(&[u8])) {
    let is_space = |octet: &u8| matches!(octet, b' ' | b'\t');
    let mut empty_lines = 0;
    for line in body.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(is_space) {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            write(b"\r\n");
        }
        let mut words = line.split(is_space);
        // What stands before the first space, which may be nothing.
        write(words.next().unwrap_or_default());
        for word in words.filter(|word| !word.is_empty()) {
            write(b" ");
            write(word);
        }
        write(b"\r\n");
    }
}
