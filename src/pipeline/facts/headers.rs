//! A message as it came: its bytes, and what its header says of its authors.

use std::borrow::Cow;

use mail_parser::{MessageParser, PartFlags};
use memchr::memmem;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::settings::Settings;
use crate::heavy::Turn;
use crate::mail::{
    Address, AuthorError, AuthorFields, FieldLines, excerpt_on_one_line, hides, unfolded,
};
use crate::smtp::reason::Reason;

/// How much of a Subject or Message-ID is repeated in events and stories, in characters: one
/// line's worth (RFC 5322 §2.1.1), since a peer can send megabytes of either.
const MAX_TOLD: usize = 998;
/// Lines like delimiters times the multiparts and messages that may stand around them: about 0.1 s of
/// parsing. Mail that anybody writes has few multiparts within each other, and comes nowhere near.
const MAX_DELIMITER_WORK: usize = 5_000_000;
/// Multiparts and messages within each other that are taken apart, the message itself included; what
/// is deeper is left as one part.
const MAX_DEPTH: usize = 64;

/// What the header section says, as far as rules, events and journal need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// All addresses of the `From` field. A message that has come from outside has at least one.
    authors: Vec<Address>,
    /// The `Sender` field's address.
    sender: Option<Address>,
    /// What the `Sender` fields say, if they name not one address.
    unread_sender: Option<String>,
    /// The first `Subject`, decoded (RFC 2047): the one that most readers show.
    subject: Option<String>,
    /// Those after it, which some readers show instead (RFC 5322 §3.6 allows none).
    more_subjects: Vec<String>,
    /// `Message-ID`, with its angle brackets.
    message_id: Option<String>,
}

/// [`Headers`] as they are written: the first author, who stands for all where one is told, and then
/// the others.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, Address>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    more_authors: Cow<'a, [Address]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<Cow<'a, Address>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unread_sender: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    more_subjects: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<Cow<'a, str>>,
}

fn is_empty<T: Clone>(list: &[T]) -> bool {
    list.is_empty()
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            from: self.authors.first().map(Cow::Borrowed),
            more_authors: Cow::Borrowed(self.authors.get(1..).unwrap_or_default()),
            sender: self.sender.as_ref().map(Cow::Borrowed),
            unread_sender: self.unread_sender.as_deref().map(Cow::Borrowed),
            subject: self.subject.as_deref().map(Cow::Borrowed),
            more_subjects: Cow::Borrowed(&self.more_subjects),
            message_id: self.message_id.as_deref().map(Cow::Borrowed),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let mut authors: Vec<_> = written.from.into_iter().map(Cow::into_owned).collect();
        authors.extend(written.more_authors.into_owned());
        Ok(Self {
            authors,
            sender: written.sender.map(Cow::into_owned),
            unread_sender: written.unread_sender.map(Cow::into_owned),
            subject: written.subject.map(Cow::into_owned),
            more_subjects: written.more_subjects.into_owned(),
            message_id: written.message_id.map(Cow::into_owned),
        })
    }
}

impl Headers {
    /// All addresses of the `From` field.
    pub fn authors(&self) -> &[Address] {
        &self.authors
    }

    /// The `Sender` field's address.
    pub fn sender(&self) -> Option<&Address> {
        self.sender.as_ref()
    }

    /// What the `Sender` fields say, if they name not one address.
    pub fn unread_sender(&self) -> Option<&str> {
        self.unread_sender.as_deref()
    }

    /// The first `Subject`.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Those after it.
    pub fn more_subjects(&self) -> &[String] {
        &self.more_subjects
    }

    /// `Message-ID`, with its angle brackets.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// The header section of a message on top of which these fields, which it lacked, are put.
    pub(in crate::pipeline) fn completed(self, fields: Self) -> Self {
        Self {
            unread_sender: None,
            authors: if self.authors.is_empty() { fields.authors } else { self.authors },
            sender: fields.sender.or(self.sender),
            message_id: self.message_id.or(fields.message_id),
            subject: self.subject,
            more_subjects: self.more_subjects,
        }
    }

    /// The first author, who stands for all of them where one is told.
    pub fn from(&self) -> Option<&Address> {
        self.authors.first()
    }

    /// The sender, when it is somebody else than the author (guide 1528).
    pub(in crate::pipeline) fn on_behalf_sender(&self) -> Option<&Address> {
        self.sender
            .as_ref()
            .filter(|sender| self.from().is_none_or(|from| from.key() != sender.key()))
    }
}

