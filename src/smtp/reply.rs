//! Replies as values (RFC 5321 §4.2): every text that a session says, apart from those of the
//! table in `reason.rs`, stands here once.

use std::borrow::Cow;

use super::handler::{MessageRefusal, Refusal};
use super::settings::{Limits, Protocol};
use crate::mail::Domain;

/// The longest text taken from outside into a reply line (RFC 5321 §4.5.3.1.5: 512 octets a line).
const MAX_TEXT: usize = 400;
/// How much of a place in a message is told; the reason's text and the ids take the rest of a line.
const MAX_PLACE: usize = 200;

/// A reply, of one line or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    /// RFC 3463, absent where RFC 2034 §4 has none: the banner, EHLO and HELO, 3yz.
    enhanced: Option<&'static str>,
    /// Lines, separated by LF.
    text: Cow<'static, str>,
}

/// What EHLO offers beside the extensions that always work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// STARTTLS, as there is no TLS yet (RFC 3207 §4.2).
    StartTls,
    /// AUTH (RFC 4954 §3).
    Auth,
    /// Nothing more.
    Nothing,
}

impl Reply {
    const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    /// Answers MAIL.
    pub(crate) const SENDER_OK: Self = Self::new(250, "2.1.0", "Sender OK");
    /// Answers RCPT.
    pub(crate) const RECIPIENT_OK: Self = Self::new(250, "2.1.5", "Recipient OK");
    /// Answers DATA.
    pub(crate) const START_DATA: Self = Self {
        code: 354,
        enhanced: None,
        text: Cow::Borrowed("Send the message, end with <CRLF>.<CRLF>"),
    };
    /// Answers RSET.
    pub(crate) const RESET: Self = Self::new(250, "2.0.0", "Reset");
    /// Answers NOOP.
    pub(crate) const NOOP: Self = Self::new(250, "2.0.0", "OK");
    /// Answers VRFY (RFC 5321 §3.5.3: nobody's address is confirmed).
    pub(crate) const VRFY: Self =
        Self::new(252, "2.0.0", "Cannot VRFY, but a message will be attempted");
    /// Answers QUIT.
    pub(crate) const BYE: Self = Self::new(221, "2.0.0", "Bye");
    /// Answers STARTTLS.
    pub(crate) const START_TLS: Self = Self::new(220, "2.0.0", "Ready to start TLS");
    /// Answers AUTH, or the last response of its exchange.
    pub(crate) const AUTHENTICATED: Self = Self::new(235, "2.7.0", "Authentication succeeded");

    /// Answers HELP.
    pub(crate) fn help(protocol: Protocol) -> Self {
        let auth = if protocol.is_submission() { "AUTH " } else { "" };
        let text = format!(
            "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS {auth}QUIT\nSee RFC 5321"
        );
        Self { code: 214, enhanced: Some("2.0.0"), text: text.into() }
    }

    /// Opens the session.
    pub(crate) fn banner(hostname: &Domain) -> Self {
        Self { code: 220, enhanced: None, text: format!("{hostname} ESMTP Mailweir").into() }
    }

    /// Answers HELO.
    pub(crate) fn helo(hostname: &Domain) -> Self {
        Self { code: 250, enhanced: None, text: hostname.as_str().to_owned().into() }
    }

    /// Answers EHLO: the extensions that work on this connection, and no other.
    pub(crate) fn ehlo(hostname: &Domain, limits: &Limits, offer: Offer) -> Self {
        let offered = match offer {
            Offer::StartTls => "STARTTLS\n",
            Offer::Auth => "AUTH PLAIN LOGIN\n",
            Offer::Nothing => "",
        };
        let text = format!(
            "{hostname}\nPIPELINING\nSIZE {size}\n{offered}8BITMIME\nSMTPUTF8\nCHUNKING\nDSN\n\
             ENHANCEDSTATUSCODES\nLIMITS MAILMAX={mailmax} RCPTMAX={rcptmax}",
            size = limits.message_bytes,
            mailmax = limits.transactions,
            rcptmax = limits.recipients,
        );
        Self { code: 250, enhanced: None, text: text.into() }
    }

    /// Asks for a response of AUTH; the challenge is in base64 (RFC 4954 §4).
    pub(crate) const fn challenge(challenge: &'static str) -> Self {
        Self { code: 334, enhanced: None, text: Cow::Borrowed(challenge) }
    }

    /// Answers a BDAT that is not the last.
    pub(crate) fn chunk(size: u64) -> Self {
        Self { code: 250, enhanced: Some("2.0.0"), text: format!("{size} octets received").into() }
    }

    /// Answers the end of a message that is now durable. `accepted` is the handler's text.
    pub(crate) fn accepted(accepted: &str) -> Self {
        let text: String = accepted.chars().take(MAX_TEXT).map(printable).collect();
        Self { code: 250, enhanced: Some("2.0.0"), text: text.into() }
    }

