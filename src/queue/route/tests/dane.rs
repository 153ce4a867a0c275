//! DANE, from the TLSA record to the handshake.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::authority::{Authority, Leaf};
use super::*;
use crate::smtp::client::client_config;

const HOSTS: &str = "
to.test.       IN MX 10 mx.to.test.
mx.to.test.    IN A 192.0.2.1
";

fn tlsa(name: &str, parameters: &str, data: &[u8]) -> String {
    let hex: String = data.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("_25._tcp.{name}. IN TLSA {parameters} {hex}\n")
}

fn sha256(data: &[u8]) -> Vec<u8> {
    digest(&SHA256, data).as_ref().to_vec()
}

fn sha512(data: &[u8]) -> Vec<u8> {
    digest(&SHA512, data).as_ref().to_vec()
}

/// What the only host of `to.test` must show, by these records.
async fn only_hop(records: &str) -> Hop {
    let router = router(&World::new(&format!("{HOSTS}{records}")));
    let route = router.route(&domain("to.test")).await.unwrap();
    let [hop] = route.hops() else { panic!("{route:?}") };
    hop.clone()
}

/// A handshake as the hop wants it, with a server that shows this.
async fn connect(
    hop: &Hop,
    leaf: &Leaf,
    path: &[CertificateDer<'static>],
    version: &'static rustls::SupportedProtocolVersion,
) -> Result<(), String> {
    let config = client_config(verifier(hop).expect("TLS is asked for"));
    let (ours, theirs) = tokio::io::duplex(65_536);
    let acceptor = leaf.acceptor(path, version);
    let server = tokio::spawn(async move { acceptor.accept(theirs).await.is_ok() });
    let name = ServerName::try_from(hop.name.clone()).unwrap();
    let result = TlsConnector::from(Arc::new(config)).connect(name, ours).await;
    let result = result.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(server.await.unwrap() || version == &TLS13, result.is_ok() || version == &TLS13);
    result
}

/// Records, the server's certificate and path, and the problem that there is, if there is one.
async fn check(
    records: &str,
    leaf: &Leaf,
    path: &[CertificateDer<'static>],
    expected: Result<(), &str>,
) {
    let hop = only_hop(records).await;
    for version in [&TLS12, &TLS13] {
        let result = connect(&hop, leaf, path, version).await;
        match (&result, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) if found.contains(expected) => {}
            _ => panic!("{records}: expected {expected:?}, found {result:?}"),
        }
    }
}

const NO_MATCH: Result<(), &str> = Err("no TLSA record matches the certificate");

#[tokio::test]
async fn a_servers_own_key_is_enough() {
    let authority = Authority::new("some authority");
    // Neither its name nor its dates count (RFC 7672 §3.1.1).
    let leaf = authority.expired_leaf("elsewhere.test");
    let other = authority.leaf("mx.to.test");
    let (whole, key) = (leaf.certificate.to_vec(), leaf.public_key());
    for (parameters, data) in [
        ("3 0 0", whole.clone()),
        ("3 0 1", sha256(&whole)),
        ("3 0 2", sha512(&whole)),
        ("3 1 0", key.clone()),
        ("3 1 1", sha256(&key)),
        ("3 1 2", sha512(&key)),
    ] {
        let record = tlsa("mx.to.test", parameters, &data);
        check(&record, &leaf, &[], Ok(())).await;
        check(&record, &other, &[authority.certificate()], NO_MATCH).await;
    }
}

#[tokio::test]
async fn a_record_that_does_not_fit_the_certificate_stops_the_mail() {
    let leaf = Authority::new("some authority").leaf("mx.to.test");
    for (parameters, data) in [
        ("3 1 1", sha256(&leaf.certificate)),
        ("3 0 1", sha256(&leaf.public_key())),
        ("3 1 2", vec![0; 64]),
        ("2 1 1", sha256(&leaf.public_key())),
    ] {
        check(&tlsa("mx.to.test", parameters, &data), &leaf, &[], NO_MATCH).await;
    }
}

#[tokio::test]
async fn an_authority_vouches_for_names_and_dates() {
    let root = Authority::new("root");
    let middle = root.below("middle");
    let path = [middle.certificate(), root.certificate()];
    let anchors = [
        ("2 0 1", sha256(&root.certificate())),
        ("2 0 2", sha512(&root.certificate())),
        ("2 0 1", sha256(&middle.certificate())),
        ("2 0 0", root.certificate().to_vec()),
    ];
    for (parameters, data) in anchors {
        let record = tlsa("mx.to.test", parameters, &data);
        // RFC 7672 §3.2.3: the host's name, or the domain's.
        for name in ["mx.to.test", "*.to.test", "to.test"] {
            check(&record, &middle.leaf(name), &path, Ok(())).await;
        }
        check(&record, &middle.leaf("mx.elsewhere.test"), &path, Err("not valid for name")).await;
        check(&record, &middle.expired_leaf("mx.to.test"), &path, Err("xpired")).await;
    }
}

#[tokio::test]
async fn an_authority_must_be_in_the_servers_path_or_in_the_record() {
    let root = Authority::new("root");
    let leaf = root.leaf("mx.to.test");
    let digest = tlsa("mx.to.test", "2 0 1", &sha256(&root.certificate()));
    check(&digest, &leaf, &[], NO_MATCH).await;
    check(&digest, &leaf, &[root.certificate()], Ok(())).await;
    let whole = tlsa("mx.to.test", "2 0 0", &root.certificate());
    check(&whole, &leaf, &[], Ok(())).await;
    // Beside the certificate of the right authority, one that another of its name has made.
    let forged = Authority::new("root").leaf("mx.to.test");
    check(&digest, &forged, &[root.certificate()], Err("ignature")).await;
}

#[tokio::test]
async fn of_several_records_one_must_match() {
    let root = Authority::new("root");
    let leaf = root.leaf("mx.to.test");
    let wrong = tlsa("mx.to.test", "3 1 1", &[0; 32]);
    let right = tlsa("mx.to.test", "3 1 1", &sha256(&leaf.public_key()));
    let anchor = tlsa("mx.to.test", "2 0 1", &sha256(&root.certificate()));
    check(&format!("{wrong}{right}"), &leaf, &[], Ok(())).await;
    check(&format!("{wrong}{anchor}"), &leaf, &[root.certificate()], Ok(())).await;
    check(&format!("{wrong}{anchor}"), &leaf, &[], NO_MATCH).await;
    // RFC 7671 §9: the weaker digest does not count.
    let stronger = tlsa("mx.to.test", "3 1 2", &[0; 64]);
    check(&format!("{right}{stronger}"), &leaf, &[], NO_MATCH).await;
    let unusable = tlsa("mx.to.test", "3 1 2", &[0; 63]);
    check(&format!("{right}{unusable}"), &leaf, &[], Ok(())).await;
}

#[tokio::test]
async fn records_that_cannot_be_used_ask_for_encryption_alone() {
    let leaf = Authority::new("some authority").expired_leaf("elsewhere.test");
    for (parameters, octets) in
        [("0 0 1", 32), ("1 1 1", 32), ("3 2 1", 32), ("3 1 3", 32), ("3 1 1", 31), ("4 1 1", 32)]
    {
        check(&tlsa("mx.to.test", parameters, &vec![0; octets]), &leaf, &[], Ok(())).await;
    }
}

/// The demand on each host.
async fn check_hosts(zone: &str, expected: Result<&[(&str, bool)], &str>) {
    let found = router(&World::new(zone)).route(&domain("to.test")).await;
    let shown = |hop: &Hop| (hop.name.clone(), verifier(hop).is_some());
    let found = found.map(|route| route.hops().iter().map(shown).collect::<Vec<_>>());
    let expected = expected.map(|hosts| {
        hosts.iter().map(|(name, verified)| ((*name).to_owned(), *verified)).collect::<Vec<_>>()
    });
    assert_eq!(found.map_err(|error| error.status()), expected, "{zone}");
}

#[tokio::test]
async fn only_a_secure_chain_of_answers_counts() {
    let record = |name: &str| tlsa(name, "3 1 1", &[0; 32]);
    let check = |zone: String, expected: &'static [(&'static str, bool)]| async move {
        check_hosts(&zone, Ok(expected)).await;
    };
    check(HOSTS.to_owned(), &[("mx.to.test", false)]).await;
    check(format!("{HOSTS}{}", record("mx.to.test")), &[("mx.to.test", true)]).await;
    // Each host by itself.
    let two = format!(
        "{HOSTS}to.test. IN MX 20 b.plain.test.\nb.plain.test. IN A 192.0.2.2\n{}{}",
        record("mx.to.test"),
        record("b.plain.test")
    );
    check(two, &[("mx.to.test", true), ("b.plain.test", false)]).await;
    // Records for which DNSSEC does not vouch; and those of a host for whose addresses it does not
    // are not even asked for: old servers may not answer for them (RFC 7672 §2.1.3).
    let outsourced = "to.test. IN MX 10 outsourced.test.\noutsourced.test. IN A 192.0.2.2\n";
    let outsourced = format!("{outsourced}{}", record("outsourced.test"));
    check(outsourced, &[("outsourced.test", false)]).await;
    let unsigned = "to.test. IN MX 10 mx.plain.test.\nmx.plain.test. IN A 192.0.2.2\n\
                    _25._tcp.mx.plain.test. IN CNAME _25._tcp.mx.plain.test.\n";
    check(unsigned.to_owned(), &[("mx.plain.test", false)]).await;
    // A domain that is its own host.
    let own = format!("to.test. IN A 192.0.2.1\n{}", record("to.test"));
    check(own, &[("to.test", true)]).await;
}

#[tokio::test]
async fn an_insecure_list_of_hosts_makes_their_records_worthless() {
    let zone = format!(
        "plain.test. IN MX 10 mx.to.test.\nmx.to.test. IN A 192.0.2.1\n{}",
        tlsa("mx.to.test", "3 1 1", &[0; 32])
    );
    let route = router(&World::new(&zone)).route(&domain("plain.test")).await.unwrap();
    assert!(verifier(&route.hops()[0]).is_none());
}

#[tokio::test]
async fn a_host_whose_records_cannot_be_looked_up_is_left_alone() {
    // A TLSA record behind a loop of CNAMEs has no answer.
    let withheld = "_25._tcp.mx.to.test. IN CNAME _25._tcp.mx.to.test.\n";
    check_hosts(&format!("{HOSTS}{withheld}"), Err("4.4.3")).await;
    let second = "to.test. IN MX 20 b.to.test.\nb.to.test. IN A 192.0.2.2\n";
    check_hosts(&format!("{HOSTS}{withheld}{second}"), Ok(&[("b.to.test", false)])).await;
}
