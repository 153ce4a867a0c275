//! Mailweir: a mail pipeline daemon with the semantics of Amazon WorkMail's mail flow.
//!
//! The modules are rooms, listed here in reading order; a room may use only the rooms above it
//! (`ARCHITECTURE.md` has the map, `tests/it/tidy.rs` holds the doors).

pub mod clock;
pub mod files;
#[cfg(any(test, fuzzing))]
mod fuzz;
pub mod heavy;
pub mod id;
pub mod memory;
#[cfg(test)]
mod soon;

pub mod mail;

pub mod dns;
pub mod events;
pub mod smtp;

pub mod directory;
pub mod msgauth;
pub mod scan;
pub mod store;

pub mod domains;

pub mod journal;
pub mod queue;
pub mod rules;

pub mod organization;

pub mod pipeline;

pub mod config;

pub mod daemon;

pub mod cli;
