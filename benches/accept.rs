//! The accept path over real SMTP: CPU time of the whole daemon for each message, from the
//! connection to the durable, encrypted delivery and its events.
//!
//! `cargo bench --ignore-rust-version` prints a table. Linux only: it reads `/proc/PID/stat`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 32;
const MESSAGES_PER_CONNECTION: usize = 20;

const CONFIGURATION: &str = "data_dir = \"data\"\nhostname = \"mx.example.test\"\n\
    [[listener]]\nname = \"mx\"\nprotocol = \"mx\"\nbind = \"127.0.0.1:0\"\n\
    [[organization]]\nfile = \"org.toml\"\n[dns]\nzone_file = \"demo.zone\"\n\
    [limits]\nbanner_delay_ms = 0\nconnections_per_network = 10000\n";

const ORGANIZATION: &str = "alias = \"example\"\ndomains = [\"example.test\"]\n\
    [[user]]\nname = \"alice\"\n\
    [[inbound_rule]]\nname = \"never\"\naction = \"DROP\"\nsenders = [\"bad.test\"]\n\
    destinations = [\"*\"]\n";

struct Server {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("writes");
        write("mailweir.toml", CONFIGURATION);
        write("org.toml", ORGANIZATION);
        write("demo.zone", include_str!("../fixtures/dns/demo.zone"));
        let child = Command::new(env!("CARGO_BIN_EXE_mailweir"))
            .arg("serve")
            .arg("--config")
            .arg(dir.path().join("mailweir.toml"))
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let run = dir.path().join("data/run/listeners.json");
        let until = Instant::now() + Duration::from_secs(10);
        let address = loop {
            let text = fs::read_to_string(&run).unwrap_or_default();
            let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let address = value.and_then(|value| value["mx"].as_str()?.parse().ok());
            if let Some(address) = address {
                break address;
            }
            assert!(Instant::now() < until, "the daemon does not listen");
        };
        Self { child, address, _dir: dir }
    }

    /// User and system time of the daemon so far.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("reads");
        let after_name = stat.rsplit(')').next().expect("fields");
        let field = |number: usize| -> u64 {
            after_name
                .split_whitespace()
                .nth(number - 3)
                .expect("a field")
                .parse()
                .expect("a number")
        };
        // Fields 14 and 15 of proc(5), in ticks of 10 ms.
        Duration::from_millis((field(14) + field(15)) * 10)
    }

    /// Peak resident memory in KiB.
    fn peak_kib(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("reads");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill()); // It may have ended by itself.
        drop(self.child.wait());
    }
}

fn reply(reader: &mut BufReader<TcpStream>, code: &str) {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("reads");
        assert!(line.starts_with(code), "{line}");
        if line.as_bytes().get(3) == Some(&b' ') {
            return;
        }
    }
}

/// One connection's messages; pushes the time from the final dot to the 250 of each.
fn converse(address: SocketAddr, wire: &[u8], latencies: &Mutex<Vec<Duration>>) {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("sets");
    let mut reader = BufReader::new(stream);
    reply(&mut reader, "220");
    reader.get_mut().write_all(b"EHLO mail.good.test\r\n").expect("sends");
    reply(&mut reader, "250");
    for _ in 0..MESSAGES_PER_CONNECTION {
        let commands = b"MAIL FROM:<bob@good.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n";
        reader.get_mut().write_all(commands).expect("sends");
        reply(&mut reader, "250");
        reply(&mut reader, "250");
        reply(&mut reader, "354");
        reader.get_mut().write_all(wire).expect("sends");
        let sent = Instant::now();
        reply(&mut reader, "250");
        latencies.lock().expect("not poisoned").push(sent.elapsed());
    }
    reader.get_mut().write_all(b"QUIT\r\n").expect("sends");
}

fn run(name: &str, message: &[u8], rounds: usize) {
    let mut wire = message.to_vec();
    wire.extend_from_slice(b".\r\n");
    let server = Server::start();
    let latencies = Mutex::new(Vec::new());
    converse(server.address, &wire, &latencies); // Warm caches and memory.
    latencies.lock().expect("not poisoned").clear();
    let (cpu, started) = (server.cpu(), Instant::now());
    for _ in 0..rounds {
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| converse(server.address, &wire, &latencies));
            }
        });
    }
    let wall = started.elapsed();
    // The index follows at its own pace; its work is part of the message's cost.
    std::thread::sleep(Duration::from_secs(1));
    let cpu = server.cpu() - cpu;
    let mut latencies = latencies.into_inner().expect("not poisoned");
    latencies.sort();
    let count = latencies.len();
    let at = |percent: usize| latencies[(count * percent / 100).min(count - 1)];
    println!(
        "| {name} | {count} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
        cpu.as_secs_f64() * 1e6 / count as f64,
        count as f64 / wall.as_secs_f64(),
        at(50).as_secs_f64() * 1e3,
        at(99).as_secs_f64() * 1e3,
        server.peak_kib() as f64 / 1024.0,
    );
}

fn main() {
    println!(
        "{CONNECTIONS} connections, {MESSAGES_PER_CONNECTION} messages on each, DKIM-signed\n"
    );
    println!(
        "| message | count | server CPU µs/message | messages/s | 250 p50 ms | 250 p99 ms | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    run("4 KB", include_bytes!("../fixtures/bench/signed-4k.eml"), 12);
    run("50 KB", include_bytes!("../fixtures/bench/signed-50k.eml"), 3);
}
