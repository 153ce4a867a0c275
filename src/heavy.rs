//! Work that takes long for its size is done beside the runtime, so that nobody else waits for it,
//! and only so much of it at once, so that what it needs meanwhile stays bounded. What it leaves,
//! as a parsed message has to wait for DNS, is bounded by `limits.header_bytes` and `header_fields`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use memchr::memmem;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;

/// Octets of a header section that are read and parsed in about a millisecond.
const LIGHT_SECTION: usize = 16 * 1024;
/// Mailboxes that a message is sorted into, with a key and an event for each, in a few milliseconds.
const LIGHT_DELIVERIES: usize = 100;
/// Octets of a message that are hashed or sealed in about a millisecond.
const LIGHT_MESSAGE: usize = 256 * 1024;

/// As many at once as there are processors: more would not be faster.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(processors()));

/// Deliveries of messages to many mailboxes that are on their way at once, or those of one message:
/// each needs one to two KiB until it is durable.
const DELIVERIES_AT_ONCE: u32 = 20_000;
/// Deliveries that may wait for them: some seconds' worth.
const DELIVERIES_WAITING: usize = 10 * DELIVERIES_AT_ONCE as usize;

static WAYS: LazyLock<Ways> = LazyLock::new(Ways::new);

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether work on a message is over in about a millisecond, or may take longer. What is
/// to be done says so, and nobody else, so that nothing is taken for light that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    is_heavy: bool,
}

impl Weight {
    /// That of a message: a header section is far dearer than a body of its size.
    pub fn of(message: &[u8]) -> Self {
        let front = message.get(..LIGHT_SECTION).unwrap_or(message);
        let is_short = message.len() <= LIGHT_SECTION || memmem::find(front, b"\r\n\r\n").is_some();
        if is_short { Self::of_octets(message.len()) } else { Self { is_heavy: true } }
    }

    /// That of work for so many mailboxes.
    pub fn of_deliveries(count: usize) -> Self {
        Self { is_heavy: count > LIGHT_DELIVERIES }
    }

    /// That of both together.
    pub fn and(self, other: Self) -> Self {
        Self { is_heavy: self.is_heavy || other.is_heavy }
    }

    /// That of octets of which none is parsed.
    pub fn of_octets(octets: usize) -> Self {
        Self { is_heavy: octets > LIGHT_MESSAGE }
    }
}

/// The proof that it is work's turn. Whatever grows with a message (parsing, hashing, signing,
/// sealing) wants to see one, so a step that forgets its turn does not compile.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// A turn of a test, which has a thread of its own.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_a_test() -> Self {
        Self(())
    }
}

/// The right to bring a message to as many mailboxes as it is for, given back when dropped; messages
/// to a few need none.
#[derive(Debug, Default)]
pub struct Way<'a>(Option<SemaphorePermit<'a>>);

impl Way<'_> {
    /// Whether it was needed.
    pub fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

/// Too much waits for its way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWay;

/// Waits until a message may be brought to so many mailboxes.
///
/// # Errors
/// [`NoWay`] if others wait who have too many already.
pub async fn way_to(mailboxes: usize) -> Result<Way<'static>, NoWay> {
    WAYS.take(mailboxes).await
}

struct Ways {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl Ways {
    fn new() -> Self {
        let free = Semaphore::new(DELIVERIES_AT_ONCE as usize);
        Self { free, waiting: AtomicUsize::new(0) }
    }

    async fn take(&self, deliveries: usize) -> Result<Way<'_>, NoWay> {
        if deliveries <= LIGHT_DELIVERIES {
            return Ok(Way::default());
        }
        let wanted =
            u32::try_from(deliveries).map_or(DELIVERIES_AT_ONCE, |it| it.min(DELIVERIES_AT_ONCE));
        if let Ok(permit) = self.free.try_acquire_many(wanted) {
            return Ok(Way(Some(permit)));
        }
        let _waiting = Waiting::among(&self.waiting, wanted as usize)?;
        // An error would say that the semaphore was closed, which nobody does.
        Ok(Way(self.free.acquire_many(wanted).await.ok()))
    }
}

/// Deliveries that are counted as waiting until this is dropped.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    deliveries: usize,
}

impl<'a> Waiting<'a> {
    fn among(all: &'a AtomicUsize, deliveries: usize) -> Result<Self, NoWay> {
        let waiting = Self { all, deliveries };
        let before = all.fetch_add(deliveries, Ordering::Relaxed);
        if before + deliveries > DELIVERIES_WAITING { Err(NoWay) } else { Ok(waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.deliveries, Ordering::Relaxed);
    }
}

/// Does `work`; if it is heavy, in its turn and beside the runtime.
pub async fn in_turn<T>(weight: Weight, work: impl FnOnce(&Turn) -> T) -> T {
    if !weight.is_heavy || !has_other_threads() {
        return work(&Turn(()));
    }
    let _permit = TURNS.acquire().await;
    block_in_place(|| work(&Turn(())))
}

/// Completes `work`, which waits for nobody; if it is heavy, in its turn and beside the runtime.
pub async fn complete_in_turn<T>(weight: Weight, work: impl AsyncFnOnce(&Turn) -> T) -> T {
    if !weight.is_heavy || !has_other_threads() {
        return work(&Turn(())).await;
    }
    let _permit = TURNS.acquire().await;
    block_in_place(|| Handle::current().block_on(work(&Turn(()))))
}

/// Does what may have to wait for another thread, while the runtime's other tasks go on.
pub fn beside_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    if has_other_threads() { block_in_place(work) } else { work() }
}

