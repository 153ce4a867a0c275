//! The queue at work: takes what is due, has it carried to its destination, and records what came
//! of it. Mail of one destination goes over a few connections, each used for as long as there is
//! more.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::lane::{Lane, Limits};
use super::memory::Memory;
use super::relays::Relays;
use super::settle::{self, Settlement};
use super::waiting::{Found, Stage, Waiting};
use super::waits_for::{GivenUp, Hurried, WaitingEntry, WaitsFor};
use super::wanted::{Wanted, Whom};
use super::{Chance, Settings};
use crate::clock::Clock;
use crate::smtp::client::Outcome;
use crate::store::{QueueFeed, QueueId, QueuedContent, QueuedMail, Store, StoreError};

/// How long a destination that nobody answers at is left alone, and the mail of a sender whose
/// mail its servers turn away.
const HOLD: Duration = Duration::from_secs(60);
/// How often what cannot be recorded or read is tried again.
pub(super) const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// The longest sleep, so that a clock that jumps forward is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long transactions under way may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(30);

/// Carries mail to its destination.
pub trait Courier: Send + Sync + 'static {
    /// A connection that is open for more.
    type Connection: Send;

    /// Tries an entry for the recipients at these places; each of them has one outcome. Bounded
    /// in time.
    fn carry(
        &self,
        mail: &QueuedMail,
        places: &[usize],
        content: &QueuedContent,
        open: Option<Self::Connection>,
    ) -> impl Future<Output = Carried<Self::Connection>> + Send;

    /// Ends a connection.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

impl<C: Courier> Courier for Arc<C> {
    type Connection = C::Connection;

    fn carry(
        &self,
        mail: &QueuedMail,
        places: &[usize],
        content: &QueuedContent,
        open: Option<Self::Connection>,
    ) -> impl Future<Output = Carried<Self::Connection>> + Send {
        (**self).carry(mail, places, content, open)
    }

    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        (**self).close(connection)
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub struct Carried<C> {
    /// For each recipient, by its place.
    pub outcomes: Vec<(usize, Outcome)>,
    /// The connection, if it can be used again.
    pub open: Option<C>,
}

/// Makes outcomes durable, with all that follows from them.
pub trait Ledger: Send + Sync + 'static {
    /// Records a settlement: all of it, or on an error nothing. Its message may be at hand; else it
    /// is read if it is needed.
    fn record(
        &self,
        settlement: &Settlement,
        content: Option<&QueuedContent>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The queue of a running daemon.
pub struct Queue<C, L> {
    waiting: Mutex<Waiting>,
    pub(super) changed: Notify,
    /// Those who wait until everything that is due and can be taken has been; `None` as long as
    /// nothing is taken.
    rounds: Mutex<Option<Vec<oneshot::Sender<()>>>>,
    courier: C,
    ledger: L,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    terms: ArcSwap<Terms>,
}

/// A connection's turn at its destination; when it is over, however it ends, another may begin.
struct Turn<'a, C, L> {
    queue: &'a Queue<C, L>,
    lane: &'a Lane,
}

impl<C, L> Drop for Turn<'_, C, L> {
    fn drop(&mut self) {
        // Nothing panics while holding this lock.
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).close(self.lane);
        self.queue.changed.notify_one();
    }
}

/// An entry while it is being sent; if that ends in no other way, it went wrong.
struct Sending<'a, C, L> {
    queue: &'a Queue<C, L>,
    id: QueueId,
}

impl<C, L> Sending<'_, C, L> {
    fn note(&self, stage: Stage) {
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).note(self.id, stage);
    }
}

impl<C, L> Drop for Sending<'_, C, L> {
    fn drop(&mut self) {
        // Nothing is noted of an entry that is settled, or waits again.
        self.note(Stage::Broken);
    }
}

/// Tells of a connection that did not end as it should; its entry waits for the next start.
fn told(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "sending a message went wrong, a restart takes it up again");
    }
}

/// What the queue goes by, until a reload.
struct Terms {
    settings: Settings,
    /// For the octets of messages that are being sent.
    memory: Arc<Memory>,
}

impl Terms {
    fn of(settings: Settings) -> Self {
        let memory = Arc::new(Memory::new(settings.in_flight_bytes));
        Self { settings, memory }
    }

    /// Other settings; where they leave `in_flight_bytes` as it is, what is in flight still counts.
    fn changed_to(&self, settings: Settings) -> Self {
        if settings.in_flight_bytes == self.settings.in_flight_bytes {
            return Self { settings, memory: Arc::clone(&self.memory) };
        }
        Self::of(settings)
    }
}

