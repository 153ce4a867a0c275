//! Mailweir, as it is compared.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use super::system::{Ground, System};
use crate::daemon::{Daemon, ORGANIZATION};

pub(super) struct Mailweir {
    daemon: Daemon,
    binary: PathBuf,
}

impl Mailweir {
    pub(super) fn start(ground: &Ground<'_>) -> anyhow::Result<Self> {
        // All connections come from one address here; the banner's delay is no work, and the
        // latencies do not contain it.
        let sections = format!(
            "[dns]\nservers = [\"{}\"]\n\
             [limits]\nbanner_delay_ms = 0\nconnections_per_network = 10000\nprocessing_per_network = 500\n",
            ground.dns
        );
        let daemon = Daemon::start(ground.mailweir, ORGANIZATION, &sections)?;
        Ok(Self { daemon, binary: ground.mailweir.to_owned() })
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

impl System for Mailweir {
    fn address(&self) -> SocketAddr {
        self.daemon.address()
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
