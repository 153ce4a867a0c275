//! Journaling: one record for each message, in the envelope-journal format ([MS-XJRNL] §2.1.4.1),
//! with both marker fields by which archives know it (`contracts.md` §6). Pure: composes bytes.

mod record;
mod settings;

pub use record::{Addressing, JournaledRecipient, Named, Record, Wrapping};
pub use settings::Settings;

#[cfg(test)]
mod tests;
