//! Which signatures mail has that leaves, as its trace tells it.

use serde::{Deserialize, Serialize};

use crate::msgauth::Signer;

/// The signatures of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signatures {
    /// The value of `d=`.
    pub domain: String,
    /// The values of `s=`, one for each signature; none if the domain has no keys that sign.
    pub selectors: Vec<String>,
}

impl Signatures {
    /// Those that a signer makes.
    pub(in crate::pipeline) fn by(signer: &Signer) -> Self {
        let selectors = signer.selectors().map(str::to_owned).collect();
        Self { domain: signer.domain().to_string(), selectors }
    }

    /// None, because the domain has no keys that sign.
    pub(in crate::pipeline) fn missing(domain: &str) -> Self {
        Self { domain: domain.to_owned(), selectors: Vec::new() }
    }
}
