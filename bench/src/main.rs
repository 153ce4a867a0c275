#![expect(clippy::print_stdout, reason = "it prints its tables")]
#![allow(clippy::disallowed_methods, reason = "it waits for other processes")]

//! Load and measurements over real SMTP, for the numbers in the documentation.
//!
//! `bench/run.sh` builds the daemon and this program and runs it. Linux only: it reads `/proc`.

mod client;
mod compare;
mod daemon;
mod gauge;
mod growth;
mod idle;
mod peer;
mod process;
mod stress;
mod traffic;
mod turns;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "mailweir-bench", version)]
struct Arguments {
    /// The daemon's binary, built for release
    #[arg(long, global = true, default_value = "target/release/mailweir")]
    mailweir: PathBuf,
    /// Where Haraka is, with its plugins
    #[arg(long, global = true, default_value = "target/bench-node/node_modules")]
    node_modules: PathBuf,
    /// Smaller counts: shows that it works, not how fast
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU, latency and memory for each message
    Compare {
        /// Only rows that have this in them, such as "4 KB 32 × 20 Mailweir"; writes nothing then
        #[arg(default_value = "")]
        row: String,
    },
    /// Cost and latency as store and directory grow
    Growth,
    /// Memory of connections that wait, and of one large message
    Idle,
    /// Load that a mail server does not like; fails when a claim does not hold
    Stress {
        /// Only scenarios whose name has this in it
        #[arg(default_value = "")]
        scenario: String,
    },
    /// CPU time for a 4 KB message with several builds, by short turns in one run
    Turns {
        /// Each `KEY=VALUE,…,PATH`: variables of its environment, and the path of its binary; the
        /// first is what the others are measured by
        #[arg(required = true, num_args = 1..)]
        builds: Vec<String>,
        /// Bursts to each
        #[arg(long, default_value_t = 250)]
        rounds: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Growth => growth::run(&arguments.mailweir, arguments.quick),
        Command::Compare { row } => compare::run(&compare::Options {
            mailweir: &arguments.mailweir,
            node_modules: &arguments.node_modules,
            is_quick: arguments.quick,
            rows: &row,
        }),
        Command::Idle => idle::run(&arguments.mailweir, arguments.quick),
        Command::Stress { scenario } => {
            stress::run(&arguments.mailweir, arguments.quick, &scenario)
        }
        Command::Turns { builds, rounds } => turns::run(&builds, rounds),
    }
}
