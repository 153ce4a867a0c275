//! The name server that all systems ask: NSD with the fixture's zone and the corpus's key.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::local::{free_port, wait};
use crate::process;

const ZONE: &str = include_str!("../../../fixtures/dns/demo.zone");
/// A query for the root's SOA: identifier, flags, one question (RFC 1035 §4.1).
const QUERY: [u8; 17] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];

/// A running NSD; ended when dropped.
pub(super) struct Nsd {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nsd {
    /// Starts it on a free port of loopback; `records` are lines of a zone file.
    pub(super) fn start(records: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let root = folder.path().display();
        // Its limit of 200 answers a second is for the internet: rspamd, which asks for each
        // message, would run into it.
        let configuration = format!(
            "server:\n  ip-address: {}\n  port: {}\n  username: \"\"\n  chroot: \"\"\n  \
             server-count: 1\n  zonesdir: \"{root}\"\n  database: \"\"\n  \
             pidfile: \"{root}/nsd.pid\"\n  xfrdfile: \"{root}/xfrd.state\"\n  \
             zonelistfile: \"{root}/zone.list\"\n  xfrdir: \"{root}\"\n  \
             logfile: \"{root}/nsd.log\"\n  \
             rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
             remote-control:\n  control-enable: no\n\
             zone:\n  name: \".\"\n  zonefile: \"root.zone\"\n",
            address.ip(),
            address.port(),
        );
        fs::write(folder.path().join("nsd.conf"), configuration)?;
        fs::write(folder.path().join("root.zone"), root_zone(records))?;
        let child = Command::new("nsd")
            .args(["-d", "-c"])
            .arg(folder.path().join("nsd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nsd = Self { child, address, _folder: folder };
        wait("NSD to answer", Duration::from_secs(10), || nsd.answers())?;
        Ok(nsd)
    }

    /// Where it listens, UDP and TCP.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn answers(&self) -> anyhow::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        // Until it is up, the system refuses the packet.
        let is_sent = socket.send_to(&QUERY, self.address).is_ok();
        Ok(is_sent && socket.recv_from(&mut [0; 512]).is_ok())
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        let server = self.child.id();
        process::end(&mut self.child, &[server]);
    }
}

/// The fixture's records and further ones in one root zone, so that the server knows what does
/// not exist, as the whole of DNS does.
fn root_zone(records: &str) -> String {
    let is_cut = |line: &str| line.contains(" IN SOA ") || line.contains(" IN NS ");
    let mut zone = "$ORIGIN .\n$TTL 300\n. IN SOA ns.good.test. hostmaster.good.test. 1 3600 600 \
                    86400 300\n. IN NS ns.good.test.\n"
        .to_owned();
    for line in ZONE.lines().filter(|line| !line.starts_with([';', '$']) && !is_cut(line)) {
        zone.push_str(line);
        zone.push('\n');
    }
    zone + records
}
