//! A directory of many organizations: how long a rule takes, and what a reload does to mail.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use mailweir::config;
use mailweir::mail::Address;
use mailweir::rules::{Authors, Party};

use super::{SECTIONS, ms, row, send, us};
use crate::daemon::Daemon;
use crate::process;

const USERS: usize = 100;
const PATTERNS: usize = 1000;
/// Patterns of one rule at most (guide: 250).
const PATTERNS_OF_RULE: usize = 250;

fn organization(number: usize) -> String {
    let mut text = format!("alias = \"org{number}\"\ndomains = [\"org{number}.test\"]\n");
    for user in 0..USERS {
        text.push_str(&format!("[[user]]\nname = \"user{user}\"\n"));
    }
    for rule in 0..PATTERNS / PATTERNS_OF_RULE {
        let patterns: Vec<_> = (0..PATTERNS_OF_RULE)
            .map(|pattern| match pattern % 3 {
                // Every rule is a candidate, and all its patterns are compared.
                _ if pattern == PATTERNS_OF_RULE - 1 => "\"good.test\"".into(),
                0 => format!("\"sender{pattern}@r{rule}.bad{number}.test\""),
                1 => format!("\"*.p{pattern}.r{rule}.bad{number}.test\""),
                // The author's own domain, so that no comparison ends at the domain.
                _ => format!("\"sender{pattern}.r{rule}@good.test\""),
            })
            .collect();
        text.push_str(&format!(
            "[[inbound_rule]]\nname = \"rule{rule}\"\naction = \"DROP\"\nsenders = [{}]\n\
             destinations = [\"*\"]\n",
            patterns.join(", ")
        ));
    }
    text
}

pub(super) fn run(mailweir: &Path, quick: bool) -> anyhow::Result<()> {
    let count = if quick { 20 } else { 1000 };
    let what = format!("{} users in {count} organizations", count * USERS);
    let mut daemon = Daemon::start(mailweir, &organization(0), SECTIONS)?;
    let main = daemon.path("mailweir.toml");
    let mut text = fs::read_to_string(&main)?;
    for number in 1..count {
        fs::write(daemon.path(&format!("org{number}.toml")), organization(number))?;
        text.push_str(&format!("[[organization]]\nfile = \"org{number}.toml\"\n"));
    }
    fs::write(&main, text)?;
    evaluate(&main, &what)?;
    let took = daemon.restart(mailweir)?;
    row(&format!("start with {what}"), "-", &ms(took));
    let octets = process::memory(daemon.pid());
    row(&format!("memory with {what}"), "-", &format!("{} MiB", octets >> 20));
    reload_under_load(&daemon, count, &what)
}

/// Rules and reading, measured inside this process.
fn evaluate(main: &Path, what: &str) -> anyhow::Result<()> {
    // A file that was just written is read again, since it may still change.
    std::thread::sleep(Duration::from_millis(2500));
    let first = config::load(main, [])?;
    let author: Address = "someone@good.test".parse().map_err(anyhow::Error::msg)?;
    let recipient: Address = "user1@org0.test".parse().map_err(anyhow::Error::msg)?;
    let rules = &first.organizations.first().context("there is one")?.rules;
    let authors = Authors { sender: None, from: vec![Party::new(&author)] };
    let rounds = 2000;
    let started = Instant::now();
    for _ in 0..rounds {
        let recipient = Party::of(black_box(&recipient), &first.directory);
        black_box(rules.evaluate(black_box(&authors), &recipient));
    }
    let figure = format!("a rule decision among {PATTERNS} sender patterns");
    row(&figure, "20 µs", &us(started.elapsed() / rounds));

    let changed = main.with_file_name("org1.toml");
    fs::write(&changed, organization(1) + "[[user]]\nname = \"new\"\n")?;
    let started = Instant::now();
    let again = config::load_again(main, [], &first.organizations, &Arc::default())?;
    let took = started.elapsed();
    anyhow::ensure!(again.organizations.len() == first.organizations.len());
    row(&format!("reading one changed organization, {what}"), "100 ms", &ms(took));
    Ok(())
}

/// What a reload of one organization does to the 250 of others.
fn reload_under_load(daemon: &Daemon, count: usize, what: &str) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_millis(2500));
    let to = |number: usize| format!("user{}@org{}.test", number % USERS, number % count);
    send(daemon, 1, 2000, to)?;
    let calm = send(daemon, 1, 4000, to)?;
    let disturbed = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(daemon, 1, 4000, to));
        for round in 0..10 {
            std::thread::sleep(Duration::from_millis(100));
            let changed = daemon.path("org1.toml");
            let text = organization(1) + &format!("[[user]]\nname = \"new{round}\"\n");
            fs::write(changed, text)?;
            daemon.signal("HUP")?;
        }
        sender.join().unwrap_or_else(|_| anyhow::bail!("a sender panicked"))
    })?;
    row(
        &format!("the 250 while one organization is reloaded ten times, worst, {what}"),
        "no pause",
        &format!("{}; without reloads {}", ms(disturbed.at(100)), ms(calm.at(100))),
    );
    Ok(())
}
