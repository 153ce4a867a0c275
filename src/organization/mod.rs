//! What an organization is, apart from how it was said: a [`State`] of plain values with ids in
//! place of names, and the [`Fact`]s that lead from one state to the next. Pure; compiled forms, files
//! and checks are of other rooms.
//!
//! A fact is an after-image: it says all of what it is about as that is from then on, so the last
//! fact about each thing is the state, whatever came before.

mod difference;
mod fact;
mod said;
mod state;
mod texts;
mod values;

#[cfg(test)]
mod tests;

pub use difference::difference;
pub use fact::{Fact, assign};
pub use said::{Names, summary, words};
pub use state::{
    AccessSaid, Authorities, Blocked, Entities, Entity, FolderRule, GatewaySaid, Group,
    JournalingSaid, LoginSaid, MailDomain, MailSettings, Resource, Rights, SecretAt, State, User,
};
pub use values::{Extension, FolderAction, NotAnExtension, OnReject, OwnQuotas};
