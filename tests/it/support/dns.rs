//! DNS servers on loopback: NSD as a process, hickory-server in this one, and bad ones.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, MX, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::spf_suite::Entry;
use super::{free_port, wait_for};

/// NSD with one zone, on a port of its own.
pub struct Nsd {
    child: Child,
    _dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Nsd {
    pub fn start(origin: &str, zone: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(dir.path().join("zone"), zone).expect("writes");
        let config = format!(
            "server:\n  ip-address: 127.0.0.1\n  port: {port}\n  username: \"\"\n  chroot: \"\"\n  \
             zonesdir: \"{}\"\n  pidfile: \"{}\"\n  xfrdfile: \"{}\"\n  zonelistfile: \"{}\"\n  \
             database: \"\"\n  server-count: 1\nremote-control:\n  control-enable: no\nzone:\n  \
             name: \"{origin}\"\n  zonefile: \"zone\"\n",
            dir.path().display(),
            at("nsd.pid"),
            at("xfrd.state"),
            at("zone.list")
        );
        fs::write(dir.path().join("nsd.conf"), config).expect("writes");
        let child = Command::new("/usr/sbin/nsd")
            .args(["-d", "-c", &at("nsd.conf")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsd is installed by tests/setup.sh");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self { child, _dir: dir, address };
        wait_for("nsd", || answers(address).then_some(()));
        server
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // nsd -d keeps its children in the foreground group and ends them on SIGTERM.
        drop(Command::new("kill").arg(self.child.id().to_string()).status());
        drop(self.child.wait());
    }
}

/// Asks for the root's SOA; any answer will do.
fn answers(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("sets");
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01";
    socket.send_to(query, address).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}

/// How a bad server answers.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    ServFail,
    Silent,
    Garbage,
    WrongId,
}

/// A UDP server with bad manners.
pub struct BadServer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub address: SocketAddr,
}

impl BadServer {
    pub fn start(manner: Manner) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("has an address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                let mut answer = query[..length].to_vec();
                match manner {
                    Manner::Silent => continue,
                    Manner::ServFail => {
                        answer[2] |= 0x80;
                        answer[3] = 0x82;
                    }
                    Manner::Garbage => answer = vec![0xff; 40],
                    Manner::WrongId => {
                        answer[0] ^= 0xff;
                        answer[2] |= 0x80;
                    }
                }
                drop(socket.send_to(&answer, from)); // The asker may have gone.
            }
        });
        Self { stop, thread: Some(thread), address }
    }
}

impl Drop for BadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// hickory-server with one zone, in this process.
pub struct Hickory {
    _runtime: tokio::runtime::Runtime,
    pub address: SocketAddr,
}

impl Hickory {
    pub fn start(origin: &str, zone: &str) -> Self {
        use hickory_proto::serialize::txt::Parser;
        use hickory_server::net::runtime::TokioRuntimeProvider;
        use hickory_server::store::in_memory::InMemoryZoneHandler;
        use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

        let name = Name::from_ascii(origin).expect("a name");
        let (_, records) = Parser::new(zone, Some(Path::new("zone").into()), Some(name.clone()))
            .parse()
            .expect("a zone");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = runtime.block_on(async {
            let handler: InMemoryZoneHandler<TokioRuntimeProvider> = InMemoryZoneHandler::new(
                name.clone(),
                records,
                ZoneType::Primary,
                AxfrPolicy::Deny,
            )
            .expect("a zone with an SOA");
            let mut catalog = Catalog::new();
            catalog.upsert(name.into(), vec![Arc::new(handler)]);
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
            let address = socket.local_addr().expect("has an address");
            let mut server = hickory_server::Server::new(catalog);
            server.register_socket(socket);
            tokio::spawn(async move {
                // Ends with the runtime.
                drop(server.block_until_done().await);
            });
            address
        });
        Self { _runtime: runtime, address }
    }
}

/// Answers for one scenario of the SPF suite; what the suite never answers is SERVFAIL here, which
/// comes to the same sooner.
pub struct SuiteServer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub address: SocketAddr,
}

impl SuiteServer {
    pub fn start(zone: BTreeMap<String, Vec<Entry>>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("has an address");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                let Ok(query) = Message::from_vec(&query[..length]) else { continue };
                let answer = suite_answer(&query, &zone).to_vec().expect("encodes");
                drop(socket.send_to(&answer, from)); // The asker may have gone.
            }
        });
        Self { stop, thread: Some(thread), address }
    }
}

impl Drop for SuiteServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

fn suite_answer(query: &Message, zone: &BTreeMap<String, Vec<Entry>>) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    let Some(question) = query.queries.first() else { return answer };
    answer.add_query(question.clone());
    // The labels as they are: printing would escape what SPF's odd names are made of.
    let labels = question.name().iter().map(|label| String::from_utf8_lossy(label).to_lowercase());
    let name = labels.collect::<Vec<_>>().join(".");
    let kind = question.query_type();
    let Some(entries) = zone.get(&name) else {
        // A name with others below it exists (RFC 8020).
        let suffix = format!(".{name}");
        if !zone.keys().any(|known| known.ends_with(&suffix)) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        return answer;
    };
    let records: Vec<_> = entries.iter().filter_map(|entry| rdata(entry, kind)).collect();
    let alias = entries.iter().find(|entry| matches!(entry, Entry::Cname(_)));
    if records.is_empty() && entries.contains(&Entry::Timeout) {
        answer.metadata.response_code = ResponseCode::ServFail;
    } else if let (true, Some(Entry::Cname(target))) = (records.is_empty(), alias) {
        let data = RData::CNAME(CNAME(host(target)));
        answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        for data in zone
            .get(&target.to_lowercase())
            .into_iter()
            .flatten()
            .filter_map(|entry| rdata(entry, kind))
        {
            answer.add_answer(Record::from_rdata(host(target), 60, data));
        }
    }
    for data in records {
        answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
    }
    answer
}

fn host(name: &str) -> Name {
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels.filter(|label| !label.is_empty())).expect("a name");
    name.set_fqdn(true);
    name
}

fn rdata(entry: &Entry, kind: RecordType) -> Option<RData> {
    Some(match (entry, kind) {
        (Entry::A(ip), RecordType::A) => RData::A(ip.parse().expect("an address")),
        (Entry::Aaaa(ip), RecordType::AAAA) => RData::AAAA(ip.parse().expect("an address")),
        (Entry::Mx(preference, name), RecordType::MX) => {
            RData::MX(MX::new(*preference, host(name)))
        }
        (Entry::Ptr(name), RecordType::PTR) => RData::PTR(PTR(host(name))),
        (Entry::Txt(text), RecordType::TXT) => {
            let parts: Vec<&[u8]> = text.chunks(255).collect();
            RData::TXT(TXT::from_bytes(if parts.is_empty() { vec![b""] } else { parts }))
        }
        _ => return None,
    })
}
