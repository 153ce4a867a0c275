//! What the files hold that a configuration names and whose name stays the same.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config::Configuration;
use crate::dns::{SYSTEM_FILE, Source};
use crate::files::read_regular;

/// The hash of each of them, with the key that names it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Contents(Vec<Content>);

#[derive(Debug, PartialEq, Eq)]
struct Content {
    key: &'static str,
    path: PathBuf,
    /// `None` for a file that cannot be read, which is told by who needs it.
    hash: Option<Vec<u8>>,
}

impl Contents {
    /// As they are now.
    pub(in crate::daemon) fn of(configuration: &Configuration) -> Self {
        let mut contents = Vec::new();
        match &configuration.dns.source {
            Source::ZoneFile(file) => contents.push(Content::of("dns.zone_file", file)),
            Source::System => contents.push(Content::of("dns", Path::new(SYSTEM_FILE))),
            Source::Servers(_) => {}
        }
        if let Some(file) = &configuration.routes.ca_file {
            contents.push(Content::of("queue.ca_file", file));
        }
        Self(contents)
    }

    /// What holds something else, in words. Where the key names another file, the key tells it.
    pub(super) fn changed(&self, now: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        for content in &now.0 {
            let is_same_file =
                |known: &&Content| known.key == content.key && known.path == content.path;
            if self.0.iter().find(is_same_file).is_some_and(|known| known.hash != content.hash) {
                changed.push(format!("the content of {}", content.path.display()));
            }
        }
        changed
    }
}

impl Content {
    fn of(key: &'static str, path: &Path) -> Self {
        let hash = read_regular(path).ok();
        let hash = hash.map(|content| digest(&SHA256, &content).as_ref().to_vec());
        Self { key, path: path.to_owned(), hash }
    }
}
