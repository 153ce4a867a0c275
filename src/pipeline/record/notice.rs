//! The texts of internal mail: the 90 percent warning, the journaling failure. Reports to senders
//! have their own file, `report.rs`.

use mail_builder::MessageBuilder;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;

use crate::clock::Timestamp;
use crate::id::TraceId;
use crate::mail::{Address, address_on_one_line, on_one_line};
use crate::pipeline::record::internal::{Content, InternalMail};
use crate::pipeline::record::own_mail::OwnMailKind;

/// From whom and when internal mail comes.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Letterhead<'a> {
    pub(in crate::pipeline) hostname: &'a str,
    pub(in crate::pipeline) at: Timestamp,
}

impl Letterhead<'_> {
    pub(in crate::pipeline) fn message(
        &self,
        id: TraceId,
        to: &Address,
        subject: &str,
    ) -> MessageBuilder<'static> {
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
        let kind = OwnMailKind::Notice;
        InternalMail { id, kind, to: to.clone(), content: Content::Own(content) }
    }

    /// The warning to a user whose mailbox is nearly full.
    pub(in crate::pipeline) fn nearly_full(
        &self,
        to: &Address,
        used: u64,
        quota: u64,
    ) -> InternalMail {
        let mb = |bytes: u64| bytes / (1024 * 1024);
        let text = format!(
            "Your mailbox {} holds {} MB of the {} MB it may hold.\r\n\r\nWhen it is full, new \
             mail to you is returned to its senders. Delete what you do not need, or ask your \
             administrator for more room.\r\n",
            address_on_one_line(to),
            mb(used),
            mb(quota)
        );
        self.text(to, "Your mailbox is almost full", text)
    }

    /// The notification to the report address (guide 7306).
    pub(in crate::pipeline) fn journal_failed(
        &self,
        to: &Address,
        journaling_address: &Address,
        problem: &str,
        original: &[(&str, String)],
    ) -> InternalMail {
        let mut text = format!(
            "A journal record for {} could not be delivered:\r\n{}.\r\n\
             \r\nThe message itself was handled as usual:\r\n\r\n",
            address_on_one_line(journaling_address),
            on_one_line(problem)
        );
        for (name, value) in original {
            text.push_str(&format!("{name}: {}\r\n", on_one_line(value)));
        }
        self.text(to, "Journal record not delivered", text)
    }
}
