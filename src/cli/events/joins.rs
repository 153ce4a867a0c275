//! How traces belong together, as their stories record it: the halves of a submission (guide
//! 1736–1773), what is sent on, mail of our own and what it is about. Nothing is guessed from what
//! messages say of themselves, which anybody may write. Pure.

use std::collections::HashSet;

use crate::cli::story;
use crate::cli::trace::{Joined, Relation, Trace};

/// All that belongs to a trace: what it names itself, and what is found to belong to it among
/// `others`; oldest first.
pub(super) fn joined<'a>(of: &Trace, others: impl Iterator<Item = &'a Trace>) -> Vec<Joined> {
    let others: Vec<_> = others.collect();
    let sent_on = of.sent_on().map(|(trace_id, to)| Joined {
        relation: Relation::SentOn,
        trace_id: trace_id.to_string(),
        to: vec![to.to_string()],
        became: others
            .iter()
            .find(|other| other.is(trace_id))
            .and_then(|other| story::became(other, &to.to_string())),
    });
    let mut joined: Vec<_> = sent_on.collect();
    for other in &others {
        if joined.iter().any(|known| known.trace_id == other.trace_id) {
            continue;
        }
        joined.extend(relation(of, other).map(|relation| joined_by(relation, other)));
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
                joined.became = story::became(other, &to.to_string());
                joined.to.push(to.to_string());
            }
        }
        Relation::Outbound | Relation::SentOn | Relation::SentOnFrom | Relation::About => {}
    }
    joined
}

/// The traces that these name, or that say in a record of theirs that they belong to them. Those that
/// one was sent on as come last: they may be as many as a group has members, and would else leave no
/// room for the other half of a submission, or for reports.
pub(super) fn named_by<'a>(traces: impl Iterator<Item = &'a Trace>) -> Vec<String> {
    let mut named = Vec::new();
    let mut onward = Vec::new();
    for trace in traces {
        let own = [trace.about(), trace.submitted_in(), trace.sent_on_from()];
        named.extend(own.into_iter().flatten().map(|id| id.to_string()));
        let goes_on: Vec<_> = trace.sent_on().map(|(id, _)| id.to_string()).collect();
        let known: HashSet<_> = goes_on.iter().collect();
        named.extend(trace.beside.iter().filter(|id| !known.contains(id)).cloned());
        onward.extend(goes_on);
    }
    named.append(&mut onward);
    let mut seen = HashSet::new();
    named.retain(|id| seen.insert(id.clone()));
    named
}

/// Whether either names the other.
pub(super) fn belong_together(one: &Trace, two: &Trace) -> bool {
    relation(one, two).is_some() || relation(two, one).is_some()
}

/// What `other` is to `of`, by what either says.
fn relation(of: &Trace, other: &Trace) -> Option<Relation> {
    let names_other = |id| other.is(id);
    let names_this = |id| of.is(id);
    if of.sent_on_from().is_some_and(names_other) || sends_on(other, of) {
        Some(Relation::SentOnFrom)
    } else if other.sent_on_from().is_some_and(names_this) || sends_on(of, other) {
        Some(Relation::SentOn)
    } else if of.about().is_some_and(names_other) {
        Some(Relation::About)
    } else if other.about().is_some_and(names_this) {
        Some(other.relation_to_that())
    } else if of.submitted_in().is_some_and(names_other) {
        Some(Relation::Outbound)
    } else if other.submitted_in().is_some_and(names_this) {
        Some(Relation::Inbound)
    } else {
        None
    }
}

