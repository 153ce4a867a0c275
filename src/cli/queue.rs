//! `mailweir queue`: what waits to leave, and an operator's word on it.

mod shown;
mod summary;

use anyhow::{Context, bail};
use clap::Subcommand;

use self::shown::{Shown, States};
use super::{ConfigArgument, output};
use crate::clock::{Clock, SystemClock};
use crate::daemon::control::{self, Answer, Request};
use crate::queue::{Wanted, Whom};
use crate::store::reader::Reader;
use crate::store::{QueueId, QueuedMail};

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// What waits, oldest first
    List(ListArguments),
    /// One entry: its recipients and what came of them, attempts and last failure
    Show(ShowArguments),
    /// What waits for each destination: messages, octets, age, last failure, next attempt
    Summary(SummaryArguments),
    /// Try entries now
    // What other mail servers call it.
    #[command(aliases = ["flush", "run", "deliver"])]
    Retry(RetryArguments),
    /// Give entries up
    #[command(aliases = ["delete", "remove", "rm"])]
    Drop(DropArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// Only mail to this address or domain, or through this gateway
    #[arg(long, value_name = "ADDRESS-OR-DOMAIN")]
    to: Option<Whom>,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// The entry's id, as `list` prints it
    id: QueueId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct SummaryArguments {
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false, args = ["ids", "all", "to"])]
pub(super) struct RetryArguments {
    /// The entries
    ids: Vec<QueueId>,
    /// Everything that waits
    #[arg(long)]
    all: bool,
    /// Everything that waits for this address or domain, or goes through this gateway
    #[arg(long, value_name = "ADDRESS-OR-DOMAIN")]
    to: Option<Whom>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false, args = ["ids", "to"])]
pub(super) struct DropArguments {
    /// The entries
    ids: Vec<QueueId>,
    /// For this address, all recipients of this domain, or everything through this gateway; other
    /// recipients of an entry wait on
    #[arg(long, value_name = "ADDRESS-OR-DOMAIN")]
    to: Option<Whom>,
    /// Tell the senders, as if the mail had failed
    #[arg(long)]
    bounce: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &QueueCommand) -> anyhow::Result<()> {
    match command {
        QueueCommand::List(arguments) => list(arguments),
        QueueCommand::Show(arguments) => show(arguments),
        QueueCommand::Summary(arguments) => summary(arguments),
        QueueCommand::Retry(arguments) => retry(arguments),
        QueueCommand::Drop(arguments) => drop_entries(arguments),
    }
}

/// What waits, and what for. The daemon is asked first, so that nothing it says is about an entry
/// that came later.
fn queue(config: &ConfigArgument) -> anyhow::Result<(Vec<QueuedMail>, States)> {
    let configuration = config.load()?;
    let store = configuration.store;
    let states = States::ask(&store.data_dir, configuration.queue.paused);
    Ok((Reader::open(&store)?.queue()?, states))
}

/// What is said below a list of what waits while nothing is tried.
const PAUSED: &str = "the queue is paused: nothing leaves before paused is false under [queue] in the \
                      main file, and mailweir reload";

fn list(arguments: &ListArguments) -> anyhow::Result<()> {
    let (queue, states) = queue(&arguments.config)?;
    let to = arguments.to.as_ref();
    let mut shown = Vec::new();
    for mail in &queue {
        if to.is_none_or(|whom| !whom.places(mail).is_empty()) {
            shown.push(Shown::of(mail, &states));
        }
    }
    if arguments.json {
        return output::json_list(&shown);
    }
    for entry in &shown {
        output::line(&entry.line())?;
    }
    output::line(&match shown.len() {
        0 => nothing_waits(to, queue.len()),
        count => entries(count),
    })?;
    if states.is_paused {
        output::line(PAUSED)?;
    }
    Ok(())
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    }
}

/// That no entry is for whom an operator means, who may have written the name wrong: then there
/// are others.
fn nothing_waits(to: Option<&Whom>, others: usize) -> String {
    match to {
        Some(to) if others > 0 => {
            format!("nothing waits for {to}; for others, {}", entries(others))
        }
        _ => "the queue is empty".to_owned(),
    }
}

