//! The two files and the data folder, with the rights that the daemon needs and no more.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::answers::Answers;
use crate::cli::owner::DaemonUser;
use crate::store::{self, CREDENTIALS_FILE};

/// Where files are written before they are in place, beside their places.
const STAGING: &str = ".mailweir-init";
/// Root's, for a daemon that is somebody else and need not change it.
const READ_BY_GROUP: u32 = 0o640;
/// What group and others must not have where keys will be.
const WRITE_BY_OTHERS: u32 = 0o022;

/// Both files, written and synced, but not in place. Dropped, they are gone.
pub(super) struct Staged {
    dir: PathBuf,
    /// Folders that were not there, the innermost first.
    new_folders: Vec<PathBuf>,
    main: Placing,
    organization: Placing,
}

/// A file on its way.
struct Placing {
    from: PathBuf,
    to: PathBuf,
}

impl Staged {
    /// Writes both files in a folder of their own, with the owner and rights that they will have.
    pub(super) fn write(
        main: &Path,
        organization: &Path,
        data_dir: &Path,
        answers: &Answers,
        daemon: Option<&DaemonUser>,
    ) -> anyhow::Result<Self> {
        let parent = main.parent().context("the configuration file has no name")?;
        let dir = parent.join(STAGING);
        let placing = |to: &Path| Placing { from: dir.join(name_of(to)), to: to.to_owned() };
        let main_text = main_file(answers, data_dir, &name_of(organization).to_string_lossy())?;
        let organization_text = organization_file(answers);
        let new_folders = parent.ancestors().take_while(|folder| !folder.exists());
        let new_folders = new_folders.map(Path::to_owned).collect();
        let staged =
            Self { main: placing(main), organization: placing(organization), dir, new_folders };
        // One that is there already, from a run that was cut off, is as good as this one.
        staged.organization.free_for(&organization_text)?;
        staged.main.free_for(&main_text)?;
        make_config_dir(parent, daemon)?;
        staged.remove();
        make_dir(&staged.dir, 0o700)?;
        for (placing, text) in
            [(&staged.main, main_text), (&staged.organization, organization_text)]
        {
            drop(store::create_file(&placing.from, text.as_bytes())?);
            if let Some(daemon) = daemon {
                fs::set_permissions(&placing.from, fs::Permissions::from_mode(READ_BY_GROUP))?;
                daemon.share(&placing.from)?;
            }
        }
        Ok(staged)
    }

    /// The main file as it is now.
    pub(super) fn main(&self) -> &Path {
        &self.main.from
    }

    /// Gives both files their names: the main one last, because with it a second run finds that
    /// nothing is left to do.
    pub(super) fn put_in_place(self) -> anyhow::Result<()> {
        for placing in [&self.organization, &self.main] {
            if !placing.to.exists() {
                store::link_new(&placing.from, &placing.to)?;
            }
        }
        Ok(())
    }

    fn remove(&self) {
        // What cannot be removed is in nobody's way but the next run's, which says so.
        for path in [&self.main.from, &self.organization.from] {
            drop(fs::remove_file(path));
        }
        drop(fs::remove_dir(&self.dir));
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.remove();
        for folder in &self.new_folders {
            // Where the files are in place it is not empty, and stays.
            drop(fs::remove_dir(folder));
        }
    }
}

