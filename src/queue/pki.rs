//! The certificate authorities that are trusted for servers of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use crate::smtp::certificate_authorities;

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file of additional authorities cannot be read, or holds none.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The system's authorities, which its administrator keeps up to date, and those in a PEM file of
/// the operator's own. A system without any is told in the log: then no certificate is good.
///
/// # Errors
/// [`PkiError`] for a file that is not there or has no certificate in it.
pub fn authorities(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a certificate authority of the system cannot be read");
    }
    let (_, unusable) = roots.add_parsable_certificates(system.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "certificate authorities of the system are left out");
    }
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        tracing::warn!("there are no certificate authorities, no server's certificate is good");
    }
    Ok(Arc::new(roots))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), PkiError> {
    let failed = |problem: String| PkiError::File { path: path.to_owned(), problem };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = certificate_authorities(&text).map_err(|error| failed(error.to_string()))?;
    for certificate in found {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Option<&str>, expected: Result<(), &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let found = authorities(Some(&path)).map(|roots| assert!(!roots.is_empty()));
        let found = found.map_err(|error| error.to_string());
        match expected {
            Ok(()) => assert_eq!(found, Ok(())),
            Err(problem) => {
                let error = found.unwrap_err();
                assert!(error.contains("ca.pem: ") && error.contains(problem), "{error}");
            }
        }
    }

    #[test]
    fn a_file_of_authorities_is_read_or_told_by_name() {
        let authority = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        check(Some(&authority.cert.pem()), Ok(()));
        check(Some(""), Err("has no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(Some(broken), Err("has something that is not a certificate"));
        check(None, Err("No such file"));
    }
}
