//! Mail that comes in: its verdicts, and what becomes of it for each recipient.

pub(super) mod authenticate;
pub(super) mod decide;
