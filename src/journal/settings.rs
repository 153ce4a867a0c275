//! `[journaling]` of an organization.

use crate::mail::Address;

/// Journaling is on, with these addresses (WorkMail guide 7294).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where records go.
    pub journaling_address: Address,
    /// Who is told when a record cannot be made or delivered.
    pub report_address: Address,
    /// `sender_address`: the organization's reserved address from which records come; no mailbox
    /// may have it. Default `amazonjournaling@<default domain>` (guide 7298).
    pub sender_address: Address,
}
