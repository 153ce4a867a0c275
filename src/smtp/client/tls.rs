//! What a connection to another server must be.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;

/// How safe a connection must be before mail goes over it.
#[derive(Clone, Debug)]
pub enum TlsDemand {
    /// TLS where the server offers it, with any certificate; in the clear where it does not.
    Opportunistic,
    /// TLS with a certificate that the verifier accepts for this name, which is also sent in SNI,
    /// or no mail.
    Verified(Arc<dyn ServerCertVerifier>, String),
}
