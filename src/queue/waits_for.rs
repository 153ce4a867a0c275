//! What an entry of the queue waits for, as its operator is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::store::QueueId;

/// What an entry waits for. Only a running daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The end of the pause of the whole queue.
    Paused,
    /// The time of its next attempt.
    NextAttempt {
        /// When that is.
        until: Timestamp,
    },
    /// A free connection; its time has come.
    Connection {
        /// What is used up.
        share: Share,
    },
    /// The end of the time for which its destination is left alone, since nobody answered there, or
    /// mail of several users in a row was turned away.
    DestinationDown {
        /// When that is.
        until: Timestamp,
    },
    /// The end of the time for which its sender's mail to this destination is left alone, since
    /// the servers there turned some of it away.
    SenderTurnedAway {
        /// When that is.
        until: Timestamp,
    },
    /// Room in memory; it has a connection to itself.
    Memory,
    /// Nothing: it is being sent.
    InFlight,
    /// The next start of the daemon: sending it went wrong.
    Restart,
}

/// The connections that are all in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// Those to its destination.
    Destination,
    /// The one to its destination that there is until a server has answered.
    FirstAnswer,
    /// Those to its destination that reports may have.
    DestinationReports,
    /// Those to its destination that one user's mail may have.
    User,
    /// Those to its destination that all mail may have that is sent on for strangers.
    Strangers,
    /// Those to all destinations where no server has answered yet.
    Unproven,
    /// Those that reports may have in all.
    Reports,
    /// Those that there may be.
    All,
    /// None is: it has its turn at once.
    Turn,
}

impl Share {
    fn text(self) -> &'static str {
        match self {
            Self::Destination => "waits for a free connection to its destination",
            Self::FirstAnswer => {
                "waits for the one connection to its destination, where no server has answered yet"
            }
            Self::DestinationReports => {
                "waits for one of the connections to its destination that reports may have"
            }
            Self::User => {
                "waits for one of the connections to its destination that one user's mail may have"
            }
            Self::Strangers => {
                "waits for one of the connections to its destination that mail which is sent on may \
                 have"
            }
            Self::Unproven => {
                "waits for one of the connections for destinations where no server has answered yet"
            }
            Self::Reports => "waits for one of the connections that reports may have",
            Self::All => "waits for a free connection, all of queue.connections are in use",
            Self::Turn => "its turn comes at once",
        }
    }
}

impl WaitsFor {
    /// The word for it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::NextAttempt { .. } => "next-attempt",
            Self::Connection { .. } => "connection",
            Self::DestinationDown { .. } => "destination-down",
            Self::SenderTurnedAway { .. } => "sender-turned-away",
            Self::Memory => "memory",
            Self::InFlight => "in-flight",
            Self::Restart => "restart",
        }
    }

    /// When it is over, where that is known.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::NextAttempt { until }
            | Self::DestinationDown { until }
            | Self::SenderTurnedAway { until } => Some(*until),
            Self::Paused
            | Self::Connection { .. }
            | Self::Memory
            | Self::InFlight
            | Self::Restart => None,
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("waits, because the queue is paused (queue.paused)"),
            Self::NextAttempt { until } => write!(f, "next attempt {until}"),
            Self::Connection { share } => f.write_str(share.text()),
            Self::DestinationDown { until } => {
                write!(f, "nobody takes mail at its destination, which is left alone until {until}")
            }
            Self::SenderTurnedAway { until } => write!(
                f,
                "its destination turned away mail of its sender, whose mail there is left alone \
                 until {until}"
            ),
            Self::Memory => f.write_str("waits for room in memory (queue.in_flight_bytes)"),
            Self::InFlight => f.write_str("is being sent at this moment"),
            Self::Restart => f.write_str("sending it went wrong, a restart takes it up again"),
        }
    }
}

/// An entry, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingEntry {
    /// Which.
    pub id: QueueId,
    /// What for.
    pub waits_for: WaitsFor,
}

/// What came of asking for an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hurried {
    /// Entries that were tried.
    pub tried: Vec<QueueId>,
    /// Entries that are due, and wait for something else.
    pub waiting: Vec<WaitingEntry>,
    /// Entries that were being sent already.
    pub in_flight: Vec<QueueId>,
    /// Entries that are not in the queue.
    pub missed: Vec<QueueId>,
}

/// What came of giving entries up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Entries that nobody gets now, or that those who were meant do not get.
    pub done: Vec<QueueId>,
    /// Entries that are being sent, so that it is too late.
    pub in_flight: Vec<QueueId>,
    /// Entries that are not in the queue.
    pub missed: Vec<QueueId>,
}
