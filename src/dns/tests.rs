//! The system resolver against a name server on a loopback port, byte for byte on the wire.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::rdata::{A, CNAME, SOA, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

/// A name server whose answers depend on the first label of the name; counts the queries.
struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::SeqCst);
                if let Some(response) = respond(&buffer[..length], Transport::Udp) {
                    udp.send_to(&response, peer).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let response = respond(&query, Transport::Tcp).unwrap();
                stream.write_u16(response.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&response).await.unwrap();
            }
        });
        Self { address, queries }
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        self.resolver_with(1)
    }

    fn resolver_with(&self, attempts: usize) -> Arc<dyn Resolver> {
        from_settings(&self.settings(attempts, false), Path::new("/nonexistent")).unwrap()
    }

    fn trusted_resolver(&self) -> Arc<dyn Resolver> {
        from_settings(&self.settings(1, true), Path::new("/nonexistent")).unwrap()
    }

    fn settings(&self, attempts: usize, trust_ad: bool) -> Settings {
        Settings {
            source: Source::Servers(vec![self.address]),
            timeout: Duration::from_millis(300),
            attempts,
            trust_ad,
            ..Settings::default()
        }
    }
}

fn respond(query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries.first().unwrap().clone();
    let name = question.name().clone();
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.add_query(question);
    let txt = |text: &str| RData::TXT(TXT::new(vec![text.to_owned()]));
    let mut record = |owner: &Name, data| {
        response.add_answer(Record::from_rdata(owner.clone(), 300, data));
    };
    match &*String::from_utf8_lossy(name.iter().next().unwrap()) {
        "text" => {
            record(&name, RData::TXT(TXT::new(vec!["one ".to_owned(), "two".to_owned()])));
        }
        "alias" => {
            let target = Name::from_ascii("target.test.").unwrap();
            record(&name, RData::CNAME(CNAME(target.clone())));
            record(&target, RData::A(A::new(192, 0, 2, 7)));
        }
        "signed" => {
            record(&name, RData::A(A::new(192, 0, 2, 8)));
            response.metadata.authentic_data = query.metadata.authentic_data;
        }
        // Says that it validated, whether or not it was asked.
        "boastful" => {
            record(&name, RData::A(A::new(192, 0, 2, 9)));
            response.metadata.authentic_data = true;
        }
        // Leaves it to the client to follow, out of a zone that is not signed.
        "half" => {
            let target = Name::from_ascii("signed.test.").unwrap();
            record(&name, RData::CNAME(CNAME(target)));
        }
        "_25" => {
            let data = vec![0xab; 32];
            let (usage, selector) = (CertUsage::DaneEe, Selector::Spki);
            record(&name, RData::TLSA(TLSA::new(usage, selector, Matching::Sha256, data)));
        }
        "long" if transport == Transport::Udp => response.metadata.truncation = true,
        "long" => record(&name, txt("over TCP")),
        "odd label\0\"" => record(&name, txt("odd")),
        "missing" => {
            let zone = Name::from_ascii("test.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 30);
            response.add_authority(Record::from_rdata(zone, 30, RData::SOA(soa)));
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        "empty" => {}
        "broken" => response.metadata.response_code = ResponseCode::ServFail,
        "silent" => return None,
        other => panic!("unexpected name {other:?}"),
    }
    Some(response.to_vec().unwrap())
}

async fn check(name: &str, record_type: RecordType, expected: Result<RecordData, LookupError>) {
    let server = Server::start().await;
    let result = server.resolver().lookup(name, record_type).await;
    let result = result.map(|answer| answer.records.first().unwrap().clone());
    match expected {
        Err(LookupError::Transient(_)) => {
            assert!(matches!(result, Err(LookupError::Transient(_))), "{name}: {result:?}");
        }
        expected => assert_eq!(result, expected, "{name}"),
    }
}

fn txt(text: &str) -> RecordData {
    RecordData::Txt(text.as_bytes().into())
}

#[tokio::test]
async fn answers_of_a_server_are_read() {
    check("text.test", RecordType::Txt, Ok(txt("one two"))).await;
    check("alias.test", RecordType::A, Ok(RecordData::A([192, 0, 2, 7].into()))).await;
    check("odd label\0\".test", RecordType::Txt, Ok(txt("odd"))).await;
    let data = [0xab; 32].into();
    let tlsa = Tlsa { usage: 3, selector: 1, matching_type: 1, data };
    check("_25._tcp.mx.test", RecordType::Tlsa, Ok(RecordData::Tlsa(tlsa))).await;
}

#[tokio::test]
async fn an_answer_is_secure_if_a_trusted_server_says_so() {
    let server = Server::start().await;
    for (resolver, is_trusted) in [(server.resolver(), false), (server.trusted_resolver(), true)] {
        for (name, is_validated) in
            [("signed.test", true), ("boastful.test", true), ("alias.test", false)]
        {
            // The second answer is the cache's.
            for _ in 0..2 {
                let answer = resolver.lookup(name, RecordType::A).await.unwrap();
                assert_eq!(answer.is_secure, is_trusted && is_validated, "{name} {is_trusted}");
            }
        }
    }
}

#[tokio::test]
async fn a_chain_of_cnames_is_as_secure_as_its_weakest_link() {
    let server = Server::start().await;
    let answer = server.trusted_resolver().lookup("half.test", RecordType::A).await.unwrap();
    assert_eq!(answer.records[..], [RecordData::A([192, 0, 2, 8].into())]);
    assert!(!answer.is_secure, "the CNAME itself was not validated");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    check("long.test", RecordType::Txt, Ok(txt("over TCP"))).await;
}

#[tokio::test]
async fn failures_are_told_apart() {
    check("missing.test", RecordType::Txt, Err(LookupError::NoSuchName)).await;
    check("empty.test", RecordType::Txt, Err(LookupError::NoData)).await;
    let transient = || Err(LookupError::Transient(String::new()));
    check("broken.test", RecordType::Txt, transient()).await;
    check("silent.test", RecordType::Txt, transient()).await;
}

#[tokio::test]
async fn positive_and_negative_answers_are_asked_for_once() {
    let server = Server::start().await;
    let resolver = server.resolver();
    for name in ["text.test", "missing.test", "empty.test"] {
        let before = server.queries.load(Ordering::SeqCst);
        for _ in 0..3 {
            // Only the number of queries counts here.
            let _result = resolver.lookup(name, RecordType::Txt).await;
        }
        assert_eq!(server.queries.load(Ordering::SeqCst), before + 1, "{name}");
    }
}

#[tokio::test]
async fn a_query_is_sent_as_often_as_set() {
    for attempts in [1, 2, 3] {
        let server = Server::start().await;
        let result = server.resolver_with(attempts).lookup("silent.test", RecordType::A).await;
        assert!(matches!(result, Err(LookupError::Transient(_))), "{result:?}");
        assert_eq!(server.queries.load(Ordering::SeqCst), attempts);
    }
}

#[tokio::test]
async fn of_several_lookups_only_the_late_ones_fail_at_the_deadline() {
    let server = Server::start().await;
    let resolver = server.resolver();
    let deadline = Instant::now() + Duration::from_millis(150);
    let names = [("silent.test", RecordType::Txt), ("text.test", RecordType::Txt)];
    let results = lookup_all(&*resolver, &names, deadline).await;
    assert!(matches!(results[0], Err(LookupError::Transient(_))), "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");
}

#[tokio::test]
async fn a_zone_file_is_sought_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("demo.zone"), "host.test. 60 IN A 192.0.2.1\n").unwrap();
    let source = Source::ZoneFile("demo.zone".into());
    let settings = Settings { source, ..Settings::default() };
    let resolver = from_settings(&settings, folder.path()).unwrap();
    assert!(resolver.lookup("host.test", RecordType::A).await.is_ok());
    let error = from_settings(&settings, Path::new("/nonexistent")).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/demo.zone"), "{error}");
}

#[test]
fn reverse_names_are_spelled_as_their_zones_spell_them() {
    assert_eq!(reverse_name("192.0.2.1".parse().unwrap()), "1.2.0.192.in-addr.arpa");
    let v6 = reverse_name("2001:db8::cb01".parse().unwrap());
    assert_eq!(v6, "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

#[tokio::test]
async fn a_long_key_may_stand_on_several_lines() {
    let text =
        "$ORIGIN .\n$TTL 300\nk.test. IN TXT ( \"v=DKIM1; k=rsa; p=AAAA\"\n        \"BBBB\" )\n";
    let zone = ZoneResolver::parse(text, std::path::Path::new("z")).expect("a zone");
    let answer = zone.lookup("k.test", RecordType::Txt).await.expect("an answer");
    assert_eq!(
        answer.records[..],
        [RecordData::Txt(b"v=DKIM1; k=rsa; p=AAAABBBB".as_slice().into())]
    );
}
