//! An event as a line of JSON, and the id that ties the line to the durable record it came from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::clock::Timestamp;
use crate::id::TraceId;

/// A position in the store's log: the count of bytes before a record. Grows with every record.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `eventId`: the record's position and the event's place in it, so ids are unique, sort in
/// commit order, and lead from a line back to the durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The durable record.
    pub lsn: Lsn,
    /// The event's place in the record, from 0.
    pub index: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:04x}", self.lsn, self.index)
    }
}

impl FromStr for EventId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (lsn, index) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self { lsn: Lsn(u64::from_str_radix(lsn, 16)?), index: u32::from_str_radix(index, 16)? })
    }
}

/// A line of the event file, as the product contract's §9 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// The message, in one organization.
    pub trace_id: TraceId,
    /// What happened.
    pub event: Event,
    /// When it was recorded, ms since the Unix epoch.
    pub event_timestamp: Timestamp,
    /// Whose mail it was.
    pub organization_id: String,
}

impl EventLine {
    /// The line up to its `eventId`, which is known only when the record has its place in the
    /// log; [`finish_line`] adds the rest.
    ///
    /// # Panics
    /// Never: these types have neither maps with odd keys nor failing serializers.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        self.encode_into(&mut line);
        line
    }

    /// Appends what [`EventLine::encode`] gives.
    ///
    /// # Panics
    /// Never, as there.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self)
            .expect("an event has only strings, numbers and lists, which always serialize");
        out.pop();
    }
}

/// Completes an encoded line with its id and line end.
pub(super) fn finish_line(encoded: &[u8], id: EventId, out: &mut Vec<u8>) {
    out.extend_from_slice(encoded);
    out.extend_from_slice(format!(",\"eventId\":\"{id}\"}}\n").as_bytes());
}

/// The id of a whole line, if it has one.
pub(super) fn id_of_line(line: &[u8]) -> Option<EventId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Id {
        event_id: String,
    }
    serde_json::from_slice::<Id>(line).ok()?.event_id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Event, MailboxDelivered};

    #[test]
    fn a_line_names_the_record_it_came_from() {
        let event = EventLine {
            trace_id: "01939e10-0000-7000-8000-000000000001".parse().expect("an id"),
            event: Event::MailboxDelivered(MailboxDelivered {
                recipient: "alice@example.test".into(),
                folder: "INBOX".into(),
            }),
            event_timestamp: Timestamp::from_millis(17),
            organization_id: "m-1".into(),
        };
        let id = EventId { lsn: Lsn(4711), index: 3 };
        let mut line = Vec::new();
        finish_line(&event.encode(), id, &mut line);
        assert_eq!(
            String::from_utf8(line.clone()).expect("UTF-8"),
            "{\"traceId\":\"01939e10-0000-7000-8000-000000000001\",\"event\":{\"eventName\":\
             \"MAILBOX_EMAIL_DELIVERED\",\"recipient\":\"alice@example.test\",\"folder\":\
             \"INBOX\"},\"eventTimestamp\":17,\"organizationId\":\"m-1\",\"eventId\":\
             \"0000000000001267-0003\"}\n"
        );
        assert_eq!(id_of_line(&line), Some(id));
        assert_eq!(serde_json::from_slice::<EventLine>(&line).expect("reads back"), event);
    }

    #[test]
    fn ids_sort_as_the_log_does() {
        let earlier = EventId { lsn: Lsn(0xff), index: 9 };
        let later = EventId { lsn: Lsn(0x100), index: 0 };
        assert!(earlier.to_string() < later.to_string());
    }
}