impl<C: Courier, L: Ledger> Queue<C, L> {
    /// A queue with nothing in it.
    pub fn new(
        settings: Settings,
        store: Arc<Store>,
        courier: C,
        ledger: L,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Arc<Self> {
        let mut waiting = Waiting::new(Limits::of(&settings));
        waiting.pause(settings.paused);
        Arc::new(Self {
            waiting: Mutex::new(waiting),
            changed: Notify::new(),
            rounds: Mutex::new(None),
            courier,
            ledger,
            store,
            clock,
            chance,
            terms: ArcSwap::from_pointee(Terms::of(settings)),
        })
    }

    /// Takes other settings for each decision from now on. An entry that waits keeps the time of
    /// its next attempt. What is being sent, or waits for room in memory, keeps to the
    /// `in_flight_bytes` of before: until it has ended, the old and the new may both be full.
    pub fn reload(&self, settings: Settings) {
        self.waiting().set_limits(Limits::of(&settings));
        self.waiting().pause(settings.paused);
        let terms = self.terms.load().changed_to(settings);
        self.terms.store(Arc::new(terms));
        self.changed.notify_one();
    }

    /// Whether everything waits that is not being sent.
    pub fn is_paused(&self) -> bool {
        self.terms.load().settings.paused
    }

    /// Leads mail to these servers from now on; a connection that is open ends with its entry.
    pub fn set_relays(&self, relays: Relays) {
        self.waiting().set_relays(relays);
        self.changed.notify_one();
    }

    /// Makes entries due at once and the first of their destinations, waits until every one of them that can be taken has been, and
    /// tells what each of them waits for then.
    pub async fn retry(&self, wanted: &Wanted) -> Hurried {
        let mut hurried = Hurried::default();
        let mut due = Vec::new();
        {
            let mut waiting = self.waiting();
            let now = self.clock.now();
            let ids = waiting.find(wanted);
            for (id, found) in waiting.hurry(&ids, now) {
                match found {
                    Found::Waiting(()) => due.push(id),
                    Found::UnderWay => hurried.in_flight.push(id),
                    Found::Nothing => hurried.missed.push(id),
                }
            }
        }
        self.next_round().await;
        let mut waiting = self.waiting();
        let now = self.clock.now();
        for id in due {
            match waiting.waits_for(id, now) {
                // It is gone, or has another time: that came of an attempt.
                None
                | Some(WaitsFor::InFlight | WaitsFor::NextAttempt { .. } | WaitsFor::Restart) => {
                    hurried.tried.push(id);
                }
                Some(waits_for) => hurried.waiting.push(WaitingEntry { id, waits_for }),
            }
        }
        hurried
    }

    /// Waits until everything that is due now, and can be taken, has been.
    async fn next_round(&self) {
        let (done, ended) = oneshot::channel();
        match &mut *self.rounds() {
            Some(rounds) => rounds.push(done),
            None => return,
        }
        self.changed.notify_one();
        // The queue may stop; then nothing more is taken.
        drop(ended.await);
    }

    /// What every entry waits for, oldest first.
    pub fn waits_for(&self) -> Vec<WaitingEntry> {
        self.waiting().tell(self.clock.now())
    }

    /// Gives entries up, as an operator decides: for everybody who waits, or for those who are
    /// meant. `is_told` says whether senders get a DSN.
    ///
    /// # Errors
    /// One of them cannot be recorded, and waits on; what came before it is done.
    pub async fn give_up(&self, wanted: &Wanted, is_told: bool) -> Result<GivenUp, StoreError> {
        let mut given_up = GivenUp::default();
        let whom = match wanted {
            Wanted::To(whom) => Some(whom),
            Wanted::Ids(_) | Wanted::All => None,
        };
        let ids = self.waiting().find(wanted);
        for id in ids {
            let found = self.waiting().remove(id);
            match found {
                Found::Waiting(mail) => {
                    self.give_up_one(mail, whom, is_told).await?;
                    given_up.done.push(id);
                }
                Found::UnderWay => given_up.in_flight.push(id),
                Found::Nothing => given_up.missed.push(id),
            }
        }
        Ok(given_up)
    }

    async fn give_up_one(
        &self,
        mail: QueuedMail,
        whom: Option<&Whom>,
        is_told: bool,
    ) -> Result<(), StoreError> {
        let places = match whom {
            Some(whom) => whom.places(&mail),
            None => settle::open_places(&mail),
        };
        let settlement = settle::give_up(mail, &places, self.clock.now(), is_told);
        let recorded = self.ledger.record(&settlement, None).await;
        let rest = match (&recorded, settlement.state) {
            (Ok(()), Some(state)) => Some(QueuedMail { state, ..settlement.mail }),
            (Ok(()), None) => None,
            (Err(_), _) => Some(settlement.mail),
        };
        if let Some(mail) = rest {
            self.waiting().add(mail);
            self.changed.notify_one();
        }
        recorded
    }

    /// Sends what waits and what comes, until told to stop.
    pub async fn run(self: Arc<Self>, mut feed: QueueFeed, mut stop: watch::Receiver<bool>) {
        for mail in std::mem::take(&mut feed.waiting) {
            self.waiting().add(mail);
        }
        let mut connections = JoinSet::new();
        *self.rounds() = Some(Vec::new());
        while !*stop.borrow() {
            // Who comes from here on may have made something due that is not taken in this round.
            let rounds = self.rounds().as_mut().map(std::mem::take).unwrap_or_default();
            let most = self.terms.load().settings.connections;
            while connections.len() < most
                && let Some((lane, mail)) = self.take()
            {
                let queue = Arc::clone(&self);
                connections.spawn(queue.serve(lane, mail, stop.clone()));
            }
            for round in rounds {
                // Who asked may have gone.
                round.send(()).ok();
            }
            let sleep = self.until_next();
            // Nothing is lost by dropping any of these: channels and the notification keep what
            // they have.
            tokio::select! {
                Some(mail) = feed.new.recv() => self.waiting().add(mail),
                Some(ended) = connections.join_next() => told(ended),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                _ = stop.changed() => {}
            }
        }
        *self.rounds() = None;
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("mail is still being sent; what is cut short is sent again");
        }
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while holding this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rounds(&self) -> MutexGuard<'_, Option<Vec<oneshot::Sender<()>>>> {
        // Nothing panics while holding this lock.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(Lane, QueuedMail)> {
        self.waiting().take(self.clock.now())
    }

