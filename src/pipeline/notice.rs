//! The texts of internal mail: the 90 percent warning, the journaling failure, the DSN.

use mail_builder::MessageBuilder;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;

use super::internal::{Content, InternalMail};
use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, body_offset};
use crate::smtp::reason::Reason;

/// From whom and when internal mail comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letterhead<'a> {
    pub(super) hostname: &'a str,
    pub(super) at: Timestamp,
}

impl Letterhead<'_> {
    fn message(&self, id: TraceId, to: &Address, subject: &str) -> MessageBuilder<'static> {
        let seconds = i64::try_from(self.at.as_secs()).unwrap_or(i64::MAX);
        MessageBuilder::new()
            .header(
                "From",
                Raw::new(format!("Mail Delivery System <postmaster@{}>", self.hostname)),
            )
            .header("To", Raw::new(format!("<{to}>")))
            .subject(subject.to_owned())
            .date(Date::new(seconds))
            .message_id(format!("{id}@{}", self.hostname))
            // RFC 3834 §5: nobody's vacation answers this.
            .header("Auto-Submitted", Raw::new("auto-generated"))
    }

    fn text(&self, to: &Address, subject: &str, text: String) -> InternalMail {
        let id = TraceId::generate();
        let mut content = Vec::new();
        self.message(id, to, subject).text_body(text).serialize(&mut content);
        InternalMail { id, to: to.clone(), content: Content::Own(content) }
    }

    /// The warning to a user whose mailbox is nearly full.
    pub(super) fn nearly_full(&self, to: &Address, used: u64, quota: u64) -> InternalMail {
        let mb = |bytes: u64| bytes / (1024 * 1024);
        let text = format!(
            "Your mailbox {to} holds {} MB of the {} MB it may hold.\r\n\r\nWhen it is full, new \
             mail to you is returned to its senders. Delete what you do not need, or ask your \
             administrator for more room.\r\n",
            mb(used),
            mb(quota)
        );
        self.text(to, "Your mailbox is almost full", text)
    }

    /// The notification to the report address (guide 7306).
    pub(super) fn journal_failed(
        &self,
        to: &Address,
        journaling_address: &Address,
        problem: &str,
        original: &[(&str, String)],
    ) -> InternalMail {
        let mut text = format!(
            "A journal record for {journaling_address} could not be delivered:\r\n{problem}.\r\n\
             \r\nThe message itself was handled as usual:\r\n\r\n"
        );
        for (name, value) in original {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        self.text(to, "Journal record not delivered", text)
    }

    /// A failure DSN (RFC 3464) with the original's header section (RFC 6522).
    pub(super) fn bounce(&self, report: &BounceReport<'_>) -> InternalMail {
        let id = TraceId::generate();
        let human = MimePart::new("text/plain", self.bounce_text(report));
        let status = raw_part("message/delivery-status", self.delivery_status(report).as_bytes());
        let section = report.original.get(..body_offset(report.original)).unwrap_or_default();
        let headers = raw_part("text/rfc822-headers", section);
        let kind = mail_builder::headers::content_type::ContentType::new("multipart/report")
            .attribute("report-type", "delivery-status");
        let body = MimePart::new(kind, vec![human, status, headers]);
        let mut content = Vec::new();
        self.message(id, report.to, "Undelivered mail").body(body).serialize(&mut content);
        InternalMail { id, to: report.to.clone(), content: Content::Own(content) }
    }

    fn bounce_text(&self, report: &BounceReport<'_>) -> String {
        let mut text = format!(
            "This is the mail system at {}.\r\n\r\nYour message could not be delivered to:\r\n\r\n",
            self.hostname
        );
        for failed in &report.failed {
            text.push_str(&format!("  {}: {}\r\n", failed.address, failed.reason.text()));
        }
        text.push_str("\r\nIts other recipients got it.\r\n");
        text
    }

    fn delivery_status(&self, report: &BounceReport<'_>) -> String {
        let mut status = format!("Reporting-MTA: dns; {}\r\n", self.hostname);
        if let Some(envid) = report.envid {
            status.push_str(&format!("Original-Envelope-Id: {envid}\r\n"));
        }
        status.push_str(&format!("Arrival-Date: {}\r\n", self.at.to_rfc5322()));
        for failed in &report.failed {
            status.push_str("\r\n");
            if let Some(orcpt) = &failed.orcpt {
                status.push_str(&format!("Original-Recipient: {orcpt}\r\n"));
            }
            let reason = failed.reason;
            status.push_str(&format!(
                "Final-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {}\r\n\
                 Diagnostic-Code: smtp; {} {} {}\r\n",
                failed.address,
                reason.enhanced(),
                reason.code(),
                reason.enhanced(),
                reason.text()
            ));
        }
        status
    }
}

fn raw_part(content_type: &str, body: &[u8]) -> MimePart<'static> {
    let mut part = format!("Content-Type: {content_type}\r\n\r\n").into_bytes();
    part.extend_from_slice(body);
    MimePart::raw(part)
}

/// What a DSN tells.
#[derive(Debug)]
pub(super) struct BounceReport<'a> {
    /// The reverse-path's address.
    pub(super) to: &'a Address,
    pub(super) envid: Option<&'a str>,
    pub(super) failed: Vec<FailedRecipient>,
    pub(super) original: &'a [u8],
}

/// A recipient in a DSN.
#[derive(Debug)]
pub(super) struct FailedRecipient {
    pub(super) address: Address,
    pub(super) orcpt: Option<String>,
    pub(super) reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounce_is_a_delivery_status_report() {
        let letterhead = Letterhead {
            hostname: "mx.example.test",
            at: Timestamp::from_millis(1_795_235_486_123),
        };
        let to = Address::parse("bob@good.test").expect("an address");
        let bounce = letterhead.bounce(&BounceReport {
            to: &to,
            envid: Some("QQ314159"),
            failed: vec![FailedRecipient {
                address: Address::parse("alice@example.test").expect("an address"),
                orcpt: Some("rfc822;al@example.test".into()),
                reason: Reason::RuleBounce,
            }],
            original: b"Subject: secret plan\r\n\r\nthe plan itself",
        });
        let Content::Own(content) = bounce.content else { panic!("a bounce wraps nothing") };
        let text = String::from_utf8(content).expect("UTF-8");
        for expected in [
            "multipart/report; report-type=\"delivery-status\"",
            "Original-Envelope-Id: QQ314159\r\n",
            "Original-Recipient: rfc822;al@example.test\r\nFinal-Recipient: rfc822; \
             alice@example.test\r\nAction: failed\r\nStatus: 5.7.1\r\nDiagnostic-Code: smtp; 550 5.7.1 ",
            "Subject: secret plan\r\n",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains("the plan itself"), "a bounce does not carry the body");
    }
}