fn sends_on(one: &Trace, two: &Trace) -> bool {
    one.sent_on().any(|(id, _)| two.is(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::story::tests::{leaving, own, received};
    use crate::pipeline::story::AnyStory;

    fn id(number: u8) -> String {
        format!("019b0000-0000-7000-8000-{number:012}")
    }

    fn trace(number: u8, story: AnyStory) -> Trace {
        Trace { story: Some(story), ..Trace::new(&id(number)) }
    }

    fn check(of: &Trace, all: &[&Trace], expected: &[(Relation, u8, &[&str])]) {
        let others = all.iter().copied().filter(|other| other.trace_id != of.trace_id);
        let found = joined(of, others);
        let found: Vec<_> = found
            .iter()
            .map(|it| {
                let to: Vec<_> = it.to.iter().map(String::as_str).collect();
                (it.relation, it.trace_id.clone(), to)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(relation, number, to)| (*relation, id(*number), to.to_vec()))
            .collect();
        assert_eq!(found, expected, "{}", of.trace_id);
    }

    #[test]
    fn the_halves_of_a_submission_are_joined_by_what_is_recorded() {
        let out = trace(1, leaving(json!({})));
        let half = |number, fields| {
            let mut half = trace(number, received(fields));
            let event = json!({ "event": { "recipients": ["bob@x.test"] } });
            half.events.push(event);
            half
        };
        let one = half(2, json!({ "submittedIn": id(1) }));
        let two = half(3, json!({ "submittedIn": id(1) }));
        // Its Message-ID is the same, as all of these have it.
        let stranger = half(4, json!({}));
        let all = [&out, &one, &two, &stranger];
        let bob: &[&str] = &["bob@x.test"];
        check(&out, &all, &[(Relation::Inbound, 2, bob), (Relation::Inbound, 3, bob)]);
        check(&one, &all, &[(Relation::Outbound, 1, &[])]);
        check(&stranger, &all, &[]);
        assert!(belong_together(&out, &one) && !belong_together(&out, &stranger));
    }

    #[test]
    fn what_is_sent_on_to_many_leaves_room_for_what_is_one_alone() {
        let on = |number| {
            json!({ "from": "bob@x.test", "entity": "019b0000-0000-7000-8000-00000000000b",
                    "to": "eve@y.test", "trace": id(number) })
        };
        let sent_on = json!({ "sentOn": [on(5), on(6), on(6)], "submittedIn": id(1) });
        let mut of = trace(2, received(sent_on));
        of.beside = [5, 1, 7].map(id).to_vec();
        assert_eq!(named_by([&of].into_iter()), [1, 7, 5, 6].map(id));
    }

    #[test]
    fn mail_of_our_own_and_what_is_sent_on_are_joined_both_ways() {
        let to = |to: &str, number| {
            json!({ "from": "bob@x.test", "entity": "019b0000-0000-7000-8000-00000000000b",
                    "to": to, "trace": id(number) })
        };
        let first = json!({ "sentOn": [to("bob@y.test", 2), to("eve@z.test", 9)] });
        let first = trace(1, received(first));
        let on = trace(2, leaving(json!({ "sentOnFrom": id(1) })));
        let own = |number, what: &str, about| {
            trace(number, own(json!({ "ownMail": what, "about": id(about), "to": "ann@q.test" })))
        };
        let report = own(3, "report", 1);
        let record = own(4, "journalRecord", 1);
        let notice = own(5, "notice", 4);
        let all = [&first, &on, &report, &record, &notice];
        let ann: &[&str] = &["ann@q.test"];
        let expected: &[(Relation, u8, &[&str])] = &[
            (Relation::SentOn, 2, &["bob@y.test"]),
            (Relation::Report, 3, ann),
            (Relation::JournalRecord, 4, ann),
            (Relation::SentOn, 9, &["eve@z.test"]),
        ];
        check(&first, &all, expected);
        check(&on, &all, &[(Relation::SentOnFrom, 1, &[])]);
        check(&report, &all, &[(Relation::About, 1, &[])]);
        check(&record, &all, &[(Relation::About, 1, &[]), (Relation::Notice, 5, ann)]);
        check(&notice, &all, &[(Relation::About, 4, &[])]);
        assert!(belong_together(&first, &record) && belong_together(&notice, &record));
        assert!(!belong_together(&notice, &first) && !belong_together(&report, &record));
        // Where the story that tells of it has left the log, the other half still says so.
        let untold = Trace::new(&id(1));
        check(&untold, &[&untold, &on], &[(Relation::SentOn, 2, &[])]);
    }
}
