//! Who mail is for: organizations with their domains, users, groups and resources, the way from an
//! address to mailboxes, and who may send as whom. Pure: built from configuration, never changed.

mod access;
pub mod credential;
mod expansion;
mod organization;
mod permission;
mod resolve;

pub use access::{
    AccessDecision, AccessEffect, AccessProtocol, AccessRequest, AccessRule, AccessRules,
    UnknownProtocol,
};
pub use expansion::{Member, RemoteMember};
pub use organization::{
    EntityState, Group, Organization, OrganizationId, Permission, Resource, ResourceKind, User,
};
pub use permission::{Denied, SendRight};
pub use resolve::{
    Conflict, ConflictScope, Directory, IndexedOrganization, ResolveError, Resolved,
};

/// The quota of a mailbox for which none is set, in MB (guide 3447: 50 GB), and its limits.
pub const QUOTA_MB: std::ops::RangeInclusive<u64> = 1..=51_200;

#[cfg(test)]
mod tests;
