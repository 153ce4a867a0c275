//! Email events: WorkMail's nine event kinds as types, their JSON lines, and the file they are
//! written to. An event reports what is already durable; the store hands it over after its commit.

pub mod audit;
mod dated;
mod event;
pub mod follow;
#[cfg(test)]
mod golden;
mod line;
mod settings;
pub mod sink;

pub(crate) use dated::leads_to;
pub use event::{
    BouncedRecipient, DmarcPolicyApplied, EmailReceived, Event, IncomingBounced,
    JournalingInitiated, MailboxDelivered, OutgoingBounced, OutgoingSent, OutgoingSubmitted,
    RuleActionApplied, RuleApplied, RuleType,
};
pub use line::{EventId, EventLine, Lsn};
pub use settings::Settings;
