//! What a server shows in its handshake, and whether a path leads from it to an authority.

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What a server shows in its handshake.
pub(super) struct Shown<'a> {
    pub(super) end_entity: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) now: UnixTime,
    pub(super) algorithms: &'a WebPkiSupportedAlgorithms,
}

impl Shown<'_> {
    /// A path to one of the roots that is valid now, from a certificate with one of the names. There
    /// is no look at revocation lists, as with other MTAs.
    pub(super) fn verify_path<'n>(
        &self,
        roots: &RootCertStore,
        names: impl IntoIterator<Item = &'n ServerName<'n>>,
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(self.end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            self.intermediates,
            self.now,
            self.algorithms.all,
        )?;
        let mut result = Err(CertificateError::NotValidForName.into());
        for name in names {
            result = verify_server_name(&certificate, name);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}
