//! Authentication against scripted DNS, with messages signed here.

mod arc;
mod by_hand;
mod dkim;
mod dmarc;
mod door;
mod iprev;
mod sign;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail_auth::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::dkim::DkimSigner;
use mail_auth::headers::HeaderWriter;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::clock::Timestamp;
use crate::dns::{
    Answer, Lookup, LookupError, LookupResult, RecordData, RecordType, Resolver, reverse_name,
};
use crate::heavy::{Turn, Weight};
use crate::id::TraceId;
use crate::mail::{Address, Authors, Domain, Peer, ReversePath};

const MESSAGE: &str = "From: Alice <alice@example.test>\r\nTo: bob@example.org\r\n\
                       Subject: Tea\r\nDate: Sat, 21 Nov 2026 04:31:26 +0000\r\n\
                       Message-ID: <1@example.test>\r\n\r\nTea at five?\r\n";
const SIGNED_FIELDS: [&str; 5] = ["From", "To", "Subject", "Date", "Message-ID"];
const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_000);
const CLIENT: &str = "192.0.2.1";

/// DNS as a test says it is; it remembers what it was asked.
#[derive(Default)]
struct Dns {
    answers: HashMap<(String, RecordType), LookupResult>,
    silent: Vec<String>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    fn with(mut self, name: &str, data: RecordData) -> Self {
        let key = (name.to_owned(), data.record_type());
        let mut records: Vec<RecordData> = match self.answers.get(&key) {
            Some(Ok(answer)) => answer.records.to_vec(),
            _ => Vec::new(),
        };
        records.push(data);
        let answer =
            Answer { records: records.into(), ttl: Duration::from_secs(300), is_secure: false };
        self.answers.insert(key, Ok(answer));
        self
    }

    fn txt(self, name: &str, text: &str) -> Self {
        self.with(name, RecordData::Txt(text.as_bytes().into()))
    }

    fn a(self, name: &str, address: &str) -> Self {
        self.with(
            name,
            match address.parse().unwrap() {
                IpAddr::V4(v4) => RecordData::A(v4),
                IpAddr::V6(v6) => RecordData::Aaaa(v6),
            },
        )
    }

    fn ptr(self, address: &str, name: &str) -> Self {
        self.with(&reverse_name(address.parse().unwrap()), RecordData::Ptr(name.into()))
    }

    /// SERVFAIL for every type.
    fn broken(mut self, name: &str) -> Self {
        for record_type in [RecordType::Txt, RecordType::A, RecordType::Aaaa, RecordType::Ptr] {
            let error = Err(LookupError::Transient("SERVFAIL".to_owned()));
            self.answers.insert((name.to_owned(), record_type), error);
        }
        self
    }

    /// No answer ever.
    fn silent(mut self, name: &str) -> Self {
        self.silent.push(name.to_owned());
        self
    }

    /// The keys of this folder's signers.
    fn keys(self) -> Self {
        self.txt("rsa._domainkey.example.test", include_str!("../../../fixtures/keys/rsa2048.txt"))
            .txt("ed._domainkey.example.test", include_str!("../../../fixtures/keys/ed25519.txt"))
    }

    fn spf_pass(self, domain: &str) -> Self {
        self.txt(domain, &format!("v=spf1 ip4:{CLIENT} -all"))
    }

    async fn authenticate(self, message: &str) -> Authentication {
        self.authenticate_from(message, "alice@example.test").await
    }

    async fn authenticate_from(self, message: &str, reverse_path: &str) -> Authentication {
        authenticate_with(self, message, reverse_path, TraceId::generate()).await
    }
}

impl Resolver for Dns {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.asked.lock().unwrap().push(name.clone());
        if self.silent.contains(&name) {
            return Box::pin(std::future::pending());
        }
        let exists = || self.answers.keys().any(|(other, _)| other.ends_with(&name));
        let result = match self.answers.get(&(name.clone(), record_type)) {
            Some(result) => result.clone(),
            None if exists() => Err(LookupError::NoData),
            None => Err(LookupError::NoSuchName),
        };
        Box::pin(std::future::ready(result))
    }
}

fn peer() -> Peer {
    Peer {
        ip: CLIENT.parse().unwrap(),
        port: 40_000,
        helo: "mail.example.test".to_owned(),
        esmtp: true,
        tls: None,
        login: None,
    }
}

fn reverse_path(text: &str) -> ReversePath {
    match text {
        "" => ReversePath::Null,
        text => ReversePath::Address(Address::parse(text).unwrap()),
    }
}

fn settings() -> Settings {
    Settings { authserv_id: "mx.example.org".to_owned(), ..Settings::default() }
}

async fn authenticate_with(
    dns: Dns,
    message: &str,
    path: &str,
    trace_id: TraceId,
) -> Authentication {
    let authenticator = Authenticator::new(Arc::new(dns), settings());
    let (peer, reverse_path) = (peer(), reverse_path(path));
    let message = message.as_bytes();
    let authors = Authors::of(message).map(Authors::into_addresses).unwrap_or_default();
    let request = Request {
        message,
        weight: Weight::of(message),
        peer: &peer,
        reverse_path: &reverse_path,
        authors: &authors,
        trace_id,
        now: NOW,
    };
    authenticator.authenticate(&request).await
}

fn rsa_key() -> RsaKey<Sha256> {
    let pem = include_bytes!("../../../fixtures/keys/rsa2048.pem");
    RsaKey::from_key_der(PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap()
}

fn ed25519_key() -> Ed25519Key {
    let pem = include_bytes!("../../../fixtures/keys/ed25519.pem");
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_pkcs8_der()).unwrap()
}

/// `message` with a signature of `domain` on top, by the RSA key.
fn signed_by(domain: &str, message: &str) -> String {
    let signer = DkimSigner::from_key(rsa_key()).domain(domain).selector("rsa");
    let signature = signer.headers(SIGNED_FIELDS).sign(message.as_bytes()).unwrap();
    signature.to_header() + message
}

fn signed_with_ed25519(message: &str) -> String {
    let signer = DkimSigner::from_key(ed25519_key()).domain("example.test").selector("ed");
    let signature = signer.headers(SIGNED_FIELDS).sign(message.as_bytes()).unwrap();
    signature.to_header() + message
}
