//! Whose message is worked on, when there are more than can be: so many at once in all, and so
//! many of one client network, each in the order of their coming. A network that floods us waits
//! for itself; another one's message waits at most behind every network's share.
//!
//! Many turns are needed, because most of a message's time is waiting for DNS; but a network with
//! many messages that are all ready to go on would have the processors to itself. So while other
//! networks are connected, a network's messages go on on half of the processors at a time, and
//! while more of them wait, a turn lasts a few milliseconds at least: it is for the others that
//! the rest of the time is kept free.
//!
//! What waits is bounded too. A message that has come is held in memory and its client waits for
//! the answer, so the bound is kept where refusing is cheap: at MAIL, before the message comes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::ready;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::reason::Reason;
use super::settings::Limits;

/// How long a turn lasts at least while others are connected and the network's messages wait: with
/// 20 turns, 4,000 messages a second.
const LEAST_TURN: Duration = Duration::from_millis(5);

/// The turns of all networks together.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The turns of one network.
#[derive(Debug)]
pub(crate) struct Share {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How many of its messages may go on at the same moment.
    going_on: Semaphore,
}

/// The right to work on a message, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// A network's turns, all of them free.
    pub(crate) fn new(limits: &Limits) -> Self {
        let free = Arc::new(Semaphore::new(limits.processing_per_network));
        let going_on = Semaphore::new(processors().div_ceil(2));
        Self { free, waiting: AtomicUsize::new(0), going_on }
    }

    /// Does work on a message beside other networks.
    pub(crate) async fn go_on<F: Future>(&self, work: F) -> F::Output {
        let started = Instant::now();
        let output = self.in_stretches(work).await;
        if self.waiting.load(Ordering::Relaxed) > 0 {
            sleep_until(started + LEAST_TURN).await;
        }
        output
    }

    /// Does each stretch of the work when the network's other work leaves room. While it waits
    /// for something else, it holds nothing.
    async fn in_stretches<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut place_in_line = None;
        poll_fn(|context| {
            let permit = match self.going_on.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    let line =
                        place_in_line.get_or_insert_with(|| Box::pin(self.going_on.acquire()));
                    // An error would say that the semaphore was closed, which nobody does.
                    ready!(line.as_mut().poll(context)).ok()
                }
            };
            place_in_line = None;
            let progress = work.as_mut().poll(context);
            drop(permit);
            progress
        })
        .await
    }
}

/// How many processors there are, asked for once: the answer takes several files.
fn processors() -> usize {
    static PROCESSORS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    *PROCESSORS
}

impl Turns {
    /// All turns, free.
    pub(crate) fn new(limits: &Limits) -> Self {
        let free = Arc::new(Semaphore::new(limits.processing));
        Self { free, waiting: AtomicUsize::new(0) }
    }

    /// Whether one more message of this network may come. The second half of the places to wait
    /// is for networks of which nobody waits, so that floods do not take them all.
    ///
    /// # Errors
    /// [`Reason::Overloaded`]
    pub(crate) fn check_room(&self, share: &Share, limits: &Limits) -> Result<(), Reason> {
        let places = match share.waiting.load(Ordering::Relaxed) {
            0 => limits.waiting,
            _ => limits.waiting / 2,
        };
        let is_full = self.waiting.load(Ordering::Relaxed) >= places;
        if is_full { Err(Reason::Overloaded) } else { Ok(()) }
    }

    /// Waits for a turn. Cancelling gives up the place in the queue and nothing else.
    pub(crate) async fn take(&self, share: &Share) -> Turn {
        let _waiting = Waiting::new([&self.waiting, &share.waiting]);
        // An error would say that a semaphore was closed, which nobody does. The network's turn
        // comes first: who waits for it must not keep others from theirs.
        let own = Arc::clone(&share.free).acquire_owned().await.ok();
        let all = Arc::clone(&self.free).acquire_owned().await.ok();
        Turn { _own: own, _all: all }
    }
}

