//! DANE for SMTP (RFC 7672): which certificate a host must show, said by DNSSEC.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rustls::server::ParsedCertificate;
use rustls::{OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use super::shown::Shown;
use crate::dns::{LookupError, LookupResult, RecordData, Tlsa};

/// TLSA records that are looked at, of one host; a rollover of keys needs a handful.
const MAX_RECORDS: usize = 64;

/// Where the TLSA records of a host's mail port stand (RFC 7672 §2.2.3).
///
/// Deviation: a host's own name only, not the one that its CNAME leads to; RFC 5321 §5.1 wants no
/// CNAME there.
pub(super) fn tlsa_name(host: &str, port: u16) -> String {
    format!("_{port}._tcp.{host}")
}

/// What the answer for a host's TLSA records asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: there are none, or nobody vouches for them.
    Nothing,
    /// TLS with any certificate: there are some, and none can be used (RFC 7672 §2.2).
    Encryption,
    /// A certificate that one of them matches.
    Certificate(Associations),
    /// That the host be left alone for now: the answer may have been kept from us (RFC 7672
    /// §2.1.2).
    Delay(LookupError),
}

impl Demand {
    /// Reads the answer; `names` are those that a certificate may be for.
    pub(super) fn of(result: LookupResult, names: &[&str]) -> Self {
        let answer = match result {
            Ok(answer) if answer.is_secure => answer,
            Ok(_) | Err(LookupError::NoSuchName | LookupError::NoData) => return Self::Nothing,
            Err(error @ LookupError::Transient(_)) => return Self::Delay(error),
        };
        let records = answer.records.iter().filter_map(|record| match record {
            RecordData::Tlsa(tlsa) => Association::usable(tlsa),
            _ => None,
        });
        let records = with_strongest_digests(records.take(MAX_RECORDS).collect());
        if records.is_empty() {
            return Self::Encryption;
        }
        let names = names.iter().filter_map(|name| ServerName::try_from((*name).to_owned()).ok());
        Self::Certificate(Associations { records, names: names.collect() })
    }
}

/// The usable TLSA records of a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Associations {
    records: Vec<Association>,
    /// RFC 7672 §3.2.3: the host's name, and the domain that the mail is for.
    names: Vec<ServerName<'static>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Association {
    usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Box<[u8]>,
}

/// RFC 7672 §3.1; PKIX-TA and PKIX-EE cannot be used (§3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// DANE-TA(2): the certificate of an authority in the server's path.
    TrustAnchor,
    /// DANE-EE(3): the server's own.
    EndEntity,
}

/// RFC 6698 §2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selector {
    Certificate,
    PublicKey,
}

/// RFC 6698 §2.1.3, from the weakest digest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matching {
    Sha256,
    Sha512,
    Full,
}

impl Association {
    /// `None` for what RFC 7671 §10.2 calls unusable: of a kind that is not for us, or malformed.
    fn usable(tlsa: &Tlsa) -> Option<Self> {
        let usage = match tlsa.usage {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match tlsa.selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let matching = match (tlsa.matching_type, tlsa.data.len()) {
            (0, 1..) => Matching::Full,
            (1, 32) => Matching::Sha256,
            (2, 64) => Matching::Sha512,
            _ => return None,
        };
        Some(Self { usage, selector, matching, data: tlsa.data.clone() })
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            Selector::Certificate => Cow::Borrowed(certificate.as_ref()),
            Selector::PublicKey => match ParsedCertificate::try_from(certificate) {
                Ok(parsed) => Cow::Owned(parsed.subject_public_key_info().as_ref().to_vec()),
                Err(_) => return false,
            },
        };
        match self.matching {
            Matching::Full => *selected == *self.data,
            Matching::Sha256 => digest(&SHA256, &selected).as_ref() == &*self.data,
            Matching::Sha512 => digest(&SHA512, &selected).as_ref() == &*self.data,
        }
    }

    /// The certificate itself, if the record has it rather than a digest.
    fn certificate(&self) -> Option<CertificateDer<'_>> {
        let is_whole = (self.selector, self.matching) == (Selector::Certificate, Matching::Full);
        is_whole.then(|| CertificateDer::from(&*self.data))
    }
}

/// RFC 7671 §9: of the records of one usage and selector, a weaker digest does not count beside a
/// stronger one.
fn with_strongest_digests(records: Vec<Association>) -> Vec<Association> {
    let has_sha512 = |record: &Association| {
        let is_stronger = |other: &Association| {
            (other.usage, other.selector, other.matching)
                == (record.usage, record.selector, Matching::Sha512)
        };
        records.iter().any(is_stronger)
    };
    let counts = |record: &&Association| record.matching != Matching::Sha256 || !has_sha512(record);
    records.iter().filter(counts).cloned().collect()
}

impl Associations {
    /// Whether a server may show this.
    pub(super) fn verify(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        // RFC 7672 §3.1.1: the key is bound by the record; neither names nor dates count.
        let is_own = |record: &&Association| record.matches(shown.end_entity);
        if self.of_usage(Usage::EndEntity).any(|record| is_own(&record)) {
            return Ok(());
        }
        let anchors = self.anchors(shown.intermediates);
        if anchors.is_empty() {
            return Err(no_match());
        }
        // RFC 7672 §3.1.2: for a path to an authority, both count.
        shown.verify_path(&anchors, &self.names)
    }

    fn of_usage(&self, usage: Usage) -> impl Iterator<Item = &Association> {
        self.records.iter().filter(move |record| record.usage == usage)
    }

    /// The authorities: certificates of the server's path that a record matches, and those that
    /// stand in a record as a whole, which a server need not send.
    fn anchors(&self, path: &[CertificateDer<'_>]) -> RootCertStore {
        let mut anchors = RootCertStore::empty();
        for record in self.of_usage(Usage::TrustAnchor) {
            let sent = path.iter().filter(|certificate| record.matches(certificate));
            let given = record.certificate();
            for certificate in sent.chain(&given) {
                if let Err(error) = anchors.add(certificate.clone()) {
                    tracing::debug!(%error, "a TLSA record names what cannot be an authority");
                }
            }
        }
        anchors
    }
}

/// Not one of rustls's own certificate errors, which would print as Rust code in a report.
#[derive(Debug, thiserror::Error)]
#[error("no TLSA record matches the certificate")]
struct NoMatch;

fn no_match() -> rustls::Error {
    rustls::Error::Other(OtherError(Arc::new(NoMatch)))
}
