//! What is written down of it: journal records, reports, stories, and the commit that holds all of it.

pub(super) mod audit;
pub(super) mod bounces;
pub(super) mod claim;
pub(super) mod commit;
pub(super) mod internal;
pub(super) mod journal;
pub(super) mod mail_log;
pub(super) mod mail_log_writer;
pub(super) mod notice;
pub mod outcomes;
pub(super) mod own_mail;
pub(super) mod postmasters;
pub mod refusals;
pub(super) mod report;
pub(super) mod room;
pub mod story;
pub(super) mod tell;
pub(super) mod transport;
