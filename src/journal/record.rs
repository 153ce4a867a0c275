//! A journal record: the report, then the original as it is. Only what stands around the original
//! is composed here, so that nobody holds a message twice.

use std::collections::HashMap;

use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;

use super::Settings;
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, Addressees, ReversePath, address_on_one_line, on_one_line};

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

/// A recipient line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JournaledRecipient {
    /// How the message names the recipient, or the group that leads to it.
    pub addressing: Addressing,
    /// Who gets it.
    pub address: Address,
    /// The group it was reached through.
    pub expanded_from: Option<Address>,
    /// Whose mailbox rule sent it on.
    pub forwarded_from: Option<Address>,
}

/// The first word of a recipient line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// `To`
    To,
    /// `Cc`
    Cc,
    /// In the envelope only.
    Bcc,
    /// Mail from outside says no more, because its header cannot be trusted.
    Recipient,
}

impl Addressing {
    fn word(self) -> &'static str {
        match self {
            Self::To => "To",
            Self::Cc => "Cc",
            Self::Bcc => "Bcc",
            Self::Recipient => "Recipient",
        }
    }
}

/// How a message that a user of ours has submitted names its recipients: by `To` or `Cc`, or not at
/// all, which makes a recipient a blind copy's.
#[derive(Clone, Debug, Default)]
pub struct Named(HashMap<String, Addressing>);

impl Named {
    /// From the submitted header section. Who is in both fields is in `To`.
    pub fn by(addressees: &Addressees) -> Self {
        let key = |addressing| move |address: &Address| (address.key(), addressing);
        let cc = addressees.cc.iter().map(key(Addressing::Cc));
        Self(cc.chain(addressees.to.iter().map(key(Addressing::To))).collect())
    }

    /// How an address of the envelope is named.
    pub fn addressing(&self, recipient: &Address) -> Addressing {
        self.0.get(&recipient.key()).copied().unwrap_or(Addressing::Bcc)
    }
}

impl JournaledRecipient {
    /// A mailbox that mail from outside has reached, perhaps through a group.
    pub fn received(address: Address, expanded_from: Option<Address>) -> Self {
        // A group's members are told apart from its recipient, which is in no header (`To:` in
        // [MS-XJRNL]'s own example).
        let addressing =
            if expanded_from.is_some() { Addressing::To } else { Addressing::Recipient };
        Self { addressing, address, expanded_from, forwarded_from: None }
    }

    /// A recipient of a submitted message. A group's member is named as the group is.
    pub fn submitted(named: &Named, address: Address, expanded_from: Option<Address>) -> Self {
        let addressing = named.addressing(expanded_from.as_ref().unwrap_or(&address));
        Self { addressing, address, expanded_from, forwarded_from: None }
    }

    /// Who got the message because a mailbox rule of `forwarder` sent it on.
    pub fn forwarded(address: Address, forwarder: Address) -> Self {
        Self {
            addressing: Addressing::Recipient,
            address,
            expanded_from: None,
            forwarded_from: Some(forwarder),
        }
    }

    fn line(&self) -> String {
        let mut line =
            format!("{}: {}", self.addressing.word(), address_on_one_line(&self.address));
        if let Some(group) = &self.expanded_from {
            line.push_str(&format!(", Expanded: {}", address_on_one_line(group)));
        }
        if let Some(forwarder) = &self.forwarded_from {
            line.push_str(&format!(", Forwarded: {}", address_on_one_line(forwarder)));
        }
        line
    }
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
            Some(sender) => format!("Sender: {}", address_on_one_line(sender)),
            None => "Sender: <>".to_owned(),
        }];
        if let (Some(_), Some(from)) = (self.header_sender, self.header_from) {
            lines.push(format!("On-Behalf-Of: {}", address_on_one_line(from)));
        }
        lines.push(format!("Subject: {}", on_one_line(self.subject.unwrap_or_default())));
        lines.push(format!("Message-Id: {}", on_one_line(self.message_id.unwrap_or_default())));
        lines.extend(self.recipients.iter().map(JournaledRecipient::line));
        lines.join("\r\n") + "\r\n"
    }
}
