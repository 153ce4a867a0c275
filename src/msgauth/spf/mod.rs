//! Sender Policy Framework, strictly as RFC 7208 has it: any syntax error anywhere in a record is
//! a permerror, two records are one, and lookups that find nothing are counted.

mod evaluate;
mod macros;
mod merge;
mod outcome;
mod record;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

pub use evaluate::{Query, check_host};
pub use merge::{Merged, merge};
pub use outcome::{Identity, SpfOutcome, SpfResult};

/// Whether a TXT record is an SPF record, and if so what is wrong with it.
pub(super) fn read(txt: &[u8]) -> Option<Result<(), String>> {
    record::is_spf(txt).then(|| record::Record::parse(txt).map(drop))
}