impl Placing {
    /// Nothing is overwritten.
    fn free_for(&self, text: &str) -> anyhow::Result<()> {
        let shown = self.to.display();
        match fs::read(&self.to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(found) if found == text.as_bytes() => Ok(()),
            Ok(_) => bail!("{shown} is there already, and is not overwritten"),
            Err(error) => bail!("{shown}: {error}"),
        }
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// Nothing is begun where something is in the way: the configuration's name, also as a link that
/// leads nowhere; mail; rights that others have.
pub(super) fn check_free(main: &Path, data_dir: &Path) -> anyhow::Result<()> {
    if found(main)?.is_some() {
        bail!("{} is there already, and is not overwritten", main.display());
    }
    let shown = data_dir.display();
    if found(&data_dir.join("log"))?.is_some() {
        bail!("{shown} has mail already: name another folder with --data-dir");
    }
    for dir in [data_dir, &data_dir.join("keys"), &data_dir.join("keys/dkim")] {
        // A link to a folder is as good as the folder.
        let Ok(metadata) = fs::metadata(dir) else { continue };
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() && mode & WRITE_BY_OTHERS != 0 {
            let shown = dir.display();
            bail!("others can write in {shown} (mode {mode:o}): first run chmod 700 {shown}");
        }
    }
    Ok(())
}

/// Passwords that are in force stay so, unless they are those of a run that was cut off: it leaves
/// its own folder, or the organization's file.
pub(super) fn check_no_passwords(data_dir: &Path, organization: &Path) -> anyhow::Result<()> {
    let is_second_run =
        found(&organization.with_file_name(STAGING))?.is_some() || found(organization)?.is_some();
    if !is_second_run && found(&data_dir.join(CREDENTIALS_FILE))?.is_some() {
        let shown = data_dir.display();
        bail!("{shown} has passwords already: name another folder with --data-dir");
    }
    Ok(())
}

/// What stands at a path, without following a link there.
fn found(path: &Path) -> anyhow::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The folder of mail and keys; one that is there keeps its owner and rights.
pub(super) fn make_data_dir(path: &Path, daemon: Option<&DaemonUser>) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    make_dir(path, 0o700)?;
    daemon.map_or(Ok(()), |daemon| daemon.give(path))
}

/// The folder of the files; one that is there keeps its owner and rights.
fn make_config_dir(path: &Path, daemon: Option<&DaemonUser>) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let Some(daemon) = daemon else { return make_dir(path, 0o700) };
    make_dir(path, 0o750)?;
    // Beyond what the umask leaves of the mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o750))?;
    daemon.share(path)
}

fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| path.display().to_string())
}

/// A text as TOML has it: JSON's escapes are among its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The main file: what has no default, or another value than it.
fn main_file(answers: &Answers, data_dir: &Path, organization: &str) -> anyhow::Result<String> {
    let data_dir = data_dir.to_str().context("the data folder's name is not UTF-8")?;
    Ok(format!(
        r#"# Mailweir's configuration, as `mailweir init` wrote it: the lines that matter here. All other keys
# have their defaults; config/mailweir.toml of the distribution shows every one.
# After a change: `mailweir check-config`, then `systemctl reload mailweir`.

# Everything that lasts is below this folder: mail, keys, passwords, events.
data_dir = {data_dir}

# This host's name, as other servers see it: DNS has its address, and for that address this name.
hostname = {hostname}

# Mail from other servers.
[[listener]]
name = "mx"
protocol = "mx"
bind = "0.0.0.0:25"         # with IPv6 another listener, named otherwise, on "[::]:25"

# Mail that users send: with STARTTLS on 587, with TLS from the first octet on 465.
[[listener]]
name = "submission"
protocol = "submission"
bind = "0.0.0.0:587"
[[listener]]
name = "submissions"
protocol = "submissions"
bind = "0.0.0.0:465"

# The host's certificate with its chain, and its key, in PEM format; renewed files are noticed.
# Until these lines are in force a self-made pair is used, which users' programs do not trust.
[tls]
#certificate = "/etc/mailweir/certificate.pem"
#private_key = "/etc/mailweir/private_key.pem"

# Who is here, and what is done with their mail.
[[organization]]
file = {organization}
"#,
        data_dir = quoted(data_dir),
        hostname = quoted(answers.hostname.as_str()),
        organization = quoted(organization),
    ))
}

/// The organization's file.
fn organization_file(answers: &Answers) -> String {
    let domain = answers.domain.as_str();
    let alias = domain.split('.').next().unwrap_or(domain);
    let name = answers.admin.local_part();
    format!(
        r#"# An organization, as `mailweir init` wrote it: config/example-org.toml of the distribution shows
# groups, rules, journaling and all else that can stand here.
# After a change: `mailweir check-config`, then `systemctl reload mailweir`.

alias = {alias}
domains = [{domain}]        # the first is the default
dmarc_enforcement = true    # what authors' domains ask to be rejected or quarantined is
postmaster = {name}         # gets the mail for postmaster@ and abuse@

[[user]]
name = {name}
email = {email}

# For each further user such a section, and then `mailweir user set-password NAME`.
#[[user]]
#name = "alice"
#email = "alice@{bare}"
#aliases = ["a.liddell@{bare}"]
"#,
        alias = quoted(alias),
        domain = quoted(domain),
        name = quoted(name),
        email = quoted(&answers.admin.to_string()),
        bare = domain,
    )
}
