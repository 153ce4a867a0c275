//! rspamd as a milter that makes the verdicts of SPF, DKIM and DMARC and nothing else, or signs and
//! does nothing else.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::corpus::SELECTOR;
use super::local::{user_id, wait};
use super::outgoing;
use super::system::Ground;
use crate::process;

const USER: &str = "_rspamd";

/// What it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Adds the verdicts of SPF, DKIM and DMARC
    Verdicts,
    /// Adds a DKIM signature
    Signing,
}

/// What of rspamd's own Lua the three modules need; the rest of it are rules for spam.
const LUA: &str = "require \"global_functions\" ()\nconfig['regexp'] = {}\nrspamd_maps = {}\n";

/// A running rspamd; ended when dropped.
pub(super) struct Rspamd {
    child: Child,
    folder: PathBuf,
}

impl Rspamd {
    /// Starts it in a folder, which all may enter.
    pub(super) fn start(folder: &Path, ground: &Ground<'_>, task: Task) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        fs::write(folder.join("rspamd.lua"), LUA)?;
        let modules = match task {
            Task::Verdicts => VERDICTS.to_owned(),
            Task::Signing => signing(ground),
        };
        fs::write(folder.join("rspamd.conf"), configuration(folder)? + &modules)?;
        fs::write(folder.join("options.inc"), options(folder, ground, task))?;
        chown(folder, Some(user_id(USER)?), None)?;
        let child = Command::new("rspamd")
            .args(["-f", "-u", USER, "-g", USER, "-c"])
            .arg(folder.join("rspamd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("stderr.log"))?)
            .spawn()
            .context("rspamd cannot be started")?;
        let mut rspamd = Self { child, folder: folder.to_owned() };
        wait("rspamd to listen", Duration::from_secs(120), || rspamd.is_listening())?;
        Ok(rspamd)
    }

    /// Starts and ends it, so that the patterns of its URL parser are compiled and kept.
    pub(super) fn compile_patterns(ground: &Ground<'_>) -> anyhow::Result<()> {
        fs::create_dir(patterns(ground))?;
        Self::start(&ground.scratch.join("rspamd"), ground, Task::Verdicts).map(drop)
    }

    /// Its milter's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("milter.sock")
    }

    /// The main process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("stderr.log") + &read("rspamd.log")
    }

    fn is_listening(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            bail!("rspamd ended with {status}: {}", self.log());
        }
        Ok(fs::metadata(self.socket()).is_ok_and(|socket| socket.file_type().is_socket()))
    }
}

impl Drop for Rspamd {
    fn drop(&mut self) {
        let main = self.child.id();
        process::end(&mut self.child, &[main]);
    }
}

/// Where its compiled patterns are kept between its starts.
fn patterns(ground: &Ground<'_>) -> PathBuf {
    ground.scratch.join("patterns")
}

/// A worker for each core that scans what its own milter receives, without a second hop, on top
/// of Debian's options.
fn configuration(folder: &Path) -> anyhow::Result<String> {
    let root = folder.display();
    let workers = std::thread::available_parallelism()?;
    Ok(format!(
        "options {{\n  .include \"$CONFDIR/options.inc\"\n  \
           .include(priority=10) \"{root}/options.inc\"\n}}\n\
         logging {{ type = \"file\"; filename = \"{root}/rspamd.log\"; level = \"warning\"; }}\n\
         worker \"rspamd_proxy\" {{\n  bind_socket = \"{root}/milter.sock mode=0666\";\n  \
           milter = yes; timeout = 120s; count = {workers};\n  \
           upstream \"local\" {{ self_scan = yes; default = yes; }}\n}}\n\
         lua = \"{root}/rspamd.lua\";\n\
         actions {{ reject = 1000; }}\n"
    ))
}

/// The modules that make verdicts.
const VERDICTS: &str = "modules {\n  path = \"${PLUGINSDIR}/spf.lua\";\n  \
      path = \"${PLUGINSDIR}/dmarc.lua\";\n  \
      path = \"${PLUGINSDIR}/milter_headers.lua\";\n}\n\
    spf { check_local = true; }\n\
    dkim { check_local = true; check_authed = true; }\n\
    dmarc { check_local = true; }\n\
    milter_headers { use = [\"authentication-results\"]; skip_local = false; }\n";

/// The module that signs what users of one domain send. The filter that it signs with verifies
/// nothing that they send.
fn signing(ground: &Ground<'_>) -> String {
    format!(
        "modules {{ path = \"${{PLUGINSDIR}}/dkim_signing.lua\"; }}\n\
         dkim {{ check_local = false; check_authed = false; }}\n\
         dkim_signing {{\n  use_esld = false;\n  \
           domain {{\n    {} {{ path = \"{}\"; selector = \"{SELECTOR}\"; }}\n  }}\n}}\n",
        outgoing::DOMAIN,
        ground.signing_key.display(),
    )
}

/// What replaces Debian's options: one filter, paths, the name server. Local clients are checked
/// where mail comes from other servers, since here all clients are local.
fn options(folder: &Path, ground: &Ground<'_>, task: Task) -> String {
    let is_checked = task == Task::Verdicts;
    let root = folder.display();
    format!(
        "filters = \"dkim\";\npidfile = \"{root}/rspamd.pid\";\ntempdir = \"{root}\";\n\
         cache_file = \"{root}/symbols.cache\";\nhs_cache_dir = \"{}\";\n\
         dynamic_conf = \"{root}/dynamic\";\nhistory_file = \"{root}/history\";\n\
         rrd = \"{root}/rspamd.rrd\";\nstats_file = \"{root}/stats.ucl\";\n\
         control_socket = \"{root}/control.sock mode=0600\";\n\
         check_local = {is_checked};\ncheck_authed = {is_checked};\ndisable_monitoring = true;\n\
         dns {{ nameserver = [\"{}\"]; timeout = 1s; sockets = 16; retransmits = 5; }}\n",
        patterns(ground).display(),
        ground.dns,
    )
}
