//! Words and numbers that an organization has of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What becomes of a message whose author's domain says `p=reject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnReject {
    /// Refused in session with 550 5.7.1.
    #[default]
    Reject,
    /// Accepted and dropped, as WorkMail does (guide 4430).
    Drop,
}

impl OnReject {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
        }
    }
}

/// What an organization says of its quotas itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OwnQuotas {
    /// `recipients_per_user_per_day`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_user: Option<u64>,
    /// `recipients_per_day`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_organization: Option<u64>,
    /// `inside_recipients_per_user_per_day`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside_per_user: Option<u64>,
}

/// What becomes of messages that have been in a folder for long: the API's `RetentionAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FolderAction {
    /// They stay.
    None,
    /// They are moved to `DELETED_ITEMS`.
    Delete,
    /// They are removed.
    PermanentlyDelete,
}

impl FolderAction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Delete, Self::PermanentlyDelete];

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Delete => "DELETE",
            Self::PermanentlyDelete => "PERMANENTLY_DELETE",
        }
    }
}

/// An extension of file names: lower-case, without its dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extension(Box<str>);

/// Why a text is not an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an extension has letters, digits, - and _ only, as in exe")]
pub struct NotAnExtension;

/// In any case, with or without a dot before it.
impl FromStr for Extension {
    type Err = NotAnExtension;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('.').unwrap_or(text);
        let is_allowed = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let is_extension = !bare.is_empty() && bare.chars().all(is_allowed);
        if is_extension { Ok(Self(bare.to_lowercase().into())) } else { Err(NotAnExtension) }
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Extension {
    /// Its text.
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}
