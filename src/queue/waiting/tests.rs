//! Whose turn it is, entry by entry.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::id::TraceId;
use crate::mail::{Address, MailParameters, ReversePath};
use crate::queue::Settings;
use crate::store::{Authorship, Destination, Purpose, QueueEntry, QueueState};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn at(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn mail(number: usize, destination: &str, due: Timestamp) -> QueuedMail {
    let address = Address::parse(&format!("x@{destination}")).expect("an address");
    QueuedMail {
        id: format!("{number:x}.0.0.0").parse().expect("an id"),
        trace_id: TraceId::generate(),
        queued_at: NOW,
        size: 1,
        entry: Arc::new(QueueEntry {
            organization: "m-1".into(),
            purpose: Purpose::Message,
            destination: Destination::Domain(address.domain().clone()),
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: Vec::new(),
            authorship: Authorship::default(),
            sender: None,
            token_domain: None,
            keeper: None,
        }),
        state: QueueState { next_attempt: due, ..QueueState::default() },
    }
}

fn report(number: usize, destination: &str) -> QueuedMail {
    let mail = mail(number, destination, NOW);
    let entry = QueueEntry { purpose: Purpose::Report, ..(*mail.entry).clone() };
    QueuedMail { entry: Arc::new(entry), ..mail }
}

fn limits(connections: usize, connections_per_destination: usize) -> Limits {
    Limits::of(&Settings { connections, connections_per_destination, ..Settings::default() })
}

/// Everything that can be taken, with a connection for each.
fn all(waiting: &mut Waiting, now: Timestamp) -> Vec<String> {
    std::iter::from_fn(|| take(waiting, now)).collect()
}

fn take(waiting: &mut Waiting, now: Timestamp) -> Option<String> {
    waiting.take(now).map(|(_, mail)| mail.id.to_string())
}

#[test]
fn destinations_take_turns_within_their_connections() {
    let mut waiting = Waiting::new(limits(200, 2));
    for number in 1..=4 {
        waiting.add(mail(number, "many.test", NOW));
    }
    waiting.add(mail(5, "one.test", NOW));
    let lane = Lane::of(&mail(1, "many.test", NOW));
    waiting.prove(&lane);
    let taken = all(&mut waiting, NOW);
    assert_eq!(taken, ["1.0.0.0", "5.0.0.0", "2.0.0.0"], "two connections to many.test");
    let more = waiting.take_more(&lane, NOW).expect("a third for an open connection");
    assert_eq!(more.id.to_string(), "3.0.0.0");
    waiting.close(&lane);
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("4.0.0.0"));
    assert_eq!(waiting.take_more(&lane, NOW), None);
}

#[test]
fn nothing_is_taken_before_its_time() {
    let mut waiting = Waiting::new(limits(200, 2));
    waiting.add(mail(1, "a.test", at(60)));
    waiting.add(mail(2, "b.test", at(30)));
    assert_eq!((take(&mut waiting, at(29)), waiting.next_due()), (None, Some(at(30))));
    assert_eq!(take(&mut waiting, at(30)).as_deref(), Some("2.0.0.0"));
    assert_eq!((take(&mut waiting, at(59)), waiting.next_due()), (None, Some(at(60))));
    assert!(waiting.hurry("1.0.0.0".parse().expect("an id"), at(31)));
    assert_eq!(take(&mut waiting, at(31)).as_deref(), Some("1.0.0.0"));
    assert!(!waiting.hurry("1.0.0.0".parse().expect("an id"), at(31)), "it is being sent");
}

#[test]
fn a_held_lane_waits_and_no_other() {
    let mut waiting = Waiting::new(limits(200, 2));
    let lane = Lane::of(&mail(1, "down.test", NOW));
    waiting.hold(&lane, at(60));
    waiting.add(mail(1, "down.test", NOW));
    waiting.add(mail(2, "up.test", NOW));
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("2.0.0.0"));
    assert_eq!((take(&mut waiting, NOW), waiting.next_due()), (None, Some(at(60))));
    assert_eq!(take(&mut waiting, at(60)).as_deref(), Some("1.0.0.0"));
    waiting.hold(&lane, at(120));
    waiting.close(&lane);
    waiting.add(mail(3, "down.test", NOW));
    assert_eq!(take(&mut waiting, at(61)), None);
    assert!(waiting.hurry("3.0.0.0".parse().expect("an id"), at(61)), "an operator insists");
    assert_eq!(take(&mut waiting, at(61)).as_deref(), Some("3.0.0.0"));
}

#[test]
fn another_number_of_connections_holds_for_those_that_are_open() {
    let mut waiting = Waiting::new(limits(200, 1));
    for number in 1..=6 {
        waiting.add(mail(number, "a.test", NOW));
    }
    let lane = Lane::of(&mail(1, "a.test", NOW));
    waiting.prove(&lane);
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("1.0.0.0"));
    assert_eq!(take(&mut waiting, NOW), None);
    waiting.set_limits(limits(200, 2));
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("2.0.0.0"));
    assert_eq!(take(&mut waiting, NOW), None);
    waiting.set_limits(limits(200, 1));
    assert_eq!(waiting.take_more(&lane, NOW), None, "one of the two ends");
    waiting.close(&lane);
    let more = waiting.take_more(&lane, NOW).expect("the other goes on");
    assert_eq!(more.id.to_string(), "3.0.0.0");
    assert_eq!(take(&mut waiting, NOW), None);
}

