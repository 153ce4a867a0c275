//! Whose turn it is, entry by entry.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::mail::{Address, Domain, ReversePath};
use crate::queue::route::FixedRoute;
use crate::queue::waits_for::{Share, WaitsFor};
use crate::queue::{Settings, fixture, route};
use crate::store::{Destination, Purpose, QueueEntry, QueueState};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn at(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// One of a user of its own.
fn mail(number: usize, destination: &str, due: Timestamp) -> QueuedMail {
    let domain = Domain::parse(destination).expect("a domain");
    let mail = fixture::mail(number, Destination::Domain(domain), &[]);
    let state = QueueState { next_attempt: due, ..QueueState::default() };
    let sender = Address::parse(&format!("user{number}@example.test")).expect("an address");
    let reverse_path = ReversePath::Address(sender.clone());
    let entry = QueueEntry { sender: Some(sender), reverse_path, ..(*mail.entry).clone() };
    QueuedMail { entry: Arc::new(entry), state, ..mail }
}

fn id(number: usize) -> QueueId {
    format!("{number:x}.0.0.0").parse().expect("an id")
}

/// One that was tried, and that no server has answered to.
fn unanswered(number: usize, destination: &str, due: Timestamp) -> QueuedMail {
    let mail = mail(number, destination, due);
    QueuedMail { state: QueueState { is_servers_fault: true, ..mail.state.clone() }, ..mail }
}

fn report(number: usize, destination: &str) -> QueuedMail {
    let mail = mail(number, destination, NOW);
    let reverse_path = ReversePath::Null;
    let purpose = Purpose::Report;
    let entry = QueueEntry { purpose, sender: None, reverse_path, ..(*mail.entry).clone() };
    QueuedMail { entry: Arc::new(entry), ..mail }
}

fn lane_of(mail: &QueuedMail) -> Lane {
    Lane::of(mail, &Relays::default())
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
fn nothing_is_taken_during_a_pause_and_everything_after_it() {
    let mut waiting = Waiting::new(limits(200, 2));
    waiting.add(mail(1, "one.test", NOW));
    let (lane, _) = waiting.take(NOW).expect("before the pause");
    waiting.add(mail(2, "one.test", NOW));
    waiting.add(mail(3, "two.test", NOW));
    waiting.add(mail(4, "two.test", at(60)));
    waiting.pause(true);
    for now in [NOW, at(3600)] {
        assert_eq!(take(&mut waiting, now), None);
        assert_eq!(waiting.take_more(&lane, now), None, "nor over a connection that is open");
    }
    assert_eq!(waiting.next_due(), None, "there is no moment to wake up for");
    let waits_for = |waiting: &mut Waiting, number| waiting.waits_for(id(number), at(3600));
    assert_eq!(waits_for(&mut waiting, 1), Some(WaitsFor::InFlight));
    for number in 2..=4 {
        assert_eq!(waits_for(&mut waiting, number), Some(WaitsFor::Paused));
    }
    assert_eq!(waiting.hurry(&[id(4)], NOW), [(id(4), Found::Waiting(()))]);
    assert!(matches!(waiting.remove(id(3)), Found::Waiting(_)), "an operator may drop");
    waiting.close(&lane);

    waiting.pause(false);
    assert_eq!(all(&mut waiting, NOW), ["4.0.0.0", "2.0.0.0"], "what was hurried is due");
}

#[test]
fn destinations_take_turns_within_their_connections() {
    let mut waiting = Waiting::new(limits(200, 2));
    for number in 1..=4 {
        waiting.add(mail(number, "many.test", NOW));
    }
    waiting.add(mail(5, "one.test", NOW));
    let lane = lane_of(&mail(1, "many.test", NOW));
    waiting.prove(&lane, NOW);
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
    assert_eq!(waiting.hurry(&[id(1)], at(31)), [(id(1), Found::Waiting(()))]);
    assert_eq!(take(&mut waiting, at(31)).as_deref(), Some("1.0.0.0"));
    assert_eq!(waiting.hurry(&[id(1)], at(31)), [(id(1), Found::UnderWay)]);
    waiting.settled(id(1));
    assert_eq!(waiting.hurry(&[id(1)], at(31)), [(id(1), Found::Nothing)]);
}

#[test]
fn a_held_lane_waits_and_no_other() {
    let mut waiting = Waiting::new(limits(200, 2));
    let lane = lane_of(&mail(1, "down.test", NOW));
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
    assert_eq!(
        waiting.hurry(&[id(3)], at(61)),
        [(id(3), Found::Waiting(()))],
        "an operator insists"
    );
    assert_eq!(take(&mut waiting, at(61)).as_deref(), Some("3.0.0.0"));
}

#[test]
fn another_number_of_connections_holds_for_those_that_are_open() {
    let mut waiting = Waiting::new(limits(200, 1));
    for number in 1..=6 {
        waiting.add(mail(number, "a.test", NOW));
    }
    let lane = lane_of(&mail(1, "a.test", NOW));
    waiting.prove(&lane, NOW);
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
    for number in 1..=3 {
        waiting.add(mail(number, "a.test", NOW));
    }
    assert_eq!(take(&mut waiting, NOW).as_deref(), Some("1.0.0.0"));
    assert!(matches!(waiting.remove(id(2)), Found::Waiting(_)));
    assert_eq!(waiting.remove(id(2)), Found::Nothing);
    assert_eq!(waiting.remove(id(1)), Found::UnderWay);
    let lane = lane_of(&mail(1, "a.test", NOW));
    assert_eq!(waiting.take_more(&lane, NOW).map(|mail| mail.id), Some(id(3)));
}

#[test]
fn a_destination_has_one_connection_until_a_server_has_answered() {
    let mut waiting = Waiting::new(limits(200, 3));
    for number in 1..=9 {
        waiting.add(mail(number, "new.test", NOW));
    }
    let lane = lane_of(&mail(1, "new.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
    waiting.prove(&lane, NOW);
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
    let lane = |number: usize| lane_of(&mail(number, &format!("d{number}.test"), NOW));
    for number in 1..=6 {
        waiting.add(mail(number, &format!("d{number}.test"), NOW));
    }
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0", "3.0.0.0", "4.0.0.0"]);
    waiting.prove(&lane(2), NOW);
    assert_eq!(all(&mut waiting, NOW), ["5.0.0.0"], "in place of the one that has answered");
    waiting.add(mail(7, "d2.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["7.0.0.0"], "it is not held up by the others");
    waiting.close(&lane(1));
    assert_eq!(all(&mut waiting, NOW), ["6.0.0.0"]);
    // One that answers while it waits for its turn goes over to the others.
    waiting.add(mail(8, "d8.test", NOW));
    assert_eq!(all(&mut waiting, NOW), Vec::<String>::new());
    waiting.prove(&lane(8), NOW);
    assert_eq!(all(&mut waiting, NOW), ["8.0.0.0"]);
}

#[test]
fn reports_have_a_quarter_of_all_connections() {
    let mut waiting = Waiting::new(limits(8, 8));
    let names: Vec<_> = (1..=4).map(|number| format!("d{number}.test")).collect();
    for (number, name) in (1..).zip(&names) {
        waiting.prove(&lane_of(&report(number, name)), NOW);
        waiting.add(report(number, name));
        waiting.add(report(0x10 + number, name));
    }
    waiting.add(mail(9, "d4.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0", "9.0.0.0"]);
    // Those that wait for the share have it in turn.
    let first = lane_of(&report(1, "d1.test"));
    assert_eq!(waiting.take_more(&first, NOW), None);
    waiting.close(&first);
    assert_eq!(all(&mut waiting, NOW), ["3.0.0.0"]);
}

#[test]
fn reports_and_other_mail_share_the_connections_of_a_destination() {
    let mut waiting = Waiting::new(limits(200, 1));
    let lane = lane_of(&mail(1, "a.test", NOW));
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
    waiting.prove(&lane.sibling(), NOW);
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0"], "a quarter of its connections");
}

#[test]
fn nothing_is_kept_of_a_destination_whose_mail_is_gone() {
    let mut waiting = Waiting::new(limits(200, 2));
    for (number, name) in ["up.test", "down.test", "dropped.test"].into_iter().enumerate() {
        waiting.add(mail(number + 1, name, NOW));
        let lane = lane_of(&mail(1, name, NOW));
        if name == "dropped.test" {
            waiting.promote(NOW);
            assert!(matches!(waiting.remove(id(3)), Found::Waiting(_)));
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

#[test]
fn a_destination_that_is_back_gets_what_waited_for_it_and_no_flood() {
    let mut waiting = Waiting::new(limits(200, 10));
    let later = at(4 * 3600);
    for number in 1..=20 {
        waiting.add(unanswered(number, "back.test", later));
    }
    waiting.add(mail(0x30, "back.test", later));
    waiting.add(unanswered(0x31, "other.test", later));
    let lane = lane_of(&mail(1, "back.test", NOW));
    waiting.add(mail(0x40, "back.test", NOW));
    assert_eq!(all(&mut waiting, NOW), ["40.0.0.0"]);
    // Each answer brings two more, the oldest first.
    waiting.prove(&lane, NOW);
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0", "2.0.0.0"]);
    waiting.prove(&lane, NOW);
    assert_eq!(all(&mut waiting, NOW), ["3.0.0.0", "4.0.0.0"]);
    // It stops answering: nothing more is brought forward, and what is due waits.
    waiting.hold(&lane, at(60));
    waiting.add(unanswered(1, "back.test", later));
    assert_eq!((all(&mut waiting, at(60)), waiting.next_due()), (Vec::new(), Some(later)));
    // Over the connections that it may have at most.
    for _ in 0..20 {
        waiting.prove(&lane, at(60));
    }
    assert_eq!(all(&mut waiting, at(60)).len(), 10 - 5, "five connections are open");
    assert_eq!(
        waiting.waits_for(id(0x30), at(60)),
        Some(WaitsFor::NextAttempt { until: later }),
        "a recipient that was deferred keeps its time"
    );
    let other = waiting.waits_for(id(0x31), at(60));
    assert_eq!(other, Some(WaitsFor::NextAttempt { until: later }));
}

/// Its attempt was over before the other's, and its record after.
#[test]
fn what_a_destination_that_is_back_has_missed_while_it_was_recorded_goes_too() {
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.add(mail(1, "back.test", NOW));
    let (lane, tried) = waiting.take(NOW).expect("is due");
    let state = |is_servers_fault| QueueState {
        is_servers_fault,
        last_attempt: Some(NOW),
        next_attempt: at(3600),
        ..tried.state.clone()
    };
    let (back, full) = (state(true), state(false));
    waiting.close(&lane);
    waiting.prove(&lane, at(1));
    waiting.add(QueuedMail { state: full, ..mail(2, "back.test", NOW) });
    assert_eq!(all(&mut waiting, at(1)), [""; 0], "that is no fault of the servers");
    waiting.add(QueuedMail { state: back, ..tried });
    assert_eq!(all(&mut waiting, at(1)), ["1.0.0.0"]);
    // Whoever was tried after that has nothing to make up for.
    let state = QueueState { last_attempt: Some(at(1)), next_attempt: at(60), ..state(true) };
    waiting.add(QueuedMail { state, ..mail(3, "back.test", NOW) });
    assert_eq!(all(&mut waiting, at(1)), [""; 0]);
}

#[test]
fn the_reports_of_a_destination_that_is_back_come_with_its_other_mail() {
    let mut waiting = Waiting::new(limits(200, 10));
    let report = report(1, "back.test");
    let state =
        QueueState { is_servers_fault: true, next_attempt: at(3600), ..report.state.clone() };
    waiting.add(QueuedMail { state, ..report });
    waiting.prove(&lane_of(&mail(2, "back.test", NOW)), NOW);
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
}

#[test]
fn every_entry_says_what_it_waits_for() {
    let mut waiting = Waiting::new(limits(8, 2));
    let lane = |name: &str| lane_of(&mail(1, name, NOW));
    let share = |share| WaitsFor::Connection { share };
    let told = |waiting: &mut Waiting, number| waiting.waits_for(id(number), NOW).expect("known");
    for number in 1..=2 {
        waiting.add(mail(number, "new.test", NOW));
    }
    waiting.prove(&lane("known.test"), NOW);
    for number in 3..=5 {
        waiting.add(mail(number, "known.test", NOW));
    }
    waiting.add(mail(6, "later.test", at(30)));
    waiting.hold(&lane("down.test"), at(60));
    waiting.add(mail(7, "down.test", NOW));
    assert_eq!(told(&mut waiting, 1), share(Share::Turn));
    assert_eq!(all(&mut waiting, NOW).len(), 3);
    assert_eq!(told(&mut waiting, 1), WaitsFor::InFlight);
    waiting.note(id(1), Stage::Memory);
    assert_eq!(told(&mut waiting, 1), WaitsFor::Memory);
    waiting.note(id(1), Stage::Broken);
    assert_eq!(told(&mut waiting, 1), WaitsFor::Restart);
    assert_eq!(told(&mut waiting, 2), share(Share::FirstAnswer));
    assert_eq!(told(&mut waiting, 5), share(Share::Destination));
    assert_eq!(told(&mut waiting, 6), WaitsFor::NextAttempt { until: at(30) });
    assert_eq!(told(&mut waiting, 7), WaitsFor::DestinationDown { until: at(60) });
    assert_eq!(waiting.waits_for(id(8), NOW), None);
    let ids: Vec<_> = waiting.tell(NOW).iter().map(|told| told.id).collect();
    assert_eq!(ids, (1..=7).map(id).collect::<Vec<_>>());
}

#[test]
fn a_share_that_is_used_up_is_named() {
    let mut waiting = Waiting::new(limits(8, 8));
    let told = |waiting: &mut Waiting, number| waiting.waits_for(id(number), NOW).expect("known");
    let share = |share| WaitsFor::Connection { share };
    let name = |number: usize| format!("d{number}.test");
    for number in 1..=3 {
        waiting.prove(&lane_of(&report(number, &name(number))), NOW);
        waiting.add(report(number, &name(number)));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 2);
    assert_eq!(told(&mut waiting, 3), share(Share::Reports));
    waiting.prove(&lane_of(&report(0x10, "r.test")), NOW);
    for number in 4..=8 {
        waiting.add(mail(number, &name(number), NOW));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 4);
    assert_eq!(told(&mut waiting, 8), share(Share::Unproven));
    waiting.add(report(9, "d9.test"));
    waiting.prove(&lane_of(&mail(1, "many.test", NOW)), NOW);
    for number in 0x21..=0x23 {
        waiting.add(mail(number, "many.test", NOW));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 3);
    waiting.add(mail(0x24, "many.test", NOW));
    assert_eq!(told(&mut waiting, 0x24), share(Share::All));
}

#[test]
fn all_mail_for_a_relay_shares_its_connections() {
    let relay = Some(FixedRoute::to("relay.test", None));
    let relays = Relays::of(&route::Settings { relay, ..route::Settings::default() });
    let mut waiting = Waiting::new(limits(200, 3));
    for number in 1..=9 {
        waiting.add(mail(number, &format!("d{number}.test"), NOW));
    }
    waiting.add(unanswered(0xa, "da.test", at(60)));
    waiting.promote(NOW);
    waiting.set_relays(relays.clone());
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"], "one until it has answered");
    let lane = Lane::of(&mail(1, "any.test", NOW), &relays);
    let more = waiting.take_more(&lane, NOW).expect("the next, over the same connection");
    assert_eq!(more.id, id(2));
    waiting.prove(&lane, NOW);
    assert_eq!(all(&mut waiting, NOW), ["3.0.0.0", "4.0.0.0"]);
    let told = waiting.waits_for(id(0xa), NOW);
    assert_eq!(told, Some(WaitsFor::Connection { share: Share::Destination }), "it is brought on");
    // Without the relay, each domain has its own connections again.
    waiting.set_relays(Relays::default());
    assert_eq!(waiting.take_more(&lane, NOW), None);
    assert_eq!(all(&mut waiting, NOW).len(), 6);
    for _ in 0..3 {
        waiting.close(&lane);
    }
    assert!(waiting.lanes.values().all(|state| state.connections == 1), "{:?}", waiting.lanes);
}

/// One of a user here, or that a user has sent on for somebody.
fn from(number: usize, user: &str, reverse_path: &str) -> QueuedMail {
    let mail = mail(number, "far.test", NOW);
    let sender = Address::parse(&format!("{user}@example.test")).expect("an address");
    let reverse_path = ReversePath::Address(
        Address::parse(&format!("{reverse_path}@example.test")).expect("an address"),
    );
    let entry = QueueEntry { sender: Some(sender), reverse_path, ..(*mail.entry).clone() };
    QueuedMail { entry: Arc::new(entry), ..mail }
}

/// The reverse-path under which a stranger's mail is sent on.
fn stranger(number: usize) -> String {
    format!("SRS0=abcdefgh=ab=good.test=a{number}")
}

fn far() -> Lane {
    lane_of(&mail(1, "far.test", NOW))
}

/// Everything that can be taken, over one connection.
fn one_by_one(waiting: &mut Waiting, now: Timestamp) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some((lane, mail)) = waiting.take(now) {
        waiting.settled(mail.id);
        waiting.close(&lane);
        taken.push(mail.id.to_string());
    }
    taken
}

#[test]
fn senders_take_turns() {
    let mut waiting = Waiting::new(limits(200, 10));
    for number in 1..=3 {
        waiting.add(from(number, "alice", "alice"));
    }
    waiting.add(from(4, "bob", "bob"));
    waiting.add(from(5, "bob", "team"));
    waiting.prove(&far(), NOW);
    let taken = one_by_one(&mut waiting, NOW);
    assert_eq!(taken, ["1.0.0.0", "4.0.0.0", "2.0.0.0", "5.0.0.0", "3.0.0.0"]);
}

#[test]
fn many_addresses_are_one_users_turn() {
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.prove(&far(), NOW);
    // Tags of one's own, and what 20 strangers write to a user who has it sent on.
    for number in 0x10..0x20 {
        waiting.add(from(number, "alice", &format!("alice+{number}")));
    }
    waiting.add(from(1, "alice", "team"));
    waiting.add(from(6, "alice", "team"));
    for number in 0x20..0x40 {
        waiting.add(from(number, "dave", &stranger(number)));
    }
    for number in 2..=3 {
        waiting.add(from(number, "dave", "dave"));
        waiting.add(from(number + 2, "bob", "bob"));
    }
    let mut taken = one_by_one(&mut waiting, NOW);
    assert_eq!(taken.len(), 0x10 + 2 + 0x20 + 4);
    taken.truncate(12);
    let expected = [
        // alice (both her addresses), dave (his own and strangers'), bob
        ["1.0.0.0", "2.0.0.0", "4.0.0.0"],
        ["10.0.0.0", "20.0.0.0", "5.0.0.0"],
        ["6.0.0.0", "3.0.0.0", "11.0.0.0"],
        ["21.0.0.0", "12.0.0.0", "22.0.0.0"],
    ];
    assert_eq!(taken, expected.concat());
}

#[test]
fn no_user_and_not_all_strangers_together_have_all_connections_of_a_destination() {
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.prove(&far(), NOW);
    let share = |share| WaitsFor::Connection { share };
    let told = |waiting: &mut Waiting, number| waiting.waits_for(id(number), NOW).expect("known");
    // One user alone leaves room for reports, and one connection for who comes next.
    for number in 0x10..0x20 {
        waiting.add(from(number, "alice", &format!("alice+{number}")));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 7);
    assert_eq!(told(&mut waiting, 0x1f), share(Share::User));
    waiting.add(from(1, "bob", "bob"));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
    // A connection that is free again takes what others have.
    waiting.add(from(2, "bob", "bob"));
    waiting.settled(id(0x10));
    assert_eq!(waiting.take_more(&far(), NOW).map(|mail| mail.id), Some(id(2)));
    waiting.settled(id(0x11));
    assert_eq!(waiting.take_more(&far(), NOW).map(|mail| mail.id), Some(id(0x17)), "again six");
    // Strangers' mail that three users have sent on.
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.prove(&far(), NOW);
    for number in 0x10..0x20 {
        waiting.add(from(number, &format!("r{}", number % 3), &stranger(number)));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 7);
    assert_eq!(told(&mut waiting, 0x1f), share(Share::Strangers));
    waiting.add(from(1, "bob", "bob"));
    assert_eq!(all(&mut waiting, NOW), ["1.0.0.0"]);
    // Two who both have more than enough have half each.
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.prove(&far(), NOW);
    for number in 0x10..0x18 {
        waiting.add(from(number, "alice", "alice"));
    }
    assert_eq!(all(&mut waiting, NOW).len(), 7);
    for number in 0x10..0x14 {
        waiting.settled(id(number));
        waiting.close(&far());
    }
    for number in 0x20..0x30 {
        waiting.add(from(number, "alice", "alice"));
        waiting.add(from(0x20 + number, "bob", "bob"));
    }
    let taken = all(&mut waiting, NOW);
    let of_bob = |id: &&String| id.starts_with('4');
    assert_eq!((taken.len(), taken.iter().filter(of_bob).count()), (7, 5), "{taken:?}");
}

#[test]
fn whose_mail_is_turned_away_rests_and_nobody_else() {
    let mut waiting = Waiting::new(limits(200, 10));
    let lane = lane_of(&mail(1, "far.test", NOW));
    waiting.prove(&lane, NOW);
    for number in 1..=3 {
        waiting.add(from(number, "alice", "alice"));
    }
    let (_, turned_away) = waiting.take(NOW).expect("the first");
    waiting.turn_away(&lane, &turned_away, at(60));
    waiting.close(&lane);
    waiting.add(from(4, "bob", "bob"));
    waiting.add(from(5, "alice", &stranger(5)));
    assert_eq!(all(&mut waiting, NOW), ["4.0.0.0", "5.0.0.0"]);
    let told = |waiting: &mut Waiting, number| waiting.waits_for(id(number), NOW).expect("known");
    assert_eq!(told(&mut waiting, 2), WaitsFor::SenderTurnedAway { until: at(60) });
    assert_eq!(waiting.next_due(), Some(at(60)));
    // An operator insists on one of them.
    waiting.hurry(&[id(3)], NOW);
    assert_ne!(told(&mut waiting, 3), WaitsFor::SenderTurnedAway { until: at(60) });
    assert_eq!(all(&mut waiting, NOW), ["3.0.0.0"]);
    waiting.turn_away(&lane, &turned_away, at(90));
    assert_eq!(all(&mut waiting, at(89)), [""; 0], "its rest has become longer");
    assert_eq!(all(&mut waiting, at(90)), ["2.0.0.0"]);
}

#[test]
fn a_destination_that_turns_several_users_away_in_a_row_is_left_alone() {
    let away = |waiting: &mut Waiting, number, user: &str, path: &str| {
        let mail = from(number, user, path);
        waiting.turn_away(&lane_of(&mail), &mail, at(60));
    };
    let is_held = |waiting: &mut Waiting| {
        waiting.add(from(9, "zoe", "zoe"));
        let told = waiting.waits_for(id(9), NOW).expect("known");
        told == WaitsFor::DestinationDown { until: at(60) }
    };
    let mut waiting = Waiting::new(limits(200, 10));
    for number in 1..=10 {
        away(&mut waiting, number, &format!("user{number}"), &stranger(number));
        away(&mut waiting, number, &format!("remote{number}"), "alice");
        away(&mut waiting, number, "alice", &format!("alice+{number}"));
    }
    assert!(!is_held(&mut waiting), "many strangers', and one user's own");
    away(&mut waiting, 11, "bob", "bob");
    waiting.prove(&lane_of(&mail(1, "far.test", NOW)), NOW);
    away(&mut waiting, 12, "carol", "carol");
    away(&mut waiting, 13, "dan", "dan");
    assert!(!is_held(&mut waiting), "it has taken somebody's between");
    away(&mut waiting, 14, "eve", "eve");
    assert!(is_held(&mut waiting), "three in a row");
    // When it is tried again, it takes three again.
    waiting.promote(at(60));
    away(&mut waiting, 15, "fay", "fay");
    assert!(!is_held(&mut waiting), "the first one after it was held");
}

#[test]
fn nothing_is_kept_of_a_sender_that_has_rested() {
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.add(from(1, "alice", "alice"));
    waiting.add(from(2, "alice", "alice"));
    let (lane, mail) = waiting.take(NOW).expect("the first");
    waiting.turn_away(&lane, &mail, at(60));
    waiting.close(&lane);
    assert!(matches!(waiting.remove(id(2)), Found::Waiting(_)));
    assert_eq!(take(&mut waiting, at(60)), None);
    assert!(waiting.lanes.is_empty(), "{:?}", waiting.lanes);
}

#[test]
fn whom_a_server_turned_away_before_it_was_back_does_not_rest() {
    let mut waiting = Waiting::new(limits(200, 10));
    for number in 1..=3 {
        waiting.add(from(number, "alice", "alice"));
    }
    let (lane, first) = waiting.take(NOW).expect("the first");
    waiting.turn_away(&lane, &first, at(60));
    waiting.close(&lane);
    assert_eq!(all(&mut waiting, NOW), [""; 0]);
    waiting.prove(&lane, NOW);
    assert_eq!(all(&mut waiting, NOW), ["2.0.0.0", "3.0.0.0"]);
    // Now it is hers.
    waiting.turn_away(&lane, &first, at(120));
    waiting.prove(&lane, NOW);
    waiting.add(from(4, "alice", "alice"));
    assert_eq!(all(&mut waiting, at(60)), [""; 0]);
    assert_eq!(all(&mut waiting, at(120)), ["4.0.0.0"]);
}

#[test]
fn what_was_turned_away_for_its_own_fault_does_not_hold_a_destination_again() {
    let mut waiting = Waiting::new(limits(200, 10));
    let again = |state: QueueState| QueueState { attempts: 1, ..state };
    for (number, user) in ["alice", "bob", "carol", "dan"].into_iter().enumerate() {
        let mail = from(number, user, user);
        let mail = QueuedMail { state: again(mail.state.clone()), ..mail };
        waiting.turn_away(&far(), &mail, at(60));
    }
    waiting.add(from(9, "zoe", "zoe"));
    assert_eq!(all(&mut waiting, NOW), ["9.0.0.0"]);
    // It may be the servers' fault as long as they have taken nothing.
    let servers_fault = QueueState { is_servers_fault: true, ..again(QueueState::default()) };
    for (number, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let mail = QueuedMail { state: servers_fault.clone(), ..from(number, user, user) };
        waiting.turn_away(&far(), &mail, at(60));
    }
    assert_eq!(waiting.next_due(), Some(at(60)));
    waiting.add(from(0xa, "yves", "yves"));
    assert_eq!(waiting.waits_for(id(0xa), NOW), Some(WaitsFor::DestinationDown { until: at(60) }));
}

#[test]
fn after_a_hold_those_who_were_not_turned_away_go_first() {
    let mut waiting = Waiting::new(limits(200, 10));
    waiting.prove(&far(), NOW);
    for user in ["eve", "mallory", "trudy"] {
        waiting.turn_away(&far(), &from(1, user, user), at(60));
    }
    for (number, user) in [(1, "eve"), (2, "mallory"), (3, "eve")] {
        waiting.add(from(number, user, user));
    }
    assert_eq!(all(&mut waiting, at(59)), [""; 0]);
    assert_eq!(all(&mut waiting, at(60)), ["1.0.0.0"], "there is nothing else");
    for (number, user) in [(4, "bob"), (5, "alice")] {
        waiting.add(from(number, user, user));
    }
    waiting.settled(id(1));
    waiting.close(&far());
    let taken = one_by_one(&mut waiting, at(60));
    assert_eq!(taken, ["4.0.0.0", "5.0.0.0", "2.0.0.0", "3.0.0.0"]);
    // Once the servers have taken something, all have their turns again.
    waiting.turn_away(&far(), &from(1, "eve", "eve"), at(120));
    waiting.prove(&far(), at(60));
    for (number, user) in [(6, "eve"), (7, "eve"), (8, "bob"), (9, "bob")] {
        waiting.add(from(number, user, user));
    }
    let taken = one_by_one(&mut waiting, at(120));
    assert_eq!(taken, ["6.0.0.0", "8.0.0.0", "7.0.0.0", "9.0.0.0"]);
}
