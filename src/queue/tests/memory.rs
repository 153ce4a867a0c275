//! Room in memory for what is sent at once, and who leaves room for whom.

use super::*;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn messages_that_are_sent_at_once_have_so_much_room_also_after_a_reload() {
    let bench = Bench::new(&[&[Answer::Never]]);
    bench.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut running = bench.run();
    let room = |in_flight_bytes, connections| Settings {
        in_flight_bytes,
        connections,
        ..Settings::default()
    };
    let large = "x".repeat(700 * 1024);
    running.queue.reload(room(MIB, 10));
    running.add("a.test", &["bob"], &large).await;
    soon(running.attempts.recv()).await.expect("an attempt");
    running.queue.reload(room(MIB, 11));
    running.add("b.test", &["bob"], &large).await;
    settled_down(&running).await;
    assert!(running.attempts.try_recv().is_err(), "two do not fit");
    running.queue.reload(room(2 * MIB, 11));
    running.add("c.test", &["bob"], &large).await;
    let (third, _, _) = soon(running.attempts.recv()).await.expect("an attempt");
    assert_eq!(third, "c.test", "it has the new room, the second waits for the old");
    bench.gate.add_permits(3);
    for _ in 0..3 {
        running.told().await;
    }
    running.stop().await;
}

/// What comes of it may be a report, which has the message in it.
#[tokio::test]
async fn a_message_keeps_its_room_until_what_came_of_it_is_recorded() {
    let bench = Bench::new(&[&[Answer::Never]]);
    bench.failures.store(usize::MAX, Relaxed);
    let mut running = bench.run();
    running.queue.reload(Settings { in_flight_bytes: MIB, ..Settings::default() });
    let large = "x".repeat(700 * 1024);
    running.add("a.test", &["bob"], &large).await;
    soon(running.attempts.recv()).await.expect("an attempt");
    soon(running.failed.recv()).await.expect("a failure");
    running.add("b.test", &["bob"], &large).await;
    let waits_for_room = async {
        let waits = |it: &WaitingEntry| it.waits_for == WaitsFor::Memory;
        while !running.queue.waits_for().iter().any(waits) {
            assert!(running.attempts.try_recv().is_err(), "two do not fit");
            tokio::task::yield_now().await;
        }
    };
    soon(waits_for_room).await;
    bench.failures.store(0, Relaxed);
    tokio::time::pause();
    tokio::time::advance(TROUBLE_PAUSE).await;
    tokio::time::resume();
    for _ in 0..2 {
        running.told().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn reports_and_where_nobody_has_answered_leave_room_for_other_messages() {
    let bench = Bench::new(&[&[Answer::Never]]);
    let mut running = bench.run();
    running.queue.reload(Settings { in_flight_bytes: MIB, ..Settings::default() });
    running.add("known.test", &["bob"], "which it answers").await;
    running.told().await;
    soon(running.attempts.recv()).await.expect("an attempt");
    bench.gate.forget_permits(Semaphore::MAX_PERMITS);
    let large = "x".repeat(700 * 1024);
    for purpose in [Purpose::Report, Purpose::Message] {
        for name in ["a.test", "b.test"] {
            running.add_with(purpose.clone(), name, &["bob"], &large).await;
        }
        settled_down(&running).await;
        while running.attempts.try_recv().is_ok() {}
    }
    running.add("known.test", &["carol"], &"x".repeat(150 * 1024)).await;
    let (to, _, _) = soon(running.attempts.recv()).await.expect("an attempt");
    assert_eq!(to, "known.test");
    bench.gate.add_permits(5);
    for _ in 0..5 {
        running.told().await;
    }
    running.stop().await;
}
