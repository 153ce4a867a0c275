//! The daemon under test, and the peers that talk to it.

pub mod daemon;
pub mod disk;
pub mod dns;
pub mod journal_record;
pub mod ledger;
pub mod pages;
pub mod postfix;
pub mod readers;
pub mod remote;
pub mod sandbox;
pub mod sending;
pub mod smtp;
pub mod spf_suite;
pub mod strace;
pub mod swaks;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Polls until something is there; panics with `what` after ten seconds.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The library that shows a program another time; Debian has it below the processor's name.
pub fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("lists");
    let mut files =
        folders.map(|folder| folder.expect("an entry").path().join("faketime/libfaketime.so.1"));
    files.find(|file| file.exists()).expect("tests/setup.sh has installed libfaketime")
}

/// A free port on 127.0.0.1, for programs that cannot say which one they took.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("has an address").port()
}

/// A port on 127.0.0.1 on which everything is refused, TCP and UDP: it is taken, and nobody listens.
pub fn refusing_port() -> u16 {
    static TAKEN: LazyLock<(Socket, UdpSocket)> = LazyLock::new(|| {
        for _ in 0..100 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binds");
            let address = socket.local_addr().expect("bound").as_socket();
            let address = address.expect("an address of IPv4");
            if let Ok(udp) = UdpSocket::bind(address) {
                // It hears nobody but itself.
                udp.connect(address).expect("connects");
                return (socket, udp);
            }
        }
        panic!("no port is free for both TCP and UDP");
    });
    TAKEN.1.local_addr().expect("bound").port()
}