#[test]
fn what_is_removed_is_not_taken() {
    let mut waiting = Waiting::new(limits(200, 1));
    let id = |number: usize| format!("{number:x}.0.0.0").parse().expect("an id");
    for number in 1..=3 {
        waiting.add(mail(number, "a.test", NOW));
    }
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("1.0.0.0"));
    assert!(waiting.remove(id(2)).is_some());
    assert!(waiting.remove(id(2)).is_none());
    let lane = Lane::of(&mail(1, "a.test", NOW));
    assert_eq!(waiting.take_more(&lane, NOW).map(|mail| mail.id), Some(id(3)));
}

#[test]
fn a_destination_has_one_connection_until_a_server_has_answered() {
    let mut waiting = Waiting::new(limits(200, 3));
    for number in 1..=9 {
        waiting.add(mail(number, "new.test", NOW));
    }
    let lane = Lane::of(&mail(1, "new.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
    waiting.prove(&lane);
    assert_eq!(all(&mut waiting, NOW), ["2.0.0.0", "3.0.0.0"]);
    // It has stopped answering: no connection goes on, and after a while there is one.
    waiting.hold(&lane, at(60));
    for _ in 0..3 {
        assert_eq!(waiting.take_more(&lane, NOW), None, "it is left alone");
        waiting.close(&lane);
    }
    assert_eq!(all(&mut waiting, at(60)), ["4.0.0.0"]);
}

#[test]
fn destinations_that_have_not_answered_have_half_of_all_connections() {
    let mut waiting = Waiting::new(limits(8, 8));
    let lane = |number: usize| Lane::of(&mail(number, &format!("d{number}.test"), NOW));
    for number in 1..=6 {
        waiting.add(mail(number, &format!("d{number}.test"), NOW));
    }
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0", "3.0.0.0", "4.0.0.0"]);
    waiting.prove(&lane(2));
    assert_eq!(all(&mut waiting, NOW), ["5.0.0.0"], "in place of the one that has answered");
    waiting.add(mail(7, "d2.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["7.0.0.0"], "it is not held up by the others");
    waiting.close(&lane(1));
    assert_eq!(all(&mut waiting, NOW), ["6.0.0.0"]);
    // One that answers while it waits for its turn goes over to the others.
    waiting.add(mail(8, "d8.test", NOW));
    assert_eq!(all(&mut waiting, NOW), Vec::<String>::new());
    waiting.prove(&lane(8));
    assert_eq!(all(&mut waiting, NOW), ["8.0.0.0"]);
}

#[test]
fn reports_have_a_quarter_of_all_connections() {
    let mut waiting = Waiting::new(limits(8, 8));
    let names: Vec<_> = (1..=4).map(|number| format!("d{number}.test")).collect();
    for (number, name) in (1..).zip(&names) {
        waiting.prove(&Lane::of(&report(number, name)));
        waiting.add(report(number, name));
        waiting.add(report(0x10 + number, name));
    }
    waiting.add(mail(9, "d4.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0", "9.0.0.0"]);
    // Those that wait for the share have it in turn.
    let first = Lane::of(&report(1, "d1.test"));
    assert_eq!(waiting.take_more(&first, NOW), None);
    waiting.close(&first);
    assert_eq!(all(&mut waiting, NOW), ["3.0.0.0"]);
}

#[test]
fn reports_and_other_mail_share_the_connections_of_a_destination() {
    let mut waiting = Waiting::new(limits(200, 1));
    let lane = Lane::of(&mail(1, "a.test", NOW));
    waiting.add(mail(1, "a.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
    waiting.add(report(2, "a.test"));
    waiting.add(mail(3, "a.test", NOW));
    assert_eq!(all(&mut waiting, NOW), Vec::<String>::new());
    assert_eq!(waiting.take_more(&lane, NOW), None, "the report has waited longer");
    waiting.close(&lane);
    assert_eq!(all(&mut waiting, NOW).len(), 1);
    let mut waiting = Waiting::new(limits(200, 8));
    for number in 1..=9 {
        waiting.add(report(number, "a.test"));
    }
    waiting.prove(&lane.sibling());
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0"], "a quarter of its connections");
}

#[test]
fn nothing_is_kept_of_a_destination_whose_mail_is_gone() {
    let mut waiting = Waiting::new(limits(200, 2));
    for (number, name) in ["up.test", "down.test", "dropped.test"].into_iter().enumerate() {
        waiting.add(mail(number + 1, name, NOW));
        let lane = Lane::of(&mail(1, name, NOW));
        if name == "dropped.test" {
            waiting.promote(NOW);
            assert!(waiting.remove("3.0.0.0".parse().expect("an id")).is_some());
            continue;
        }
        assert!(take(&mut waiting, NOW).is_some());
        if name == "down.test" {
            waiting.hold(&lane, at(60));
        }
        waiting.close(&lane);
    }
    assert_eq!(take(&mut waiting, at(60)), None);
    assert!(waiting.lanes.is_empty(), "{:?}", waiting.lanes);
}
