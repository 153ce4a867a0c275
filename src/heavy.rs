//! Work that takes long for its size is done beside the runtime, so that nobody else waits for it,
//! and only so much of it at once, so that what it needs meanwhile stays bounded. What it leaves,
//! as a parsed message has to wait for DNS, is bounded by `limits.header_bytes` and `header_fields`.

mod schedule;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use memchr::memmem;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::block_in_place;
use tokio::time::Instant;

use self::schedule::Schedule;

/// Octets of a header section that are read and parsed in about a millisecond.
const LIGHT_SECTION: usize = 16 * 1024;
/// Octets of a message that is taken apart to look for names in it, in about a millisecond.
const LIGHT_WHOLE: usize = 8 * 1024;
/// Lines like delimiters in it: each may begin a part, which is read in several ways.
const LIGHT_PARTS: usize = 16;
/// Mailboxes that a message is sorted into, with a key and an event for each, in a few milliseconds.
const LIGHT_DELIVERIES: usize = 100;
/// Octets of a message that are hashed or sealed in about a millisecond.
const LIGHT_MESSAGE: usize = 256 * 1024;

/// About how long an octet of heavy work takes: it need not be more than a guess, since what a turn has
/// really taken is counted afterwards.
const EXPECTED_PER_OCTET: Duration = Duration::from_nanos(10);

/// As many at once as there are processors: more would not be faster.
static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(|| Arc::new(Turns::new(processors())));

/// Deliveries of messages to many mailboxes that are on their way at once, or those of one message:
/// each needs one to two KiB until it is durable.
const DELIVERIES_AT_ONCE: u32 = 20_000;
/// Deliveries that may wait for them: some seconds' worth.
const DELIVERIES_WAITING: usize = 10 * DELIVERIES_AT_ONCE as usize;

static WAYS: LazyLock<Ways> = LazyLock::new(Ways::new);

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// For whom work is done. Turns are shared out among owners, so that none waits for all that
/// another has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The client network that a message came from.
    Network(IpNet),
    /// Nobody outside: reports and what commands do.
    #[default]
    Ourselves,
}

/// Whether work on a message is over in about a millisecond, or may take longer, and for whom it is
/// done. What is to be done says so, and nobody else, so that nothing is taken for light that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    is_heavy: bool,
    /// What it is about, at most.
    octets: usize,
    owner: Owner,
}

impl Weight {
    /// That of a message: a header section is far dearer than a body of its size.
    pub fn of(message: &[u8]) -> Self {
        let front = message.get(..LIGHT_SECTION).unwrap_or(message);
        let is_short = message.len() <= LIGHT_SECTION || memmem::find(front, b"\r\n\r\n").is_some();
        let all = Self::of_octets(message.len());
        Self { is_heavy: all.is_heavy || !is_short, ..all }
    }

    /// That of taking a message apart and looking for names in all of it.
    pub fn of_parts(message: &[u8]) -> Self {
        let has_many_parts = || memmem::find_iter(message, b"\n--").nth(LIGHT_PARTS).is_some();
        let is_heavy = message.len() > LIGHT_WHOLE || has_many_parts();
        Self { is_heavy, ..Self::of_octets(message.len()) }
    }

    /// That of work for so many mailboxes.
    pub fn of_deliveries(count: usize) -> Self {
        Self { is_heavy: count > LIGHT_DELIVERIES, octets: 0, owner: Owner::default() }
    }

    /// That of octets of which none is parsed.
    pub fn of_octets(octets: usize) -> Self {
        Self { is_heavy: octets > LIGHT_MESSAGE, octets, owner: Owner::default() }
    }

