//! A Maildir, as Postfix and Dovecot deliver into one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// How much of a delivered message is read to see its header section.
const HEADER_OCTETS: u64 = 16 << 10;

/// The folder of what nobody has read yet.
pub(super) struct Maildir(PathBuf);

impl Maildir {
    /// Of a mailbox, which the first delivery makes.
    pub(super) fn of(mailbox: &Path) -> Self {
        Self(mailbox.join("new"))
    }

    /// How many messages there are.
    pub(super) fn count(&self) -> anyhow::Result<usize> {
        if !self.0.exists() {
            return Ok(0);
        }
        Ok(fs::read_dir(&self.0)?.count())
    }

    /// The beginning of one of them.
    pub(super) fn sample(&self) -> anyhow::Result<String> {
        let entry = fs::read_dir(&self.0)?.last().context("the mailbox is empty")?;
        let mut header = Vec::new();
        File::open(entry?.path())?.take(HEADER_OCTETS).read_to_end(&mut header)?;
        Ok(String::from_utf8_lossy(&header).into_owned())
    }
}
