//! What a new configuration means for the addresses and logins of those whom it no longer has, or has
//! twice.

use std::collections::HashSet;

use super::listed;
use crate::directory::{Directory, Organization, User};
use crate::mail::Address;

/// The addresses of an organization that are nobody's any more.
pub(super) fn of_addresses(before: &Organization, now: &Directory) -> Option<String> {
    let mut refused: Vec<String> = Vec::new();
    let mut see = |address: &Address| {
        if !now.has_address(address) {
            refused.push(address.to_string());
        }
    };
    let resources = before.resources.iter().map(|resource| &resource.mailbox);
    for User { email, aliases, .. } in before.users.iter().chain(resources) {
        see(email);
        aliases.iter().for_each(&mut see);
    }
    for group in &before.groups {
        see(&group.email);
        group.aliases.iter().for_each(&mut see);
    }
    (!refused.is_empty()).then(|| {
        format!(
            "mail for {} is refused from now on, since nobody has the address",
            listed(&refused)
        )
    })
}

/// Users who came, or whose organization did, and by whose names nobody can log in any more.
pub(super) fn of_logins(
    before: Option<&Organization>,
    now: &Organization,
    directory: &Directory,
) -> Option<String> {
    let known: HashSet<&str> =
        before.iter().flat_map(|known| &known.users).map(|user| &*user.name).collect();
    let mut shared = Vec::new();
    for user in &now.users {
        if !known.contains(&*user.name) && directory.has_namesake(&now.id, &user.name) {
            shared.push(user.name.to_string());
        }
    }
    (!shared.is_empty()).then(|| {
        format!(
            "{}: another organization has a user of this name, so both log in with their addresses \
             from now on, and the name alone logs nobody in",
            listed(&shared)
        )
    })
}
