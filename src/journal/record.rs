//! A journal record: the report, then the original as it is. Only what stands around the original
//! is composed here, so that nobody holds a message twice.

use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;

use super::Settings;
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, ReversePath};

/// What a journal record tells.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The record's own id.
    pub id: TraceId,
    /// When it is made.
    pub at: Timestamp,
    /// Our name, for the record's Message-ID.
    pub hostname: &'a str,
    /// The organization's journaling.
    pub settings: &'a Settings,
    /// The envelope's sender; the author stands in for a null path.
    pub reverse_path: &'a ReversePath,
    /// The original's author.
    pub header_from: Option<&'a Address>,
    /// Who sent it for the author.
    pub header_sender: Option<&'a Address>,
    /// The original's subject, decoded.
    pub subject: Option<&'a str>,
    /// The original's Message-ID, with angle brackets.
    pub message_id: Option<&'a str>,
    /// Who got it.
    pub recipients: Vec<JournaledRecipient>,
}

/// A record without the original in it: these octets, the original unaltered, those octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// What stands before the original.
    pub before: Vec<u8>,
    /// What follows it.
    pub after: Vec<u8>,
}

/// A recipient line: mail from outside says `Recipient`, because its header cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournaledRecipient {
    /// The mailbox's address.
    pub address: Address,
    /// The group it was reached through.
    pub expanded_from: Option<Address>,
}

impl Record<'_> {
    /// The record as a message around the original.
    pub fn compose(&self) -> Wrapping {
        // No message can have this line in it: the id was made after the message had come.
        let boundary = format!("=_{}", self.id);
        let after = format!("\r\n--{boundary}--\r\n").into_bytes();
        let kind = ContentType::new("multipart/mixed").attribute("boundary", boundary);
        let original = MimePart::raw(b"Content-Type: message/rfc822\r\n\r\n".as_slice());
        let report = MimePart::new("text/plain", self.report()).transfer_encoding("8bit");
        let seconds = i64::try_from(self.at.as_secs()).unwrap_or(i64::MAX);
        let mut before = Vec::new();
        // Archives look for these two fields at the start of the first header section.
        before.extend_from_slice(b"X-MS-Journal-Report: \r\nX-WM-Journal-Report: journal\r\n");
        MessageBuilder::new()
            .header("From", Raw::new(format!("<{}>", self.settings.sender_address)))
            .header("To", Raw::new(format!("<{}>", self.settings.journaling_address)))
            .subject(self.subject.unwrap_or_default())
            .date(Date::new(seconds))
            .message_id(format!("{}@{}", self.id, self.hostname))
            .body(MimePart::new(kind, vec![report, original]))
            .serialize(&mut before);
        before.truncate(before.len().saturating_sub(after.len()));
        Wrapping { before, after }
    }

    fn report(&self) -> String {
        let sender = self.reverse_path.address().or(self.header_from);
        let mut lines = vec![match sender {
            Some(sender) => format!("Sender: {sender}"),
            None => "Sender: <>".to_owned(),
        }];
        if let (Some(_), Some(from)) = (self.header_sender, self.header_from) {
            lines.push(format!("On-Behalf-Of: {from}"));
        }
        lines.push(format!("Subject: {}", one_line(self.subject.unwrap_or_default())));
        lines.push(format!("Message-Id: {}", one_line(self.message_id.unwrap_or_default())));
        for recipient in &self.recipients {
            lines.push(match &recipient.expanded_from {
                Some(group) => format!("To: {}, Expanded: {group}", recipient.address),
                None => format!("Recipient: {}", recipient.address),
            });
        }
        lines.join("\r\n") + "\r\n"
    }
}

/// A report has one value a line, whatever a sender put into a field.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn composed(subject: &str, original: &[u8]) -> Vec<u8> {
        let settings = Settings {
            journaling_address: address("archive@example.test"),
            report_address: address("admin@example.test"),
            sender_address: address("amazonjournaling@example.test"),
        };
        let from = address("bob@good.test");
        let record = Record {
            id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
            at: Timestamp::from_millis(1_795_235_486_123),
            hostname: "mx.example.test",
            settings: &settings,
            reverse_path: &ReversePath::Null,
            header_from: Some(&from),
            header_sender: None,
            subject: Some(subject),
            message_id: Some("<1@good.test>"),
            recipients: vec![
                JournaledRecipient { address: address("alice@example.test"), expanded_from: None },
                JournaledRecipient {
                    address: address("carl@example.test"),
                    expanded_from: Some(address("sales@example.test")),
                },
            ],
        };
        let wrapping = record.compose();
        [wrapping.before.as_slice(), original, &wrapping.after].concat()
    }

    #[test]
    fn a_record_is_what_archives_read() {
        let original = b"From: bob@good.test\r\nSubject: =?utf-8?q?hi?=\r\n\r\n\xff\x00 odd\r\n";
        let record = composed("Grüße\r\nSender: forged@x.test", original);
        assert!(record.starts_with(b"X-MS-Journal-Report: \r\nX-WM-Journal-Report: journal\r\n"));
        let tail = b"\r\n\r\n--=_01939e10-0000-7000-8000-000000000001--\r\n";
        let end = [original.strip_suffix(b"\r\n").expect("a line"), tail].concat();
        assert!(record.ends_with(&end), "the original is unaltered");
        let parsed = mail_parser::MessageParser::new().parse(&record).expect("parses");
        let report = parsed.body_text(0).expect("a report");
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(
            lines,
            [
                "Sender: bob@good.test",
                "Subject: Grüße  Sender: forged@x.test",
                "Message-Id: <1@good.test>",
                "Recipient: alice@example.test",
                "To: carl@example.test, Expanded: sales@example.test",
            ]
        );
        assert_eq!(
            parsed.message_id(),
            Some("01939e10-0000-7000-8000-000000000001@mx.example.test")
        );
    }
}
