//! What the systems use of this machine: time to come up, ports, users.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Waits until something holds, and fails if that takes too long.
pub(super) fn wait(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let until = Instant::now() + limit;
    while !holds()? {
        if Instant::now() > until {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A port of loopback that nobody listens on.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The id of a user of this machine.
pub(super) fn user_id(name: &str) -> anyhow::Result<u32> {
    let users = fs::read_to_string("/etc/passwd")?;
    let mut fields =
        users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name));
    let id = fields.as_mut().and_then(|fields| fields.nth(2));
    let id = id.with_context(|| format!("there is no user {name}: bench/run.sh installs it"))?;
    Ok(id.parse()?)
}
