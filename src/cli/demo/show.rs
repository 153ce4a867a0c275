//! What the demo prints beside traces.

use anyhow::Context;

use super::world::Place;
use crate::cli::harmless::for_shell;
use crate::cli::output;
use crate::mail::on_one_line;
use crate::store::Folder;
use crate::store::reader::{Reader, StoredMessage};

/// The messages of a place by user and folder.
pub(super) fn mailboxes(title: &str, place: &Place) -> anyhow::Result<()> {
    output::line(&format!("\n{title}\n"))?;
    let reader = Reader::open(&place.store)?;
    for user in &place.organization.users {
        let messages = messages(&reader, place, &user.name)?;
        for folder in Folder::ALL {
            for message in messages.iter().filter(|message| message.folder == folder) {
                let subject = subject(&reader.read(message)?);
                output::line(&format!("  {:8} {folder:11} {subject}", user.name))?;
            }
        }
    }
    Ok(())
}

/// The delivery status notification that a user got: its words for people, then its facts for
/// programs.
pub(super) fn report(place: &Place, address: &str) -> anyhow::Result<()> {
    let reader = Reader::open(&place.store)?;
    let user = address.split_once('@').map_or(address, |(name, _)| name);
    let mut found = None;
    for message in messages(&reader, place, user)? {
        let bytes = reader.read(&message)?;
        found = parts_of_report(&bytes).or(found);
    }
    let (text, status) = found.with_context(|| format!("{address} got no report"))?;
    output::line(&format!("\nThe report that {address} got:\n"))?;
    for line in text.lines().chain([""]).chain(status.lines()) {
        output::line(format!("  {}", line.trim_end()).trim_end())?;
    }
    Ok(())
}

/// Where everything is.
pub(super) fn where_to_look(place: &Place) -> anyhow::Result<()> {
    let log = place.store.data_dir.join("events/email-events.jsonl");
    output::line(&format!("\nEvent log: {}", log.display()))?;
    let config = for_shell(&place.config);
    Ok(output::line(&format!("Look further: mailweir mailbox list alice --config {config}"))?)
}

fn messages(reader: &Reader, place: &Place, user: &str) -> anyhow::Result<Vec<StoredMessage>> {
    let owner = place.owner(user).with_context(|| format!("there is no user {user}"))?;
    Ok(reader.messages(&owner)?)
}

fn subject(message: &[u8]) -> String {
    let parsed = mail_parser::MessageParser::new().parse_headers(message);
    let subject = parsed.as_ref().and_then(|parsed| parsed.subject());
    on_one_line(subject.unwrap_or_default()).into_owned()
}

/// The text and the `message/delivery-status` part of a report (RFC 6522, RFC 3464).
fn parts_of_report(message: &[u8]) -> Option<(String, String)> {
    let parsed = mail_parser::MessageParser::new().parse(message)?;
    let mut parts = parsed.parts();
    let status = parts.find(|part| part.is_content_type("message", "delivery-status"))?;
    let text = parsed.body_text(0)?.into_owned();
    Some((text, String::from_utf8_lossy(status.raw_body()).into_owned()))
}
