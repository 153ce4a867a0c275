//! What is said of organizations: who said it, when, and facts that are opaque here. Each is about one
//! thing and says all of it, so of all that was said about a thing the last counts. They are kept as
//! long as the log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use crate::clock::Timestamp;

/// The form of facts that this version writes, and the highest that it knows.
pub const FACT_FORMAT: u16 = 1;

/// Facts that are so together, from one record on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// When.
    pub at: Timestamp,
    /// Who made it so.
    pub by: By,
    /// By what: `start`, `reload`.
    pub command: Box<str>,
    /// What.
    pub said: Vec<Said>,
}

/// Who has changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum By {
    /// The daemon itself, at its start or by a signal, whose sender nobody knows.
    Daemon,
    /// Somebody who has asked the daemon for it.
    Operator {
        /// The system's number for the user, where the system tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// What the user is called.
        name: Box<str>,
    },
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("the daemon"),
            Self::Operator { name, .. } => f.write_str(name),
        }
    }
}

/// A fact about one thing of an organization.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// `m-` and 32 hexadecimal digits.
    pub organization: Arc<str>,
    /// What it is about.
    pub about: Box<str>,
    /// The fact's form.
    #[serde(deserialize_with = "known_format")]
    pub format: u16,
    /// The fact, as JSON.
    pub fact: Box<RawValue>,
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        (&self.organization, &self.about, self.format)
            == (&other.organization, &other.about, other.format)
            && self.fact.get() == other.fact.get()
    }
}

impl Eq for Said {}

/// A fact of a later form may say what this version would get wrong.
fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let format = u16::deserialize(deserializer)?;
    if format > FACT_FORMAT {
        let problem = format!("a fact of form {format}; this version knows {FACT_FORMAT}");
        return Err(de::Error::custom(problem));
    }
    Ok(format)
}
