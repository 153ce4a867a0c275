//! DNS servers for the daemon to ask: hickory-server in this process, NSD in one of its own, and
//! a responder that answers as a closure says, or not at all.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::Parser;
use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

use super::wait_for;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The `[dns]` keys that make the daemon ask this server, and not for long.
pub fn servers(address: SocketAddr) -> String {
    format!("servers = [\"{address}\"]\ntimeout_ms = 1000\nattempts = 1")
}

/// The records of a zone file in one root zone, so that a server knows what does not exist, as the
/// whole of DNS does.
pub fn root_zone(text: &str) -> String {
    let is_cut = |line: &&str| line.contains(" IN SOA ") || line.contains(" IN NS ");
    let mut zone = "$ORIGIN .\n$TTL 300\n. IN SOA ns.good.test. hostmaster.good.test. 1 3600 600 \
                    86400 300\n. IN NS ns.good.test.\n"
        .to_owned();
    for line in text.lines().filter(|line| !line.starts_with([';', '$']) && !is_cut(line)) {
        zone.push_str(line);
        zone.push('\n');
    }
    zone
}

/// hickory-server, over UDP and TCP.
pub struct HickoryServer {
    pub address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl HickoryServer {
    pub fn start(zones: &str) -> Self {
        // Its zone parser knows no quotes between parentheses.
        let text =
            root_zone(zones).replace("( \"", "\"").replace("\" )", "\"").replace("\"\n ", "\" ");
        let parser = Parser::new(text, None, Some(Name::root()));
        let (origin, records) = parser.parse().expect("a zone file");
        let zone = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
            origin.clone(),
            records,
            ZoneType::Primary,
            AxfrPolicy::Deny,
        );
        let mut catalog = Catalog::new();
        catalog.upsert(origin.into(), vec![Arc::new(zone.expect("a zone"))]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = runtime.block_on(async {
            let (udp, tcp) = bind_both().await;
            let address = udp.local_addr().expect("has an address");
            let mut server = Server::new(catalog);
            server.register_socket(udp);
            server.register_listener(tcp, Duration::from_secs(5), 4096);
            tokio::spawn(async move { server.block_until_done().await });
            address
        });
        Self { address, runtime: Some(runtime) }
    }
}

/// The same free port for UDP and TCP.
async fn bind_both() -> (tokio::net::UdpSocket, tokio::net::TcpListener) {
    for _ in 0..100 {
        let udp = tokio::net::UdpSocket::bind(LOOPBACK).await.expect("binds");
        let address = udp.local_addr().expect("has an address");
        if let Ok(tcp) = tokio::net::TcpListener::bind(address).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

impl Drop for HickoryServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// NSD, with a configuration and zones in a folder of its own.
pub struct Nsd {
    pub address: SocketAddr,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Nsd {
    pub fn start(zones: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, super::free_port()));
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "server:\n  ip-address: {}\n  port: {}\n  username: \"\"\n  chroot: \"\"\n  \
             server-count: 1\n  zonesdir: \"{}\"\n  database: \"\"\n  pidfile: \"{}\"\n  \
             xfrdfile: \"{}\"\n  zonelistfile: \"{}\"\n  xfrdir: \"{}\"\n  logfile: \"{}\"\n\
             remote-control:\n  control-enable: no\n",
            address.ip(),
            address.port(),
            at(""),
            at("nsd.pid"),
            at("xfrd.state"),
            at("zone.list"),
            at(""),
            at("nsd.log"),
        );
        config.push_str("zone:\n  name: \".\"\n  zonefile: \"root.zone\"\n");
        fs::write(dir.path().join("root.zone"), root_zone(zones)).expect("writes");
        fs::write(dir.path().join("nsd.conf"), config).expect("writes");
        let child = Command::new("/usr/sbin/nsd")
            .args(["-d", "-c", &at("nsd.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsd is installed by tests/setup.sh");
        let nsd = Self { address, child, _dir: dir };
        wait_for("nsd", || nsd.answers().then_some(()));
        nsd
    }

    fn answers(&self) -> bool {
        let socket = UdpSocket::bind(LOOPBACK).expect("binds");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("sets");
        let mut query = Message::query();
        let name = Name::from_ascii("good.test.").expect("a name");
        query.add_query(hickory_proto::op::Query::query(name, RecordType::SOA));
        let bytes = query.to_vec().expect("encodes");
        // Until it is up, the system refuses the packet.
        socket.send_to(&bytes, self.address).is_ok() && socket.recv_from(&mut [0; 512]).is_ok()
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: it has children of its own to stop.
        let pid = self.child.id().to_string();
        drop(Command::new("kill").arg(&pid).status());
        drop(self.child.wait());
    }
}

/// Answers each query over UDP with what a closure makes of it, in a thread of its own; `None` is
/// silence.
pub struct Responder {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub fn start(answer: impl Fn(&Message) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let socket = UdpSocket::bind(LOOPBACK).expect("binds");
        let address = socket.local_addr().expect("has an address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
        let stop = Arc::new(AtomicBool::new(false));
        let (answer, is_over) = (Arc::new(answer), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                let (socket, answer) = (socket.try_clone().expect("clones"), Arc::clone(&answer));
                std::thread::spawn(move || {
                    if let Some(bytes) = answer(&query) {
                        // The daemon may have given up waiting.
                        drop(socket.send_to(&bytes, peer));
                    }
                });
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Answers nothing.
    pub fn silent() -> Self {
        Self::start(|_| None)
    }

    pub fn servfail() -> Self {
        Self::start(|query| encode(reply(query, ResponseCode::ServFail, vec![])))
    }

    /// Answers everything as `truth` would, much too late.
    pub fn slow(by: Duration) -> Self {
        Self::start(move |query| {
            std::thread::sleep(by);
            encode(reply(query, ResponseCode::NoError, vec![permission(query)]))
        })
    }

    /// Permits everything, in answers whose id is not the question's.
    pub fn wrong_id() -> Self {
        Self::start(|query| {
            let mut answer = reply(query, ResponseCode::NoError, vec![permission(query)]);
            answer.metadata.id = query.metadata.id.wrapping_add(1);
            encode(answer)
        })
    }

    /// Permits everything, in answers to another question.
    pub fn wrong_question() -> Self {
        Self::start(|query| {
            let mut other = query.clone();
            for question in &mut other.queries {
                question.set_name(Name::from_ascii("other.test.").expect("a name"));
            }
            encode(reply(&other, ResponseCode::NoError, vec![permission(&other)]))
        })
    }

    /// Answers with octets that are no DNS message beyond the header.
    pub fn garbage() -> Self {
        Self::start(|query| {
            let mut bytes = encode(reply(query, ResponseCode::NoError, vec![]))?;
            bytes.truncate(12);
            bytes.extend([0xff; 200]);
            Some(bytes)
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// An authoritative answer to a query.
pub fn reply(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.response_code = code;
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.clone());
    reply.add_answers(answers);
    reply
}

pub fn encode(message: Message) -> Option<Vec<u8>> {
    Some(message.to_vec().expect("encodes"))
}

/// A TXT record under the name asked for.
pub fn permission(query: &Message) -> Record {
    let name = query.queries.first().expect("a question").name().clone();
    Record::from_rdata(name, 60, RData::TXT(TXT::new(vec!["v=spf1 +all".into()])))
}
