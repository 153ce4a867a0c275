//! Dovecot, which delivers what it gets by LMTP, or says whether a password is right.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::local::{user_id, wait};
use super::maildir::Maildir;
use crate::process;

/// The user that owns the mailboxes, and its group.
const OWNER: &str = "nobody";
const GROUP: &str = "nogroup";

/// A running Dovecot; ended when dropped.
pub(super) struct Dovecot {
    child: Child,
    folder: PathBuf,
}

impl Dovecot {
    /// Starts one in a new folder that delivers whatever comes over its socket.
    pub(super) fn start_delivering(folder: &Path) -> anyhow::Result<Self> {
        let root = folder.display();
        Self::start(
            folder,
            &format!(
                "protocols = lmtp\n\
                 mail_location = maildir:{root}/mail/%n\n\
                 passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
                 userdb {{\n  driver = static\n  args = uid={OWNER} gid={GROUP} \
                 home={root}/mail/%n allow_all_users=yes\n}}\n\
                 service lmtp {{\n  process_limit = 200\n  \
                 unix_listener {root}/socket {{\n    mode = 0666\n  }}\n}}\n"
            ),
        )
    }

    /// Starts one in a new folder that answers, over its socket, who logs in with this password.
    pub(super) fn start_authenticating(folder: &Path, password: &str) -> anyhow::Result<Self> {
        let root = folder.display();
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, password.as_bytes()));
        Self::start(
            folder,
            &format!(
                "protocols = none\n\
                 disable_plaintext_auth = no\n\
                 passdb {{\n  driver = static\n  args = password={{SHA256.b64}}{hash}\n}}\n\
                 service auth {{\n  unix_listener {root}/socket {{\n    mode = 0666\n  }}\n}}\n"
            ),
        )
    }

    fn start(folder: &Path, task: &str) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let mail = folder.join("mail");
        fs::create_dir(&mail)?;
        chown(&mail, Some(user_id(OWNER)?), None)?;
        let root = folder.display();
        let configuration = format!(
            "base_dir = {root}/run\nstate_dir = {root}/state\nlog_path = {root}/dovecot.log\n\
             ssl = no\nfirst_valid_uid = 1\n{task}"
        );
        let file = folder.join("dovecot.conf");
        fs::write(&file, configuration)?;
        let child = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(file)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr.log"))?)
            .spawn()
            .context("Dovecot cannot be started: bench/run.sh installs it")?;
        let mut dovecot = Self { child, folder: folder.to_owned() };
        wait("Dovecot to listen", Duration::from_secs(30), || dovecot.is_listening())?;
        Ok(dovecot)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The main process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has delivered to a user.
    pub(super) fn maildir(&self, user: &str) -> Maildir {
        Maildir::of(&self.folder.join("mail").join(user))
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("stderr.log") + &read("dovecot.log")
    }

    fn is_listening(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            bail!("Dovecot ended with {status}: {}", self.log());
        }
        Ok(UnixStream::connect(self.socket()).is_ok())
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let master = self.child.id();
        process::end(&mut self.child, &[master]);
    }
}
