//! The fuzzers' door: an MTA-STS policy, whatever a web server calls so.

use super::route::mta_sts::{HostPattern, Policy};

/// A policy is refused, or what is printed of it is the same policy, and it allows the hosts that
/// it names.
pub fn mta_sts_policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(policy) = Policy::parse(text) else { return };
    assert_eq!(Policy::parse(&policy.to_string()).as_ref(), Ok(&policy));
    for pattern in &policy.hosts {
        let host = match pattern {
            HostPattern::Exactly(domain) => domain.to_string(),
            HostPattern::Below(domain) => format!("mx.{domain}"),
        };
        assert!(policy.allows(&host), "{host} is not allowed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_hold() {
        crate::fuzz::replay("policy", mta_sts_policy);
    }
}
