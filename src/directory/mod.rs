//! Who mail is for: organizations with their domains, users, groups and resources, and the way
//! from an address to mailboxes. Pure: built from configuration, never changed.

mod access;
pub mod credential;
mod organization;
mod resolve;

pub use access::{
    AccessDecision, AccessEffect, AccessProtocol, AccessRequest, AccessRule, AccessRules,
    UnknownProtocol,
};
pub use organization::{
    EntityState, Group, Organization, OrganizationId, Resource, ResourceKind, User,
};
pub use resolve::{
    Conflict, ConflictScope, Directory, IndexedOrganization, Member, ResolveError, Resolved,
};

/// The quota of a mailbox for which none is set, in MB (guide 3447: 50 GB), and its limits.
pub const QUOTA_MB: std::ops::RangeInclusive<u64> = 1..=51_200;

#[cfg(test)]
mod tests;
