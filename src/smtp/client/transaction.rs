//! What a transaction asks of a server with these extensions: the text of MAIL and RCPT, and who
//! cannot be asked for at all. Pure.

use std::fmt::Write;

use super::content;
use super::extensions::Extensions;
use super::outcome::{Failure, Stage};
use super::reply::EnhancedStatus;
use super::settings::Endpoint;
use crate::mail::{DsnNotify, DsnReturn, EnvelopeRecipient, MailParameters, ReversePath};

/// Commands that are sent before their answers are read take so many octets at most, one command
/// more or less: what both sides' systems hold for us, so that neither waits for the other
/// (RFC 2920 §3.1).
const GROUP: usize = 8 * 1024;

/// A message's envelope, as far as it concerns one server.
#[derive(Clone, Debug)]
pub struct OutgoingTransaction<'a> {
    /// Who is told of a failure.
    pub reverse_path: &'a ReversePath,
    /// The parameters that the message came with; SIZE and BODY are made from the content.
    pub parameters: &'a MailParameters,
    /// Whom it is for.
    pub recipients: Vec<&'a EnvelopeRecipient>,
}

/// A command of the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Mail,
    /// RCPT for the recipient of this number.
    Rcpt(usize),
    Data,
}

/// Commands that are sent at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) text: String,
    pub(super) steps: Vec<Step>,
}

/// Why a server need not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The message is larger than the server takes.
    TooBig { size: u64, max: u64 },
    /// An address or a header is in UTF-8, and the server does not offer SMTPUTF8.
    NeedsSmtpUtf8,
}

impl Obstacle {
    /// The same as what is told of a recipient.
    pub(super) fn failure(self, endpoint: &Endpoint) -> Failure {
        let (enhanced, text) = match self {
            Self::TooBig { size, max } => (
                EnhancedStatus::new(5, 3, 4),
                format!("the message of {size} octets is larger than the server's limit of {max}"),
            ),
            // RFC 6531 §3.5
            Self::NeedsSmtpUtf8 => (
                EnhancedStatus::new(5, 6, 7),
                "an address or a header is in UTF-8, which the server does not support".to_owned(),
            ),
        };
        Failure {
            stage: Stage::Mail,
            code: None,
            enhanced,
            said: None,
            text,
            remote: endpoint.name.clone(),
            address: Some(endpoint.address),
            maybe_delivered: false,
        }
    }
}

/// A transaction as it is going to be said.
#[derive(Debug)]
pub(super) struct Plan {
    mail: String,
    /// RCPT for each recipient, or why it is not said.
    pub(super) recipients: Vec<Result<String, Obstacle>>,
}

impl Plan {
    /// What can be said to a server with these extensions.
    pub(super) fn new(
        transaction: &OutgoingTransaction<'_>,
        content: &[&[u8]],
        extensions: &Extensions,
    ) -> Self {
        let size = content::size(content);
        let obstacle = match extensions.max_size {
            Some(max) if size > max => Some(Obstacle::TooBig { size, max }),
            _ if needs_smtputf8(transaction, content) && !extensions.smtputf8 => {
                Some(Obstacle::NeedsSmtpUtf8)
            }
            _ => None,
        };
        let recipients = transaction.recipients.iter().map(|recipient| match obstacle {
            Some(obstacle) => Err(obstacle),
            None => rcpt(recipient, extensions),
        });
        let recipients = recipients.collect();
        Self { mail: mail(transaction, content, size, extensions), recipients }
    }

    /// The commands in the groups in which they are sent: each alone, or pipelined with DATA at
    /// the end.
    pub(super) fn groups(&self, pipelining: bool) -> Vec<Group> {
        let said = self.recipients.iter().enumerate();
        let said =
            said.filter_map(|(number, rcpt)| Some((Step::Rcpt(number), rcpt.as_ref().ok()?)));
        let commands = std::iter::once((Step::Mail, &self.mail)).chain(said);
        let mut groups: Vec<Group> = Vec::new();
        for (step, text) in commands {
            let room = groups.last_mut().filter(|group| pipelining && group.text.len() < GROUP);
            match room {
                Some(group) => group.push(step, text),
                None => {
                    let mut group = Group::default();
                    group.push(step, text);
                    groups.push(group);
                }
            }
        }
        if let Some(last) = groups.last_mut().filter(|_| pipelining) {
            last.push(Step::Data, "DATA\r\n");
        }
        groups
    }
}

impl Group {
    fn push(&mut self, step: Step, text: &str) {
        self.steps.push(step);
        self.text.push_str(text);
    }
}

/// Whether the sender or the header section cannot travel without SMTPUTF8. A message that came
/// without it may have other octets than ASCII in its header, as there always were some; they
/// travel as they came.
fn needs_smtputf8(transaction: &OutgoingTransaction<'_>, content: &[&[u8]]) -> bool {
    let sender = transaction.reverse_path.address();
    sender.is_some_and(|address| address.is_internationalized())
        || (transaction.parameters.smtputf8 && content::is_header_eight_bit(content))
}

