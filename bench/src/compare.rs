//! Mailweir beside Postfix and Haraka: the same messages over real SMTP, as far as possible the
//! same checks, and what each of them costs.
//!
//! Everything runs on loopback in scratch folders: the systems, and the name server that they
//! all ask.

mod corpus;
mod dns;
mod dovecot;
mod haraka;
mod load;
mod machine;
mod maildir;
mod mailweir;
mod measure;
mod outgoing;
mod plan;
mod plot;
mod postfix;
mod report;
mod rspamd;
mod sink;
mod syncs;
mod system;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use self::corpus::Signer;
use self::dns::Nsd;
use self::measure::{Measured, Spread, measure};
use self::plan::{Cell, Class};
use self::rspamd::Rspamd;
use self::system::{Ground, Kind};

/// Where the full comparison writes.
const DOCS: &str = "docs";
const MIB: f64 = 1_048_576.0;
/// Messages of a pass that counts syncs; tracing makes everything slow.
const SYNC_MESSAGES: usize = 640;

/// What is compared, and how much of it.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    /// The daemon's binary
    pub(crate) mailweir: &'a Path,
    /// Where Haraka is, with its plugins
    pub(crate) node_modules: &'a Path,
    /// Whether it is enough to see that everything works
    pub(crate) is_quick: bool,
    /// Only rows that have this in them
    pub(crate) rows: &'a str,
}

/// What a class gave.
struct Results {
    class: Class,
    /// In the order in which they were measured; several of each system and cell.
    measured: Vec<Measured>,
    syncs: Vec<Syncs>,
}

/// Syncs for each message.
struct Syncs {
    kind: Kind,
    cell: Cell,
    each: f64,
}

impl Results {
    /// The rounds of a system in a cell.
    fn rounds(&self, kind: Kind, cell: Cell) -> impl Iterator<Item = &Measured> {
        self.measured.iter().filter(move |row| row.kind == kind && row.cell == cell)
    }

    /// A figure over the rounds of a system in a cell.
    fn spread(&self, kind: Kind, cell: Cell, figure: fn(&Measured) -> f64) -> Option<Spread> {
        Spread::of(self.rounds(kind, cell).map(figure))
    }

    /// How many times Mailweir's a figure of another system is, each round held against the one
    /// beside it.
    fn ratio(&self, kind: Kind, cell: Cell, figure: fn(&Measured) -> f64) -> Option<Spread> {
        let ours = self.rounds(Kind::Mailweir, cell);
        let pairs = self.rounds(kind, cell).zip(ours);
        Spread::of(pairs.map(|(theirs, ours)| figure(theirs) / figure(ours)))
    }
}

/// Compares; the full comparison writes its tables and its plot to `docs/`.
pub(crate) fn run(options: &Options<'_>) -> anyhow::Result<()> {
    let signer = Signer::generate()?;
    let nsd = Nsd::start(&signer.zone_line())?;
    let scratch = tempfile::tempdir()?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    // rspamd's user reads it; it signs nothing but this run's messages.
    let signing_key = scratch.path().join("signing.pem");
    fs::write(&signing_key, signer.private_key())?;
    let ground = Ground {
        mailweir: options.mailweir,
        dns: nsd.address(),
        node_modules: options.node_modules,
        signing_key: &signing_key,
        scratch: scratch.path(),
    };
    Rspamd::compile_patterns(&ground)?;
    let classes = if options.is_quick { plan::quick() } else { plan::full() };
    let mut results = Vec::new();
    for class in classes {
        results.push(run_class(class, options.rows, &ground, &signer)?);
    }
    if options.is_quick || !options.rows.is_empty() {
        return Ok(());
    }
    let facts = machine::facts(options.mailweir, options.node_modules)?;
    fs::create_dir_all(DOCS)?;
    fs::write(Path::new(DOCS).join("bench.svg"), plot::svg(&results)?)?;
    fs::write(Path::new(DOCS).join("bench.md"), report::markdown(&results, &facts)?)?;
    println!("{}", report::summary(&results)?);
    Ok(())
}

fn run_class(
    class: Class,
    wanted: &str,
    ground: &Ground<'_>,
    signer: &Signer,
) -> anyhow::Result<Results> {
    let is_wanted = |name: &str, cell: Cell, kind: &Kind| {
        format!("{name} {} {}", cell.name(), kind.name()).contains(wanted)
    };
    let mut results = Results { class, measured: Vec::new(), syncs: Vec::new() };
    let class = results.class.clone();
    let wanted_of = |cell: Cell| {
        let mut kinds = class.kinds(cell);
        kinds.retain(|kind| is_wanted(class.name, cell, kind));
        kinds
    };
    if class.cells.iter().all(|cell| wanted_of(*cell).is_empty()) {
        return Ok(results);
    }
    let corpus = signer.corpus(class.direction, class.octets, class.count)?;
    for cell in &class.cells {
        for kind in wanted_of(*cell).repeat(class.rounds(*cell)) {
            let count = class.round_count(*cell, kind);
            let row = measure(kind, ground, &corpus, *cell, count)?;
            print_row(&class, &row);
            results.measured.push(row);
        }
        print_spreads(&results, *cell);
    }
    for cell in &class.sync_cells {
        for kind in wanted_of(*cell) {
            let count = class.count.min(SYNC_MESSAGES);
            let each = syncs::count(kind, ground, &corpus, *cell, count)?;
            let (name, cell_name) = (kind.name(), cell.name());
            println!("{:>13} {cell_name:>8} {name:<15} {each:.2} syncs/message", class.name);
            results.syncs.push(Syncs { kind, cell: *cell, each });
        }
    }
    Ok(results)
}

/// The median and the range of each system's CPU time, and of its ratio.
fn print_spreads(results: &Results, cell: Cell) {
    let figure = |row: &Measured| row.cpu_us;
    for kind in Kind::ALL {
        let Some(cpu) = results.spread(kind, cell, figure) else { continue };
        let ratio = results.ratio(kind, cell, figure);
        let ratio = ratio.filter(|_| kind != Kind::Mailweir);
        let times = ratio.map_or_else(String::new, |it| {
            format!(", {:.1} ({:.1} to {:.1}) times Mailweir's", it.median, it.least, it.most)
        });
        println!(
            "{:>13} {:>8} {:<15} {:>8.0} ({:.0} to {:.0}) µs CPU/message over {} rounds{times}",
            results.class.name,
            cell.name(),
            kind.name(),
            cpu.median,
            cpu.least,
            cpu.most,
            results.rounds(kind, cell).count(),
        );
    }
}

fn print_row(class: &Class, row: &Measured) {
    println!(
        "{:>13} {:>8} {:<15} {:>8.0} µs CPU/message, 250 after {:.1?} (p50), {:.1?} (p99), \
         {:.0}/s, {:.0} MiB",
        class.name,
        row.cell.name(),
        row.kind.name(),
        row.cpu_us,
        row.p50,
        row.p99,
        row.rate,
        row.memory as f64 / MIB
    );
}

/// Waits until something holds, and fails if that takes too long.
fn wait(
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
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The id of a user of this machine.
fn user_id(name: &str) -> anyhow::Result<u32> {
    let users = fs::read_to_string("/etc/passwd")?;
    let mut fields =
        users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name));
    let id = fields.as_mut().and_then(|fields| fields.nth(2));
    let id = id.with_context(|| format!("there is no user {name}: bench/run.sh installs it"))?;
    Ok(id.parse()?)
}
