//! Certificates: versions, errors that name the file, the self-signed pair, and replacement.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::duplex;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::connection::client_config;
use super::scripted::hostname;
use crate::smtp::{Tls, TlsError, TlsSettings};

fn files(folder: &Path) -> TlsSettings {
    TlsSettings {
        certificate: folder.join("certificate.pem"),
        private_key: folder.join("private_key.pem"),
    }
}

/// The version agreed on by a client that trusts only the certificate in the folder.
async fn handshake(
    tls: &Tls,
    folder: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Option<rustls::ProtocolVersion> {
    let trusted = CertificateDer::from_pem_file(folder.join("certificate.pem")).expect("readable");
    let connector = TlsConnector::from(Arc::new(client_config(trusted, versions)));
    let (ours, theirs) = duplex(64 * 1024);
    let name = ServerName::try_from("mx.example.test").expect("valid");
    let (client, server) =
        tokio::join!(connector.connect(name, ours), tls.acceptor().accept(theirs));
    server.ok()?;
    client.ok()?.get_ref().1.protocol_version()
}

#[tokio::test]
async fn both_versions_are_spoken() {
    let folder = tempfile::tempdir().expect("made");
    let tls = Tls::self_signed(folder.path(), &hostname()).expect("made");
    for (version, expected) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        assert_eq!(handshake(&tls, folder.path(), &[version]).await, Some(expected));
    }
}

/// The page for administrators names the suites, and no others.
#[test]
fn the_page_names_what_is_spoken() {
    let page = include_str!("../../../docs/tls-and-keys.md");
    let named: BTreeSet<String> =
        page.split('`').filter(|word| word.starts_with("TLS")).map(str::to_owned).collect();
    let named = named.into_iter().filter(|word| !word.contains(' ')).collect::<Vec<_>>();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let spoken = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite()));
    let spoken: BTreeSet<String> = spoken.collect();
    assert_eq!(named, spoken.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_self_signed_key_is_ours_alone_and_the_pair_is_kept() {
    let folder = tempfile::tempdir().expect("made");
    let folder = folder.path().join("tls");
    Tls::self_signed(&folder, &hostname()).expect("made");
    let files = files(&folder);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&files.private_key)), (0o700, 0o600));
    let certificate = fs::read(&files.certificate).expect("there");
    Tls::self_signed(&folder, &hostname()).expect("loaded");
    assert_eq!(fs::read(&files.certificate).expect("there"), certificate);
    fs::remove_file(&files.private_key).expect("removed");
    Tls::self_signed(&folder, &hostname()).expect("made anew");
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().expect("made");
    Tls::self_signed(folder.path(), &hostname()).expect("made");
    let good = files(folder.path());
    let other = tempfile::tempdir().expect("made");
    Tls::self_signed(other.path(), &hostname()).expect("made");
    let junk = folder.path().join("junk.pem");
    fs::write(&junk, "no certificate here").expect("written");
    let check = |certificate: &Path, private_key: &Path, words: &[&str]| {
        let settings =
            TlsSettings { certificate: certificate.into(), private_key: private_key.into() };
        let error: TlsError = Tls::load(settings).err().expect("refused");
        for word in words {
            assert!(error.to_string().contains(word), "{error} lacks {word}");
        }
    };
    let missing = folder.path().join("missing.pem");
    check(&missing, &good.private_key, &["missing.pem", "No such file"]);
    check(&good.certificate, &missing, &["missing.pem", "No such file"]);
    check(&junk, &good.private_key, &["junk.pem", "no certificate"]);
    check(&good.certificate, &junk, &["junk.pem", "no private key"]);
    let theirs = files(other.path()).private_key;
    check(
        &good.certificate,
        &theirs,
        &["certificate.pem", "private_key.pem", "not that of the first"],
    );
}

#[tokio::test]
async fn a_changed_pair_is_taken_into_use_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().expect("made");
    let other = tempfile::tempdir().expect("made");
    let tls = Tls::self_signed(folder.path(), &hostname()).expect("made");
    Tls::self_signed(other.path(), &hostname()).expect("made");
    let (stop, stopped) = watch::channel(false);
    let watcher = tokio::spawn(tls.clone().watch(Duration::from_millis(5), stopped));
    assert!(handshake(&tls, folder.path(), rustls::ALL_VERSIONS).await.is_some());
    assert!(handshake(&tls, other.path(), rustls::ALL_VERSIONS).await.is_none());

    let (ours, theirs) = (files(folder.path()), files(other.path()));
    let keep = tempfile::tempdir().expect("made");
    fs::copy(&ours.certificate, keep.path().join("certificate.pem")).expect("copied");
    fs::write(&ours.certificate, "half a fi").expect("written");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        handshake(&tls, keep.path(), rustls::ALL_VERSIONS).await.is_some(),
        "the old one stays"
    );

    fs::copy(&theirs.certificate, &ours.certificate).expect("copied");
    fs::copy(&theirs.private_key, &ours.private_key).expect("copied");
    let taken = async {
        while handshake(&tls, other.path(), rustls::ALL_VERSIONS).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("taken into use");
    stop.send_replace(true);
    watcher.await.expect("no panic");
}
