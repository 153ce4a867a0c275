//! Work that takes long for its size is done beside the runtime, so that nobody else waits for it,
//! and only so much of it at once, so that what it needs meanwhile stays bounded. What it leaves,
//! as a parsed message has to wait for DNS, is bounded by `limits.header_bytes` and `header_fields`.

use std::future::Future;
use std::sync::LazyLock;

use memchr::memmem;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

/// Octets of a header section that are read and parsed in about a millisecond.
const LIGHT_SECTION: usize = 16 * 1024;
/// Mailboxes that a message is sorted into, with a key and an event for each, in a few milliseconds.
const LIGHT_DELIVERIES: usize = 100;
/// Octets of a message that are hashed or sealed in about a millisecond.
const LIGHT_MESSAGE: usize = 256 * 1024;

/// As many at once as there are processors: more would not be faster.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
});

/// Whether work on a message is over in about a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is.
    Light,
    /// It may take longer.
    Heavy,
}

impl Weight {
    /// That of a message: a header section is far dearer than a body of its size.
    pub fn of(message: &[u8]) -> Self {
        let front = message.get(..LIGHT_SECTION).unwrap_or(message);
        let is_short = message.len() <= LIGHT_SECTION || memmem::find(front, b"\r\n\r\n").is_some();
        if is_short { Self::of_octets(message.len()) } else { Self::Heavy }
    }

    /// That of work for so many mailboxes.
    pub fn of_deliveries(count: usize) -> Self {
        if count > LIGHT_DELIVERIES { Self::Heavy } else { Self::Light }
    }

    /// That of both together.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Light, Self::Light) => Self::Light,
            (Self::Heavy, _) | (_, Self::Heavy) => Self::Heavy,
        }
    }

    /// That of octets of which none is parsed.
    pub fn of_octets(octets: usize) -> Self {
        if octets > LIGHT_MESSAGE { Self::Heavy } else { Self::Light }
    }
}

/// Does `work`; if it is heavy, in its turn and beside the runtime.
pub async fn in_turn<T>(weight: Weight, work: impl FnOnce() -> T) -> T {
    if weight == Weight::Light || !has_other_threads() {
        return work();
    }
    let _turn = TURNS.acquire().await;
    block_in_place(work)
}

/// Completes `future`, which waits for nobody; if it is heavy, in its turn and beside the runtime.
pub async fn complete_in_turn<F: Future>(weight: Weight, future: F) -> F::Output {
    if weight == Weight::Light || !has_other_threads() {
        return future.await;
    }
    let _turn = TURNS.acquire().await;
    block_in_place(|| Handle::current().block_on(future))
}

/// Does heavy `work` beside the runtime, where there is no way to wait for a turn.
pub fn at_once<T>(weight: Weight, work: impl FnOnce() -> T) -> T {
    if weight == Weight::Light || !has_other_threads() { work() } else { block_in_place(work) }
}

/// Only the threads of such a runtime can leave their other tasks to each other.
fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_long_header_section_is_heavier_than_a_body() {
        let message = |section: usize, body: usize| {
            format!("{}\r\n\r\n{}", "x".repeat(section), "y".repeat(body)).into_bytes()
        };
        assert_eq!(Weight::of(b""), Weight::Light);
        assert_eq!(Weight::of(&message(1000, 100_000)), Weight::Light);
        assert_eq!(Weight::of(&message(LIGHT_SECTION - 4, 0)), Weight::Light);
        assert_eq!(Weight::of(&message(LIGHT_SECTION - 3, 0)), Weight::Heavy);
        assert_eq!(Weight::of(&message(20_000, 100)), Weight::Heavy);
        assert_eq!(Weight::of(&message(1000, LIGHT_MESSAGE)), Weight::Heavy);
        assert_eq!(Weight::of(&b"no end of a section ".repeat(1000)), Weight::Heavy);
    }

    #[test]
    fn many_mailboxes_are_heavy_whatever_the_message() {
        let (few, many) = (Weight::of_deliveries(100), Weight::of_deliveries(101));
        assert_eq!((few, many), (Weight::Light, Weight::Heavy));
        assert_eq!([few.and(few), few.and(many), many.and(few)], [few, many, many]);
    }

    /// The only thread of the runtime is busy with heavy work until another task has run.
    #[test]
    fn others_go_on_beside_heavy_work() {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime().expect("starts");
        runtime.block_on(async {
            let (others, went_on) = mpsc::channel();
            let heavy = tokio::spawn(in_turn(Weight::Heavy, move || went_on.recv()));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
            let (others, went_on) = mpsc::channel();
            let completed = async move { went_on.recv() };
            let heavy = tokio::spawn(complete_in_turn(Weight::Heavy, completed));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn only_so_many_are_heavy_at_once() {
        let most = TURNS.available_permits();
        let now = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let now = Arc::clone(&now);
                tokio::spawn(in_turn(Weight::Heavy, move || {
                    let others = now.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    others
                }))
            })
            .collect();
        for task in tasks {
            assert!(task.await.expect("ends") < most.max(1));
        }
    }

    #[tokio::test]
    async fn where_there_is_one_thread_the_work_is_done_all_the_same() {
        assert_eq!(in_turn(Weight::Heavy, || 1).await, 1);
        assert_eq!(complete_in_turn(Weight::Heavy, async { 2 }).await, 2);
        assert_eq!(at_once(Weight::Heavy, || 3), 3);
    }
}
