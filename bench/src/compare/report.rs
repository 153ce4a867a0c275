//! The tables of `docs/bench.md`.

use std::fmt::Write as _;

use anyhow::Context;

use super::kind::Kind;
use super::measure::{Measured, Spread};
use super::plan::{Cell, KEY};
use super::results::{MIB, Results, Syncs};

/// How many times Mailweir's CPU time for each message Postfix+rspamd shall need at least.
const CPU_GOAL: f64 = 20.0;
/// How many times Mailweir's p99 Postfix+rspamd's shall be at least.
const P99_GOAL: f64 = 2.0;

const CPU: fn(&Measured) -> f64 = |row| row.cpu_us;
const P50: fn(&Measured) -> f64 = |row| row.p50.as_secs_f64() * 1e3;
const P99: fn(&Measured) -> f64 = |row| row.p99.as_secs_f64() * 1e3;

const METHOD: &str = "\
## How it is measured

- Four systems, each a private instance on loopback, started anew for each round of a row: \
Mailweir with SPF, DKIM, DMARC, rules, durable encrypted delivery and events; Postfix with \
rspamd as a milter that makes the verdicts of SPF, DKIM and DMARC, adds Authentication-Results \
and does nothing else; Postfix alone, which checks nothing; Haraka with its plugins for SPF and \
DKIM, which adds Authentication-Results, and hands on by LMTP to Dovecot. Both Postfixes deliver \
to a Maildir with virtual(8), Dovecot to one with its own LMTP server.
- Postfix has Debian's defaults, except that limits which would refuse or slow this load are \
raised or off (sizes, rates, 200 processes for each service, `in_flow_delay`), and that its only \
table is in memory. rspamd scans in its milter's workers, one for each core, over a Unix socket; \
its rules for spam, its statistics and everything that needs Redis are not loaded. NSD's limit \
of answers a second is off, and files of a row are deleted after the last row, because both \
would slow Postfix and rspamd alone.
- Haraka has its package's defaults, except that it has a worker for each core, takes messages \
of 60 MB, logs warnings only, and checks SPF for clients on loopback as well, which a plugin of \
three lines makes it do. It is measured in some rows of the 4 KB messages only, since it takes \
some seconds to start.
- Messages are made at the start, each unlike the others: text and the same in HTML, or text and \
a base64 attachment from 1 MB on. Those that come in are signed with RSA-SHA256 of 2048 bits, \
relaxed/relaxed. All systems ask the same NSD; nothing leaves loopback. The CPU time of NSD, of \
the load generator and of the sink counts for nobody.
- Outgoing messages are handed in by a user: STARTTLS with an ECDSA certificate that is made for \
the run and a full handshake for each connection, then AUTH PLAIN. The system signs with DKIM, \
RSA-SHA256 with 2048 bits, and sends on to a sink on loopback, an SMTP server of the benchmark's \
own that takes everything and offers no TLS. Mailweir does all of it itself, and looks at \
author, quotas and attachments; what one user may send in a day is raised, and it has 20 \
connections to a destination, as Postfix has by default. Postfix asks Dovecot whether the \
password is right, and rspamd's `dkim_signing` as a milter, which does nothing else, for the \
signature. Both keep a plain SHA-256 of the secret (in Mailweir a token: a password there is an \
Argon2id hash, about 20 ms for each login), and both sign with one key (Mailweir's Ed25519 key \
is left out). Postfix's reply to the EHLO under TLS waits about 40 ms for the client's \
acknowledgement of the TLS session tickets before it (Nagle's algorithm), which bounds its \
messages/s with one connection, and is in none of the other figures.
- `32 × 20` means 32 connections at once with 20 messages on each; then the next one is opened. \
Before a row is measured, as many connections as it has have each sent a message.
- Each row is measured three times, the systems in turn, each time with a third of the messages, \
and those of 32 × 20 five times with five passes of them (Haraka: two). Each figure is the \
median of its rounds, with the least and the most in brackets; a ratio is the median of the \
ratios of rounds that were measured one after the other. Memory is the most of all rounds.
- What each leaves out: Mailweir does all that is said above. Postfix+rspamd has no rules, no \
encryption at rest, no events; incoming mail gets no index, and the 250 before delivery. Postfix \
alone has no check either, and signs nothing. Haraka+Dovecot has no DMARC, for which there is no \
plugin of its version, no rules, no encryption at rest, no events, and says 250 before delivery, \
when its own queue file is written; it is not measured with outgoing mail. None scans for spam \
or journals, and none sends anything on but what users hand in.
- CPU time is user and system time of all processes of a system, for each message, until all is \
delivered and the system is quiet. Messages/s counts until the last delivery, for outgoing mail \
until the sink has the last one. Latency is from the last octet of the final dot to the 250: for \
Mailweir the message is then in the mailbox, or in its queue if it goes out, for the others in \
their queue. Memory is the largest sum of proportional set sizes seen, sampled in at most a \
hundredth of one core's time.
- After each round the mailbox is counted, and a delivered message must say that SPF, DKIM and \
DMARC passed (of Haraka: SPF and DKIM), or the comparison fails. The sink must have every \
outgoing message once, and its first one must have one signature, of the right domain, by an RSA \
key of 2048 bits.
- Syncs are fsync, fdatasync and their like, counted by strace in a pass of their own.
- Load generator, name server, sink and systems share the machine's cores, so latencies and \
rates are those of a busy machine; CPU time for each message is the figure that carries over.
";

