//! The names of organizations in the form of AWS (guide 893).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Where AWS has regions and accounts and nothing here does: words that are valid and nobody's.
const NO_REGION: &str = "local";
const NO_ACCOUNT: &str = "000000000000";
/// Characters of a region; those of AWS have about 14.
const MAX_REGION: usize = 32;
/// Digits of an account.
const ACCOUNT_DIGITS: usize = 12;

/// `[arn]`: what stands in the ARNs of organizations. Who moves here from WorkMail may want those
/// that queries over older logs know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArnSettings {
    /// `arn.region`
    pub region: Region,
    /// `arn.account_id`
    pub account_id: AccountId,
}

impl ArnSettings {
    /// The ARN of the organization with this id.
    pub(super) fn organization<'a>(&'a self, id: &'a str) -> OrganizationArn<'a> {
        OrganizationArn { settings: self, id }
    }
}

/// An AWS region, for example `eu-west-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region(String);

impl Default for Region {
    fn default() -> Self {
        Self(NO_REGION.to_owned())
    }
}

/// Why a text is no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a region is 1 to 32 lower-case letters, digits and hyphens")]
pub struct NotARegion;

impl FromStr for Region {
    type Err = NotARegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let is_region = (1..=MAX_REGION).contains(&text.len()) && text.bytes().all(is_allowed);
        is_region.then(|| Self(text.to_owned())).ok_or(NotARegion)
    }
}

/// The id of an AWS account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountId(String);

impl Default for AccountId {
    fn default() -> Self {
        Self(NO_ACCOUNT.to_owned())
    }
}

/// Why a text is no account's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account's id is 12 digits, as a text")]
pub struct NotAnAccountId;

impl FromStr for AccountId {
    type Err = NotAnAccountId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = text.len() == ACCOUNT_DIGITS && text.bytes().all(|c| c.is_ascii_digit());
        is_id.then(|| Self(text.to_owned())).ok_or(NotAnAccountId)
    }
}

/// An organization's ARN.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrganizationArn<'a> {
    settings: &'a ArnSettings,
    id: &'a str,
}

impl fmt::Display for OrganizationArn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ArnSettings { region: Region(region), account_id: AccountId(account_id) } =
            self.settings;
        write!(f, "arn:aws:workmail:{region}:{account_id}:organization/{}", self.id)
    }
}

impl Serialize for OrganizationArn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
