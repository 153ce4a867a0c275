//! One attempt: the servers of a route are tried in order until everybody's fate is known.

mod tries;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use self::tries::Tries;
use super::hop::{Hop, Route};
use crate::mail::{Domain, Envelope, EnvelopeRecipient};
use crate::smtp::client::{
    ClientError, Connection, Endpoint, EnhancedStatus, Failure, Fault, Outcome,
    OutgoingTransaction, Stage, Timeouts,
};

/// After so long no further server is tried, and no further transaction begun. What has begun goes
/// on, by RFC 5321's time-outs for each command (§4.5.3.2) and within
/// [`Timeouts::transaction`]: three servers that accept and stay silent have had their five minutes
/// each, and who is never reached behind them is reached when a later attempt finds the first
/// servers better, or its route without them.
const LONGEST_SEARCH: Duration = Duration::from_secs(15 * 60);
/// A server that is not ready for a transaction after so long, though each of its answers came in
/// time, is passed over: twice the longest wait for one answer.
const LONGEST_OPENING: Duration = Duration::from_secs(10 * 60);
/// Mail system congestion (RFC 3463 §3.5): there was no time left for this recipient.
pub(super) const NO_TIME_LEFT: EnhancedStatus = EnhancedStatus::new(4, 4, 5);
/// The most recipients of a transaction: what every server takes (RFC 5321 §4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// A message that is to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Its envelope; all recipients have the same route.
    pub envelope: &'a Envelope,
    /// Its content in parts, with CR LF line ends.
    pub content: &'a [&'a [u8]],
}

/// How the client behaves.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// What EHLO says: a domain that leads back to us.
    pub hello_name: Domain,
    /// How long each thing is waited for.
    pub timeouts: Timeouts,
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Attempt {
    /// For each recipient of the job, in its order.
    pub outcomes: Vec<Outcome>,
    /// A connection that can take another message to the same destination.
    pub connection: Option<Connection>,
    /// How many of the servers that there are had a say.
    pub asked: Asked,
}

/// How many of a destination's servers an attempt has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All that there are.
    All,
    /// Not all: some are not known now, or no way leads to them from here.
    Some,
}

/// Hands a message to the first server of the route that takes it.
///
/// A server that cannot be reached, closes, demands what cannot be met or refuses the session or
/// the sender (4yz, 421) is followed by the next address or server. What a server says of a
/// recipient or of the content stands: another server of the same destination would either say
/// the same, or take the message only to be refused itself (RFC 5321 §5.1). If no server was of
/// use, the rest is deferred, or failed if every server that there is was asked and said 5yz.
///
/// Nothing new is begun after 15 minutes; the rest is deferred then too. What was begun last takes
/// ten minutes to open at most, and a transaction [`Timeouts::transaction`], so an attempt ends
/// after an hour and 25 minutes, whatever its servers do.
///
/// `reuse` is an open connection to a server of the route, which is tried first; it does not count
/// as a server's failure if it has ended by now.
pub async fn attempt(
    route: &Route,
    job: &Job<'_>,
    settings: &ClientSettings,
    reuse: Option<Connection>,
) -> Attempt {
    let mut delivery = Delivery::new(job);
    let mut kept = None;
    if let Some(connection) = reuse {
        kept = delivery.over(connection, Freshness::Kept).await;
    }
    let mut tries = Tries::new(route.hops());
    while !delivery.is_done()
        && !delivery.is_late()
        && let Some((hop, address)) = tries.next()
    {
        let endpoint = Endpoint { address, name: hop.name.clone(), implicit_tls: hop.implicit_tls };
        match open(hop, &endpoint, settings).await {
            Ok(connection) => {
                let before = delivery.waiting.len();
                kept = delivery.over(connection, Freshness::New).await;
                // Who takes no more on one connection, and took something, takes more on another.
                if !delivery.is_server_useless && delivery.waiting.len() < before {
                    tries.repeat(address);
                }
            }
            Err(error) => {
                if error.is_no_way() {
                    tries.give_back();
                }
                delivery.server_failed(&error, &endpoint);
            }
        }
    }
    let have_asked_all = route.is_complete() && tries.have_asked_all();
    let asked = if have_asked_all { Asked::All } else { Asked::Some };
    Attempt { outcomes: delivery.finish(asked), connection: kept, asked }
}

async fn open(
    hop: &Hop,
    endpoint: &Endpoint,
    settings: &ClientSettings,
) -> Result<Connection, ClientError> {
    let ClientSettings { hello_name, timeouts } = settings;
    let opening =
        Connection::open(endpoint, &hop.tls, hello_name, timeouts, hop.credentials.as_ref());
    let too_slow = ClientError { stage: Stage::Hello, fault: Fault::TimedOut };
    timeout(LONGEST_OPENING, opening).await.unwrap_or(Err(too_slow))
}

/// Whether a connection was just made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    New,
    /// The server may have closed it long ago, which says nothing about the server.
    Kept,
}