    /// The same work, done for this owner.
    pub fn owned_by(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// For whom the work is done.
    pub fn owner(self) -> Owner {
        self.owner
    }

    /// That of both together, done for the owner of this.
    pub fn and(self, other: Self) -> Self {
        let octets = self.octets.max(other.octets);
        Self { is_heavy: self.is_heavy || other.is_heavy, octets, ..self }
    }

    fn expected(self) -> Duration {
        EXPECTED_PER_OCTET * u32::try_from(self.octets).unwrap_or(u32::MAX)
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

/// Leave to do work. Light work needs none.
pub struct Permit {
    is_heavy: bool,
    held: Option<Held>,
}

/// Waits until work may be done. What it is about is not carried along meanwhile, as it is by
/// [`in_turn`]: for large values, since a future is copied whole.
pub async fn permit_for(weight: Weight) -> Permit {
    if !weight.is_heavy || !has_other_threads() {
        return Permit { is_heavy: false, held: None };
    }
    Permit { is_heavy: true, held: Box::pin(TURNS.take(weight)).await }
}

impl Permit {
    /// Does `work`; if it is heavy, beside the runtime.
    pub fn run<T>(self, work: impl FnOnce(&Turn) -> T) -> T {
        let Self { is_heavy, held } = self;
        let done = if is_heavy { block_in_place(|| work(&Turn(()))) } else { work(&Turn(())) };
        drop(held);
        done
    }
}

/// Does `work`; if it is heavy, in its turn and beside the runtime.
pub async fn in_turn<T>(weight: Weight, work: impl FnOnce(&Turn) -> T) -> T {
    permit_for(weight).await.run(work)
}

/// Completes `work`, which waits for nobody; if it is heavy, in its turn and beside the runtime.
pub async fn complete_in_turn<T>(weight: Weight, work: impl AsyncFnOnce(&Turn) -> T) -> T {
    if !weight.is_heavy || !has_other_threads() {
        return work(&Turn(())).await;
    }
    let _held = TURNS.take(weight).await;
    block_in_place(|| Handle::current().block_on(work(&Turn(()))))
}

/// Does what may have to wait for another thread, while the runtime's other tasks go on.
pub fn beside_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    if has_other_threads() { block_in_place(work) } else { work() }
}

/// The turns of heavy work, and who waits for one.
#[derive(Debug)]
struct Turns(Mutex<Schedule<oneshot::Sender<Held>>>);

impl Turns {
    fn new(count: usize) -> Self {
        Self(Mutex::new(Schedule::new(count)))
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule<oneshot::Sender<Held>>> {
        // It is whole between statements, so a panic elsewhere cannot have harmed it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. Cancelling gives up the place in the line and nothing else.
    async fn take(self: &Arc<Self>, weight: Weight) -> Option<Held> {
        let (giver, given) = oneshot::channel();
        let owner = weight.owner;
        let number = self.schedule().ask(owner, weight.expected(), giver);
        let _place = Place { turns: self, owner, number };
        self.give();
        // An error would say that a place in the line was lost, which is so only behind a future
        // that is gone.
        given.await.ok()
    }

    /// Gives what is free to who is next.
    fn give(self: &Arc<Self>) {
        loop {
            let Some((owner, waiter)) = self.schedule().next() else { return };
            let held = Held { turns: Arc::clone(self), owner, began: Instant::now() };
            // Where nobody waits any more, it is given back at once.
            drop(waiter.send(held));
        }
    }
}

/// A place in an owner's line, given up when dropped.
struct Place<'a> {
    turns: &'a Turns,
    owner: Owner,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.schedule().leave(self.owner, self.number);
    }
}

/// A turn of an owner, given back when dropped.
#[derive(Debug)]
struct Held {
    turns: Arc<Turns>,
    owner: Owner,
    began: Instant,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.turns.schedule().end(self.owner, self.began.elapsed());
        self.turns.give();
    }
}

/// All turns, for one test at a time: two that take them one after the other would wait for each
/// other.
#[cfg(test)]
pub(crate) async fn all_turns() -> impl Send {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let one = ONE.lock().await;
    let mut all = Vec::new();
    for number in 0..processors() {
        // One owner never has all.
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let owner = Owner::Network(std::net::IpAddr::from([192, 0, number, 0]).into());
        all.push(TURNS.take(Weight { is_heavy: true, octets: 0, owner }).await);
    }
    (all, one)
}

/// Only the threads of such a runtime can leave their other tasks to each other.
fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::pin::{Pin, pin};
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::soon::PATIENCE;

    const LIGHT: Weight = Weight { is_heavy: false, octets: 0, owner: Owner::Ourselves };
    const HEAVY: Weight = Weight { is_heavy: true, octets: 0, owner: Owner::Ourselves };

    fn network(number: u8) -> Owner {
        Owner::Network(IpAddr::from([192, 0, number, 0]).into())
    }

    fn heavy(number: u8) -> Weight {
        HEAVY.owned_by(network(number))
    }

