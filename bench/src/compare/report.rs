//! The tables of `docs/bench.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::plan::{Cell, KEY};
use super::system::Kind;
use super::{MIB, Results, Syncs, machine};

/// How many times Mailweir's CPU time for each message Postfix+rspamd shall need at least.
const CPU_GOAL: f64 = 20.0;
/// How many times Mailweir's p99 Postfix+rspamd's shall be at least.
const P99_GOAL: f64 = 2.0;

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
- The rows of 32 × 20 are measured five times in turn, each time with five passes of the \
messages, and the best of each figure counts, for each system, because what else the machine \
does can only make it worse.
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
    let find = |kind| class.of(kind, KEY).context("the key cell was not measured");
    let (ours, theirs) = (find(Kind::Mailweir)?, find(Kind::PostfixRspamd)?);
    let (cpu, p99) = (theirs.cpu_us / ours.cpu_us, of(theirs.p99, ours.p99));
    let met = |is_met| if is_met { "met" } else { "not met" };
    Ok(format!(
        "**{}, {} connections × {} messages: Mailweir takes {} µs of CPU time for each message, \
         Postfix+rspamd {} µs, {cpu:.1} times as much (goal {CPU_GOAL}: {}). 99 of 100 messages \
         have their 250 within {} ms from Mailweir and {} ms from Postfix+rspamd, {p99:.1} times \
         as long (goal {P99_GOAL}: {}).**",
        class.class.name,
        KEY.connections,
        KEY.messages,
        number(ours.cpu_us),
        number(theirs.cpu_us),
        met(cpu >= CPU_GOAL),
        milliseconds(ours.p99),
        milliseconds(theirs.p99),
        met(p99 >= P99_GOAL),
    ))
}

/// How many times Mailweir's CPU time another system takes.
pub(super) fn cpu_ratio(results: &Results, cell: Cell, kind: Kind) -> Option<f64> {
    Some(results.of(kind, cell)?.cpu_us / results.of(Kind::Mailweir, cell)?.cpu_us)
}

fn p99_ratio(results: &Results, cell: Cell, kind: Kind) -> Option<f64> {
    Some(of(results.of(kind, cell)?.p99, results.of(Kind::Mailweir, cell)?.p99))
}

fn of(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64()
}

fn cpu_table(results: &Results) -> String {
    let titles = ["CPU µs for each message", "Mailweir", "Postfix+rspamd", "Postfix alone"];
    let ratios = ["Postfix+rspamd ÷ Mailweir", "Postfix alone ÷ Mailweir"];
    table(&[titles.as_slice(), &ratios].concat(), &results.class.cells, |cell| {
        let of = |kind| results.of(kind, cell).map(|row| number(row.cpu_us));
        let ratio = |kind| cpu_ratio(results, cell, kind).map(times);
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
            let row = results.of(kind, cell)?;
            Some(format!("{} / {}", milliseconds(row.p50), milliseconds(row.p99)))
        };
        let ratio = |kind| p99_ratio(results, cell, kind).map(times);
        let mut row = Kind::ALL.map(of).to_vec();
        row.extend([Kind::PostfixRspamd, Kind::Postfix].map(ratio));
        row
    })
}

fn rate_table(results: &Results) -> String {
    let titles = ["messages/s, peak memory", "Mailweir", "Postfix+rspamd", "Postfix alone"];
    table(&titles, &results.class.cells, |cell| {
        let of = |kind| {
            let row = results.of(kind, cell)?;
            Some(format!("{}/s, {} MiB", number(row.rate), number(row.memory as f64 / MIB)))
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

fn times(ratio: f64) -> String {
    format!("{ratio:.1}×")
}

fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
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
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(12.4), "12");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.2");
    }
}
