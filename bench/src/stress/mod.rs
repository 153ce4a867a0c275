//! Load that a mail server does not like. Everything stays on loopback, is bounded in count and
//! time, and ends by itself.

use std::path::Path;

pub(crate) fn run(_binary: &Path, _quick: bool, _scenario: &str) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