    fn until_next(&self) -> Duration {
        let Some(due) = self.waiting().next_due() else { return LONGEST_SLEEP };
        let millis = due.as_millis().saturating_sub(self.clock.now().as_millis());
        Duration::from_millis(millis).min(LONGEST_SLEEP)
    }

    /// One connection to a destination, and everything that goes over it.
    async fn serve(self: Arc<Self>, lane: Lane, first: QueuedMail, stop: watch::Receiver<bool>) {
        let turn = Turn { queue: &self, lane: &lane };
        let (mut next, mut open) = (Some(first), None);
        while let Some(mail) = next {
            open = self.send(&lane, mail, open, &stop).await;
            let more = || self.waiting().take_more(&lane, self.clock.now());
            next = if *stop.borrow() { None } else { more() };
        }
        if let Some(connection) = open {
            self.courier.close(connection).await;
        }
        drop(turn);
    }

    async fn send(
        &self,
        lane: &Lane,
        mail: QueuedMail,
        open: Option<C::Connection>,
        stop: &watch::Receiver<bool>,
    ) -> Option<C::Connection> {
        let sending = Sending { queue: self, id: mail.id };
        let memory = Arc::clone(&self.terms.load().memory);
        let class = self.waiting().class(lane);
        let room = match memory.room_at_once(mail.size, lane, class) {
            Some(room) => room,
            None => {
                sending.note(Stage::Memory);
                let room = memory.room(mail.size, lane, class).await;
                if self.is_paused() {
                    // Nothing has begun yet; it has its turn when the queue goes on.
                    self.waiting().add(mail);
                    return open;
                }
                sending.note(Stage::Attempt);
                room
            }
        };
        let content = self.read(mail.id).await.inspect_err(|error| {
            tracing::error!(%error, id = %mail.id, "a message in the queue cannot be read");
        });
        let carried = match &content {
            Ok(content) => self.carry(lane, &mail, content, open).await,
            Err(_) => Carried { outcomes: settle::unreadable(&mail), open },
        };
        let (now, chance) = (self.clock.now(), (self.chance)());
        let settings = &self.terms.load_full().settings;
        let settlement =
            settle::settle(settings, mail, carried.outcomes, class.is_proven, now, chance);
        self.record(settlement, content.ok().as_ref(), stop).await;
        drop(room);
        carried.open
    }

    /// Hands a message to the courier, and notes what that says of the destination.
    async fn carry(
        &self,
        lane: &Lane,
        mail: &QueuedMail,
        content: &QueuedContent,
        open: Option<C::Connection>,
    ) -> Carried<C::Connection> {
        let places = settle::open_places(mail);
        let carried = self.courier.carry(mail, &places, content, open).await;
        let outcomes = || carried.outcomes.iter().map(|(_, outcome)| outcome);
        let now = self.clock.now();
        if outcomes().all(is_without_message) {
            self.waiting().hold(lane, now.plus(HOLD));
        } else if outcomes().all(is_host_trouble) {
            self.waiting().turn_away(lane, mail, now.plus(HOLD));
        } else if outcomes().any(is_answer) {
            self.waiting().prove(lane, now);
            self.changed.notify_one();
        }
        carried
    }

    async fn read(&self, id: QueueId) -> Result<QueuedContent, StoreError> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.read_queued(id));
        read.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Records a settlement, however often it takes. What could not be recorded before the daemon
    /// stops is tried again by the next one, for recipients that have the message too.
    async fn record(
        &self,
        settlement: Settlement,
        content: Option<&QueuedContent>,
        stop: &watch::Receiver<bool>,
    ) {
        while let Err(error) = self.ledger.record(&settlement, content).await {
            tracing::error!(%error, id = %settlement.mail.id, "an outcome cannot be recorded");
            if *stop.borrow() {
                return;
            }
            tokio::time::sleep(TROUBLE_PAUSE).await;
        }
        match settlement.state {
            Some(state) => self.waiting().add(QueuedMail { state, ..settlement.mail }),
            None => self.waiting().settled(settlement.mail.id),
        }
    }
}

fn is_without_message(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(failure) if failure.is_without_message())
}

fn is_host_trouble(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(failure) if failure.concerns_host())
}

/// Whether a server said it.
fn is_answer(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Sent(_) => true,
        Outcome::Deferred(failure) | Outcome::Failed(failure) => failure.code.is_some(),
    }
}
