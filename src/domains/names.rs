//! Where the records of a domain's mail stand.

use crate::mail::Domain;

/// The subdomain of a custom MAIL FROM (guide 5235).
pub(super) const MAIL_FROM: &str = "mail";
/// Where the DMARC record stands (RFC 9989 §4.7).
pub(super) const DMARC: &str = "_dmarc";
/// Where the record of TLS reporting stands (RFC 8460 §3).
pub(super) const TLS_REPORTING: &str = "_smtp._tls";
/// Where the MTA-STS record stands (RFC 8461 §3.1).
pub(super) const MTA_STS: &str = "_mta-sts";

/// The custom MAIL FROM domain of a domain.
pub(super) fn mail_from(domain: &Domain) -> String {
    format!("{MAIL_FROM}.{domain}")
}

/// The names whose texts matter to a domain's mail.
pub(super) fn of_texts(domain: &Domain, hostname: &str) -> Vec<String> {
    let mut names = vec![domain.to_string(), hostname.to_owned(), mail_from(domain)];
    names.extend([DMARC, TLS_REPORTING, MTA_STS].map(|label| format!("{label}.{domain}")));
    names.dedup();
    names
}
