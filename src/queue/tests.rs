//! The queue at work over a real store, by a clock that the tests move.

mod held;
mod memory;
mod reload;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::worker::TROUBLE_PAUSE;
use super::*;

use crate::clock::{Clock, ManualClock, Timestamp};
use crate::id::TraceId;
use crate::mail::{Address, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath};
use crate::smtp::client::{EnhancedStatus, Failure, Outcome, Receipt, Stage};
use crate::store::{
    Authorship, Blob, Commit, Destination, Mail, Purpose, QueueChange, QueueEntry, QueueId,
    QueuedContent, QueuedMail, Settled, SettledOutcome, Store, StoreError,
};

const START: Timestamp = Timestamp::from_millis(1_795_235_486_123);
const HOUR: u64 = 3600;

/// What the courier answers, attempt by attempt; the last one for ever.
type Script = Arc<Mutex<VecDeque<Vec<Answer>>>>;

#[derive(Clone, Copy, Debug)]
enum Answer {
    Sent,
    Later,
    Never,
    Down,
    TurnedAway,
}

struct Scripted {
    script: Script,
    /// How many may be carried to their end.
    gate: Arc<Semaphore>,
    attempts: mpsc::UnboundedSender<(String, Vec<usize>, String)>,
}

impl Courier for Scripted {
    type Connection = ();

    async fn carry(
        &self,
        mail: &QueuedMail,
        places: &[usize],
        content: &QueuedContent,
        _open: Option<()>,
    ) -> Carried<()> {
        let text = String::from_utf8_lossy(&content.content).into_owned();
        self.attempts.send((mail.entry.destination.to_string(), places.to_vec(), text)).ok();
        self.gate.acquire().await.expect("is open").forget();
        let mut script = self.script.lock().expect("no thread panics");
        let answers = match script.len() {
            1 => script.front().cloned(),
            _ => script.pop_front(),
        };
        let answers = answers.expect("an answer");
        let outcomes = places.iter().zip(answers.into_iter().cycle());
        Carried {
            outcomes: outcomes.map(|(place, it)| (*place, outcome(it))).collect(),
            open: None,
        }
    }

    async fn close(&self, (): ()) {}
}

fn outcome(answer: Answer) -> Outcome {
    let failure = |code, enhanced: &str, stage| Failure {
        stage,
        code,
        enhanced: enhanced.parse::<EnhancedStatus>().expect("a status"),
        said: None,
        text: "because".into(),
        remote: "mx.far.test".into(),
        address: None,
        maybe_delivered: false,
    };
    match answer {
        Answer::Sent => Outcome::Sent(receipt()),
        Answer::Later => Outcome::Deferred(failure(Some(450), "4.2.0", Stage::Rcpt)),
        Answer::Never => Outcome::Failed(failure(Some(550), "5.1.1", Stage::Rcpt)),
        Answer::TurnedAway => Outcome::Deferred(failure(Some(421), "4.7.0", Stage::EndOfData)),
        Answer::Down => Outcome::Deferred(failure(None, "4.4.1", Stage::Connect)),
    }
}

fn receipt() -> Receipt {
    let reply = serde_json::json!({"code": 250, "enhanced": "2.0.0", "lines": ["queued"]});
    Receipt {
        reply: serde_json::from_value(reply).expect("a reply"),
        remote: "mx.far.test".into(),
        address: "192.0.2.25:25".parse().expect("an address"),
        tls: None,
        no_tls: None,
        dsn_passed_on: false,
    }
}

/// Records what a queue change says, as the pipeline does, and tells the test.
struct Recorder {
    store: Arc<Store>,
    told: mpsc::UnboundedSender<Settlement>,
    /// How often it fails before that, and where it tells that it has.
    failures: Arc<AtomicUsize>,
    failed: mpsc::UnboundedSender<()>,
}

impl Ledger for Recorder {
    async fn record(
        &self,
        settlement: &Settlement,
        _content: Option<&QueuedContent>,
    ) -> Result<(), StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Relaxed, Relaxed, one_less).is_ok() {
            self.failed.send(()).ok();
            return Err(StoreError::Closed);
        }
        let change = QueueChange {
            entry: settlement.mail.id,
            state: settlement.state.clone(),
            at: settlement.at,
        };
        self.store.commit(Commit { queue_changes: vec![change], ..Commit::default() }).await?;
        self.told.send(settlement.clone()).ok();
        Ok(())
    }
}