/// Only the threads of such a runtime can leave their other tasks to each other.
fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LIGHT: Weight = Weight { is_heavy: false };
    const HEAVY: Weight = Weight { is_heavy: true };

    #[test]
    fn a_long_header_section_is_heavier_than_a_body() {
        let message = |section: usize, body: usize| {
            format!("{}\r\n\r\n{}", "x".repeat(section), "y".repeat(body)).into_bytes()
        };
        assert_eq!(Weight::of(b""), LIGHT);
        assert_eq!(Weight::of(&message(1000, 100_000)), LIGHT);
        assert_eq!(Weight::of(&message(LIGHT_SECTION - 4, 0)), LIGHT);
        assert_eq!(Weight::of(&message(LIGHT_SECTION - 3, 0)), HEAVY);
        assert_eq!(Weight::of(&message(20_000, 100)), HEAVY);
        assert_eq!(Weight::of(&message(1000, LIGHT_MESSAGE)), HEAVY);
        assert_eq!(Weight::of(&b"no end of a section ".repeat(1000)), HEAVY);
    }

    #[test]
    fn many_mailboxes_are_heavy_whatever_the_message() {
        let (few, many) = (Weight::of_deliveries(100), Weight::of_deliveries(101));
        assert_eq!((few, many), (LIGHT, HEAVY));
        assert_eq!([few.and(few), few.and(many), many.and(few)], [few, many, many]);
    }

    /// The only thread of the runtime is busy with heavy work until another task has run.
    #[test]
    fn others_go_on_beside_heavy_work() {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime().expect("starts");
        runtime.block_on(async {
            let (others, went_on) = mpsc::channel();
            let heavy = tokio::spawn(in_turn(HEAVY, move |_| went_on.recv()));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
            let (others, went_on) = mpsc::channel();
            let completed = async move |_: &Turn| went_on.recv();
            let heavy = tokio::spawn(complete_in_turn(HEAVY, completed));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn only_so_many_are_heavy_at_once() {
        let now = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let now = Arc::clone(&now);
                tokio::spawn(in_turn(HEAVY, move |_| {
                    let others = now.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    others
                }))
            })
            .collect();
        for task in tasks {
            assert!(task.await.expect("ends") < processors());
        }
    }

    #[test]
    fn messages_to_many_mailboxes_wait_for_each_other() {
        let ways = Ways::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut take = |deliveries: usize| {
            let mut taken = Box::pin(ways.take(deliveries));
            let poll = taken.as_mut().poll(&mut context);
            (taken, poll)
        };
        let half = DELIVERIES_AT_ONCE as usize / 2;
        let (_, first) = take(half);
        let (_, second) = take(half);
        assert!(matches!((&first, &second), (Poll::Ready(Ok(_)), Poll::Ready(Ok(_)))));
        let (_, few) = take(LIGHT_DELIVERIES);
        assert!(matches!(few, Poll::Ready(Ok(way)) if !way.is_taken()), "a few need none");
        let (mut third, poll) = take(LIGHT_DELIVERIES + 1);
        assert!(poll.is_pending());
        // One that is for more than there can be takes all, and waits behind.
        let (mut huge, poll) = take(usize::MAX);
        assert!(poll.is_pending());
        drop(first);
        let third = match third.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(way)) => way,
            other => panic!("there is room: {other:?}"),
        };
        drop((second, third));
        let huge = huge.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(&huge, Poll::Ready(Ok(way)) if way.is_taken()));
        assert_eq!(ways.free.available_permits(), 0);
    }

    #[test]
    fn only_so_much_waits_for_its_way() {
        let ways = Ways::new();
        let all = DELIVERIES_AT_ONCE as usize;
        let take = || Box::pin(ways.take(all));
        let mut context = Context::from_waker(Waker::noop());
        let mut first = take();
        let Poll::Ready(Ok(_way)) = first.as_mut().poll(&mut context) else { panic!("is free") };
        let mut waiting: Vec<_> = (0..DELIVERIES_WAITING / all).map(|_| take()).collect();
        assert!(waiting.iter_mut().all(|it| it.as_mut().poll(&mut context).is_pending()));
        let mut refused = take();
        assert!(matches!(refused.as_mut().poll(&mut context), Poll::Ready(Err(NoWay))));
        // Whoever goes away makes room for another.
        waiting.pop();
        assert!(take().as_mut().poll(&mut context).is_pending());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn light_work_waits_for_nobody() {
        let count = u32::try_from(processors()).expect("fits");
        let all = TURNS.acquire_many(count).await;
        let mut context = Context::from_waker(Waker::noop());
        let light = pin!(in_turn(LIGHT, |_| 1));
        assert_eq!(light.poll(&mut context), Poll::Ready(1));
        let light = pin!(complete_in_turn(LIGHT, async |_| 2));
        assert_eq!(light.poll(&mut context), Poll::Ready(2));
        let heavy = pin!(in_turn(HEAVY, |_| 3));
        assert_eq!(heavy.poll(&mut context), Poll::Pending);
        let heavy = pin!(complete_in_turn(HEAVY, async |_| 4));
        assert_eq!(heavy.poll(&mut context), Poll::Pending);
        drop(all);
    }

    #[tokio::test]
    async fn where_there_is_one_thread_the_work_is_done_all_the_same() {
        assert_eq!(in_turn(HEAVY, |_| 1).await, 1);
        assert_eq!(complete_in_turn(HEAVY, async |_| 2).await, 2);
    }
}
