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
    let reports = of.reports.iter().map(|report| Joined {
        relation: Relation::Report,
        trace_id: report.trace_id.clone(),
        to: report.to.clone(),
        became: None,
    });
    let mut joined: Vec<_> = sent_on.chain(reports).collect();
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
        joined.extend(relation.map(|relation| Joined {
            relation,
            trace_id: other.trace_id.clone(),
            to: match relation {
                Relation::Inbound => other.recipients(),
                _ => Vec::new(),
            },
            became: None,
        }));
    }
    joined.sort_by(|one, two| one.trace_id.cmp(&two.trace_id));
    joined
}

/// Whether either names the other, or they are of one submission.
pub(super) fn belong_together(one: &Trace, two: &Trace) -> bool {
    relation(one, two).is_some() || relation(two, one).is_some()
}

/// What `other` is to `of`, unless `of` says so itself.
fn relation(of: &Trace, other: &Trace) -> Option<Relation> {
    let sends_on = |one: &Trace, two: &Trace| one.sent_on().any(|(id, _)| id == two.trace_id);
    let reports =
        |one: &Trace, two: &Trace| one.reports.iter().any(|report| report.trace_id == two.trace_id);
    if sends_on(other, of) {
        return Some(Relation::SentOnFrom);
    }
    if reports(other, of) {
        return Some(Relation::About);
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
    use crate::cli::trace::Report;

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
    fn reports_and_what_is_sent_on_are_joined_both_ways() {
        let mut first =
            trace("1", "ORGANIZATION_EMAIL_RECEIVED", json!({ "messageId": "<a@x.test>" }));
        first.story = Some(json!({ "sentOn": [
            { "from": "bob@x.test", "to": "bob@y.test", "trace": "2" },
            { "from": "bob@x.test", "to": "eve@z.test", "trace": "9" } ] }));
        first.reports = vec![Report { trace_id: "3".into(), to: vec!["ann@q.test".into()] }];
        let on = trace("2", "OUTGOING_EMAIL_SENT", json!({ "messageId": "<a@x.test>" }));
        let report = trace("3", "MAILBOX_EMAIL_DELIVERED", json!({}));
        let all = [&first, &on, &report];
        let expected: &[(Relation, &str, &[&str])] = &[
            (Relation::SentOn, "2", &["bob@y.test"]),
            (Relation::Report, "3", &["ann@q.test"]),
            (Relation::SentOn, "9", &["eve@z.test"]),
        ];
        check(&first, &all, expected);
        check(&on, &all, &[(Relation::SentOnFrom, "1", &[])]);
        check(&report, &all, &[(Relation::About, "1", &[])]);
    }
}
