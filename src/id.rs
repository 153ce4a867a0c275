//! Identifiers that Mailweir makes.

mod entity;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use entity::{EntityId, EntityKind};

/// Names one message on its way through one organization, and every refusal of a session:
/// the `traceId` of events, the id in replies and in `Received`. A UUIDv7, so ids sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceId(Uuid);

impl TraceId {
    /// A new id, unique without coordination.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// No id that is made from this moment on, in milliseconds since 1970, sorts before this one.
    pub fn first_since(millis: u64) -> Self {
        // The first 48 bits of a UUIDv7 are its time.
        Self(Uuid::from_u128(u128::from(millis) << 80))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for TraceId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The id of a new personal access token; says nothing about the token itself.
pub fn new_token_id() -> String {
    Uuid::now_v7().hyphenated().to_string()
}

/// Names a mailbox for as long as it exists, whatever its user is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailboxId(Uuid);

impl MailboxId {
    /// A new id, unique without coordination.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that these octets are, as [`MailboxId::as_bytes`] gives them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id's sixteen bytes, as they stand in key derivation and authenticated data.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for MailboxId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}
