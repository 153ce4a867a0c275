//! Many connections at once, each with its messages.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{anyhow, bail};

use super::plan::Cell;
use crate::client::Client;

const FROM: &str = "bob@good.test";
const TO: &str = "alice@example.test";

/// Opens all connections of a cell at once and sends a message on each, so that every process is
/// there and every cache is warm. Returns how many messages it sent.
pub(super) fn warm_up(
    address: SocketAddr,
    corpus: &[Vec<u8>],
    connections: usize,
) -> anyhow::Result<usize> {
    let all_open = Barrier::new(connections);
    in_threads(connections, |number| {
        let client = Client::connect(address);
        all_open.wait();
        let mut client = client?;
        client.send(FROM, &[TO], message(corpus, number)?)?;
        client.quit()
    })?;
    Ok(connections)
}

/// Sends `count` messages or a few more, so that each connection has its full number. Returns
/// for each the time from its last octet to the 250.
pub(super) fn drive(
    address: SocketAddr,
    corpus: &[Vec<u8>],
    cell: Cell,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let sessions = count.div_ceil(cell.messages).max(cell.connections);
    let next = AtomicUsize::new(0);
    let latencies = in_threads(cell.connections, |_| {
        let mut latencies = Vec::new();
        loop {
            let session = next.fetch_add(1, Ordering::Relaxed);
            if session >= sessions {
                return Ok(latencies);
            }
            let mut client = Client::connect(address)?;
            for number in session * cell.messages..(session + 1) * cell.messages {
                latencies.push(client.send(FROM, &[TO], message(corpus, number)?)?);
            }
            client.quit()?;
        }
    })?;
    Ok(latencies.into_iter().flatten().collect())
}

fn message(corpus: &[Vec<u8>], number: usize) -> anyhow::Result<&[u8]> {
    match corpus.get(number % corpus.len().max(1)) {
        Some(message) => Ok(message),
        None => bail!("the corpus is empty"),
    }
}

/// Runs `work` in as many threads; the first error wins.
fn in_threads<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<T>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a connection's thread panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}