    /// Refuses. The text ends in the reason's word and the id under which more is known.
    pub(crate) fn refusal(Refusal { reason, trace_id }: Refusal) -> Self {
        Self {
            code: reason.code(),
            enhanced: Some(reason.enhanced()),
            text: format!("{} [{} {trace_id}]", reason.text(), reason.word()).into(),
        }
    }

    /// Refuses a message, and says which place in it is meant.
    pub(crate) fn message_refusal(MessageRefusal { refusal, place }: &MessageRefusal) -> Self {
        let Some(place) = place else { return Self::refusal(*refusal) };
        let Refusal { reason, trace_id } = refusal;
        let place: String = place.chars().take(MAX_PLACE).map(printable).collect();
        let text = format!("{}: {place} [{} {trace_id}]", reason.text(), reason.word());
        Self { text: text.into(), ..Self::refusal(*refusal) }
    }

    /// Appends the reply as it goes over the wire.
    pub(crate) fn write_to(&self, output: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { "-" } else { " " };
            let enhanced = self.enhanced.unwrap_or_default();
            let gap = if enhanced.is_empty() { "" } else { " " };
            let code = self.code;
            output.extend_from_slice(
                format!("{code}{separator}{enhanced}{gap}{line}\r\n").as_bytes(),
            );
        }
    }
}

/// What comes from outside cannot break out of its line.
fn printable(c: char) -> char {
    if (' '..='~').contains(&c) { c } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TraceId;
    use crate::smtp::reason::Reason;

    fn check(reply: &Reply, expected: &str) {
        let mut output = Vec::new();
        reply.write_to(&mut output);
        assert_eq!(String::from_utf8(output).expect("ASCII"), expected);
    }

    #[test]
    fn replies_look_as_rfc_5321_and_2034_say() {
        let hostname = Domain::parse("mx.example.test").expect("valid");
        check(&Reply::banner(&hostname), "220 mx.example.test ESMTP Mailweir\r\n");
        check(&Reply::SENDER_OK, "250 2.1.0 Sender OK\r\n");
        check(&Reply::START_DATA, "354 Send the message, end with <CRLF>.<CRLF>\r\n");
        check(
            &Reply::help(Protocol::Mx),
            "214-2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT\r\n\
             214 2.0.0 See RFC 5321\r\n",
        );
        check(
            &Reply::help(Protocol::Submission),
            "214-2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS AUTH QUIT\r\n\
             214 2.0.0 See RFC 5321\r\n",
        );
        check(&Reply::challenge("VXNlcm5hbWU6"), "334 VXNlcm5hbWU6\r\n");
        check(&Reply::challenge(""), "334 \r\n");
        let trace_id: TraceId = "019b0000-0000-7000-8000-000000000000".parse().expect("valid");
        check(
            &Reply::refusal(Refusal { reason: Reason::RelayDenied, trace_id }),
            "550 5.7.1 Relaying denied [relay-denied 019b0000-0000-7000-8000-000000000000]\r\n",
        );
    }

    #[test]
    fn a_refusal_of_a_message_says_where() {
        let trace_id: TraceId = "019b0000-0000-7000-8000-000000000000".parse().expect("valid");
        let refusal = Refusal { reason: Reason::RuleBounce, trace_id };
        let tail = "[rule-bounce 019b0000-0000-7000-8000-000000000000]\r\n";
        let text = Reason::RuleBounce.text();
        let place = Some("line 7\n550 \u{e9}".to_owned());
        check(
            &Reply::message_refusal(&MessageRefusal { refusal, place }),
            &format!("550 5.7.1 {text}: line 7?550 ? {tail}"),
        );
        let place = None;
        check(
            &Reply::message_refusal(&MessageRefusal { refusal, place }),
            &format!("550 5.7.1 {text} {tail}"),
        );
    }

    #[test]
    fn the_handlers_text_cannot_break_out_of_its_line() {
        check(&Reply::accepted("queued\r\n550 é"), "250 2.0.0 queued??550 ?\r\n");
        let Reply { text, .. } = Reply::accepted(&"x".repeat(5000));
        assert_eq!(text.len(), MAX_TEXT);
    }

    #[test]
    fn every_line_fits_the_limit() {
        let hostname = Domain::parse(&["a".repeat(60).as_str(); 4].join(".")).expect("valid");
        let limits = Limits { message_bytes: u64::MAX, ..Limits::default() };
        let trace_id = TraceId::generate();
        let mut replies: Vec<Reply> =
            Reason::all().map(|reason| Reply::refusal(Refusal { reason, trace_id })).collect();
        replies.push(Reply::banner(&hostname));
        replies.push(Reply::ehlo(&hostname, &limits, Offer::Auth));
        replies.extend(Reason::all().map(|reason| {
            let refusal = Refusal { reason, trace_id };
            Reply::message_refusal(&MessageRefusal { refusal, place: Some("é\r".repeat(500)) })
        }));
        for reply in replies {
            let mut output = Vec::new();
            reply.write_to(&mut output);
            for line in output.split_inclusive(|&b| b == b'\n') {
                assert!(line.len() <= 512, "{reply:?}");
            }
        }
    }
}
