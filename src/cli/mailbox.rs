//! `mailweir mailbox list`, `show`, `export`

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use serde::Serialize;

use super::export::Export;
use super::output::Lines;
use super::{ConfigArgument, audited, output};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::Configuration;
use crate::directory::{EntityState, Organization, User};
use crate::events::audit::{MailboxAccess, Occasion};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, on_one_line};
use crate::store::reader::{MailboxSummary, Reader, StoredMessage};
use crate::store::{Folder, MailboxOwner, Register};

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
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
    user: Option<String>,
    /// Print JSON, a line for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
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
    /// The user: a name, ORGANIZATION/NAME, an id, or one of the user's addresses
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
struct MailboxLine {
    organization: String,
    user: String,
    id: EntityId,
    used_bytes: u64,
    /// Since when its user is no more, if that is so; ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<u64>,
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
    let configuration = arguments.config.load_with_store()?;
    let reader = Reader::open(&configuration.store)?;
    let Some(user) = &arguments.user else {
        return list_mailboxes(&configuration, &reader, arguments.json);
    };
    let owner = find(&configuration, reader.register(), user)?;
    let folders = Folder::ALL.map(|folder| {
        let entity = owner.entity.clone();
        MailboxAccess::listed_by_command(occasion(&owner), entity, folder.as_str())
    });
    audited::record_or_note(&configuration, folders);
    let messages = reader.messages(&owner)?;
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
    let mut lines = Lines::to_stdout();
    for line in all_mailboxes(configuration, reader) {
        if json {
            lines.json(&line)?;
            continue;
        }
        let MailboxLine { organization, user, id, used_bytes, closed_at } = line;
        let mut text = format!("{organization}/{user}: {used_bytes} bytes");
        if let Some(at) = closed_at.map(Timestamp::from_millis) {
            text.push_str(&format!(", closed {at}, its user being gone; id {id}"));
        }
        lines.line(&text)?;
    }
    lines.finish()
}

/// Mailboxes that had mail, be their users still there or not; then those that had none.
fn all_mailboxes(configuration: &Configuration, reader: &Reader) -> Vec<MailboxLine> {
    let mut all = Vec::new();
    let mut known = HashSet::new();
    let register = reader.register();
    for MailboxSummary { owner, used_bytes } in reader.mailboxes() {
        let MailboxOwner { organization, entity } = &owner;
        let registered = register.entity(organization, entity);
        let alias = register.alias_of(organization).unwrap_or(organization);
        all.push(MailboxLine {
            organization: alias.to_string(),
            user: registered.map_or_else(|| entity.to_string(), |it| it.name.to_string()),
            id: entity.clone(),
            used_bytes,
            closed_at: registered.and_then(|it| it.gone_at).map(Timestamp::as_millis),
        });
        known.insert(owner);
    }
    for organization in configuration.directory.organizations() {
        let resources = organization.resources.iter().map(|resource| &resource.mailbox);
        for user in organization.users.iter().chain(resources) {
            let owner = owner_of(organization, user);
            let is_here = !matches!(user.state, EntityState::Remote(_));
            if is_here && !known.contains(&owner) {
                all.push(MailboxLine {
                    organization: organization.alias.clone(),
                    user: user.name.to_string(),
                    id: owner.entity,
                    used_bytes: 0,
                    closed_at: None,
                });
            }
        }
    }
    all
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let configuration = arguments.config.load_with_store()?;
    let reader = Reader::open(&configuration.store)?;
    let owner = find(&configuration, reader.register(), &arguments.user)?;
    let messages = reader.messages(&owner)?;
    let found = messages.iter().find(|message| message.id == arguments.id);
    let folder = found.map(|message| message.folder.as_str());
    let entity = owner.entity.clone();
    let line = MailboxAccess::read_by_command(occasion(&owner), entity, arguments.id, folder);
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
    let configuration = arguments.config.load_with_store()?;
    let reader = Reader::open(&configuration.store)?;
    let owner = find(&configuration, reader.register(), &arguments.user)?;
    let messages = reader.messages(&owner)?;
    let occasion = occasion(&owner);
    let lines = messages.iter().map(|message| {
        let (entity, folder) = (owner.entity.clone(), Some(message.folder.as_str()));
        MailboxAccess::read_by_command(occasion.clone(), entity, message.id, folder)
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
fn occasion(owner: &MailboxOwner) -> Occasion {
    let (now, id) = (SystemClock.now(), TraceId::generate());
    Occasion::new(now, id, Some(Arc::clone(&owner.organization)), None)
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

fn owner_of(organization: &Organization, user: &User) -> MailboxOwner {
    let organization = organization.id.as_str().into();
    MailboxOwner { organization, entity: user.id.clone() }
}

/// The mailbox that an operator means; one whose user is gone has its id alone.
fn find(
    configuration: &Configuration,
    register: &Register,
    text: &str,
) -> anyhow::Result<MailboxOwner> {
    if let Ok(address) = Address::parse(text) {
        return find_by_address(configuration, &address);
    }
    let id = text.parse::<EntityId>().ok();
    let (alias, name) = match text.split_once('/') {
        Some((alias, name)) => (Some(alias), name),
        None => (None, text),
    };
    let mut found = Vec::new();
    for organization in configuration.directory.organizations() {
        if alias.is_some_and(|alias| organization.alias != alias) {
            continue;
        }
        let resources = organization.resources.iter().map(|resource| &resource.mailbox);
        let mut mailboxes = organization.users.iter().chain(resources);
        let is_meant = |user: &&User| *user.name == *name || Some(&user.id) == id.as_ref();
        found.extend(mailboxes.find(is_meant).map(|user| owner_of(organization, user)));
    }
    if let (Some(entity), true) = (id, found.is_empty())
        && let Some(organization) = register.organization_with(&entity)
    {
        found.push(MailboxOwner { organization: Arc::clone(organization), entity });
    }
    match found.as_slice() {
        [owner] => Ok(owner.clone()),
        [] => bail!("there is no user or resource {text}{}", closed(configuration, register, name)),
        _ => bail!("several organizations have a {text}; say ORGANIZATION/{text}"),
    }
}

fn find_by_address(
    configuration: &Configuration,
    address: &Address,
) -> anyhow::Result<MailboxOwner> {
    let resolved = configuration
        .directory
        .resolve(address, configuration.pipeline.max_group_members)
        .with_context(|| address.to_string())?;
    match (&*resolved.members, &*resolved.remote) {
        ([member], []) => {
            let organization = resolved.organization.id.as_str().into();
            Ok(MailboxOwner { organization, entity: member.id.clone() })
        }
        ([], [remote]) => bail!("the mailbox of {address} is elsewhere: {}", remote.forward_to),
        _ => bail!("{address} is a group; name one of its members"),
    }
}

/// Whose mailboxes of that name are closed, for somebody who looks for one of them.
fn closed(configuration: &Configuration, register: &Register, name: &str) -> String {
    let mut ids = Vec::new();
    for organization in configuration.directory.organizations() {
        for (id, registered) in register.entities(organization.id.as_str()) {
            if registered.gone_at.is_some() && *registered.name == *name {
                ids.push(id.to_string());
            }
        }
    }
    ids.sort_unstable();
    match ids.as_slice() {
        [] => String::new(),
        ids => format!(
            " any more; a mailbox of that name is closed, and has the id {}",
            ids.join(" or ")
        ),
    }
}
