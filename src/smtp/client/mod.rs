//! The SMTP client: hands messages to one server and says for each recipient what came of it.
//!
//! [`Connection::open`] connects, with as much TLS as [`TlsDemand`] asks for, and logs in;
//! [`Connection::send`] is one mail transaction. From the outside in: `connection` opens,
//! `send` converses, `transaction` says what is asked (pure), `content` stuffs dots, `reply`
//! reads what the server says (pure), `channel` waits, and every wait has an end.
//! It knows one server: which servers a message goes to, and when, is the queue's affair.

mod auth;
mod channel;
mod connection;
mod content;
mod extensions;
mod outcome;
mod reply;
mod send;
mod settings;
mod tls;
mod transaction;

pub use connection::Connection;
pub use outcome::{ClientError, Failure, Fault, Outcome, Receipt, Stage};
pub use reply::{EnhancedStatus, Garbage, NotAStatus, Reply};
pub use settings::{Endpoint, Timeouts};
pub use tls::{TlsDemand, any_certificate, client_config};
pub use transaction::OutgoingTransaction;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
pub(crate) mod tests;