struct Bench {
    settings: crate::store::Settings,
    _dir: tempfile::TempDir,
    script: Script,
    gate: Arc<Semaphore>,
    failures: Arc<AtomicUsize>,
    clock: Arc<ManualClock>,
}

struct Running {
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    queue: Arc<Queue<Scripted, Recorder>>,
    attempts: mpsc::UnboundedReceiver<(String, Vec<usize>, String)>,
    told: mpsc::UnboundedReceiver<Settlement>,
    failed: mpsc::UnboundedReceiver<()>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Bench {
    fn new(script: &[&[Answer]]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = crate::store::Settings::new(dir.path().join("data"));
        let script = script.iter().map(|answers| answers.to_vec()).collect();
        let clock = Arc::new(ManualClock::new(START));
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (script, failures) = (Arc::new(Mutex::new(script)), Arc::default());
        Self { settings, _dir: dir, script, gate, failures, clock }
    }

    fn run(&self) -> Running {
        let store =
            Store::open(&self.settings, &crate::events::Settings::default()).expect("opens");
        let (attempted, attempts) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let (fail, failed) = mpsc::unbounded_channel();
        let queue = Queue::new(
            Settings::default(),
            Arc::clone(&store),
            Scripted {
                script: Arc::clone(&self.script),
                gate: Arc::clone(&self.gate),
                attempts: attempted,
            },
            Recorder {
                store: Arc::clone(&store),
                told: tell,
                failures: Arc::clone(&self.failures),
                failed: fail,
            },
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Box::new(|| 0.5),
        );
        let (stop, stopped) = watch::channel(false);
        let feed = store.take_queue().expect("the queue");
        let task = tokio::spawn(Arc::clone(&queue).run(feed, stopped));
        let clock = Arc::clone(&self.clock);
        Running { clock, store, queue, attempts, told, failed, stop, task }
    }
}

impl Running {
    async fn add(&self, domain: &str, recipients: &[&str], text: &str) {
        self.add_with(Purpose::Message, domain, recipients, text).await;
    }

    async fn add_with(&self, purpose: Purpose, domain: &str, recipients: &[&str], text: &str) {
        self.add_entry(purpose, None, domain, recipients, text).await;
    }

    async fn add_of(&self, user: &str, domain: &str, text: &str) {
        let sender = Address::parse(&format!("{user}@example.test")).expect("an address");
        self.add_entry(Purpose::Message, Some(sender), domain, &["bob"], text).await;
    }

    async fn add_entry(
        &self,
        purpose: Purpose,
        sender: Option<Address>,
        domain: &str,
        recipients: &[&str],
        text: &str,
    ) {
        let at = START;
        let recipients = recipients.iter().map(|name| EnvelopeRecipient {
            address: Address::parse(&format!("{name}@{domain}")).expect("an address"),
            parameters: RcptParameters::default(),
        });
        let recipients: Vec<_> = recipients.collect();
        let entry = QueueEntry {
            organization: "m-1".into(),
            purpose,
            destination: Destination::Domain(recipients[0].address.domain().clone()),
            reverse_path: sender.clone().map_or(ReversePath::Null, ReversePath::Address),
            parameters: MailParameters::default(),
            recipients,
            authorship: Authorship::default(),
            sender,
            returns_to: None,
            token_domain: None,
            keeper: None,
        };
        let mail = Mail {
            id: TraceId::generate(),
            received_at: at,
            prefix: Vec::new(),
            suffix: Vec::new(),
            deliveries: Vec::new(),
            queued: vec![entry],
        };
        let blobs = vec![Blob { content: text.as_bytes().to_vec(), mails: vec![mail] }];
        self.store.commit(Commit { blobs, ..Commit::default() }).await.expect("commits");
    }

    /// Lets time pass until something is due.
    async fn wait_for_due(&self) {
        let due = loop {
            let due = self.queue.waiting().next_due();
            if let Some(due) = due {
                break due;
            }
            // The recorder tells before the queue has it back.
            tokio::task::yield_now().await;
        };
        let millis = due.as_millis().saturating_sub(self.clock.now().as_millis());
        self.clock.advance(Duration::from_millis(millis));
        self.queue.changed.notify_one();
    }

