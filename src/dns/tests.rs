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

/// What a server does with a query that has EDNS.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edns {
    Takes,
    /// Answers as if it had none, without an OPT record.
    Ignores,
    /// Answers with this code, and the question.
    Refuses(ResponseCode),
    /// Answers with FORMERR and the header alone.
    RefusesShortly,
    /// Answers nothing.
    Drops,
}

/// A name server whose answers depend on the first label of the name; counts the queries.
struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        Self::with_edns(Edns::Takes).await
    }

    async fn with_edns(edns: Edns) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::SeqCst);
                if let Some(response) = respond(&buffer[..length], Transport::Udp, edns) {
                    udp.send_to(&response, peer).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let response = respond(&query, Transport::Tcp, edns).unwrap();
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

/// What a server that does not know EDNS says to a query that has it.
fn respond_to_edns(mut response: Message, edns: Edns) -> Option<Vec<u8>> {
    response.metadata.response_code = ResponseCode::FormErr;
    match edns {
        Edns::Drops => return None,
        Edns::RefusesShortly => response.queries.clear(),
        Edns::Refuses(ResponseCode::BADVERS) => {
            // The code's upper bits are the OPT record's.
            response.metadata.response_code = ResponseCode::BADVERS;
            response.edns = Some(hickory_proto::op::Edns::new());
        }
        Edns::Refuses(code) => response.metadata.response_code = code,
        Edns::Takes | Edns::Ignores => panic!("it answers"),
    }
    Some(response.to_vec().unwrap())
}

/// A server that answers everything with this code, on two addresses.
async fn lost(code: ResponseCode) -> [SocketAddr; 2] {
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 2];
    for address in &mut addresses {
        let socket = UdpSocket::bind(*address).await.unwrap();
        *address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let mut response = Message::response(query.metadata.id, query.metadata.op_code);
                response.add_queries(query.queries.clone());
                response.metadata.response_code = code;
                socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
            }
        });
    }
    addresses
}

fn respond(query: &[u8], transport: Transport, edns: Edns) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries.first().unwrap().clone();
    let name = question.name().clone();
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.add_query(question);
    match edns {
        Edns::Takes => response.edns = query.edns.clone(),
        Edns::Ignores => {}
        _ if query.edns.is_some() => return respond_to_edns(response, edns),
        _ => {}
    }
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
        "refused" => response.metadata.response_code = ResponseCode::Refused,
        "fleeting" => {
            let address = RData::A(A::new(192, 0, 2, 3));
            response.add_answer(Record::from_rdata(name.clone(), 0, address));
        }
        "silent" => return None,
        label if label.starts_with('n') => record(&name, txt("numbered")),
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

