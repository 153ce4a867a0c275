//! Mail on its way out: what waits, when it is tried, where it goes and what comes of it.
//!
//! [`Queue::run`] takes what is due, has a [`Courier`] carry it, and a [`Ledger`] make durable what
//! came of it. `schedule` and `settle` decide, and are pure; `waiting` says whose turn it is.
//! [`route`] finds the servers of a domain and how safely they must be spoken to; an
//! [`attempt::attempt`] hands a message to them.

pub mod attempt;
pub mod courier;
pub mod hop;
mod lane;
mod memory;
pub mod pki;
mod relays;
pub mod route;
mod schedule;
mod settings;
mod settle;
mod waiting;
mod waits_for;
mod wanted;
mod worker;

#[cfg(test)]
mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use relays::Relays;
pub use settings::Settings;
pub use settle::Settlement;
pub use waits_for::{GivenUp, Hurried, Share, WaitingEntry, WaitsFor};
pub use wanted::{Wanted, Whom};
pub use worker::{Carried, Courier, Ledger, Queue};

/// Chance, from 0 to 1; given, so that tests know it.
pub type Chance = Box<dyn Fn() -> f64 + Send + Sync>;