/// Reads the header section, and refuses what must not go on: loops, authors that cannot be read or
/// are several, too many attachments. That there is no author is for who knows where the message
/// comes from.
pub(in crate::pipeline) fn inspect(
    _: &Turn,
    content: &[u8],
    settings: &Settings,
) -> Result<Headers, Reason> {
    let fields = read_fields(content);
    // Before anything parses it: parsers take far longer for a field, and far more memory, than
    // the octets of it.
    let is_too_big = fields.section_bytes > settings.max_header_bytes;
    if is_too_big || fields.count > settings.max_header_fields {
        return Err(Reason::HeaderTooBig);
    }
    if fields.received > settings.max_hops {
        return Err(Reason::TooManyHops);
    }
    let authors = match fields.author_fields.authors() {
        Ok(authors) => authors.into_addresses(),
        Err(AuthorError::None) => Vec::new(),
        Err(error) => return Err(reason_of(error)),
    };
    if has_too_many_attachments(content, settings.max_attachments) {
        return Err(Reason::TooManyAttachments);
    }
    // Who writes the field can leave it out as well, so no rule depends on what is not read.
    let sender = fields.author_fields.sender();
    Ok(Headers {
        authors,
        unread_sender: sender.is_err().then(|| senders(content)),
        sender: sender.ok().flatten(),
        subject: fields.subject.and_then(decoded),
        more_subjects: fields.more_subjects.into_iter().filter_map(decoded).collect(),
        message_id: fields.message_id.map(unfolded).as_deref().and_then(told),
    })
}

/// What all `Sender` fields say, as it stands there.
fn senders(content: &[u8]) -> String {
    let mut senders = String::new();
    for (name, range) in FieldLines::new(content) {
        let field = content.get(range).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"sender") || hides(name, field, "sender") {
            senders.push_str(&String::from_utf8_lossy(field));
        }
    }
    senders
}

/// Why a message is refused that has not one author's domain.
pub(in crate::pipeline) fn reason_of(error: AuthorError) -> Reason {
    match error {
        AuthorError::None => Reason::NoAuthor,
        AuthorError::Several => Reason::SeveralAuthors,
        AuthorError::Unreadable => Reason::UnreadableAuthor,
    }
}

/// What one walk through the header section finds.
#[derive(Default)]
struct Fields<'a> {
    /// Where the last field ends.
    section_bytes: usize,
    count: usize,
    received: usize,
    author_fields: AuthorFields<'a>,
    /// The first.
    message_id: Option<&'a [u8]>,
    /// The first.
    subject: Option<&'a [u8]>,
    more_subjects: Vec<&'a [u8]>,
}

fn read_fields(content: &[u8]) -> Fields<'_> {
    let mut fields = Fields::default();
    for (name, range) in FieldLines::new(content) {
        fields.section_bytes = range.end;
        fields.count += 1;
        let field = content.get(range).unwrap_or_default();
        fields.author_fields.note(name, field);
        if name.eq_ignore_ascii_case(b"received") {
            fields.received += 1;
        } else if name.eq_ignore_ascii_case(b"message-id") {
            fields.message_id = fields.message_id.or(Some(field));
        } else if name.eq_ignore_ascii_case(b"subject") {
            match fields.subject {
                None => fields.subject = Some(field),
                Some(_) => fields.more_subjects.push(field),
            }
        }
    }
    fields
}

/// A `Subject` without its encoded words (RFC 2047).
fn decoded(field: &[u8]) -> Option<String> {
    told(MessageParser::new().parse_headers(field)?.subject()?)
}

/// A value on one line: an encoded word (RFC 2047) may hold line ends and terminal escapes, which
/// nobody who reads an event, a story or a journal report should have to fear.
fn told(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| excerpt_on_one_line(text, MAX_TOLD))
}

/// Every attachment begins with a delimiter line (RFC 2046 §5.1.1), so only a message with that
/// many of them is parsed as a whole.
fn has_too_many_attachments(content: &[u8], max: usize) -> bool {
    let lines = memmem::find_iter(content, b"\n--").count();
    if lines <= max {
        return false;
    }
    let depth = depth_for(lines);
    // Multiparts and texts are parts too; a message with so many of them is not read further.
    let max_parts = max.saturating_mul(4);
    let parser = MessageParser::new();
    let parser = parser.max_depth(depth).max_parts(max_parts).max_encoded_nesting(0);
    let Some(message) = parser.parse(content) else { return false };
    if message.attachments().len() > max || message.parts().len() >= max_parts {
        return true;
    }
    // Whoever goes deeper than others with as many lines might have attachments there.
    depth < MAX_DEPTH && message.parts().any(|part| part.flags().contains(PartFlags::LIMIT_REACHED))
}

