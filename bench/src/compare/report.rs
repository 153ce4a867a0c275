//! The tables of `docs/bench.md`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::measure::{Measured, Spread};
use super::plan::{Cell, KEY};
use super::system::Kind;
use super::{MIB, Results, Syncs, machine};

/// How many times Mailweir's CPU time for each message Postfix+rspamd shall need at least.
const CPU_GOAL: f64 = 20.0;
/// How many times Mailweir's p99 Postfix+rspamd's shall be at least.
const P99_GOAL: f64 = 2.0;

const CPU: fn(&Measured) -> f64 = |row| row.cpu_us;
const P50: fn(&Measured) -> f64 = |row| row.p50.as_secs_f64() * 1e3;
const P99: fn(&Measured) -> f64 = |row| row.p99.as_secs_f64() * 1e3;

const METHOD: &str = "\
## How it is measured

- Three systems, each a private instance on loopback, started anew for each row: Mailweir with \
SPF, DKIM, DMARC, rules, durable encrypted delivery and events; Postfix with rspamd as a milter \
that makes the verdicts of SPF, DKIM and DMARC, adds Authentication-Results and does nothing \
else; Postfix alone, which checks nothing. Both Postfixes deliver to a Maildir with virtual(8).
- Postfix has Debian's defaults, except that limits which would refuse or slow this load are \
raised or off (sizes, rates, 200 processes for each service, `in_flow_delay`), and that its only \
table is in memory. rspamd scans in its milter's workers, one for each core, over a Unix socket; \
its rules for spam, its statistics and everything that needs Redis are not loaded. NSD's limit \
of answers a second is off, and files of a row are deleted after the last row, because both would \
slow Postfix and rspamd alone.
- Messages are made at the start, each unlike the others, signed with RSA-SHA256 of 2048 bits, \
relaxed/relaxed: text and the same in HTML, or text and a base64 attachment from 1 MB on. All systems ask the \
same NSD; nothing leaves loopback. NSD's and the load generator's CPU time count for nobody.
- `32 × 20` means 32 connections at once with 20 messages on each; then the next one is opened. \
Before a row is measured, as many connections as it has have each sent a message.
- Each row is measured three times, the systems in turn, each time with a third of the messages, \
and those of 32 × 20 five times with five passes of them. Each figure is the median of its rounds, \
with the least and the most in brackets; a ratio is the median of the ratios of rounds that were \
measured one after the other. Memory is the most of all rounds.
- What each leaves out: Mailweir does all that is said above. Postfix+rspamd has no rules, no \
encryption at rest, no events, no index; it says 250 before delivery. Postfix alone has no check \
either. None scans for spam, journals or sends anything on.
- CPU time is user and system time of all processes of a system, for each message, until all is \
delivered and the system is quiet. Messages/s counts until the last delivery. Latency is from the \
last octet of the final dot to the 250: for Mailweir the message is then in the mailbox, for \
Postfix in its queue. Memory is the largest sum of proportional set sizes seen, sampled in at \
most a hundredth of one core's time.
- After each row the mailbox is counted, and a delivered message must say that SPF, DKIM and \
DMARC passed, or the comparison fails.
- Syncs are fsync, fdatasync and their like, counted by strace in a pass of their own.
- Load generator, name server and systems share the machine's cores, so latencies and rates are \
those of a busy machine; CPU time for each message is the figure that carries over.
";

/// The whole page.
pub(super) fn markdown(results: &[Results], mailweir: &Path) -> anyhow::Result<String> {
    let mut page = format!(
        "# Mailweir beside Postfix\n\nMade by `bench/run.sh`; do not edit.\n\n{}\n\n\
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
    for (what, which) in machine::facts(mailweir)? {
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

fn cpu_table(results: &Results) -> String {
    let titles = ["CPU µs for each message", "Mailweir", "Postfix+rspamd", "Postfix alone"];
    let ratios = ["Postfix+rspamd ÷ Mailweir", "Postfix alone ÷ Mailweir"];
    table(&[titles.as_slice(), &ratios].concat(), &results.class.cells, |cell| {
        let of = |kind| Some(with_range(results.spread(kind, cell, CPU)?, number));
        let ratio = |kind| Some(with_range(results.ratio(kind, cell, CPU)?, times));
        let mut row = Kind::ALL.map(of).to_vec();
        row.extend([Kind::PostfixRspamd, Kind::Postfix].map(ratio));
        row
    })
}

fn latency_table(results: &Results) -> String {
    let titles = [
        "ms to the 250, p50 / p99",
        "Mailweir",
        "Postfix+rspamd",
        "Postfix alone",
        "p99: Postfix+rspamd ÷ Mailweir",
        "p99: Postfix alone ÷ Mailweir",
    ];
    table(&titles, &results.class.cells, |cell| {
        let of = |kind| {
            let p50 = results.spread(kind, cell, P50)?.median;
            let p99 = results.spread(kind, cell, P99)?;
            Some(format!("{} / {}", milliseconds(p50), with_range(p99, milliseconds)))
        };
        let ratio = |kind| Some(with_range(results.ratio(kind, cell, P99)?, times));
        let mut row = Kind::ALL.map(of).to_vec();
        row.extend([Kind::PostfixRspamd, Kind::Postfix].map(ratio));
        row
    })
}

fn rate_table(results: &Results) -> String {
    let titles = ["messages/s, peak memory", "Mailweir", "Postfix+rspamd", "Postfix alone"];
    table(&titles, &results.class.cells, |cell| {
        let of = |kind| {
            let rate = results.spread(kind, cell, |row| row.rate)?;
            let memory = results.spread(kind, cell, |row| row.memory as f64 / MIB)?;
            Some(format!("{}/s, {} MiB", with_range(rate, number), number(memory.most)))
        };
        Kind::ALL.map(of).to_vec()
    })
}

fn sync_table(results: &Results) -> String {
    if results.syncs.is_empty() {
        return String::new();
    }
    let titles = ["syncs for each message", "Mailweir", "Postfix+rspamd", "Postfix alone"];
    table(&titles, &results.class.sync_cells, |cell| {
        let is_wanted = |kind| move |row: &&Syncs| row.kind == kind && row.cell == cell;
        let of = |kind| results.syncs.iter().find(is_wanted(kind));
        Kind::ALL.map(|kind| of(kind).map(|row| format!("{:.2}", row.each))).to_vec()
    })
}

/// A table with a row for each cell.
fn table(titles: &[&str], cells: &[Cell], row: impl Fn(Cell) -> Vec<Option<String>>) -> String {
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
        let class = super::super::plan::Class { cells: vec![KEY], ..class };
        Results { class, measured, syncs: Vec::new() }
    }

    #[test]
    fn a_row_is_medians_with_their_range_and_ratios_of_neighbours() {
        let row = |table: String| table.lines().nth(2).expect("a row").to_owned();
        assert_eq!(
            row(cpu_table(&rounds())),
            "| 32 × 20 | 110 (100–400) | 2,420 (2,000–6,000) | – | 20.0× (15.0×–22.0×) | – |"
        );
        assert!(row(latency_table(&rounds())).contains("| 0.5 / 1.1 (1.0–4.0) |"));
        let told = summary(&[rounds()]).expect("a summary");
        assert!(told.contains("2,420 (2,000–6,000) µs, 20.0× (15.0×–22.0×) as much"), "{told}");
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(12.4), "12");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(milliseconds(1.234), "1.2");
    }
}