/// The whole page.
pub(super) fn markdown(
    results: &[Results],
    facts: &[(&'static str, String)],
) -> anyhow::Result<String> {
    let mut page = format!(
        "# Mailweir beside Postfix and Haraka\n\nMade by `bench/run.sh`; do not edit.\n\n{}\n\n\
         ![CPU time for each message](bench.svg)\n\n",
        summary(results)?
    );
    for class in results {
        let count = number(class.class.count as f64);
        write!(page, "## {} messages, {count} in each row\n\n", class.class.name)?;
        page.push_str(&cpu_table(class));
        page.push_str(&latency_table(class));
        page.push_str(&rate_table(class));
        page.push_str(&sync_table(class));
    }
    page.push_str(METHOD);
    page.push_str("\n## With what\n\n| what | which |\n|---|---|\n");
    for (what, which) in facts {
        writeln!(page, "| {what} | {which} |")?;
    }
    Ok(page)
}

/// The key cell in a sentence.
pub(super) fn summary(results: &[Results]) -> anyhow::Result<String> {
    let class = results.first().context("nothing was measured")?;
    let find =
        |kind, figure| class.spread(kind, KEY, figure).context("the key cell was not measured");
    let cpu = class.ratio(Kind::PostfixRspamd, KEY, CPU).context("there is no ratio")?;
    let p99 = class.ratio(Kind::PostfixRspamd, KEY, P99).context("there is no ratio")?;
    let met = |is_met| if is_met { "met" } else { "not met" };
    Ok(format!(
        "**{}, {} connections × {} messages, medians with their range: Mailweir takes {} µs of CPU \
         time for each message, Postfix+rspamd {} µs, {} as much (goal {CPU_GOAL}: {}). 99 of \
         100 messages have their 250 within {} ms from Mailweir and {} ms from Postfix+rspamd, {} \
         as long (goal {P99_GOAL}: {}).**",
        class.class.name,
        KEY.connections,
        KEY.messages,
        with_range(find(Kind::Mailweir, CPU)?, number),
        with_range(find(Kind::PostfixRspamd, CPU)?, number),
        with_range(cpu, times),
        met(cpu.median >= CPU_GOAL),
        with_range(find(Kind::Mailweir, P99)?, milliseconds),
        with_range(find(Kind::PostfixRspamd, P99)?, milliseconds),
        with_range(p99, times),
        met(p99.median >= P99_GOAL),
    ))
}

/// How many times Mailweir's CPU time another system takes.
pub(super) fn cpu_ratio(results: &Results, cell: Cell, kind: Kind) -> Option<f64> {
    Some(results.ratio(kind, cell, CPU)?.median)
}

/// A column for each system of a class, and one for the ratio of each but Mailweir.
struct Columns {
    systems: Vec<Kind>,
    ratios: Vec<Kind>,
}

impl Columns {
    fn of(results: &Results) -> Self {
        let systems = results.class.all_kinds();
        let mut ratios = systems.clone();
        ratios.retain(|kind| *kind != Kind::Mailweir);
        Self { systems, ratios }
    }

    /// The titles: what is in the rows, the systems, and their ratios, which begin so.
    fn titles(&self, what: &str, ratio: Option<&str>) -> Vec<String> {
        let mut titles = vec![what.to_owned()];
        titles.extend(self.systems.iter().map(|kind| kind.name().to_owned()));
        if let Some(ratio) = ratio {
            let ratios = self.ratios.iter();
            titles.extend(ratios.map(|kind| format!("{ratio}{} ÷ Mailweir", kind.name())));
        }
        titles
    }
}

fn cpu_table(results: &Results) -> String {
    let columns = Columns::of(results);
    let titles = columns.titles("CPU µs for each message", Some(""));
    table(&titles, &results.class.cells, |cell| {
        let of = |kind: &Kind| Some(with_range(results.spread(*kind, cell, CPU)?, number));
        let ratio = |kind: &Kind| Some(with_range(results.ratio(*kind, cell, CPU)?, times));
        let mut row: Vec<_> = columns.systems.iter().map(of).collect();
        row.extend(columns.ratios.iter().map(ratio));
        row
    })
}

fn latency_table(results: &Results) -> String {
    let columns = Columns::of(results);
    let titles = columns.titles("ms to the 250, p50 / p99", Some("p99: "));
    table(&titles, &results.class.cells, |cell| {
        let of = |kind: &Kind| {
            let p50 = results.spread(*kind, cell, P50)?.median;
            let p99 = results.spread(*kind, cell, P99)?;
            Some(format!("{} / {}", milliseconds(p50), with_range(p99, milliseconds)))
        };
        let ratio = |kind: &Kind| Some(with_range(results.ratio(*kind, cell, P99)?, times));
        let mut row: Vec<_> = columns.systems.iter().map(of).collect();
        row.extend(columns.ratios.iter().map(ratio));
        row
    })
}

fn rate_table(results: &Results) -> String {
    let columns = Columns::of(results);
    let titles = columns.titles("messages/s, peak memory", None);
    table(&titles, &results.class.cells, |cell| {
        let of = |kind: &Kind| {
            let rate = results.spread(*kind, cell, |row| row.rate)?;
            let memory = results.spread(*kind, cell, |row| row.memory as f64 / MIB)?;
            Some(format!("{}/s, {} MiB", with_range(rate, number), number(memory.most)))
        };
        columns.systems.iter().map(of).collect()
    })
}

fn sync_table(results: &Results) -> String {
    if results.syncs.is_empty() {
        return String::new();
    }
    let columns = Columns::of(results);
    let titles = columns.titles("syncs for each message", None);
    table(&titles, &results.class.sync_cells, |cell| {
        let of = |kind: &Kind| {
            let is_wanted = |row: &&Syncs| row.kind == *kind && row.cell == cell;
            Some(format!("{:.2}", results.syncs.iter().find(is_wanted)?.each))
        };
        columns.systems.iter().map(of).collect()
    })
}

/// A table with a row for each cell.
fn table(titles: &[String], cells: &[Cell], row: impl Fn(Cell) -> Vec<Option<String>>) -> String {
    let mut text =
        format!("| {} |\n|---{}|\n", titles.join(" | "), "|---:".repeat(titles.len() - 1));
    for cell in cells {
        let values = row(*cell).into_iter().map(|value| value.unwrap_or_else(|| "–".into()));
        let values: Vec<_> = std::iter::once(cell.name()).chain(values).collect();
        text.push_str(&format!("| {} |\n", values.join(" | ")));
    }
    text + "\n"
}

/// The median, and the range if there is one.
fn with_range(spread: Spread, text: fn(f64) -> String) -> String {
    let [median, least, most] = [spread.median, spread.least, spread.most].map(text);
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

fn times(ratio: f64) -> String {
    format!("{ratio:.1}×")
}

fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1}") } else { number(milliseconds) }
}

/// Rounded, with a comma between thousands.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Rounds of which the second was disturbed, for both systems.
    fn rounds() -> Results {
        let round = |kind, cpu_us| Measured {
            kind,
            cell: KEY,
            cpu_us,
            rate: 1e6 / cpu_us,
            p50: Duration::from_micros(500),
            p99: Duration::from_secs_f64(cpu_us / 1e5),
            memory: 20 << 20,
        };
        let mut measured = Vec::new();
        for (ours, theirs) in [(100.0, 2000.0), (400.0, 6000.0), (110.0, 2420.0)] {
            measured.push(round(Kind::Mailweir, ours));
            measured.push(round(Kind::PostfixRspamd, theirs));
        }
        let class = super::super::plan::quick().remove(0);
        let cells = vec![KEY];
        let class =
            super::super::plan::Class { cells: cells.clone(), haraka_cells: cells, ..class };
        Results { class, measured, syncs: Vec::new() }
    }

    #[test]
    fn a_row_is_medians_with_their_range_and_ratios_of_neighbours() {
        let row = |table: String| table.lines().nth(2).expect("a row").to_owned();
        assert_eq!(
            row(cpu_table(&rounds())),
            "| 32 × 20 | 110 (100–400) | 2,420 (2,000–6,000) | – | – | 20.0× (15.0×–22.0×) | – | – |"
        );
        assert!(row(latency_table(&rounds())).contains("| 0.5 / 1.1 (1.0–4.0) |"));
        let told = summary(&[rounds()]).expect("a summary");
        assert!(told.contains("2,420 (2,000–6,000) µs, 20.0× (15.0×–22.0×) as much"), "{told}");
    }

    #[test]
    fn a_class_has_columns_for_its_systems() {
        let title = |table: String| table.lines().next().expect("a title").to_owned();
        let all = rounds();
        assert_eq!(
            title(rate_table(&all)),
            "| messages/s, peak memory | Mailweir | Postfix+rspamd | Postfix alone | Haraka+Dovecot |"
        );
        assert!(title(cpu_table(&all)).ends_with("| Haraka+Dovecot ÷ Mailweir |"));
        let mut outgoing = rounds();
        outgoing.class.direction = super::super::plan::Direction::Outgoing;
        assert_eq!(
            title(latency_table(&outgoing)),
            "| ms to the 250, p50 / p99 | Mailweir | Postfix+rspamd | p99: Postfix+rspamd ÷ Mailweir |"
        );
    }

    #[test]
    fn the_page_says_of_every_system_what_it_leaves_out() {
        let page = markdown(&[rounds()], &[("Haraka", "3.3.4".to_owned())]).expect("a page");
        let left_out = page.lines().find(|line| line.starts_with("- What each leaves out:"));
        let left_out = left_out.expect("a paragraph");
        for kind in Kind::ALL {
            assert!(left_out.contains(kind.name()), "{} is not in {left_out}", kind.name());
        }
        assert!(page.contains("| Haraka | 3.3.4 |"), "{page}");
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(12.4), "12");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(milliseconds(1.234), "1.2");
    }
}