    async fn told(&mut self) -> Settlement {
        soon(self.told.recv()).await.expect("a settlement")
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("ends");
        let store = self.store;
        tokio::task::spawn_blocking(move || store.close()).await.expect("closes");
    }
}

/// What comes at once, if it ever comes.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// Hours since the start, near enough.
fn hours(at: Timestamp) -> f64 {
    (at.as_millis() - START.as_millis()) as f64 / 1000.0 / HOUR as f64
}

#[tokio::test]
async fn who_is_deferred_for_five_days_bounces_and_is_warned_once() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "hello").await;
    let mut delays = Vec::new();
    let last = loop {
        let settlement = running.told().await;
        if !settlement.delayed.is_empty() {
            delays.push(hours(settlement.at));
        }
        if settlement.state.is_none() {
            break settlement;
        }
        assert_eq!((settlement.sent.len(), settlement.failed.len()), (0, 0));
        running.wait_for_due().await;
    };
    assert_eq!(delays.len(), 1, "{delays:?}");
    assert!((4.0..8.0).contains(&delays[0]), "{delays:?}");
    assert!((120.0..120.1).contains(&hours(last.at)), "{}", hours(last.at));
    assert_eq!(last.failed.len(), 1);
    let attempts = last.mail.state.attempts + 1;
    assert!((30..45).contains(&attempts), "{attempts}");
    running.stop().await;
}

#[tokio::test]
async fn who_has_an_outcome_is_not_tried_again() {
    let bench = Bench::new(&[&[Answer::Never, Answer::Later, Answer::Later], &[Answer::Never]]);
    let mut running = bench.run();
    running.add("far.test", &["bob", "carol", "dan"], "hello").await;
    let first = running.told().await;
    let failed: Vec<_> = first.failed.iter().map(|(place, _)| *place).collect();
    assert_eq!(failed, [0]);
    let state = first.state.expect("two wait on");
    let told = SettledOutcome::Bounced("550 5.1.1 because (mx.far.test, RCPT)".into());
    let settled = vec![Settled { place: 0, outcome: told }];
    assert_eq!((state.attempts, state.settled), (1, settled));
    assert_eq!(state.last_failure.as_deref(), Some("450 4.2.0 because (mx.far.test, RCPT)"));
    running.wait_for_due().await;
    let second = running.told().await;
    assert_eq!(second.state, None);
    let attempts: Vec<_> = std::iter::from_fn(|| running.attempts.try_recv().ok()).collect();
    assert_eq!(attempts[0], ("far.test".into(), vec![0, 1, 2], "hello".into()));
    assert_eq!(attempts[1], ("far.test".into(), vec![1, 2], "hello".into()));
    running.stop().await;
}

#[tokio::test]
async fn what_waits_is_tried_by_the_next_daemon() {
    let bench = Bench::new(&[&[Answer::Later], &[Answer::Never]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "hello").await;
    let first = running.told().await;
    assert!(first.state.is_some());
    running.stop().await;
    let mut running = bench.run();
    running.wait_for_due().await;
    let second = running.told().await;
    assert_eq!((second.mail.id, second.mail.state.attempts), (first.mail.id, 1));
    assert_eq!(second.state, None);
    running.stop().await;
    let running = bench.run();
    let id = first.mail.id;
    assert_eq!(running.queue.retry(&Wanted::Ids(vec![id])).await.missed, [id], "it is gone");
    running.stop().await;
}

/// What the remote server has is not sent again because the store has no room for saying so.
#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_recorded_later_and_nothing_is_sent_again() {
    let bench = Bench::new(&[&[Answer::Sent, Answer::Later], &[Answer::Sent]]);
    bench.failures.store(3, Relaxed);
    let mut running = bench.run();
    running.add("far.test", &["bob", "carol"], "hello").await;
    soon(running.attempts.recv()).await.expect("an attempt");
    for _ in 0..3 {
        soon(running.failed.recv()).await.expect("a failure");
        tokio::time::pause();
        tokio::time::advance(TROUBLE_PAUSE).await;
        tokio::time::resume();
    }
    let first = running.told().await;
    assert_eq!(first.sent.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0]);
    running.wait_for_due().await;
    let second = running.told().await;
    assert_eq!(second.state, None);
    let attempts: Vec<_> = std::iter::from_fn(|| running.attempts.try_recv().ok()).collect();
    assert_eq!(attempts, [("far.test".into(), vec![1], "hello".into())], "bob has it already");
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_that_was_not_recorded_before_the_end_is_found_again_by_the_next_daemon() {
    let bench = Bench::new(&[&[Answer::Sent]]);
    bench.failures.store(usize::MAX, Relaxed);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "hello").await;
    soon(running.attempts.recv()).await.expect("an attempt");
    tokio::time::pause();
    running.stop().await;
    tokio::time::resume();
    bench.failures.store(0, Relaxed);
    let mut running = bench.run();
    let settlement = running.told().await;
    assert_eq!((settlement.sent.len(), settlement.state), (1, None));
    running.stop().await;
}