    #[test]
    fn a_long_header_section_is_heavier_than_a_body() {
        let message = |section: usize, body: usize| {
            format!("{}\r\n\r\n{}", "x".repeat(section), "y".repeat(body)).into_bytes()
        };
        for (message, is_heavy) in [
            (Vec::new(), false),
            (message(1000, 100_000), false),
            (message(LIGHT_SECTION - 4, 0), false),
            (message(LIGHT_SECTION - 3, 0), true),
            (message(20_000, 100), true),
            (message(1000, LIGHT_MESSAGE), true),
            (b"no end of a section ".repeat(1000), true),
        ] {
            let octets = message.len();
            let expected = Weight { is_heavy, octets, owner: Owner::Ourselves };
            assert_eq!(Weight::of(&message), expected);
        }
    }

    #[test]
    fn a_message_that_is_taken_apart_is_heavier_than_one_that_is_not() {
        for (message, is_heavy) in [
            (String::new(), false),
            ("x".repeat(LIGHT_WHOLE), false),
            ("x".repeat(LIGHT_WHOLE + 1), true),
            ("\r\n--".repeat(LIGHT_PARTS), false),
            ("\r\n--".repeat(LIGHT_PARTS + 1), true),
        ] {
            let weight = Weight::of_parts(message.as_bytes());
            let octets = message.len();
            assert_eq!(weight, Weight { is_heavy, octets, owner: Owner::Ourselves });
        }
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
            let heavy = tokio::spawn(in_turn(HEAVY, move |_| went_on.recv_timeout(PATIENCE)));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
            let (others, went_on) = mpsc::channel();
            let completed = async move |_: &Turn| went_on.recv_timeout(PATIENCE);
            let heavy = tokio::spawn(complete_in_turn(HEAVY, completed));
            tokio::spawn(async move { others.send(()) });
            heavy.await.expect("ends").expect("others went on");
        });
    }

    #[test]
    fn work_belongs_to_who_asked_for_it_first() {
        let asked = LIGHT.owned_by(network(1)).and(HEAVY.owned_by(network(2)));
        assert_eq!(asked, heavy(1));
        assert_eq!(Weight::of(b"").owner(), Owner::Ourselves);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn only_so_many_are_heavy_at_once() {
        let now = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let now = Arc::clone(&now);
                tokio::spawn(in_turn(heavy(number), move |_| {
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
        let (mut huge, poll) = take(DELIVERIES_AT_ONCE as usize + 1);
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
        let all = all_turns().await;
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

    fn poll(future: Pin<&mut impl Future<Output = Option<Held>>>) -> Option<Held> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(held) => held,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_turn_that_is_given_up_is_the_next_ones() {
        let turns = Arc::new(Turns::new(1));
        let first = poll(pin!(turns.take(heavy(1)))).expect("is free");
        let mut gone = Box::pin(turns.take(heavy(2)));
        let mut third = pin!(turns.take(heavy(3)));
        let mut fourth = Box::pin(turns.take(heavy(4)));
        for waiting in [gone.as_mut(), fourth.as_mut()] {
            assert!(poll(waiting).is_none());
        }
        assert!(poll(third.as_mut()).is_none());
        // One goes away while it waits, and one when it has been given the turn without knowing.
        drop(gone);
        drop(first);
        drop(fourth);
        let third = poll(third.as_mut()).expect("nobody else waits");
        drop(third);
        assert!(poll(pin!(turns.take(heavy(5)))).is_some(), "no turn is lost");
    }

    /// Of turns that took long, their owner's others wait longer.
    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_turn_takes_counts() {
        let turns = Arc::new(Turns::new(1));
        let long = turns.take(heavy(1)).await;
        let mut again = pin!(turns.take(heavy(1)));
        let mut short = pin!(turns.take(heavy(2)));
        assert!(poll(again.as_mut()).is_none());
        assert!(poll(short.as_mut()).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(long);
        assert!(poll(again.as_mut()).is_none());
        let of_short = poll(short.as_mut()).expect("it has had nothing");
        drop(of_short);
        assert!(poll(again.as_mut()).is_some());
    }

    #[tokio::test]
    async fn where_there_is_one_thread_the_work_is_done_all_the_same() {
        assert_eq!(in_turn(HEAVY, |_| 1).await, 1);
        assert_eq!(complete_in_turn(HEAVY, async |_| 2).await, 2);
    }
}
