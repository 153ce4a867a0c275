//! DKIM signatures and ARC sets as no library makes them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use data_encoding::BASE64;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// A DKIM-Signature field of example.test for a message whose body is canonical, with this `l=`; its
/// body hash is that of as many octets.
pub(super) fn sign(message: &str, canonicalization: &str, length: u64) -> String {
    let (header, body) = message.split_once("\r\n\r\n").unwrap();
    let covered = body.len().min(usize::try_from(length).unwrap());
    let hash = digest(&SHA256, &body.as_bytes()[..covered]);
    let value = format!(
        "v=1; a=rsa-sha256; c={canonicalization}; d=example.test; s=rsa; l={length}; \
         h=From:Subject; bh={}; b=",
        BASE64.encode(hash.as_ref())
    );
    let is_relaxed = canonicalization.starts_with("relaxed/");
    let canonical = |name: &str, value: &str| match is_relaxed {
        true => format!("{}:{value}", name.to_lowercase()),
        false => format!("{name}: {value}"),
    };
    let mut signed = String::new();
    for name in ["From", "Subject"] {
        let start = format!("{name}: ");
        let value = header.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        signed += &canonical(name, value);
        signed += "\r\n";
    }
    signed += &canonical("DKIM-Signature", &value);
    format!("DKIM-Signature: {value}{}\r\n", signature_of(&signed))
}

/// An ARC set of example.test (RFC 8617 §4) on top of a message whose body is canonical, with this
/// `c=` tag, which may be empty. Everything is signed as `simple` has it.
pub(super) fn arc_set(message: &str, canonicalization: &str) -> String {
    let (header, body) = message.split_once("\r\n\r\n").unwrap();
    let hash = BASE64.encode(digest(&SHA256, body.as_bytes()).as_ref());
    let results = "i=1; mx.forwarder.test; none";
    let value = format!(
        "i=1; a=rsa-sha256; {canonicalization}d=example.test; s=rsa; h=From:Subject; bh={hash}; b="
    );
    let fields = ["From: ", "Subject: "].map(|start| {
        let field = header.lines().find(|line| line.starts_with(start)).unwrap();
        format!("{field}\r\n")
    });
    let signed = format!("{}ARC-Message-Signature: {value}", fields.concat());
    let value = format!("{value}{}", signature_of(&signed));
    // RFC 8617 §5.1.1: seals are relaxed, whatever the signature is.
    let seal = "i=1; a=rsa-sha256; cv=none; d=example.test; s=rsa; b=";
    let sealed = format!(
        "arc-authentication-results:{results}\r\narc-message-signature:{value}\r\narc-seal:{seal}"
    );
    format!(
        "ARC-Seal: {seal}{}\r\nARC-Message-Signature: {value}\r\n\
         ARC-Authentication-Results: {results}\r\n{message}",
        signature_of(&sealed)
    )
}

/// By the key of example.test with the selector `rsa`.
fn signature_of(signed: &str) -> String {
    let pem = include_bytes!("../../../fixtures/keys/rsa2048.pem");
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let key = match &key {
        PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap(),
        key => KeyPair::from_der(key.secret_der()).unwrap(),
    };
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    BASE64.encode(&signature)
}
