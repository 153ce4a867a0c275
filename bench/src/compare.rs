//! What a message costs.

use std::path::Path;

use crate::client::Client;
use crate::daemon::{Daemon, ORGANIZATION};
use crate::process;

/// Prints the table.
pub(crate) fn run(mailweir: &Path, _quick: bool) -> anyhow::Result<()> {
    let sections = "[limits]\nbanner_delay_ms = 0\nconnections_per_network = 10000\n";
    let daemon = Daemon::start(mailweir, ORGANIZATION, sections)?;
    let mut client = Client::connect(daemon.address())?;
    let before = process::cpu(daemon.pid());
    let latency = client.send(
        "bob@good.test",
        &["alice@example.test"],
        b"From: <bob@good.test>\r\n\r\n.\r\n",
    )?;
    client.quit()?;
    println!(
        "{latency:?} {:?} {}",
        process::cpu(daemon.pid()) - before,
        process::memory(daemon.pid())
    );
    println!("{}", process::peak_memory(daemon.pid())?);
    Ok(())
}
