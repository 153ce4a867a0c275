//! Many connections at once, each with its messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::anyhow;
use mailweir::smtp::client::{any_certificate, client_config};
use rustls::ClientConfig;
use rustls::client::Resumption;

use super::corpus::Corpus;
use super::plan::Cell;
use super::system::System;
use crate::client::Client;

/// Where a system takes messages, and as whom.
struct Door<'a> {
    address: SocketAddr,
    login: Option<&'a str>,
    tls: Arc<ClientConfig>,
}

impl<'a> Door<'a> {
    fn of(system: &'a dyn System) -> Self {
        // Each connection shakes hands in full: whether a session can be resumed is no part of
        // what is compared.
        let mut tls = client_config(any_certificate());
        tls.resumption = Resumption::disabled();
        Self { address: system.address(), login: system.login(), tls: Arc::new(tls) }
    }

    fn open(&self) -> anyhow::Result<Client> {
        match self.login {
            Some(login) => Client::log_in(self.address, &self.tls, login),
            None => Client::connect(self.address),
        }
    }
}

/// Opens all connections of a cell at once and sends a message on each, so that every process is
/// there and every cache is warm. Returns how many messages it sent.
pub(super) fn warm_up(
    system: &dyn System,
    corpus: &Corpus,
    connections: usize,
) -> anyhow::Result<usize> {
    let door = Door::of(system);
    let all_open = Barrier::new(connections);
    in_threads(connections, |number| {
        let client = door.open();
        all_open.wait();
        let mut client = client?;
        client.send(corpus.sender(), &[corpus.recipient()], corpus.message(number))?;
        client.quit()
    })?;
    Ok(connections)
}

/// Sends `count` messages or a few more, so that each connection has its full number. Returns
/// for each the time from its last octet to the 250.
pub(super) fn drive(
    system: &dyn System,
    corpus: &Corpus,
    cell: Cell,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let door = Door::of(system);
    let to = [corpus.recipient()];
    let sessions = count.div_ceil(cell.messages).max(cell.connections);
    let next = AtomicUsize::new(0);
    let latencies = in_threads(cell.connections, |_| {
        let mut latencies = Vec::new();
        loop {
            let session = next.fetch_add(1, Ordering::Relaxed);
            if session >= sessions {
                return Ok(latencies);
            }
            let mut client = door.open()?;
            for number in session * cell.messages..(session + 1) * cell.messages {
                latencies.push(client.send(corpus.sender(), &to, corpus.message(number))?);
            }
            client.quit()?;
        }
    })?;
    Ok(latencies.into_iter().flatten().collect())
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
