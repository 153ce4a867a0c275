//! What a server said, and against whom it is held: a destination, or the sender alone.

use super::*;

#[tokio::test]
async fn a_destination_that_is_down_is_left_alone_for_a_minute() {
    let bench = Bench::new(&[&[Answer::Down], &[Answer::Never]]);
    let mut running = bench.run();
    running.add("down.test", &["a"], "one").await;
    let first = running.told().await;
    assert!(first.state.is_some());
    let down_at = first.at;
    running.add("down.test", &["b"], "two").await;
    running.add("up.test", &["c"], "three").await;
    let second = running.told().await;
    assert_eq!(second.mail.entry.destination.to_string(), "up.test");
    assert!(running.told.try_recv().is_err());
    running.wait_for_due().await;
    let third = running.told().await;
    assert_eq!(third.mail.entry.destination.to_string(), "down.test");
    let waited = third.at.as_millis() - down_at.as_millis();
    assert_eq!(waited, 60_000);
    running.stop().await;
}

#[tokio::test]
async fn a_destination_that_is_back_gets_its_mail_at_once() {
    let bench = Bench::new(&[&[Answer::Down], &[Answer::Down], &[Answer::Down], &[Answer::Sent]]);
    let mut running = bench.run();
    for text in ["one", "two", "three"] {
        running.add("far.test", &["bob"], text).await;
        let failed = running.told().await;
        assert!(failed.state.expect("waits").is_servers_fault);
        // Over the minute for which the destination is left alone.
        bench.clock.advance(Duration::from_secs(61));
        running.queue.changed.notify_one();
    }
    running.add("far.test", &["bob"], "four").await;
    let at = bench.clock.now();
    for _ in 0..4 {
        let settlement = running.told().await;
        assert_eq!((settlement.sent.len(), settlement.at), (1, at));
    }
    running.stop().await;
}

/// Servers close the connection (421) on content that they do not want, and take all other mail.
#[tokio::test]
async fn what_a_server_turns_away_holds_up_nothing_else_and_keeps_its_time() {
    use Answer::{Sent, TurnedAway};
    let bench = Bench::new(&[&[TurnedAway], &[Sent], &[TurnedAway], &[Sent]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "unwanted").await;
    let state = running.told().await.state.expect("waits");
    assert!(state.is_servers_fault, "nobody knows better yet");
    has_it_back(&running, 1).await;
    // At once, though the first has just been turned away; and then that is tried once more.
    running.add_of("alice", "far.test", "welcome").await;
    assert_eq!(running.told().await.sent.len(), 1);
    bench.clock.advance(Duration::from_secs(61));
    running.queue.changed.notify_one();
    let state = running.told().await.state.expect("waits");
    assert_eq!((state.attempts, state.is_servers_fault), (2, false));
    has_it_back(&running, 1).await;
    running.add_of("carol", "far.test", "welcome").await;
    assert_eq!(running.told().await.sent.len(), 1);
    let waits: Vec<_> = running.queue.waits_for().iter().map(|entry| entry.waits_for).collect();
    assert_eq!(waits, [WaitsFor::NextAttempt { until: state.next_attempt }]);
    running.stop().await;
}

#[tokio::test]
async fn what_else_a_sender_has_rests_while_its_mail_is_turned_away() {
    use Answer::{Sent, TurnedAway};
    let bench = Bench::new(&[&[TurnedAway], &[Sent]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "unwanted").await;
    assert!(running.told().await.state.is_some());
    has_it_back(&running, 1).await;
    running.add("far.test", &["carol"], "of the same").await;
    running.add_of("alice", "far.test", "welcome").await;
    let first = running.told().await;
    assert!(first.mail.entry.sender.is_some() && first.sent.len() == 1, "{first:?}");
    // The server is back, so that nobody rests.
    assert!(running.told().await.mail.entry.sender.is_none());
    running.stop().await;
}
