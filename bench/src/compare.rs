//! Mailweir beside Postfix and Haraka: the same messages over real SMTP, as far as possible the
//! same checks, and what each of them costs.
//!
//! Everything runs on loopback in scratch folders: the systems, and the name server that they
//! all ask.

mod corpus;
mod dns;
mod dovecot;
mod haraka;
mod kind;
mod load;
mod local;
mod machine;
mod maildir;
mod mailweir;
mod measure;
mod outgoing;
mod plan;
mod plot;
mod postfix;
mod report;
mod results;
mod rspamd;
mod sink;
mod start;
mod syncs;
mod system;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use self::corpus::Signer;
use self::dns::Nsd;
use self::kind::Kind;
use self::measure::{Measured, measure};
use self::plan::{Cell, Class};
use self::results::{MIB, Results, Syncs};
use self::rspamd::Rspamd;
use self::system::Ground;

/// Where the full comparison writes.
const DOCS: &str = "docs";
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
