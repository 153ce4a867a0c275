//! `mailweir fsck`, `backup`, `restore`

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};

use super::{ConfigArgument, output};
use crate::store::backup::{self, Manifest};
use crate::store::fsck::{self, Depth, Report};
use crate::store::{StoreError, is_there};

/// What the problems of the log mean.
const FSCK_SAYS: &str = "\
Of the log it says which file and which octet, and
  \"is damaged\": not the octets that were written; restore a backup
  \"was altered\": the checksum is right, and somebody without the master key has written it, moved it,
    or taken out what stood there; put the file back from a copy, or restore a backup
  \"does not know\": a later version has written it; put that program back";

#[derive(Debug, clap::Args)]
#[command(after_help = FSCK_SAYS)]
pub(super) struct FsckArguments {
    /// Do not open the messages: checksums, keys, index and events alone
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct BackupArguments {
    /// The folder to write to; new or empty
    dir: PathBuf,
    /// Print JSON: the manifest
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArguments {
    /// The folder that `backup` wrote
    dir: PathBuf,
    /// Print JSON: the manifest
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn fsck(arguments: &FsckArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load()?;
    let settings = &configuration.store;
    let depth = if arguments.quick { Depth::Records } else { Depth::Contents };
    let report = fsck::check(settings, &configuration.events, depth)?;
    if arguments.json {
        output::json(&report)?
    } else {
        print_report(&report, depth)?
    }
    if !report.is_sound() {
        let problems = report.problems.len() as u64 + report.more_problems;
        bail!("{}: {} found", settings.data_dir.display(), output::counted(problems, "problem"));
    }
    Ok(())
}

fn print_report(report: &Report, depth: Depth) -> std::io::Result<()> {
    for problem in &report.problems {
        output::line(&format!("problem: {problem}"))?;
    }
    if report.more_problems > 0 {
        output::line(&format!("problem: {} more", report.more_problems))?;
    }
    let files = (
        output::counted(report.segments as u64, "segment"),
        output::counted(report.packs as u64, "pack"),
    );
    output::line(&format!(
        "log: {} and {}, {} with the right checksum, {} bytes",
        files.0,
        files.1,
        output::counted(report.records, "record"),
        report.log_bytes
    ))?;
    let contents = match depth {
        Depth::Contents => format!("{} opened", output::counted(report.contents, "content")),
        Depth::Records => "not opened".into(),
    };
    let erased = match report.erased {
        0 => String::new(),
        erased => format!(", {erased} erased"),
    };
    output::line(&format!("mailboxes: the keys of {} opened{erased}", report.mailboxes))?;
    output::line(&format!("domains: {} opened", output::counted(report.domain_keys, "key")))?;
    output::line(&format!("messages: {contents}"))?;
    output::line(&format!(
        "index: {} where the log has them, {} still to come",
        output::counted(report.messages, "message"),
        output::counted(report.records_to_index, "record"),
    ))?;
    output::line(&format!("queue: {} waiting", report.queued))?;
    output::line(&format!(
        "events: {} in the files once and as the log has them, {} still to come",
        output::counted(report.events, "event"),
        report.events_to_write,
    ))?;
    if let Some(credentials) = report.credentials {
        output::line(&format!(
            "credentials: {} and {}, readable",
            output::counted(credentials.passwords, "password"),
            output::counted(credentials.tokens, "token"),
        ))?;
    }
    for path in &report.leftovers {
        output::line(&format!("left by an interrupted write, harmless: {}", path.display()))?;
    }
    if report.is_sound() { output::line("sound") } else { Ok(()) }
}

pub(super) fn backup(arguments: &BackupArguments) -> anyhow::Result<()> {
    let settings = arguments.config.load()?.store;
    let manifest = backup::backup(&settings, &arguments.dir).map_err(|error| match error {
        StoreError::InTheWay(_) => anyhow!("{error}; name a folder that is not there yet"),
        other => other.into(),
    })?;
    if arguments.json {
        return output::json(&manifest);
    }
    output::line(&format!("{} in {}", summary(&manifest), arguments.dir.display()))?;
    output::line("the master key is not among them: without it no message can be read")?;
    Ok(())
}

pub(super) fn restore(arguments: &RestoreArguments) -> anyhow::Result<()> {
    let settings = arguments.config.load()?.store;
    let manifest = backup::restore(&arguments.dir, &settings).map_err(|error| match error {
        StoreError::InTheWay(dir) => in_the_way(&dir),
        other => other.into(),
    })?;
    if arguments.json {
        return output::json(&manifest);
    }
    output::line(&format!("{} in {}", summary(&manifest), settings.data_dir.display()))?;
    let key = settings.master_key_file.unwrap_or_else(|| settings.data_dir.join("keys/master.key"));
    if !is_there(&key)? {
        output::line(&format!("now put the master key to {}", key.display()))?;
    }
    Ok(())
}

/// Why there is no restore beside a store, and what to do.
fn in_the_way(data_dir: &Path) -> anyhow::Error {
    let from = data_dir.display();
    anyhow!(
        "{from} has mail or passwords already, and a restore is never mixed with them; stop the daemon and move the \
         folder away (mv {from} {from}.old), restore, and put keys/master.key into the new one"
    )
}

fn summary(manifest: &Manifest) -> String {
    let files = output::counted(manifest.files.len() as u64, "file");
    format!("{files} of {}, {} bytes", manifest.created_at.to_rfc3339(), manifest.bytes())
}
