//! Who the files say is there, and what the store has to be told of it.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::clock::Timestamp;
use crate::config::{Configuration, OrganizationConfig};
use crate::directory::{Group, Resource, User};
use crate::id::{EntityId, EntityKind};
use crate::store::{
    CredentialStore, Declared, DeclaredEntity, Fact, MailboxOwner, Register, StoreError,
};

/// So many users may go at once, however few there are.
const MAY_GO: usize = 2;

/// Most of an organization's users are not in its file any more, and it does not say that they are to
/// go: it may be another file than the one that was meant.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {gone} of the {known} users of organization {alias} are not in it any more, and their \
     mailboxes would be closed; if that is meant, write removes_users = {gone} in it", file.display()
)]
pub struct Exodus {
    file: PathBuf,
    alias: String,
    known: usize,
    gone: usize,
}

/// What has to be said so that everybody is there whom the files name, and nobody else in their
/// organizations.
///
/// # Errors
/// [`Exodus`]
pub(super) fn facts(
    configuration: &Configuration,
    register: &Register,
    at: Timestamp,
) -> Result<Vec<Fact>, Exodus> {
    for config in &configuration.organizations {
        check_exodus(config, register)?;
    }
    let declared: Vec<_> = configuration.organizations.iter().map(|it| declared(it)).collect();
    Ok(register.difference(&declared, at))
}

/// Whether a file may be in force, or lacks too many of its users.
///
/// # Errors
/// [`Exodus`]
pub(super) fn check_exodus(config: &OrganizationConfig, register: &Register) -> Result<(), Exodus> {
    let organization = &config.organization;
    let present: HashSet<&EntityId> = organization.users.iter().map(|user| &user.id).collect();
    let mut known = 0;
    let mut gone = 0;
    for (id, registered) in register.entities(organization.id.as_str()) {
        if registered.kind == EntityKind::User && registered.gone_at.is_none() {
            known += 1;
            gone += usize::from(!present.contains(id));
        }
    }
    let is_meant = config.removes_users == Some(gone as u64);
    if gone <= MAY_GO || gone * 2 <= known || is_meant {
        return Ok(());
    }
    Err(Exodus { file: config.file.clone(), alias: organization.alias.clone(), known, gone })
}

/// Removes what somebody could log in with who was in a file when it was set, but is in none that the
/// daemon has read: who comes under that name later is somebody else. What was set after the files
/// were read may be for somebody of the next ones, and an organization whose file is not named may be
/// on its way back.
///
/// # Errors
/// Those of the file.
pub(super) fn remove_strangers(
    credentials: &CredentialStore,
    configuration: &Configuration,
    register: &Register,
) -> Result<(), StoreError> {
    for user in credentials.users()?.into_keys() {
        let MailboxOwner { organization, entity } = &user;
        if register.entity(organization, entity).is_some() {
            continue;
        }
        let mut organizations = configuration.organizations.iter().map(|it| &it.organization);
        let Some(named) = organizations.find(|it| it.id.as_str() == &**organization) else {
            continue;
        };
        if credentials.remove_earlier(&user, configuration.read_at)? {
            tracing::warn!(alias = named.alias, id = %entity, "password and tokens of somebody who was \
                taken out of the file again before the daemon had read it are removed");
        }
    }
    Ok(())
}

fn declared(config: &OrganizationConfig) -> Declared<'_> {
    let organization = &config.organization;
    let mut entities = Vec::new();
    for User { id, name, .. } in &organization.users {
        entities.push(DeclaredEntity { id, kind: EntityKind::User, name });
    }
    for Resource { mailbox: User { id, name, .. }, .. } in &organization.resources {
        entities.push(DeclaredEntity { id, kind: EntityKind::Resource, name });
    }
    for Group { id, name, .. } in &organization.groups {
        entities.push(DeclaredEntity { id, kind: EntityKind::Group, name });
    }
    Declared { organization: organization.id.as_str(), alias: &organization.alias, entities }
}
