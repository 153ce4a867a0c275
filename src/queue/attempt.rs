//! One attempt: the servers of a route are tried in order until everybody's fate is known.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::hop::Hop;
use crate::mail::{Domain, Envelope, EnvelopeRecipient};
use crate::smtp::client::{
    ClientError, Connection, Endpoint, EnhancedStatus, Failure, Outcome, OutgoingTransaction,
    Stage, Timeouts,
};

/// The most connections that are tried in one attempt, so that a destination with many dead
/// servers does not hold it for long: four minutes where nobody answers at all.
const MAX_TRIES: usize = 8;
/// After so long no further server is tried, and no further transaction begun. What has begun goes
/// on, by RFC 5321's time-outs for each command (§4.5.3.2) and within
/// [`Timeouts::transaction`]: three servers that accept and stay silent have had their five minutes
/// each, and who is never reached behind them is reached when a later attempt finds the first
/// servers better, or its route without them.
const LONGEST_SEARCH: Duration = Duration::from_secs(15 * 60);
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
}

/// Hands a message to the first server of the route that takes it.
///
/// A server that cannot be reached, closes, demands what cannot be met or refuses the session or
/// the sender (4yz, 421) is followed by the next address or server. What a server says of a
/// recipient or of the content stands: another server of the same destination would either say
/// the same, or take the message only to be refused itself (RFC 5321 §5.1). If no server was of
/// use, the rest is deferred, or failed if every one of them said 5yz.
///
/// Nothing new is begun after 15 minutes; the rest is deferred then too.
///
/// `reuse` is an open connection to a server of the route, which is tried first; it does not count
/// as a server's failure if it has ended by now.
pub async fn attempt(
    route: &[Hop],
    job: &Job<'_>,
    settings: &ClientSettings,
    reuse: Option<Connection>,
) -> Attempt {
    let mut delivery = Delivery::new(job);
    let mut kept = None;
    if let Some(connection) = reuse {
        kept = delivery.over(connection, Freshness::Kept).await;
    }
    for (hop, address) in tries(route) {
        if delivery.is_done() || delivery.is_late() {
            break;
        }
        let endpoint = endpoint(hop, address);
        let credentials = hop.credentials.as_ref();
        let (name, timeouts) = (&settings.hello_name, &settings.timeouts);
        match Connection::open(&endpoint, &hop.tls, name, timeouts, credentials).await {
            Ok(connection) => kept = delivery.over(connection, Freshness::New).await,
            Err(error) => delivery.server_failed(&error, &endpoint),
        }
    }
    Attempt { outcomes: delivery.finish(), connection: kept }
}

/// Every address of every server, as many as are tried. Where there are too many, each server's
/// first addresses come before another server is left out.
fn tries(route: &[Hop]) -> Vec<(&Hop, SocketAddr)> {
    let share = (MAX_TRIES / route.len().max(1)).max(1);
    let first = route.iter().flat_map(|hop| {
        let addresses = hop.addresses.iter().take(share);
        addresses.map(move |ip| (hop, SocketAddr::new(*ip, hop.port)))
    });
    first.take(MAX_TRIES).collect()
}

fn endpoint(hop: &Hop, address: SocketAddr) -> Endpoint {
    Endpoint { address, name: hop.name.clone(), implicit_tls: hop.implicit_tls }
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
}

impl<'a> Delivery<'a> {
    fn new(job: &'a Job<'a>) -> Self {
        let count = job.envelope.recipients.len();
        let (begun, waiting) = (Instant::now(), (0..count).collect());
        Self { job, begun, outcomes: vec![None; count], waiting, server: None }
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
                        break;
                    }
                }
                Err(error) => {
                    if freshness == Freshness::New {
                        self.server_failed(&error, connection.endpoint());
                    }
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
        if matches!(self.server, Some(Outcome::Deferred(_))) && error.is_permanent() {
            return;
        }
        self.server = Some(outcome);
    }

    fn finish(self) -> Vec<Outcome> {
        let is_late = self.is_late();
        let rest = self.server.unwrap_or_else(|| nobody_asked(is_late));
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
        text: text.to_owned(),
        remote: String::new(),
        address: None,
        maybe_delivered: false,
    })
}

#[cfg(test)]
mod tests;
