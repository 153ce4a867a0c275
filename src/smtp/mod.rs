//! SMTP. The server's side: bytes to commands, commands to replies, the session as a state machine
//! without I/O, and the one driver that performs its effects. Never sees a rule, a verdict or a
//! mailbox: it calls [`handler::Handler`].
//!
//! From the outside in: [`Listener`] accepts, `connection` moves bytes and performs effects,
//! `session` decides, `command` and `reply` are what it reads and says, `auth` is how users log in,
//! `wire` splits bytes.
//!
//! The other side, for mail that leaves, is [`client`].

pub mod client;
pub mod handler;
pub mod reason;
mod settings;

mod auth;
mod authorities;
mod body;
mod budget;
mod certificate;
mod command;
mod connection;
mod gate;
mod guesses;
mod listener;
mod not_pem;
mod patience;
mod proxy;
mod reply;
mod session;
mod shared;
mod stop;
mod tls;
mod turns;
mod waited;
mod wire;

pub(crate) use budget::network_of;

pub use authorities::{AuthoritiesError, certificate_authorities};
pub use certificate::ServerCertificate;
pub use listener::Listener;
pub use settings::{Limits, ListenerSettings, Protocol, TlsSettings};
pub use shared::Shared;
pub use tls::{ServerPair, Tls, TlsError, WATCH_INTERVAL};

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod scripted;
#[cfg(test)]
mod tests;