/// Deviation: RFC 6152 §3 forbids to send an 8-bit message to a server without 8BITMIME. It is
/// sent as it is all the same, as Exim and qmail do: converting it would break its signatures,
/// returning it would help nobody, and servers that mind are no longer found.
fn mail(
    transaction: &OutgoingTransaction<'_>,
    content: &[&[u8]],
    size: u64,
    extensions: &Extensions,
) -> String {
    let path = transaction.reverse_path;
    let mut line = format!("MAIL FROM:{path}");
    let mut add = |parameter: &str| {
        line.push(' ');
        line.push_str(parameter);
    };
    if extensions.size {
        add(&format!("SIZE={size}"));
    }
    if extensions.eight_bit_mime && content::is_eight_bit(content) {
        add("BODY=8BITMIME");
    }
    let to_utf8 = transaction.recipients.iter().any(|to| to.address.is_internationalized());
    if extensions.smtputf8 && (to_utf8 || needs_smtputf8(transaction, content)) {
        add("SMTPUTF8");
    }
    if extensions.dsn {
        match transaction.parameters.ret {
            Some(DsnReturn::Full) => add("RET=FULL"),
            Some(DsnReturn::Headers) => add("RET=HDRS"),
            None => {}
        }
        if let Some(envid) = &transaction.parameters.envid {
            add(&format!("ENVID={}", xtext(envid)));
        }
    }
    line.push_str("\r\n");
    line
}

fn rcpt(recipient: &EnvelopeRecipient, extensions: &Extensions) -> Result<String, Obstacle> {
    if recipient.address.is_internationalized() && !extensions.smtputf8 {
        return Err(Obstacle::NeedsSmtpUtf8);
    }
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if extensions.dsn {
        if let Some(words) = recipient.parameters.notify.and_then(notify) {
            line.push_str(&format!(" NOTIFY={words}"));
        }
        if let Some(original) = recipient.parameters.orcpt.as_deref().and_then(orcpt) {
            line.push_str(&format!(" ORCPT={original}"));
        }
    }
    line.push_str("\r\n");
    Ok(line)
}

/// RFC 3461 §4.1; `None` where nothing is asked for.
fn notify(notify: DsnNotify) -> Option<String> {
    if notify.never {
        return Some("NEVER".to_owned());
    }
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let words: Vec<_> = words.into_iter().filter(|(wanted, _)| *wanted).collect();
    let words: Vec<_> = words.into_iter().map(|(_, word)| word).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// `addr-type ";" address`, encoded (RFC 3461 §4.2, RFC 6533 §3).
fn orcpt(original: &str) -> Option<String> {
    let (kind, address) = original.split_once(';')?;
    let address = if kind == "utf-8" { utf8_xtext(address) } else { xtext(address) };
    Some(format!("{kind};{address}"))
}

/// RFC 3461 §4: what is not printable ASCII, `+` and `=` as `+` and two digits.
fn xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'+' | b'=') => encoded.push(char::from(byte)),
            _ => push(&mut encoded, format_args!("+{byte:02X}")),
        }
    }
    encoded
}

/// The spelling of RFC 6533 §3 that travels without SMTPUTF8 too.
fn utf8_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '!'..='~' if !matches!(c, '+' | '=' | '\\') => encoded.push(c),
            _ => push(&mut encoded, format_args!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    encoded
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).ok(); // Writing to a String cannot fail.
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::{Address, RcptParameters};

    #[test]
    fn pipelined_commands_come_in_order_and_in_groups_that_fit() {
        let recipients: Vec<_> = (0..500)
            .map(|number| EnvelopeRecipient {
                address: Address::parse(&format!("{number:060}@example.test")).expect("valid"),
                parameters: RcptParameters::default(),
            })
            .collect();
        let transaction = OutgoingTransaction {
            reverse_path: &ReversePath::Null,
            parameters: &MailParameters::default(),
            recipients: recipients.iter().collect(),
        };
        let plan = Plan::new(&transaction, &[], &Extensions::default());
        let steps = |groups: &[Group]| -> Vec<Step> {
            groups.iter().flat_map(|group| group.steps.clone()).collect()
        };
        let alone = plan.groups(false);
        assert!(alone.iter().all(|group| group.steps.len() == 1), "one command each");
        let mut expected = steps(&alone);
        expected.push(Step::Data);
        let pipelined = plan.groups(true);
        assert_eq!(steps(&pipelined), expected);
        assert_eq!(pipelined.len(), 6, "44 KB in groups of 8 KiB");
        assert!(pipelined.iter().all(|group| group.text.len() < GROUP + 512));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_our_own_server_decodes(
            envid in "[ -~]{1,30}",
            original in "[ -~]{1,100}",
            utf8 in "\\PC{1,40}",
        ) {
            use crate::smtp::Protocol;
            use crate::smtp::command::{Command, parse};
            let line = format!("MAIL FROM:<> ENVID={}", xtext(&envid));
            let Ok(Command::Mail(_, read)) = parse(line.as_bytes(), Protocol::Mx) else { panic!("{line}") };
            prop_assert_eq!(read.envid, Some(envid));
            for original in [format!("rfc822;{original}"), format!("utf-8;{utf8}")] {
                let encoded = orcpt(&original).expect("has a type");
                let line = format!("RCPT TO:<a@b.test> ORCPT={encoded}");
                let Ok(Command::Rcpt(read)) = parse(line.as_bytes(), Protocol::Mx) else { panic!("{line}") };
                prop_assert_eq!(read.parameters.orcpt, Some(original));
            }
        }
    }
}