/// What it takes to try again is in memory, so it is not tried for ever.
#[tokio::test]
async fn a_message_that_cannot_be_read_fails_at_the_end_of_its_lifetime() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], &"x".repeat(4096)).await;
    let mut settlement = running.told().await;
    soon(running.attempts.recv()).await.expect("an attempt");
    let log = bench.settings.data_dir.join("log/0000000000000000.log");
    let mut octets = std::fs::read(&log).expect("reads");
    octets[2000..2100].fill(0);
    std::fs::write(&log, octets).expect("writes");
    let mut attempts = 1;
    while let Some(state) = &settlement.state {
        assert_eq!(state.attempts, attempts);
        running.wait_for_due().await;
        settlement = running.told().await;
        attempts += 1;
    }
    assert!((30..45).contains(&attempts), "{attempts}");
    assert!((120.0..120.1).contains(&hours(settlement.at)), "{}", hours(settlement.at));
    let [(0, failure)] = settlement.failed.as_slice() else { panic!("{:?}", settlement.failed) };
    let told = "4.3.0 this server cannot read the message at present (far.test, connection)";
    assert_eq!(failure.to_string(), told);
    assert!(running.attempts.try_recv().is_err(), "nobody was bothered");
    running.stop().await;
}

/// Lets the queue do whatever it can do now.
async fn settled_down(running: &Running) {
    for _ in 0..20 {
        running.queue.changed.notify_one();
        tokio::task::yield_now().await;
        // It reads what it sends in a thread that blocks.
        tokio::task::spawn_blocking(|| ()).await.expect("ends");
    }
}

#[tokio::test]
async fn an_operator_may_hurry_an_entry_or_give_it_up() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    running.add("far.test", &["bob"], "hello").await;
    let first = running.told().await;
    let id = first.mail.id;
    let wanted = Wanted::Ids(vec![id]);
    // The recorder tells before the queue has it back.
    while running.queue.retry(&wanted).await.tried.is_empty() {
        tokio::task::yield_now().await;
    }
    let second = running.told().await;
    assert!(hours(second.at) < 0.05, "{}", hours(second.at));
    while running.queue.give_up(&wanted, false).await.expect("is recorded").done.is_empty() {
        tokio::task::yield_now().await;
    }
    let last = running.told().await;
    assert_eq!((last.state, last.is_told, last.failed.len()), (None, false, 1));
    assert!(last.failed[0].1.to_string().contains("given up by the administrator"));
    let again = running.queue.give_up(&wanted, true).await.expect("nothing to record");
    assert_eq!(again, GivenUp { missed: vec![id], ..GivenUp::default() });
    running.stop().await;
}

