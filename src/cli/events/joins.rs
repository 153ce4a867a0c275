//! How traces belong together: the halves of a submission by their Message-ID (guide 1736–1773),
//! what is sent on by the story that says so, a report by the record that it was made in. Pure.

use crate::cli::story;
use crate::cli::trace::{Joined, Relation, Trace};

/// All that belongs to a trace: what it names itself, and what is found to belong to it among
/// `others`; oldest first.
pub(super) fn joined<'a>(of: &Trace, others: impl Iterator<Item = &'a Trace>) -> Vec<Joined> {
    let others: Vec<_> = others.collect();
    let sent_on = of.sent_on().map(|(trace_id, to)| Joined {
        relation: Relation::SentOn,
        trace_id: trace_id.to_owned(),
        to: vec![to.to_owned()],
        became: others
            .iter()
            .find(|other| other.trace_id == trace_id)
            .and_then(|other| story::became(other, to)),
    });
    let mut joined: Vec<_> = sent_on.collect();
    // What is sent on leaves as if it were submitted, but it is half of nothing.
    let goes_on = |trace: &Trace| others.iter().any(|other| sends_on(other, trace));
    for other in &others {
        if joined.iter().any(|known| known.trace_id == other.trace_id) {
            continue;
        }
        let relation = relation(of, other).filter(|relation| match relation {
            Relation::Inbound => !goes_on(of),
            Relation::Outbound => !goes_on(other) && !sends_on(of, other),
            _ => true,
        });
        joined.extend(relation.map(|relation| joined_by(relation, other)));
    }
    joined.sort_by(|one, two| one.trace_id.cmp(&two.trace_id));
    joined
}

fn joined_by(relation: Relation, other: &Trace) -> Joined {
    let mut joined =
        Joined { relation, trace_id: other.trace_id.clone(), to: Vec::new(), became: None };
    match relation {
        Relation::Inbound => joined.to = other.recipients(),
        Relation::Report | Relation::Notice | Relation::JournalRecord => {
            if let Some(to) = other.own_recipient() {
                joined.to.push(to.to_owned());
                joined.became = story::became(other, to);
            }
        }
        Relation::Outbound | Relation::SentOn | Relation::SentOnFrom | Relation::About => {}
    }
    joined
}

/// Whether either names the other, or they are of one submission.
pub(super) fn belong_together(one: &Trace, two: &Trace) -> bool {
    relation(one, two).is_some() || relation(two, one).is_some()
}

/// What `other` is to `of`, unless `of` says so itself.
fn relation(of: &Trace, other: &Trace) -> Option<Relation> {
    if sends_on(other, of) {
        return Some(Relation::SentOnFrom);
    }
    if of.about() == Some(other.trace_id.as_str()) {
        return Some(Relation::About);
    }
    if other.about() == Some(of.trace_id.as_str()) {
        return Some(other.relation_to_that());
    }
    let message_id = of.message_id();
    if message_id.is_none() || message_id != other.message_id() {
        return None;
    }
    if of.is_submitted() && other.is_received() {
        return Some(Relation::Inbound);
    }
    (of.is_received() && other.is_submitted()).then_some(Relation::Outbound)
}

fn sends_on(one: &Trace, two: &Trace) -> bool {
    one.sent_on().any(|(id, _)| id == two.trace_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trace(id: &str, name: &str, event: serde_json::Value) -> Trace {
        let mut trace = Trace::new(id);
        let mut event = event;
        event["eventName"] = name.into();
        trace.events.push(json!({ "event": event }));
        trace
    }

    fn check(of: &Trace, all: &[&Trace], expected: &[(Relation, &str, &[&str])]) {
        let others = all.iter().copied().filter(|other| other.trace_id != of.trace_id);
        let found = joined(of, others);
        let found: Vec<_> = found
            .iter()
            .map(|it| {
                let to: Vec<_> = it.to.iter().map(String::as_str).collect();
                (it.relation, it.trace_id.as_str(), to)
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(relation, id, to)| (*relation, *id, to.to_vec())).collect();
        assert_eq!(found, expected, "{}", of.trace_id);
    }

    #[test]
    fn the_halves_of_a_submission_are_joined_by_message_id() {
        let mut out = trace("1", "OUTGOING_EMAIL_SUBMITTED", json!({}));
        out.events.push(json!({ "event": {
            "eventName": "OUTGOING_EMAIL_SENT", "messageId": "<a@x.test>" } }));
        let received = |id, message_id| {
            let event = json!({ "messageId": message_id, "recipients": ["bob@x.test"] });
            trace(id, "ORGANIZATION_EMAIL_RECEIVED", event)
        };
        let (own, same, other) =
            (received("2", "<a@x.test>"), received("3", "<a@x.test>"), received("4", "<b@x.test>"));
        let all = [&out, &own, &same, &other];
        let bob: &[&str] = &["bob@x.test"];
        check(&out, &all, &[(Relation::Inbound, "2", bob), (Relation::Inbound, "3", bob)]);
        check(&own, &all, &[(Relation::Outbound, "1", &[])]);
        check(&other, &all, &[]);
        let (one, two) = (trace("5", "X", json!({})), trace("6", "X", json!({})));
        check(&one, &[&one, &two], &[]);
    }

    #[test]
    fn a_bounced_submission_has_its_message_id_from_its_story() {
        let mut out = trace("1", "OUTGOING_EMAIL_SUBMITTED", json!({}));
        out.story = Some(json!({ "headers": { "messageId": "<a@x.test>" } }));
        let came_back = json!({ "messageId": "<a@x.test>" });
        let came_back = trace("2", "ORGANIZATION_EMAIL_RECEIVED", came_back);
        check(&out, &[&out, &came_back], &[(Relation::Inbound, "2", &[])]);
    }

    #[test]
    fn mail_of_our_own_and_what_is_sent_on_are_joined_both_ways() {
        let mut first =
            trace("1", "ORGANIZATION_EMAIL_RECEIVED", json!({ "messageId": "<a@x.test>" }));
        first.story = Some(json!({ "sentOn": [
            { "from": "bob@x.test", "to": "bob@y.test", "trace": "2" },
            { "from": "bob@x.test", "to": "eve@z.test", "trace": "9" } ] }));
        let on = trace("2", "OUTGOING_EMAIL_SENT", json!({ "messageId": "<a@x.test>" }));
        let own = |id: &str, what: &str, about: &str| {
            let mut own = Trace::new(id);
            own.story = Some(json!({ "ownMail": what, "about": about, "to": "ann@q.test" }));
            own
        };
        let report = own("3", "report", "1");
        let record = own("4", "journalRecord", "1");
        let notice = own("5", "notice", "4");
        let all = [&first, &on, &report, &record, &notice];
        let ann: &[&str] = &["ann@q.test"];
        let expected: &[(Relation, &str, &[&str])] = &[
            (Relation::SentOn, "2", &["bob@y.test"]),
            (Relation::Report, "3", ann),
            (Relation::JournalRecord, "4", ann),
            (Relation::SentOn, "9", &["eve@z.test"]),
        ];
        check(&first, &all, expected);
        check(&on, &all, &[(Relation::SentOnFrom, "1", &[])]);
        check(&report, &all, &[(Relation::About, "1", &[])]);
        check(&record, &all, &[(Relation::About, "1", &[]), (Relation::Notice, "5", ann)]);
        check(&notice, &all, &[(Relation::About, "4", &[])]);
        assert!(belong_together(&first, &record) && belong_together(&notice, &record));
        assert!(!belong_together(&notice, &first) && !belong_together(&report, &record));
    }
}