/// Who still waits, and what is known of the others.
struct Delivery<'a> {
    job: &'a Job<'a>,
    begun: Instant,
    outcomes: Vec<Option<Outcome>>,
    /// Numbers of those of whom nothing is decided.
    waiting: VecDeque<usize>,
    /// What the servers failed with; deferred outweighs failed.
    server: Option<Outcome>,
    /// Whether the server of the last connection is of no use to those who wait.
    is_server_useless: bool,
    /// That there is no way from here to an address; every answer of a server outweighs it.
    no_way: Option<Outcome>,
}

impl<'a> Delivery<'a> {
    fn new(job: &'a Job<'a>) -> Self {
        let count = job.envelope.recipients.len();
        Self {
            job,
            begun: Instant::now(),
            outcomes: vec![None; count],
            waiting: (0..count).collect(),
            server: None,
            is_server_useless: false,
            no_way: None,
        }
    }

    /// Whether it is too late to begin anything.
    fn is_late(&self) -> bool {
        self.begun.elapsed() >= LONGEST_SEARCH
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// As many transactions as it takes; the connection, if it can be used again.
    async fn over(
        &mut self,
        mut connection: Connection,
        mut freshness: Freshness,
    ) -> Option<Connection> {
        self.is_server_useless = false;
        while !self.is_done() && connection.can_be_reused() {
            let batch = self.batch(&connection);
            let transaction = OutgoingTransaction {
                reverse_path: &self.job.envelope.reverse_path,
                parameters: &self.job.envelope.parameters,
                recipients: self.recipients(&batch),
            };
            match connection.send(&transaction, self.job.content).await {
                Ok(outcomes) => {
                    if self.note(&batch, outcomes) == Next::Server {
                        self.is_server_useless = true;
                        break;
                    }
                }
                Err(error) => {
                    if freshness == Freshness::New {
                        self.server_failed(&error, connection.endpoint());
                    }
                    self.is_server_useless = true;
                    break;
                }
            }
            if self.is_late() {
                break;
            }
            freshness = Freshness::New;
        }
        if self.is_done() && connection.can_be_reused() {
            return Some(connection);
        }
        connection.quit().await;
        None
    }

    fn batch(&self, connection: &Connection) -> Vec<usize> {
        let most = connection.max_recipients().unwrap_or(MAX_RECIPIENTS).min(MAX_RECIPIENTS);
        self.waiting.iter().copied().take(most).collect()
    }

    fn recipients(&self, batch: &[usize]) -> Vec<&'a EnvelopeRecipient> {
        let recipients = &self.job.envelope.recipients;
        batch.iter().filter_map(|number| recipients.get(*number)).collect()
    }

    /// Notes what came of a transaction.
    fn note(&mut self, batch: &[usize], outcomes: Vec<Outcome>) -> Next {
        let mut next = Next::Transaction;
        let any_sent = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Sent(_)));
        for (number, outcome) in batch.iter().zip(outcomes) {
            match &outcome {
                Outcome::Deferred(failure) if failure.concerns_host() => {
                    self.server = Some(outcome);
                    next = Next::Server;
                }
                // Another transaction takes them, as long as that leads to anything.
                Outcome::Deferred(failure) if failure.is_too_many_recipients() && any_sent => {}
                Outcome::Sent(_) | Outcome::Deferred(_) | Outcome::Failed(_) => {
                    self.waiting.retain(|waiting| waiting != number);
                    if let Some(place) = self.outcomes.get_mut(*number) {
                        *place = Some(outcome);
                    }
                }
            }
        }
        next
    }

    fn server_failed(&mut self, error: &ClientError, endpoint: &Endpoint) {
        let outcome = error.outcome(endpoint);
        if error.is_no_way() {
            self.no_way = Some(outcome);
            return;
        }
        if matches!(self.server, Some(Outcome::Deferred(_))) && error.is_permanent() {
            return;
        }
        self.server = Some(outcome);
    }

    fn finish(self, asked: Asked) -> Vec<Outcome> {
        let is_late = self.is_late();
        let rest = match self.server.or(self.no_way) {
            // What some servers refuse for good, one that was not asked may take.
            Some(Outcome::Failed(failure)) if asked == Asked::Some => {
                Outcome::Deferred(failure.for_now())
            }
            Some(outcome) => outcome,
            None => nobody_asked(is_late),
        };
        let outcome = |outcome: Option<Outcome>| outcome.unwrap_or_else(|| rest.clone());
        self.outcomes.into_iter().map(outcome).collect()
    }
}

/// What comes after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another for those who still wait.
    Transaction,
    /// Another server for them.
    Server,
}

/// Nobody was asked, which more time, more servers or another route may change.
fn nobody_asked(is_late: bool) -> Outcome {
    let (enhanced, text) = if is_late {
        (NO_TIME_LEFT, "the server is too slow for all recipients in one attempt")
    } else {
        // RFC 3463 §3.5: unable to route
        (EnhancedStatus::new(4, 4, 4), "there is no server left to try")
    };
    Outcome::Deferred(Failure {
        stage: Stage::Connect,
        code: None,
        enhanced,
        said: None,
        text: text.to_owned(),
        remote: String::new(),
        address: None,
        maybe_delivered: false,
    })
}

#[cfg(test)]
mod tests;