fn summary(arguments: &SummaryArguments) -> anyhow::Result<()> {
    let (queue, states) = queue(&arguments.config)?;
    let destinations = summary::of(&queue, &states, SystemClock.now());
    if arguments.json {
        return output::json_list(&destinations);
    }
    for destination in &destinations {
        output::line(&destination.line())?;
    }
    if destinations.is_empty() {
        output::line("the queue is empty")?;
    }
    if states.is_paused {
        output::line(PAUSED)?;
    }
    Ok(())
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let (queue, states) = queue(&arguments.config)?;
    let found = queue.iter().find(|mail| mail.id == arguments.id);
    let mail = found.with_context(|| format!("there is no entry {} in the queue", arguments.id))?;
    let shown = Shown::of(mail, &states);
    if arguments.json {
        return output::json(&shown);
    }
    shown.print(mail.entry.authorship.subject.as_deref())
}

fn wanted(ids: &[QueueId], to: Option<&Whom>) -> Wanted {
    to.map_or_else(|| Wanted::Ids(ids.to_vec()), |whom| Wanted::To(whom.clone()))
}

fn retry(arguments: &RetryArguments) -> anyhow::Result<()> {
    let wanted = match arguments.all {
        true => Wanted::All,
        false => wanted(&arguments.ids, arguments.to.as_ref()),
    };
    let request = Request::QueueRetry { wanted };
    let answer = ask(&arguments.config, &request)?;
    if arguments.json {
        output::json(&answer)?;
    } else {
        tell(&answer, "tried now", arguments.to.as_ref(), &arguments.config)?;
    }
    missed(&answer.missed)
}

fn drop_entries(arguments: &DropArguments) -> anyhow::Result<()> {
    let wanted = wanted(&arguments.ids, arguments.to.as_ref());
    let request = Request::QueueDrop { wanted, bounces: arguments.bounce };
    let answer = ask(&arguments.config, &request)?;
    if arguments.json {
        output::json(&answer)?;
    } else {
        tell(&answer, "given up", arguments.to.as_ref(), &arguments.config)?;
    }
    missed(&answer.missed)?;
    match answer.in_flight.as_slice() {
        [] => Ok(()),
        in_flight => bail!("being sent at this moment, so not given up: {}", listed(in_flight)),
    }
}

/// Asks the daemon.
fn ask(config: &ConfigArgument, request: &Request) -> anyhow::Result<Answer> {
    let data_dir = config.load()?.store.data_dir;
    let answer: Answer = control::ask(&data_dir, request)?;
    match &answer.problem {
        Some(problem) => bail!("the daemon says: {problem}"),
        None => Ok(answer),
    }
}

/// Prints what came of each entry, and how many there are of each kind.
fn tell(
    answer: &Answer,
    done: &str,
    to: Option<&Whom>,
    config: &ConfigArgument,
) -> anyhow::Result<()> {
    for id in &answer.done {
        output::line(&format!("{id} {done}"))?;
    }
    for id in &answer.in_flight {
        output::line(&format!("{id} is being sent at this moment"))?;
    }
    for entry in &answer.waiting {
        output::line(&format!("{} is due, and {}", entry.id, entry.waits_for))?;
    }
    let mut counts = Vec::new();
    for (count, what) in [
        (answer.done.len(), done),
        (answer.in_flight.len(), "being sent"),
        (answer.waiting.len(), "due but waiting"),
    ] {
        if count > 0 {
            counts.push(format!("{count} {what}"));
        }
    }
    if counts.is_empty() && answer.missed.is_empty() {
        let queue = Reader::open(&config.load()?.store)?.queue()?;
        counts.push(nothing_waits(to, queue.len()));
    }
    if !counts.is_empty() {
        output::line(&counts.join(", "))?;
    }
    if answer.paused {
        output::line(PAUSED)?;
    }
    Ok(())
}

fn missed(missed: &[QueueId]) -> anyhow::Result<()> {
    match missed {
        [] => Ok(()),
        missed => bail!("not in the queue: {}", listed(missed)),
    }
}

fn listed(ids: &[QueueId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}
