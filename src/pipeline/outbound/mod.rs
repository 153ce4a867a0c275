//! Mail that users submit: who may, what is completed and looked into, where it goes, and its signatures.

pub mod attachments;
pub(super) mod delimiters;
pub(super) mod dispatch;
pub(super) mod fixups;
pub mod login;
pub(super) mod long_lines;
pub(super) mod submission;
