//! What a reload changes of mail that waits.

use super::*;

#[tokio::test]
async fn a_reload_changes_the_schedule_of_what_waits() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "hello").await;
    let first = running.told().await.state.expect("waits");
    assert_eq!(first.next_attempt, START.plus(Duration::from_secs(300)));
    let lifetime = Duration::from_secs(1000);
    running.queue.reload(Settings {
        first_retry: Duration::from_secs(50),
        lifetime,
        ..Settings::default()
    });
    running.wait_for_due().await;
    let second = running.told().await;
    assert_eq!(second.at, first.next_attempt, "it keeps the time of its next attempt");
    let state = second.state.expect("waits");
    assert_eq!(state.next_attempt, second.at.plus(Duration::from_secs(100)));
    loop {
        running.wait_for_due().await;
        let settlement = running.told().await;
        if settlement.state.is_none() {
            assert_eq!((settlement.at, settlement.failed.len()), (START.plus(lifetime), 1));
            break;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_reload_changes_how_many_connections_there_are_at_once() {
    let bench = Bench::new(&[&[Answer::Never]]);
    let mut running = bench.run();
    running.add("a.test", &["bob"], "which it answers").await;
    running.told().await;
    soon(running.attempts.recv()).await.expect("an attempt");
    bench.gate.forget_permits(Semaphore::MAX_PERMITS);
    let limit = |connections, connections_per_destination| Settings {
        connections,
        connections_per_destination,
        ..Settings::default()
    };
    running.queue.reload(limit(1, 1));
    for (number, domain) in ["a.test", "a.test", "b.test"].into_iter().enumerate() {
        // Of users of their own: one of them does not get all connections of a destination.
        running.add_of(&format!("user{number}"), domain, &number.to_string()).await;
    }
    let mut begun = 0;
    for (connections, per_destination, expected) in [(1, 1, 1), (3, 1, 2), (3, 2, 3)] {
        running.queue.reload(limit(connections, per_destination));
        while begun < expected {
            soon(running.attempts.recv()).await.expect("an attempt");
            begun += 1;
        }
        settled_down(&running).await;
        assert!(running.attempts.try_recv().is_err(), "no more than {expected}");
    }
    bench.gate.add_permits(3);
    for _ in 0..3 {
        running.told().await;
    }
    running.stop().await;
}

/// Also what has a connection already, and waits for room in memory or for its turn on it.
#[tokio::test]
async fn a_pause_holds_all_that_has_not_begun() {
    const MIB: u64 = 1024 * 1024;
    let bench = Bench::new(&[&[Answer::Never]]);
    bench.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut running = bench.run();
    let settings = |paused| Settings { paused, in_flight_bytes: MIB, ..Settings::default() };
    running.queue.reload(settings(false));
    let large = "x".repeat(700 * 1024);
    running.add("a.test", &["bob"], &large).await;
    soon(running.attempts.recv()).await.expect("an attempt");
    running.add("b.test", &["bob"], &large).await;
    running.add("a.test", &["carol"], "for the same connection").await;
    settled_down(&running).await;
    running.queue.reload(settings(true));
    bench.gate.add_permits(3);
    running.told().await;
    let all_wait = async {
        let is_paused = |it: &WaitingEntry| it.waits_for == WaitsFor::Paused;
        loop {
            let waiting = running.queue.waits_for();
            if waiting.len() == 2 && waiting.iter().all(is_paused) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(all_wait).await;
    settled_down(&running).await;
    assert!(running.attempts.try_recv().is_err(), "nothing begins");
    running.queue.reload(settings(false));
    for _ in 0..2 {
        running.told().await;
    }
    running.stop().await;
}