/// Waits until the queue has everything back that it has tried.
async fn has_it_back(running: &Running, entries: usize) {
    loop {
        let queue = running.queue.waits_for();
        let is_waiting = |entry: &WaitingEntry| entry.waits_for != WaitsFor::InFlight;
        if queue.len() == entries && queue.iter().all(is_waiting) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_is_named_goes_before_what_else_waits_for_the_destination() {
    let bench = Bench::new(&[&[Answer::Down]]);
    let mut running = bench.run();
    running.add("down.test", &["a"], "tried once").await;
    let tried = running.told().await.mail.id;
    for name in ["b", "c", "d"] {
        running.add("down.test", &[name], "nobody answers at its destination").await;
    }
    has_it_back(&running, 4).await;
    let ids: Vec<_> = running.queue.waits_for().iter().map(|entry| entry.id).collect();
    assert_eq!(ids[0], tried, "the oldest is named first");
    let named = |places: &[usize]| Wanted::Ids(places.iter().map(|place| ids[*place]).collect());
    let to = |name: &str| Wanted::To(format!("{name}@down.test").into());
    for (wanted, first) in [
        (named(&[0]), 0),
        (named(&[3]), 3),
        (named(&[0]), 0),
        (named(&[2, 1, 2]), 2),
        (named(&[3, 0]), 3),
        (to("b"), 1),
        (to("d"), 3),
        (named(&[0, 3]), 0),
    ] {
        let hurried = running.queue.retry(&wanted).await;
        let others = || hurried.waiting.iter().map(|entry| entry.id);
        assert!(hurried.tried.contains(&ids[first]), "{wanted:?}: {hurried:?}");
        assert!(others().all(|id| id != ids[first]), "{wanted:?}: {hurried:?}");
        assert_eq!(running.told().await.mail.id, ids[first], "{wanted:?}");
        has_it_back(&running, 4).await;
        assert!(
            running.told.try_recv().is_err(),
            "{wanted:?}: nobody answers, so it is left alone"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_dropped_in_silence_says_that_its_sender_was_not_told() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    let report_to = Address::parse("journal@far.test").expect("an address");
    let given_up = "given up by the administrator";
    let silent = "given up by the administrator; the sender was not told";
    for (purpose, is_told, expected) in [
        (Purpose::Message, true, given_up),
        (Purpose::Message, false, silent),
        // These have no sender who could be told.
        (Purpose::Report, false, given_up),
        (Purpose::JournalRecord { report_to }, false, given_up),
    ] {
        let told = format!("{purpose:?}, {is_told}");
        running.add_with(purpose, "far.test", &["bob"], "hello").await;
        running.told().await;
        has_it_back(&running, 1).await;
        running.queue.give_up(&Wanted::All, is_told).await.expect("is recorded");
        let settlement = running.told().await;
        assert_eq!((settlement.is_told, settlement.failed.len()), (is_told, 1), "{told}");
        assert_eq!(settlement.failed[0].1.text, expected, "{told}");
    }
    running.stop().await;
}

/// Both of `far.test` and one of `other.test` that wait for their next attempt.
async fn three_that_wait(running: &mut Running) -> Vec<QueueId> {
    for (domain, names) in [("far.test", ["bob", "carol"]), ("other.test", ["dan", "eve"])] {
        running.add(domain, &names, "hello").await;
    }
    running.add("far.test", &["bob"], "again").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let settlement = running.told().await;
        ids.push(settlement.mail.id);
    }
    ids.sort_unstable();
    let is_scheduled = |entry: &WaitingEntry| entry.waits_for.reason() == "next-attempt";
    // The recorder tells before the queue has it back.
    while !running.queue.waits_for().iter().all(is_scheduled) {
        tokio::task::yield_now().await;
    }
    ids
}

#[tokio::test]
async fn a_retry_says_of_each_entry_what_came_of_it() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    let ids = three_that_wait(&mut running).await;
    running.queue.reload(Settings { connections_per_destination: 1, ..Settings::default() });
    // From here on, nothing that is begun comes to an end.
    bench.gate.forget_permits(Semaphore::MAX_PERMITS);
    while running.attempts.try_recv().is_ok() {}
    let to_far = Wanted::To("FAR.test".to_owned().into());
    let hurried = running.queue.retry(&to_far).await;
    assert_eq!(hurried.missed, []);
    // One connection; which of them has it is a matter of their times.
    let waiting: Vec<_> = hurried.waiting.iter().map(|entry| entry.waits_for).collect();
    let share = Share::Destination;
    assert_eq!((hurried.tried.len(), waiting), (1, vec![WaitsFor::Connection { share }]));
    assert_ne!(hurried.tried[0], ids[1], "that goes elsewhere");
    soon(running.attempts.recv()).await.expect("it is tried in earnest");
    let again = running.queue.retry(&Wanted::All).await;
    assert_eq!(again.in_flight, hurried.tried, "it is being sent already");
    assert_eq!(again.tried, [ids[1]]);
    assert_eq!(again.waiting, hurried.waiting);
    let dropped = running.queue.give_up(&to_far, false).await.expect("is recorded");
    assert_eq!(dropped.in_flight, hurried.tried, "it is too late for this one");
    assert_eq!(dropped.done, [hurried.waiting[0].id]);
    bench.gate.add_permits(100);
    running.stop().await;
}

#[tokio::test]
async fn who_is_given_up_leaves_the_others_of_an_entry_waiting() {
    let bench = Bench::new(&[&[Answer::Later]]);
    let mut running = bench.run();
    let ids = three_that_wait(&mut running).await;
    let bob = Wanted::To("bob@far.test".to_owned().into());
    let dropped = running.queue.give_up(&bob, true).await.expect("is recorded");
    assert_eq!(dropped, GivenUp { done: vec![ids[0], ids[2]], ..GivenUp::default() });
    let first = running.told().await;
    assert_eq!(first.failed.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0]);
    let state = first.state.expect("carol waits on");
    let before = first.mail.state.clone();
    assert_eq!((state.attempts, state.next_attempt), (before.attempts, before.next_attempt));
    assert_eq!(running.told().await.state, None, "nobody waits for the other");
    let left: Vec<_> = running.queue.waits_for().iter().map(|entry| entry.id).collect();
    assert_eq!(left, ids[..2]);
    running.stop().await;
}
