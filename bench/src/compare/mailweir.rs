//! Mailweir, as it is compared.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use mailweir::domains::{make_keys, use_next_keys};
use mailweir::mail::Domain;
use mailweir::store::{DomainKeyFolder, Settings};

use super::outgoing;
use super::system::{Ground, System};
use crate::daemon::{Daemon, ORGANIZATION};

/// The selector of the first RSA key that the daemon makes for a domain.
const RSA_SELECTOR: &str = "mw1r";

/// What lets one user send more than a user would, as fast as Postfix does: Postfix has as many
/// connections to a destination.
const SENDING: &str = "[[listener]]\nname = \"submission\"\nprotocol = \"submission\"\n\
    bind = \"127.0.0.1:0\"\n\
    [outbound]\nrecipients_per_user_per_day = 1000000\n\
    recipients_per_organization_per_day = 1000000\n\
    [queue]\nconnections_per_destination = 20\nmessages_per_sender = 1000000\n\
    [[queue_route]]\ndomain = \"good.test\"\n";

pub(super) struct Mailweir {
    daemon: Daemon,
    binary: PathBuf,
    door: Door,
}

/// Which of its listeners is used.
enum Door {
    /// That for other servers
    Mx,
    /// That for users, with what AUTH PLAIN says
    Submission { address: SocketAddr, login: String },
}

impl Mailweir {
    pub(super) fn start(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let daemon = Daemon::start(ground.mailweir, ORGANIZATION, &sections(ground))?;
        Ok(Self { daemon, binary: ground.mailweir.to_owned(), door: Door::Mx })
    }

    /// Starts one whose users send through a next hop.
    pub(super) fn start_sending(ground: &Ground<'_>, next_hop: SocketAddr) -> anyhow::Result<Self> {
        let binary = ground.mailweir;
        let route = format!("host = \"{}\"\nport = {}\n", next_hop.ip(), next_hop.port());
        let sections = format!("{}{SENDING}{route}", sections(ground));
        let command = Command::new(binary);
        let daemon = Daemon::start_prepared(command, ORGANIZATION, &sections, make_rsa_key)?;
        let create = ["token", "create", "alice", "--name", "bench"];
        let told = daemon.command(binary, &create, "")?;
        let token = told.lines().next().context("no token was printed")?;
        let address = daemon.listener("submission")?;
        let door = Door::Submission { address, login: outgoing::login(token) };
        Ok(Self { daemon, binary: binary.to_owned(), door })
    }

    fn mailbox(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary)
            .arg("mailbox")
            .args(arguments)
            .arg("--config")
            .arg(self.daemon.path("mailweir.toml"))
            .output()?;
        if !output.status.success() {
            bail!("mailweir mailbox: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn list(&self) -> anyhow::Result<String> {
        self.mailbox(&["list", "alice", "--json"])
    }
}

/// All connections come from one address here; the banner's delay is no work, and the latencies do
/// not contain it.
fn sections(ground: &Ground<'_>) -> String {
    format!(
        "[dns]\nservers = [\"{}\"]\n\
         [limits]\nbanner_delay_ms = 0\nconnections_per_network = 10000\nprocessing_per_network = 500\n",
        ground.dns
    )
}

/// Gives the users' domain a key that signs. It has no Ed25519 key beside it, which the daemon
/// would sign with as well: the others have none.
fn make_rsa_key(folder: &Path) -> anyhow::Result<()> {
    let keys = DomainKeyFolder::open(&Settings::new(folder.join("data")))?;
    let domain = Domain::parse(outgoing::DOMAIN).context("a domain")?;
    make_keys(&keys, &domain)?;
    Ok(use_next_keys(&keys, &domain, &[RSA_SELECTOR.to_owned()])?)
}

impl System for Mailweir {
    fn address(&self) -> SocketAddr {
        match &self.door {
            Door::Mx => self.daemon.address(),
            Door::Submission { address, .. } => *address,
        }
    }

    fn login(&self) -> Option<&str> {
        match &self.door {
            Door::Mx => None,
            Door::Submission { login, .. } => Some(login),
        }
    }

    fn roots(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn has_delivered(&self, _count: usize) -> anyhow::Result<bool> {
        Ok(true) // The 250 says so; `count` sees to it.
    }

    fn count(&self) -> anyhow::Result<usize> {
        Ok(self.list()?.lines().count())
    }

    fn sample(&self) -> anyhow::Result<String> {
        let list = self.list()?;
        let line = list.lines().last().context("the mailbox is empty")?;
        let line: serde_json::Value = serde_json::from_str(line)?;
        self.mailbox(&["show", "alice", line["id"].as_str().context("a message has an id")?])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.daemon.path("stderr.log")).unwrap_or_default()
    }
}
