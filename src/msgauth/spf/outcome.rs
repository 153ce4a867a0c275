//! What an SPF check comes to (RFC 7208 §2.6).

use serde::{Deserialize, Serialize};

/// The result of `check_host()` (RFC 7208 §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpfResult {
    /// No domain to check, or no record.
    None,
    /// The domain says nothing of this client.
    Neutral,
    /// The client is authorized.
    Pass,
    /// The client is not authorized.
    Fail,
    /// The client is probably not authorized.
    SoftFail,
    /// DNS trouble.
    TempError,
    /// A record that cannot be interpreted.
    PermError,
}

impl SpfResult {
    /// The word of RFC 7208 §2.6.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Which identity was checked (RFC 7208 §2.3, §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The reverse-path.
    MailFrom,
    /// The argument of EHLO or HELO, for a null reverse-path.
    Helo,
}

/// The outcome of an SPF check, with what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpfOutcome {
    /// The result.
    pub result: SpfResult,
    /// The identity checked.
    pub identity: Identity,
    /// The domain checked.
    pub domain: String,
    /// The mechanism that matched, as the record spells it; `default` if none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mechanism: Option<String>,
    /// The domain's explanation of a fail (RFC 7208 §6.2).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub explanation: Option<String>,
    /// What went wrong, for temperror and permerror.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
}
