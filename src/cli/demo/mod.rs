//! `mailweir demo`: everything a newcomer wants to see, with nothing installed: a daemon on free
//! loopback ports and another that plays the rest of the world, DNS from a fixture, messages over
//! real SMTP in and out, and what became of them.

mod arrivals;
mod show;
mod submissions;
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::time::timeout;

use super::{events, log, output, runtime};
use crate::config::{LogFormat, LogSettings};
use arrivals::arrivals;
use submissions::{AUTHOR, End, SUBMISSIONS, Submission};
use world::{Place, Running, World};

/// How long all conversations together may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// Where to put the demo's files, which stay there; by default a folder of its own, which is
    /// removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the files where they are
    #[arg(long)]
    keep: bool,
    /// Print every message's whole story too
    #[arg(long)]
    full: bool,
    /// Print only the traces, as JSON
    #[arg(long, conflicts_with = "full")]
    json: bool,
}

/// A message, and what its trace is asked for by.
struct Told {
    what: &'static str,
    id: String,
    submission: Option<&'static Submission>,
}

/// The demo as far as it has come when the daemons have stopped.
struct Played {
    told: Vec<Told>,
    here: Place,
    elsewhere: Place,
}

pub(super) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    let _log = log::start(&LogSettings { format: LogFormat::Text, level: "warn".into() })?;
    let folder = Folder::of(arguments)?;
    let voice = Voice { is_quiet: arguments.json };
    let played = runtime()?.block_on(async {
        tokio::select! {
            // Nothing is kept that is cut short: the daemons end with the runtime.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            played = play(&folder.path, voice) => played,
        }
    })?;
    if arguments.json {
        return played.traces(voice);
    }
    if arguments.full {
        output::line("\nTraces")?;
        played.traces(voice)?;
    }
    show::mailboxes("Mailboxes", &played.here)?;
    show::mailboxes("Mailboxes elsewhere", &played.elsewhere)?;
    played.summary()?;
    if !arguments.full {
        output::line("\nThe whole story of each: --full.")?;
    }
    if folder.is_removed {
        return Ok(output::line("The demo's files are removed; --keep leaves them to look at.")?);
    }
    show::where_to_look(&played.here)
}

async fn play(dir: &Path, voice: Voice) -> anyhow::Result<Played> {
    let world = World::start(dir).await?;
    let told = timeout(PATIENCE, converse(&world.here, voice)).await;
    let (here, elsewhere) = world.stop().await;
    let told = told.map_err(|_| anyhow!("the demo took more than {PATIENCE:?}"))??;
    Ok(Played { told, here, elsewhere })
}

/// Where the demo's files are. A folder that it has made itself goes with this value.
struct Folder {
    path: PathBuf,
    is_removed: bool,
}

impl Folder {
    fn of(arguments: &DemoArguments) -> anyhow::Result<Self> {
        if let Some(path) = &arguments.dir {
            return Ok(Self { path: path.clone(), is_removed: false });
        }
        let path = std::env::temp_dir().join(format!("mailweir-demo-{}", std::process::id()));
        // Made here, never found: what another put there is not removed.
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, is_removed: !arguments.keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_removed
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            output::note(&format!("{}: {error}", self.path.display()));
        }
    }
}

/// Says what happens, unless only traces are wanted.
#[derive(Clone, Copy)]
struct Voice {
    is_quiet: bool,
}

impl Voice {
    fn say(self, text: &str) -> std::io::Result<()> {
        if self.is_quiet { Ok(()) } else { output::line(text) }
    }

    fn tell(self, what: &str, from: &str, to: &str, reply: &str) -> std::io::Result<()> {
        self.say(&format!("{what}\n   {from} -> {to}\n   {reply}"))
    }
}

/// Sends everything, and waits for what becomes of it.
async fn converse(here: &Running, voice: Voice) -> anyhow::Result<Vec<Told>> {
    let arrivals = arrivals();
    let mut told = Vec::new();
    let address = here.address("mx")?;
    voice.say(&format!("Other servers send {} messages to {address}\n", arrivals.len()))?;
    for arrival in &arrivals {
        let reply = arrivals::send(address, arrival).await.context(arrival.what)?;
        voice.tell(arrival.what, arrival.sender, arrival.recipient, &reply)?;
        told.push(Told { what: arrival.what, id: arrival.message_id.to_owned(), submission: None });
    }
    told.extend(submit(here, voice).await?);
    here.settled().await?;
    Ok(told)
}

/// A user logs in and submits everything over one connection.
async fn submit(here: &Running, voice: Voice) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    let mut connection = submissions::log_in(here).await?;
    let tls = connection.tls().unwrap_or("no TLS").to_owned();
    let (count, address) = (SUBMISSIONS.len(), here.address("submissions")?);
    voice
        .say(&format!("\n{AUTHOR} logs in at {address} ({tls}) and submits {count} messages\n"))?;
    for message in &SUBMISSIONS {
        let reply = message.submit(&mut connection).await.context(message.what)?;
        voice.tell(message.what, AUTHOR, &message.recipients.join(", "), &reply)?;
        let id = submissions::trace_of(&reply)?.to_string();
        told.push(Told { what: message.what, id, submission: Some(message) });
    }
    connection.quit().await;
    Ok(told)
}

impl Played {
    /// The traces; unless only those are wanted, also where the message ended that left.
    fn traces(&self, voice: Voice) -> anyhow::Result<()> {
        for Told { what, id, submission } in &self.told {
            voice.say(&format!("\n{what}"))?;
            trace(&self.here, id, voice)?;
            if let Some(submission) = submission.filter(|_| !voice.is_quiet) {
                self.end_of(submission, voice)?;
            }
        }
        Ok(())
    }

    /// A few lines for each message.
    fn summary(&self) -> anyhow::Result<()> {
        output::line("\nWhat became of each message\n")?;
        for Told { what, id, .. } in &self.told {
            output::line(what)?;
            for line in events::outcomes(&self.here.store, id)? {
                output::line(&format!("   {line}"))?;
            }
        }
        Ok(())
    }

    fn end_of(&self, submission: &Submission, voice: Voice) -> anyhow::Result<()> {
        match submission.end {
            // The same Message-ID, another daemon's trace.
            End::Elsewhere => {
                output::line("\nAs the server elsewhere tells it:")?;
                trace(&self.elsewhere, submission.message_id, voice)
            }
            End::Bounced => show::report(&self.here, AUTHOR),
        }
    }
}

fn trace(place: &Place, id: &str, voice: Voice) -> anyhow::Result<()> {
    events::trace(&place.store, id, events::MAX_TRACES, voice.is_quiet)
}
