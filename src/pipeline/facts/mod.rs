//! What is known of a message, and what it is judged by: no stage, and nothing of another floor.

pub(super) mod applied;
pub(super) mod begun;
pub(super) mod completed;
pub(super) mod extensions;
pub(super) mod headers;
pub(super) mod judged;
pub(super) mod outgoing;
pub(super) mod received;
pub(super) mod rejection;
pub(super) mod road;
pub(super) mod settings;
pub(super) mod signatures;
pub mod snapshot;
pub(super) mod transaction;
pub(super) mod verdicts;
