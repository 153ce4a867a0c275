//! Tests of the room as a whole: a scripted handler, the state machine without I/O, connections
//! over in-memory streams, and listeners on loopback.

mod command;
pub(super) mod connection;
mod dialogues;
mod listener;
mod login;
mod machine;
mod submissions;
mod tls;
mod wire;

pub(super) use super::scripted;
