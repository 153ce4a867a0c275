//! What the operator sets for mail that leaves.

use std::time::Duration;

/// `[queue]`: when and how hard mail is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nothing is tried: an operator wants to look at what waits before it leaves.
    pub paused: bool,
    /// After so long a recipient that was not reached bounces (RFC 5321 §4.5.4.1: 4 to 5 days at
    /// least).
    pub lifetime: Duration,
    /// After so long the sender is told that the message is delayed.
    pub delay_warning: Duration,
    /// From the first attempt to the second; it doubles with each further one,
    pub first_retry: Duration,
    /// up to this.
    pub longest_retry: Duration,
    /// Connections at once to all destinations: at most half of them to those where no server has
    /// answered yet, at most a quarter for reports.
    pub connections: usize,
    /// Connections at once to one destination: one until a server has answered there, at most a
    /// quarter for reports; of one user at most half while others have mail there.
    pub connections_per_destination: usize,
    /// Octets of messages that are being sent at once: at most half of them to destinations where
    /// no server has answered yet or to one destination, at most a quarter of reports, and an
    /// eighth for small messages alone.
    pub in_flight_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paused: false,
            lifetime: Duration::from_secs(5 * 24 * 3600),
            delay_warning: Duration::from_secs(4 * 3600),
            first_retry: Duration::from_secs(5 * 60),
            longest_retry: Duration::from_secs(4 * 3600),
            connections: 200,
            connections_per_destination: 10,
            in_flight_bytes: 256 * 1024 * 1024,
        }
    }
}
