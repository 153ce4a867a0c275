//! The outbound queue: the servers of a destination, and what came of trying them.
//!
//! [`attempt::attempt`] is one attempt to hand a message to the servers of a [`hop::Hop`] list. It
//! knows neither DNS nor the store: where mail goes and what is remembered is decided elsewhere.

pub mod attempt;
pub mod hop;