/// How deep a message with so many lines like delimiters is taken apart: the parser holds each of
/// them against every multipart and message that it stands in.
fn depth_for(lines: usize) -> usize {
    (MAX_DELIMITER_WORK / lines.max(1)).clamp(1, MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(content: &str) -> Result<Headers, Reason> {
        inspect(&Turn::of_a_test(), content.as_bytes(), &Settings::default())
    }

    fn check(content: &str, expected: Result<Headers, Reason>) {
        assert_eq!(inspected(content), expected, "{content:?}");
    }

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| Address::parse(text).expect("an address")).collect()
    }

    #[test]
    fn the_header_section_is_read_as_far_as_it_goes() {
        check("", Ok(Headers::default()));
        check("\r\nFrom: a@b.test\r\n", Ok(Headers::default()));
        check("no header here\r\n", Ok(Headers::default()));
        check(
            "FROM: A <a@b.test>, c@B.test\r\nSender: s@d.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\
             \r\nMessage-ID:\r\n <1@b.test>\r\n\r\nbody",
            Ok(Headers {
                authors: addresses(&["a@b.test", "c@b.test"]),
                sender: addresses(&["s@d.test"]).pop(),
                subject: Some("Grüße".into()),
                message_id: Some("<1@b.test>".into()),
                ..Headers::default()
            }),
        );
        let one = || Ok(Headers { authors: addresses(&["a@b.test"]), ..Headers::default() });
        check("no field\r\nFrom: a@b.test\r\n\r\n", one());
        check(" continues nothing\r\nFrom: a@b.test\r\n\r\n", one());
        for senders in
            ["Sender: nobody\r\n", "Sender: s@d.test\r\nX: y\r\n\x0bSender: t@d.test\r\n"]
        {
            let found = inspected(&format!("From: a@b.test\r\n{senders}\r\n")).expect("accepted");
            let written = senders.replace("X: y\r\n", "");
            assert_eq!((found.sender, found.unread_sender), (None, Some(written)));
        }
    }

    #[test]
    fn a_sender_sends_on_behalf_of_somebody_else_only() {
        for (fields, expected) in [
            ("From: a@b.test\r\nSender: s@b.test\r\n", Some("s@b.test")),
            ("From: a@b.test\r\nSender: a@B.test\r\n", None),
            ("From: a@b.test\r\n", None),
            ("Sender: s@b.test\r\n", Some("s@b.test")),
        ] {
            let headers = inspected(fields).expect("is accepted");
            let found = headers.on_behalf_sender().map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_author_is_told() {
        check("From: not an address\r\n\r\n", Err(Reason::UnreadableAuthor));
        check("From: a@b.test\r\nFrom: a@b.test\r\n\r\n", Err(Reason::SeveralAuthors));
        check("From: a@b.test, c@d.test\r\n\r\n", Err(Reason::SeveralAuthors));
        check("x\r\n\tFROM : c@d.test\r\n\r\n", Err(Reason::SeveralAuthors));
    }

    /// The heads of multiparts within each other, each with a boundary of its own.
    fn nested(depth: usize) -> String {
        let head = |number| {
            format!("Content-Type: multipart/mixed; boundary=b{number}\r\n\r\n--b{number}\r\n")
        };
        (0..depth).map(head).collect()
    }

    #[test]
    fn lines_like_delimiters_are_held_against_few_multiparts() {
        for (lines, depth) in [
            (0, MAX_DEPTH),
            (501, MAX_DEPTH),
            (MAX_DELIMITER_WORK / MAX_DEPTH, MAX_DEPTH),
            (MAX_DELIMITER_WORK / 10, 10),
            (MAX_DELIMITER_WORK / 10 + 1, 9),
            (MAX_DELIMITER_WORK / 2, 2),
            (usize::MAX, 1),
        ] {
            assert_eq!(depth_for(lines), depth, "{lines}");
        }
        // The message itself, and 49 multiparts within each other.
        let most = MAX_DELIMITER_WORK / 50;
        for (lines, depth, is_taken) in
            [(most, 49, true), (most, 50, false), (most + 1, 49, false), (most + 1, 48, true)]
        {
            let message = nested(depth) + "\r\n" + &"--\r\n".repeat(lines - depth);
            let expected = if is_taken { Ok(()) } else { Err(Reason::TooManyAttachments) };
            assert_eq!(inspected(&message).map(drop), expected, "{lines} lines, {depth} deep");
        }
        // However deep it is, where there are few such lines.
        check(&(nested(1000) + "\r\n--\r\n"), Ok(Headers::default()));
        // Messages in messages are as dear to the parser.
        let lines = "--\r\n".repeat(most);
        for (messages, is_taken) in [(1, true), (49, false)] {
            let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(messages);
            let message = nested(1) + &messages + "\r\n" + &lines;
            let expected = if is_taken { Ok(()) } else { Err(Reason::TooManyAttachments) };
            assert_eq!(inspected(&message).map(drop), expected, "{messages}");
        }
    }

    /// What people write has a rule of dashes, or a signature, in many lines of it.
    #[test]
    fn mail_with_many_lines_of_dashes_is_taken() {
        let head = "Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\
                    Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\n";
        let tail = "--a--\r\n--m\r\nContent-Type: application/pdf\r\n\r\nx\r\n--m--\r\n";
        for line in ["-- \r\n", "-------- Original Message --------\r\n", "--ab c\r\n"] {
            let message = format!("{head}{}{tail}", line.repeat(300_000));
            assert_eq!(inspected(&message).map(drop), Ok(()), "{line:?}");
        }
    }

    /// Parts that are no attachments are bounded as well.
    #[test]
    fn parts_of_all_kinds_have_a_limit() {
        let max_parts = Settings::default().max_attachments * 4;
        let head = "Content-Type: multipart/alternative; boundary=b\r\n\r\n";
        // The multipart is a part too.
        for (texts, is_taken) in [(max_parts - 2, true), (max_parts - 1, false)] {
            let message = format!("{head}{}--b--\r\n", "--b\r\n\r\nx\r\n".repeat(texts));
            let expected = if is_taken { Ok(()) } else { Err(Reason::TooManyAttachments) };
            assert_eq!(inspected(&message).map(drop), expected, "{texts}");
        }
    }

    #[test]
    fn loops_and_swarms_of_attachments_are_refused() {
        let hops = |count| "Received: from a by b\r\n".repeat(count);
        check(&hops(100), Ok(Headers::default()));
        check(&hops(101), Err(Reason::TooManyHops));
        let part =
            "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment\r\n\r\nx\r\n";
        let head = "From: a@b.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
        let message = |count| format!("{head}{}--b--\r\n", part.repeat(count));
        check(&message(501), Err(Reason::TooManyAttachments));
        assert!(inspected(&message(500)).is_ok());
        let dashes = format!("{head}{}", "\r\n-- not a part".repeat(2000));
        assert!(inspected(&dashes).is_ok());
    }

    #[test]
    fn the_first_subject_is_told_and_every_one_is_looked_at() {
        let message = "Subject: =?utf-8?q?se?=\r\n =?utf-8?q?cret?=\r\nX: y\r\nSUBJECT : b\r\n\
                       Subject:\r\nsubject: c\r\n\r\n";
        let headers = inspected(message).expect("is accepted");
        assert_eq!(headers.subject.as_deref(), Some("secret"));
        assert_eq!(headers.more_subjects, ["b", "c"]);
    }

    #[test]
    fn an_encoded_word_cannot_smuggle_lines_or_escapes() {
        for (word, expected) in [
            ("a=0D=0AX-Evil:_1=1B[31m", "a  X-Evil: 1 [31m"),
            ("x=E2=80=A8To:_evil", "x To: evil"),
            ("x=E2=80=AEy", "x y"),
        ] {
            let message = format!("Subject: =?utf-8?q?{word}?=\r\n\r\n");
            let headers = inspected(&message).expect("is accepted");
            assert_eq!(headers.subject.as_deref(), Some(expected), "{word}");
        }
    }

    #[test]
    fn a_header_section_has_a_limit_and_the_body_does_not_count() {
        let limit = Settings::default().max_header_bytes;
        let front = "From: a@b.test\r\nX: ";
        for (section, is_taken) in [(limit, true), (limit + 1, false)] {
            let filling = "x".repeat(section - front.len() - 2);
            let message = format!("{front}{filling}\r\n\r\n{}", "body\r\n".repeat(200_000));
            let found = inspected(&message).map(drop);
            let expected = if is_taken { Ok(()) } else { Err(Reason::HeaderTooBig) };
            assert_eq!(found, expected, "{section}");
        }
        let authors = format!("From: {}\r\n\r\n", "a@b.test, ".repeat(100_000));
        check(&authors, Err(Reason::HeaderTooBig));
    }

    #[test]
    fn fields_have_a_limit_whatever_they_are() {
        let limit = Settings::default().max_header_fields;
        for line in ["A:\r\n", "no field\r\n", "X: y\r\n\tz\r\n"] {
            let message = |count| format!("From: a@b.test\r\n{}\r\nA:\r\n", line.repeat(count));
            let taken = inspected(&message(limit - 1));
            assert!(taken.is_ok(), "{line:?}");
            check(&message(limit), Err(Reason::HeaderTooBig));
        }
    }

    #[test]
    fn a_long_subject_is_not_repeated() {
        let message = format!("Subject: {}\r\n\r\n", "a".repeat(500_000));
        let headers = inspected(&message).expect("is accepted");
        assert_eq!(headers.subject.map(|subject| subject.len()), Some(MAX_TOLD));
    }
}