async fn check_edns(edns: Edns, first: usize) {
    let server = Server::with_edns(edns).await;
    let resolver = server.resolver_with(2);
    // However often it is asked, only the first time costs more.
    for (name, queries) in [("n1.test", first), ("n2.test", 1), ("n3.test", 1)] {
        let before = server.queries.load(Ordering::SeqCst);
        let answer = resolver.lookup(name, RecordType::Txt).await;
        let answer = answer.unwrap_or_else(|error| panic!("{edns:?}, {name}: {error}"));
        assert_eq!(answer.records[..], [txt("numbered")], "{edns:?}");
        let asked = server.queries.load(Ordering::SeqCst) - before;
        assert_eq!(asked, queries, "{edns:?}, {name}");
    }
    let answer = resolver.lookup("long.test", RecordType::Txt).await;
    let answer = answer.unwrap_or_else(|error| panic!("{edns:?} over TCP: {error}"));
    assert_eq!(answer.records[..], [txt("over TCP")], "{edns:?}");
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_without_it() {
    check_edns(Edns::Takes, 1).await;
    check_edns(Edns::Ignores, 1).await;
    for code in [ResponseCode::FormErr, ResponseCode::NotImp, ResponseCode::BADVERS] {
        check_edns(Edns::Refuses(code), 2).await;
    }
    check_edns(Edns::RefusesShortly, 2).await;
    check_edns(Edns::Drops, 2).await;
}

#[tokio::test]
async fn a_validated_answer_is_believed_without_edns_too() {
    let server = Server::with_edns(Edns::Refuses(ResponseCode::FormErr)).await;
    let answer = server.trusted_resolver().lookup("signed.test", RecordType::A).await.unwrap();
    assert!(answer.is_secure);
}

/// An address on which every packet is refused: the port is taken, by a socket that hears nobody
/// but itself.
struct RefusingPort(std::net::UdpSocket);

impl RefusingPort {
    fn open() -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

fn asking(servers: Vec<SocketAddr>) -> Arc<dyn Resolver> {
    let source = Source::Servers(servers);
    let timeout = Duration::from_millis(300);
    let settings = Settings { source, timeout, attempts: 2, ..Settings::default() };
    from_settings(&settings, Path::new("/nonexistent")).unwrap()
}

#[tokio::test]
async fn a_refused_query_is_not_waited_for() {
    let port = RefusingPort::open();
    let resolver = asking(vec![port.address()]);
    // The first is refused by the system, the next from memory.
    for name in ["n1.test", "n2.test"] {
        let Err(LookupError::Transient(problem)) = resolver.lookup(name, RecordType::A).await
        else {
            panic!("nobody answers there");
        };
        assert!(problem.ends_with(": connection refused"), "{problem}");
        assert!(problem.starts_with(&port.address().to_string()), "{problem}");
    }
}

#[tokio::test]
async fn where_one_server_fails_another_is_asked() {
    let good = Server::start().await;
    let ports = [RefusingPort::open(), RefusingPort::open()];
    let closed = ports.each_ref().map(RefusingPort::address);
    for bad in [
        closed,
        lost(ResponseCode::ServFail).await,
        lost(ResponseCode::Refused).await,
        lost(ResponseCode::NotImp).await,
        lost(ResponseCode::FormErr).await,
    ] {
        let resolver = asking(vec![bad[0], bad[1], good.address]);
        // hickory asks two at a time, which two is chance.
        for number in 0..12 {
            let name = format!("n{number}.test");
            let answer = resolver.lookup(&name, RecordType::Txt).await;
            assert!(answer.is_ok(), "{bad:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_every_server_fails_at_fails() {
    let servers = [Server::start().await, Server::start().await];
    let resolver = asking(servers.iter().map(|server| server.address).collect());
    for (name, code) in [("broken.test", "Server Failure"), ("refused.test", "Query Refused")] {
        let Err(LookupError::Transient(problem)) = resolver.lookup(name, RecordType::A).await
        else {
            panic!("nobody answers {name}");
        };
        assert!(problem.ends_with(&format!(" answers {code}")), "{problem}");
    }
    let missing = resolver.lookup("missing.test", RecordType::A).await;
    assert_eq!(missing, Err(LookupError::NoSuchName), "is an answer, not a failure");
}

#[tokio::test]
async fn an_answer_without_time_to_live_is_for_one_lookup() {
    let server = Server::start().await;
    let resolver = server.resolver();
    for queries in 1..4 {
        let answer = resolver.lookup("fleeting.test", RecordType::A).await.unwrap();
        assert_eq!(answer.records[..], [RecordData::A([192, 0, 2, 3].into())]);
        assert_eq!(server.queries.load(Ordering::SeqCst), queries);
    }
}

#[tokio::test]
async fn a_resolver_is_kept_until_its_settings_change() {
    let server = Server::start().await;
    let settings = server.settings(1, false);
    let base = Path::new("/nonexistent");
    let first = Configured::new(&settings, base).unwrap();
    first.resolver().lookup("text.test", RecordType::Txt).await.unwrap();
    let kept = first.renewed(&settings, base).unwrap();
    kept.resolver().lookup("text.test", RecordType::Txt).await.unwrap();
    assert_eq!(server.queries.load(Ordering::SeqCst), 1, "the cache is lost");
    for changed in [
        Settings { attempts: 3, ..settings.clone() },
        Settings { trust_ad: true, ..settings.clone() },
        Settings { cache_entries: 7, ..settings.clone() },
    ] {
        let before = server.queries.load(Ordering::SeqCst);
        let renewed = kept.renewed(&changed, base).unwrap();
        renewed.resolver().lookup("text.test", RecordType::Txt).await.unwrap();
        assert_eq!(server.queries.load(Ordering::SeqCst), before + 1, "{changed:?}");
    }
}

#[tokio::test]
async fn a_zone_file_is_read_again_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let write = |records: &str| std::fs::write(folder.path().join("a.zone"), records).unwrap();
    let settings = Settings { source: Source::ZoneFile("a.zone".into()), ..Settings::default() };
    write("host.test. 60 IN A 192.0.2.1\n");
    let first = Configured::new(&settings, folder.path()).unwrap();
    write("host.test. 60 IN A 192.0.2.2\n");
    let renewed = first.renewed(&settings, folder.path()).unwrap();
    let answer = renewed.resolver().lookup("host.test", RecordType::A).await.unwrap();
    assert_eq!(answer.records[..], [RecordData::A([192, 0, 2, 2].into())]);
    write("host.test. 60 IN A 192.0.2.300\n");
    assert!(renewed.renewed(&settings, folder.path()).is_err());
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
