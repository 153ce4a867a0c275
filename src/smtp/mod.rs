//! The SMTP server side: bytes to commands, commands to replies, the session as a state machine
//! without I/O, and the one driver that performs its effects. Never sees a rule, a verdict or a
//! mailbox: it calls [`handler::Handler`].

pub mod handler;
pub mod reason;
mod settings;

pub use settings::{Limits, ListenerSettings, Protocol, TlsSettings};
