//! Mailbox permissions, from an organization's file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::reader::Section;
use crate::directory::Permission;
use crate::id::EntityId;
use crate::organization::Rights;

/// What has a name: who it is, whether it is a group, and the place of its `name` key.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) id: EntityId,
    pub(super) is_group: bool,
    pub(super) place: String,
}

/// Users, resources and groups by their names.
pub(super) type Names = HashMap<Arc<str>, Named>;

/// Reads the permissions, at most one for an owner and a grantee.
pub(super) fn read(root: &Section<'_>, names: &Names) -> Vec<Permission> {
    let mut taken: HashMap<(Arc<str>, Arc<str>), String> = HashMap::new();
    let mut permissions = Vec::new();
    for section in root.sections("permission") {
        let Some(permission) = permission(&section, names) else { continue };
        let key = (Arc::clone(&permission.owner), Arc::clone(&permission.grantee));
        if let Some(first) = taken.get(&key) {
            let (owner, grantee) = key;
            let message = format!("{grantee} has its permission of {owner} already, at {first}");
            section.problem("grantee", message);
            continue;
        }
        taken.insert(key, section.place_of("grantee"));
        permissions.push(permission);
    }
    permissions
}

/// The same by id.
pub(super) fn by_id(
    permissions: &[Permission],
    names: &Names,
) -> BTreeMap<EntityId, BTreeMap<EntityId, Rights>> {
    let mut by_owner: BTreeMap<EntityId, BTreeMap<EntityId, Rights>> = BTreeMap::new();
    for permission in permissions {
        let Some(owner) = names.get(&permission.owner) else { continue };
        let Some(grantee) = names.get(&permission.grantee) else { continue };
        let Permission { full_access, send_as, send_on_behalf, .. } = *permission;
        let granted = by_owner.entry(owner.id.clone()).or_default();
        granted.insert(grantee.id.clone(), Rights { full_access, send_as, send_on_behalf });
    }
    by_owner
}

fn permission(section: &Section<'_>, names: &Names) -> Option<Permission> {
    let owner = named(section, "owner", names);
    let grantee = named(section, "grantee", names);
    let granted = |key| section.bool(key).unwrap_or(false);
    let (full_access, send_as, send_on_behalf) =
        (granted("full_access"), granted("send_as"), granted("send_on_behalf"));
    section.finish();
    let is_group = |named: &Option<(Arc<str>, &Named)>| {
        named.as_ref().is_some_and(|(_, named)| named.is_group)
    };
    // Guide 6691 and 6797.
    if full_access && is_group(&owner) {
        section.problem("full_access", "a group has no mailbox to access");
    } else if full_access && is_group(&grantee) {
        section.problem("full_access", "cannot be granted to a group");
    }
    let (owner, grantee) = (owner?.0, grantee?.0);
    Some(Permission { owner, grantee, full_access, send_as, send_on_behalf })
}

fn named<'a>(
    section: &Section<'_>,
    key: &'static str,
    names: &'a Names,
) -> Option<(Arc<str>, &'a Named)> {
    let name = section.required(key, section.text(key))?;
    let found = names.get_key_value(name.as_str());
    if found.is_none() {
        section.problem(key, format!("there is no user, resource or group \"{name}\""));
    }
    found.map(|(name, named)| (Arc::clone(name), named))
}
