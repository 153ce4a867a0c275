//! `mailweir mailbox list`, `show`, `export`

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use serde::Serialize;

use super::export::Export;
use super::output::Lines;
use super::{ConfigArgument, audited, output};
use crate::clock::{Clock, SystemClock};
use crate::config::Configuration;
use crate::directory::EntityState;
use crate::events::audit::{MailboxAccess, Occasion};
use crate::id::TraceId;
use crate::mail::{Address, on_one_line};
use crate::store::reader::{Reader, StoredMessage};
use crate::store::{Folder, MailboxName};

#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// All mailboxes, or the folders and messages of one
    List(ListArguments),
    /// A message as it is stored
    Show(ShowArguments),
    /// Write all messages of a mailbox to DIR/FOLDER/ID.eml
    Export(ExportArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// The user: a name, ORGANIZATION/NAME, or one of the user's addresses
    user: Option<String>,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// The user: a name, ORGANIZATION/NAME, or one of the user's addresses
    user: String,
    /// The message's id, from `mailbox list`
    #[arg(value_parser = message_id)]
    id: TraceId,
    /// Print JSON: the message's facts and its bytes as text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArguments {
    /// The user: a name, ORGANIZATION/NAME, or one of the user's addresses
    user: String,
    /// The folder to write to; made if it is not there
    dir: PathBuf,
    /// Print JSON, a line for each file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MailboxLine<'a> {
    organization: &'a str,
    user: &'a str,
    used_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageLine<'a> {
    id: TraceId,
    folder: Folder,
    size_bytes: u64,
    received_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

pub(super) fn run(command: &MailboxCommand) -> anyhow::Result<()> {
    match command {
        MailboxCommand::List(arguments) => list(arguments),
        MailboxCommand::Show(arguments) => show(arguments),
        MailboxCommand::Export(arguments) => export(arguments),
    }
}

fn list(arguments: &ListArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load()?;
    let reader = Reader::open(&configuration.store)?;
    let Some(user) = &arguments.user else {
        return list_mailboxes(&configuration, &reader, arguments.json);
    };
    let name = find(&configuration, user)?;
    let folders = Folder::ALL.map(|folder| {
        let owner = Arc::clone(&name.user);
        MailboxAccess::listed_by_command(occasion(&name), owner, folder.as_str())
    });
    audited::record_or_note(&configuration, folders);
    let messages = reader.messages(&name)?;
    let mut lines = Lines::to_stdout();
    let mut unreadable = Unreadable::default();
    if arguments.json {
        for message in &messages {
            let subject = subject(&reader, message);
            lines.json(&line_of(message, unreadable.note(message, subject).flatten()))?;
        }
        lines.finish()?;
        return unreadable.outcome();
    }
    for folder in Folder::ALL {
        let inside: Vec<_> = messages.iter().filter(|message| message.folder == folder).collect();
        lines.line(&format!("{folder}: {}", output::counted(inside.len() as u64, "message")))?;
        for message in inside {
            let subject = match unreadable.note(message, subject(&reader, message)) {
                Some(Some(subject)) => on_one_line(&subject).into_owned(),
                Some(None) => "(no subject)".into(),
                None => "(cannot be read)".into(),
            };
            lines.line(&format!(
                "  {}  {}  {:>9} bytes  {subject}",
                message.id, message.received_at, message.size
            ))?;
        }
    }
    lines.finish()?;
    unreadable.outcome()
}

/// Messages that cannot be read: each is told, and keeps no other from being shown.
#[derive(Default)]
struct Unreadable(u64);

impl Unreadable {
    fn note<T>(&mut self, message: &StoredMessage, read: anyhow::Result<T>) -> Option<T> {
        read.map_err(|error| {
            self.0 += 1;
            output::note(&format!("{}: cannot be read: {}", message.id, output::described(&error)));
        })
        .ok()
    }

    /// An error if there was one.
    fn outcome(&self) -> anyhow::Result<()> {
        match self.0 {
            0 => Ok(()),
            count => bail!("{} cannot be read", output::counted(count, "message")),
        }
    }
}

fn list_mailboxes(
    configuration: &Configuration,
    reader: &Reader,
    json: bool,
) -> anyhow::Result<()> {
    let organizations = configuration.directory.organizations();
    let aliases: HashMap<_, _> = organizations
        .map(|organization| (organization.id.as_str(), organization.alias.as_str()))
        .collect();
    let mut lines = Lines::to_stdout();
    for (name, used_bytes) in all_mailboxes(configuration, reader) {
        let (id, user) = (&*name.organization, &*name.user);
        let organization = aliases.get(id).copied().unwrap_or(id);
        if json {
            lines.json(&MailboxLine { organization, user, used_bytes })?;
        } else {
            lines.line(&format!("{organization}/{user}: {used_bytes} bytes"))?;
        }
    }
    lines.finish()
}

/// Mailboxes that had mail, be their users still there or not; then those that had none.
fn all_mailboxes(configuration: &Configuration, reader: &Reader) -> Vec<(MailboxName, u64)> {
    let stored = reader.mailboxes().into_iter().map(|it| (it.name, it.used_bytes));
    let mut all: Vec<_> = stored.collect();
    let known: HashSet<_> = all.iter().map(|(name, _)| name.clone()).collect();
    for organization in configuration.directory.organizations() {
        let resources = organization.resources.iter().map(|resource| &resource.mailbox);
        for user in organization.users.iter().chain(resources) {
            let id = organization.id.as_str().into();
            let name = MailboxName { organization: id, user: Arc::clone(&user.name) };
            let is_here = !matches!(user.state, EntityState::Remote(_));
            if is_here && !known.contains(&name) {
                all.push((name, 0));
            }
        }
    }
    all
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load()?;
    let reader = Reader::open(&configuration.store)?;
    let name = find(&configuration, &arguments.user)?;
    let messages = reader.messages(&name)?;
    let found = messages.iter().find(|message| message.id == arguments.id);
    let folder = found.map(|message| message.folder.as_str());
    let owner = Arc::clone(&name.user);
    let line = MailboxAccess::read_by_command(occasion(&name), owner, arguments.id, folder);
    audited::record_or_note(&configuration, [line]);
    let message = found.ok_or_else(|| no_such_message(&arguments.user, arguments.id))?;
    let bytes = reader.read(message)?;
    if !arguments.json {
        return Ok(output::bytes(&bytes)?);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = line_of(message, subject(&reader, message)?);
    output::json(&MessageLine { message: Some(text), ..line })
}

/// A message has the id of the trace in which it came; nothing else names it.
fn message_id(text: &str) -> Result<TraceId, String> {
    text.parse().map_err(|_| {
        "it is not the id of a message, as `mailbox list` shows them; `events trace` finds a message \
         by its Message-ID or its recipient"
            .to_owned()
    })
}

/// It may be a mistyped one, or another mailbox's.
fn no_such_message(user: &str, id: TraceId) -> anyhow::Error {
    anyhow!(
        "{user} has no message {id}: mailweir mailbox list {user} shows which there are, and \
         mailweir events trace {id} what became of one"
    )
}

fn export(arguments: &ExportArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load()?;
    let reader = Reader::open(&configuration.store)?;
    let name = find(&configuration, &arguments.user)?;
    let messages = reader.messages(&name)?;
    let occasion = occasion(&name);
    let lines = messages.iter().map(|message| {
        let (owner, folder) = (Arc::clone(&name.user), Some(message.folder.as_str()));
        MailboxAccess::read_by_command(occasion.clone(), owner, message.id, folder)
    });
    audited::record_or_note(&configuration, lines);
    let mut to = Export::open(&arguments.dir)?;
    let mut unreadable = Unreadable::default();
    for message in &messages {
        let read = reader.read(message).map_err(anyhow::Error::from);
        let Some(bytes) = unreadable.note(message, read) else { continue };
        let path = to.write(message.folder, message.id, &bytes)?;
        if arguments.json {
            let file = path.display().to_string();
            output::json(&MessageLine { file: Some(&file), ..line_of(message, None) })?;
        }
    }
    if !arguments.json {
        let count = output::counted(messages.len() as u64 - unreadable.0, "message");
        output::line(&format!("{count} written to {}", arguments.dir.display()))?;
    }
    unreadable.outcome()
}

/// A command that uses a mailbox; nobody is logged in.
fn occasion(name: &MailboxName) -> Occasion {
    let (now, id) = (SystemClock.now(), TraceId::generate());
    Occasion::new(now, id, Some(Arc::clone(&name.organization)), None)
}

fn line_of(message: &StoredMessage, subject: Option<String>) -> MessageLine<'static> {
    MessageLine {
        id: message.id,
        folder: message.folder,
        size_bytes: message.size,
        received_at: message.received_at.as_millis(),
        subject,
        file: None,
        message: None,
    }
}

fn subject(reader: &Reader, message: &StoredMessage) -> anyhow::Result<Option<String>> {
    let bytes = reader.read(message)?;
    let parsed = mail_parser::MessageParser::new().parse_headers(&bytes);
    Ok(parsed.and_then(|parsed| parsed.subject().map(str::to_owned)))
}

/// The mailbox that an operator means.
fn find(configuration: &Configuration, user: &str) -> anyhow::Result<MailboxName> {
    let directory = &configuration.directory;
    if let Ok(address) = Address::parse(user) {
        let resolved = directory
            .resolve(&address, configuration.pipeline.max_group_members)
            .with_context(|| user.to_owned())?;
        let member = match (&*resolved.members, &*resolved.remote) {
            ([member], []) => member,
            ([], [remote]) => bail!("the mailbox of {user} is elsewhere: {}", remote.forward_to),
            _ => bail!("{user} is a group; name one of its members"),
        };
        return Ok(MailboxName {
            organization: resolved.organization.id.as_str().into(),
            user: member.mailbox.clone(),
        });
    }
    let (alias, name) = match user.split_once('/') {
        Some((alias, name)) => (Some(alias), name),
        None => (None, user),
    };
    let found: Vec<_> = directory
        .organizations()
        .filter(|organization| alias.is_none_or(|alias| organization.alias == alias))
        .filter(|organization| {
            let resources = organization.resources.iter().map(|resource| &resource.mailbox);
            organization.users.iter().chain(resources).any(|known| &*known.name == name)
        })
        .collect();
    match found.as_slice() {
        [organization] => {
            Ok(MailboxName { organization: organization.id.as_str().into(), user: name.into() })
        }
        [] => bail!("there is no user or resource {user}"),
        _ => bail!("several organizations have a {user}; say ORGANIZATION/{user}"),
    }
}
