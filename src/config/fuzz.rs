//! The fuzzers' door: an organization's file, whatever stands in it.

use std::path::Path;
use std::sync::Arc;

use super::organization_file::{Around, Claims, organization};
use super::reader::{Reader, read_text};
use super::stamp::Stamps;
use crate::directory::{Directory, EntityState, IndexedOrganization, Organization, SendRight};
use crate::fuzz::pieces;
use crate::mail::Address;
use crate::organization::State;
use crate::rules::{self, Action, Party};
use crate::store::Register;

/// How many mailboxes a group may have here.
const MAX_MEMBERS: usize = 20;

/// Lines for `Sender`, `From` and a recipient, then an organization's file.
///
/// The file is read, or there is a problem with it. What was read knows its own addresses, and its
/// rules decide as the contract says.
pub fn organization_file(input: &[u8]) {
    let [addresses, text] = pieces(input);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let reader = Reader::default();
    let path = Path::new("organization.toml");
    let node = read_text(path, text, &reader);
    let register = Register::default();
    let around = Around { hostname: None, register: &register };
    let mut claims = Claims::default();
    let read = organization(path, Stamps::of(path), &node, around, &reader, &mut claims);
    let problems = reader.into_problems();
    let Some(read) = read.filter(|_| problems.is_empty()) else {
        assert!(!problems.is_empty(), "not read, and nobody knows why");
        let lines = 0..=text.lines().count() + 1;
        assert!(problems.iter().all(|problem| is_placed(&problem.to_string(), &lines)));
        return;
    };
    let addresses = std::str::from_utf8(addresses).unwrap_or_default();
    let mut addresses = addresses.lines().map(|line| Address::parse(line).ok());
    let mut next = || addresses.next().flatten();
    let (sender, from, recipient) = (next(), next(), next());
    for is_proven in [true, false] {
        let party = sender.as_ref().map(Party::new);
        let authors = rules::Authors {
            sender: party.map(|party| rules::Sender { party, is_proven }),
            from: from.iter().map(Party::new).collect(),
        };
        let users = read.organization.users.iter().map(|user| &user.email);
        for recipient in recipient.iter().chain(users) {
            use rules::fuzz::{INBOUND, OUTBOUND, assert_evaluates};
            let recipient = Party::new(recipient);
            assert_evaluates(&read.rules, INBOUND, &authors, &recipient);
            assert_evaluates(&read.outbound, OUTBOUND, &authors, &recipient);
        }
    }
    let written = serde_json::to_string(&*read.state).expect("JSON");
    assert_eq!(serde_json::from_str::<State>(&written).expect("reads"), *read.state);
    assert_exports(path, &read.state);
    let names: Vec<_> = read.gateways.iter().map(|gateway| &*gateway.name).collect();
    let mut routed = read.outbound.rules().iter().filter_map(|rule| rule.action.gateway());
    assert!(routed.all(|gateway| names.contains(&gateway)), "a rule routes to nowhere");
    assert_resolves(read.organization, recipient.as_ref());
}

/// What is exported says the same, by whoever it is read.
fn assert_exports(path: &Path, state: &State) {
    let exported = super::export(state);
    let reader = Reader::default();
    let node = read_text(path, &exported, &reader);
    let register = Register::default();
    let around = Around { hostname: None, register: &register };
    let mut claims = Claims::default();
    let again = organization(path, Stamps::of(path), &node, around, &reader, &mut claims);
    assert_eq!(reader.into_problems(), [], "{exported}");
    assert_eq!(*again.expect("is read").state, *state, "{exported}");
}

/// Whether a problem names a line that the file has.
fn is_placed(problem: &str, lines: &std::ops::RangeInclusive<usize>) -> bool {
    let line = problem.strip_prefix("organization.toml:").and_then(|rest| rest.split(':').next());
    line.and_then(|line| line.parse().ok()).is_none_or(|line| lines.contains(&line))
}

/// Every mailbox that an address leads to is one of the organization's, and there is one; every
/// user may send as such.
fn assert_resolves(organization: Arc<Organization>, recipient: Option<&Address>) {
    let names: Vec<_> = organization
        .users
        .iter()
        .chain(organization.resources.iter().map(|resource| &resource.mailbox))
        .map(|user| Arc::clone(&user.name))
        .collect();
    let groups: Vec<_> = organization.groups.iter().map(|group| group.email.clone()).collect();
    let (id, users) = (organization.id.clone(), organization.users.clone());
    // Two organizations may still conflict, but one alone was checked when it was read.
    let directory = IndexedOrganization::new(organization)
        .and_then(|indexed| Directory::new(vec![indexed]))
        .expect("an organization without problems");
    for user in users.iter().filter(|user| user.state != EntityState::Disabled) {
        let own = std::slice::from_ref(&user.email);
        assert_eq!(directory.may_send(id.as_str(), &user.id, own, None), Ok(SendRight::Own));
    }
    for address in recipient.into_iter().chain(&groups) {
        let Ok(resolved) = directory.resolve(address, MAX_MEMBERS) else { continue };
        assert!((1..=MAX_MEMBERS).contains(&(resolved.members.len() + resolved.remote.len())));
        assert!(resolved.members.iter().all(|member| names.contains(&member.name)));
        let is_user = |address: &Address| users.iter().any(|user| user.email == *address);
        assert!(resolved.remote.iter().all(|remote| is_user(&remote.address)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_hold() {
        crate::fuzz::replay("rules", organization_file);
    }
}
