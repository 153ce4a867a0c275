//! What is valid, but hardly meant: told by `check-config` and at the start, and nothing more.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::OrganizationConfig;
use super::reader::{Reader, Section};
use crate::mail::Domain;
use crate::store;

/// The sections of the main file that variables of the environment reach.
const SECTIONS: [&str; 13] = [
    "outbound", "verdicts", "access", "limits", "events", "store", "queue", "dmarc", "spam", "tls",
    "dns", "log", "arn",
];

/// Variables that look like the configuration's, but lack an underscore.
pub(super) fn misspelt_variables(environment: &HashMap<String, String>, reader: &Reader) {
    let ours = |name: &&String| name.starts_with("MAILWEIR_") && !name.starts_with("MAILWEIR__");
    let mut names: Vec<_> = environment.keys().filter(ours).collect();
    names.sort_unstable();
    for name in names {
        let rest = name.trim_start_matches("MAILWEIR_").to_lowercase();
        let meant = SECTIONS.iter().find_map(|section| {
            let key = rest.strip_prefix(section)?.trim_start_matches('_');
            Some(format!("MAILWEIR__{section}__{key}").to_uppercase())
        });
        let meant = meant.unwrap_or_else(|| format!("MAILWEIR__{}", rest.to_uppercase()));
        let place = format!("environment {name}");
        reader.warning(place, "", format!("is not read; did you mean {meant}?"));
    }
}

/// `[[queue_route]]` of a domain whose mail does not leave.
pub(super) fn own_routes(root: &Section<'_>, organizations: &[Arc<OrganizationConfig>]) {
    for section in root.sections("queue_route") {
        let domain = section.text("domain").and_then(|text| Domain::parse(&text).ok());
        let owner = domain.as_ref().and_then(|domain| {
            organizations.iter().find(|config| config.organization.domains.contains(domain))
        });
        if let (Some(domain), Some(owner)) = (domain, owner) {
            let alias = &owner.organization.alias;
            let why = "its mail stays here, and takes no route";
            section.warning("domain", format!("{domain} is organization {alias}'s own: {why}"));
        }
    }
}

/// A master key that everybody on the machine can read.
pub(super) fn open_key(root: &Section<'_>, store: &store::Settings) {
    let Some(path) = &store.master_key_file else { return };
    // One that is not there is told by who opens it.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let message = format!("{} is open to everybody (mode {mode:04o})", path.display());
        root.section("store").warning("master_key_file", message);
    }
}
