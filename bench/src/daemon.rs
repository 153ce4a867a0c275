//! A `mailweir serve` in a scratch folder.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The main file without sections; [`Daemon::start`] adds what is asked for.
const CONFIGURATION: &str = "data_dir = \"data\"\nhostname = \"mx.example.test\"\n\
    [[listener]]\nname = \"mx\"\nprotocol = \"mx\"\nbind = \"127.0.0.1:0\"\n\
    [[organization]]\nfile = \"org.toml\"\n";

/// An organization with one user and one rule that never holds.
pub(crate) const ORGANIZATION: &str = "alias = \"example\"\ndomains = [\"example.test\"]\n\
    [[user]]\nname = \"alice\"\n\
    [[inbound_rule]]\nname = \"never\"\naction = \"DROP\"\nsenders = [\"bad.test\"]\n\
    destinations = [\"*\"]\n";

/// Where it says where it listens, below its folder.
const LISTENERS: &str = "data/run/listeners.json";

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts `binary` with an organization file, a zone file and further sections of the main
    /// file. `[dns]` and `[limits]` are among the sections if they are wanted.
    pub(crate) fn start(binary: &Path, organization: &str, sections: &str) -> anyhow::Result<Self> {
        Self::start_as(Command::new(binary), organization, sections)
    }

    /// The same of a command that may have variables of its own.
    pub(crate) fn start_as(
        command: Command,
        organization: &str,
        sections: &str,
    ) -> anyhow::Result<Self> {
        Self::start_prepared(command, organization, sections, |_| Ok(()))
    }

    /// The same; something is done with its folder before it runs, which `data` is below.
    pub(crate) fn start_prepared(
        command: Command,
        organization: &str,
        sections: &str,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
        write("mailweir.toml", &format!("{CONFIGURATION}{sections}"))?;
        write("org.toml", organization)?;
        prepare(folder.path())?;
        let (child, address) = launch(command, folder.path())?;
        Ok(Self { child, address, folder })
    }

    /// The same with a wall clock that is off by `shift`, as libfaketime spells it, until the
    /// next start.
    pub(crate) fn start_shifted(
        binary: &Path,
        organization: &str,
        sections: &str,
        shift: &str,
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::start(binary, organization, sections)?;
        daemon.stop()?;
        // Debian has it below the processor's name.
        let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok);
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        let library = libraries.find(|library| library.exists());
        let mut command = Command::new(binary);
        command
            .env("LD_PRELOAD", library.context("libfaketime is not installed")?)
            .env("FAKETIME", shift)
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (daemon.child, daemon.address) = launch(command, daemon.folder.path())?;
        Ok(daemon)
    }

    /// Changes the main file, for the next start.
    pub(crate) fn set_config(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.path("mailweir.toml");
        let text = fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(from), "{from} is not in the configuration");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    /// What a command of the same binary prints, with the daemon's configuration and this input.
    pub(crate) fn command(
        &self,
        binary: &Path,
        arguments: &[&str],
        input: &str,
    ) -> anyhow::Result<String> {
        let mut child = Command::new(binary)
            .args(arguments)
            .arg("--config")
            .arg(self.path("mailweir.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "mailweir {arguments:?}: {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Where another listener of this name is.
    pub(crate) fn listener(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let address = listener(self.folder.path(), name);
        address?.with_context(|| format!("there is no listener {name}"))
    }

    /// Where it listens for SMTP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path below its folder; `data` is the data folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends it with SIGTERM and starts it again on the same data; how long until it listened.
    #[allow(dead_code, reason = "for measurements that end it or change its files")]
    pub(crate) fn restart(&mut self, binary: &Path) -> anyhow::Result<Duration> {
        self.stop()?;
        let started = Instant::now();
        (self.child, self.address) = launch(Command::new(binary), self.folder.path())?;
        Ok(started.elapsed())
    }

    /// SIGTERM, and waits for the end.
    #[allow(dead_code, reason = "for measurements that end it or change its files")]
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }

    /// Sends it a signal, for example `HUP`.
    #[allow(dead_code, reason = "for measurements that end it or change its files")]
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
        if status.success() { Ok(()) } else { bail!("kill -{name} {pid}: {status}") }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill()); // It may have ended by itself.
        drop(self.child.wait());
    }
}

fn launch(mut command: Command, folder: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    drop(fs::remove_file(folder.join(LISTENERS))); // It is not there before the first start.
    let binary = PathBuf::from(command.get_program());
    let mut child = command
        .args(["serve", "--config"])
        .arg(folder.join("mailweir.toml"))
        .stdin(Stdio::null())
        .stderr(File::options().create(true).append(true).open(folder.join("stderr.log"))?)
        .spawn()
        .with_context(|| format!("{} cannot be started", binary.display()))?;
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(folder.join("stderr.log"))?;
            bail!("the daemon ended with {status}: {log}");
        }
        if let Some(address) = listener(folder, "mx")? {
            return Ok((child, address));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the daemon does not listen")
}

/// Where a listener listens; `None` until the daemon has said so.
fn listener(folder: &Path, name: &str) -> anyhow::Result<Option<SocketAddr>> {
    let text = fs::read_to_string(folder.join(LISTENERS)).unwrap_or_default();
    let listeners: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(listeners[name].as_str().map(str::parse).transpose()?)
}
