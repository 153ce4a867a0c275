//! What is known of one name server from the last answers.

use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a server that did not understand EDNS is asked without it: RFC 6891 §6.2.2 has
/// that be a brief time.
const WITHOUT_EDNS: Duration = Duration::from_secs(10 * 60);
/// For how long nobody asks a server again whose host has said that nobody listens there, or that
/// no way leads to. Systems send such refusals to one client only so often a second, so that each
/// further query would wait for its time-out.
const REFUSED: Duration = Duration::from_secs(1);

/// A name server.
#[derive(Debug, Default)]
pub(super) struct Server {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    edns: Edns,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    kind: ErrorKind,
    until: Instant,
}

/// Whether a server is asked with EDNS.
#[derive(Clone, Copy, Debug, Default)]
enum Edns {
    /// It has not answered yet.
    #[default]
    Untried,
    /// It has answered a query with EDNS.
    Known,
    /// It has answered nothing so far, and the last query had EDNS: some drop such queries, and
    /// some answer with a bare header, which counts as no answer. The next has none.
    Doubtful,
    /// It does not know it.
    Unknown { until: Instant },
}

impl Server {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to ask it with EDNS.
    pub(super) fn takes_edns(&self, now: Instant) -> bool {
        let mut known = self.known();
        match known.edns {
            Edns::Untried | Edns::Known => true,
            Edns::Doubtful => false,
            Edns::Unknown { until } if now < until => false,
            Edns::Unknown { .. } => {
                known.edns = Edns::Untried;
                true
            }
        }
    }

    pub(super) fn answered_with_edns(&self) {
        self.known().edns = Edns::Known;
    }

    /// It has answered a query without EDNS after it refused the same with it.
    pub(super) fn does_not_know_edns(&self, now: Instant) {
        self.known().edns = Edns::Unknown { until: now + WITHOUT_EDNS };
    }

    /// A server that has once answered with EDNS is silent for another reason.
    pub(super) fn silent_with_edns(&self) {
        let mut known = self.known();
        if let Edns::Untried = known.edns {
            known.edns = Edns::Doubtful;
        }
    }

    pub(super) fn answered_without_edns(&self, now: Instant) {
        let mut known = self.known();
        if let Edns::Doubtful = known.edns {
            known.edns = Edns::Unknown { until: now + WITHOUT_EDNS };
        }
    }

    /// EDNS was not what kept it silent.
    pub(super) fn silent_without_edns(&self) {
        let mut known = self.known();
        if let Edns::Doubtful = known.edns {
            known.edns = Edns::Untried;
        }
    }

    /// A query has failed. That one was not answered in time says little of the server: whoever
    /// wrote the name may have seen to it.
    pub(super) fn failed(&self, kind: ErrorKind, now: Instant) {
        if matches!(
            kind,
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
        ) {
            self.known().refused = Some(Refused { kind, until: now + REFUSED });
        }
    }

    /// The refusal that still holds.
    pub(super) fn refusal(&self, now: Instant) -> Option<ErrorKind> {
        let refused = self.known().refused?;
        (now < refused.until).then_some(refused.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_does_not_know_edns_is_asked_without_it_for_a_while() {
        let server = Server::default();
        let now = Instant::now();
        assert!(server.takes_edns(now));
        server.does_not_know_edns(now);
        assert!(!server.takes_edns(now + WITHOUT_EDNS - SECOND));
        // What is answered meanwhile says nothing new.
        server.answered_without_edns(now + WITHOUT_EDNS - SECOND);
        server.silent_without_edns();
        assert!(!server.takes_edns(now + WITHOUT_EDNS - SECOND));
        assert!(server.takes_edns(now + WITHOUT_EDNS));
        assert!(server.takes_edns(now + WITHOUT_EDNS));
    }

    #[test]
    fn silence_counts_against_edns_only_where_it_was_never_answered() {
        let now = Instant::now();
        let dropping = Server::default();
        dropping.silent_with_edns();
        assert!(!dropping.takes_edns(now), "it was not doubted");
        dropping.answered_without_edns(now);
        assert!(!dropping.takes_edns(now + WITHOUT_EDNS - SECOND), "it was not remembered");
        assert!(dropping.takes_edns(now + WITHOUT_EDNS));

        let dead = Server::default();
        dead.silent_with_edns();
        dead.silent_without_edns();
        assert!(dead.takes_edns(now), "EDNS was held to be the reason");

        let slow = Server::default();
        slow.answered_with_edns();
        slow.silent_with_edns();
        assert!(slow.takes_edns(now), "a slow name counted against the server");
    }

    #[test]
    fn a_refusal_is_remembered_for_a_second() {
        let server = Server::default();
        let now = Instant::now();
        assert_eq!(server.refusal(now), None);
        for kind in [
            ErrorKind::ConnectionRefused,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::NetworkDown,
        ] {
            server.failed(kind, now);
            assert_eq!(server.refusal(now + REFUSED - SECOND / 100), Some(kind));
            assert_eq!(server.refusal(now + REFUSED), None);
        }
        for kind in [ErrorKind::TimedOut, ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof] {
            server.failed(kind, now + REFUSED);
            assert_eq!(server.refusal(now + REFUSED), None, "{kind}");
        }
    }
}