/// Counted as waiting until dropped.
struct Waiting<'a>([&'a AtomicUsize; 2]);

impl<'a> Waiting<'a> {
    fn new(counts: [&'a AtomicUsize; 2]) -> Self {
        for count in counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(counts)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for count in self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    fn limits() -> Limits {
        Limits { processing: 3, processing_per_network: 2, waiting: 4, ..Limits::default() }
    }

    fn poll(future: Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn take(turns: &Turns, share: &Share) -> Option<Turn> {
        poll(pin!(turns.take(share)))
    }

    #[test]
    fn a_network_waits_for_itself_and_not_for_others() {
        let (turns, flood, other) =
            (Turns::new(&limits()), Share::new(&limits()), Share::new(&limits()));
        let first = take(&turns, &flood).expect("free");
        let _second = take(&turns, &flood).expect("free");
        let mut third = pin!(turns.take(&flood));
        assert!(poll(third.as_mut()).is_none(), "the network's share is taken");
        let _third = take(&turns, &other).expect("another network's turn is free");
        let mut fourth = pin!(turns.take(&other));
        assert!(poll(fourth.as_mut()).is_none(), "all turns are taken");
        drop(first);
        assert!(poll(fourth.as_mut()).is_some(), "who waits for a turn of all is before");
    }

    #[tokio::test]
    async fn work_goes_on_in_turn_and_waiting_holds_nothing() {
        let share = Share::new(&limits());
        let most = AtomicUsize::new(0);
        let stretch = || async {
            for _ in 0..3 {
                most.fetch_max(share.going_on.available_permits() + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        let all = share.going_on.available_permits();
        tokio::join!(
            share.in_stretches(stretch()),
            share.in_stretches(stretch()),
            share.in_stretches(stretch()),
        );
        assert_eq!(most.into_inner(), all, "one place less while work goes on");
        assert_eq!(share.going_on.available_permits(), all);
        let held = share.going_on.acquire_many(u32::try_from(all).expect("few")).await;
        let mut work = pin!(share.in_stretches(async {}));
        let mut context = Context::from_waker(Waker::noop());
        assert!(work.as_mut().poll(&mut context).is_pending(), "no place is left");
        drop(held);
        assert!(work.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_whose_messages_wait_takes_its_time() {
        let (turns, share) = (Turns::new(&limits()), Share::new(&limits()));
        let started = Instant::now();
        share.go_on(async {}).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nobody waits");
        let _taken = (take(&turns, &share), take(&turns, &share));
        let mut third = pin!(turns.take(&share));
        assert!(poll(third.as_mut()).is_none());
        share.go_on(async {}).await;
        assert_eq!(started.elapsed(), LEAST_TURN);
    }

    #[test]
    fn who_waits_is_bounded_and_floods_leave_half_to_others() {
        let (turns, flood, other) =
            (Turns::new(&limits()), Share::new(&limits()), Share::new(&limits()));
        let _taken = (take(&turns, &flood), take(&turns, &flood));
        let room = |share| turns.check_room(share, &limits());
        let mut one = Box::pin(turns.take(&flood));
        assert!(poll(one.as_mut()).is_none());
        assert_eq!(room(&flood), Ok(()));
        let mut two = Box::pin(turns.take(&flood));
        assert!(poll(two.as_mut()).is_none());
        assert_eq!(room(&flood), Err(Reason::Overloaded), "half of the places");
        assert_eq!(room(&other), Ok(()), "the other half");
        let mut more = [Box::pin(turns.take(&flood)), Box::pin(turns.take(&flood))];
        more.iter_mut().for_each(|more| assert!(poll(more.as_mut()).is_none()));
        assert_eq!(room(&other), Err(Reason::Overloaded), "all places");
        drop((one, two, more));
        assert_eq!(room(&flood), Ok(()), "who gives up waits no more");
    }
}
