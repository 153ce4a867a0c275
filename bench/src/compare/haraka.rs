//! Haraka with its plugins for SPF and DKIM, delivering to a Maildir through Dovecot's LMTP.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::dovecot::Dovecot;
use super::local::{free_port, wait};
use super::maildir::Maildir;
use super::system::{Ground, System};
use crate::process;

/// In the order in which they are asked.
const PLUGINS: &str = "local_is_checked\nspf\nrcpt_to.in_host_list\ndkim\nqueue/lmtp\n";
/// Each process loads it before all else.
const DNS: &str = include_str!("../../haraka/dns.js");
const LOCAL_IS_CHECKED: &str = include_str!("../../haraka/local_is_checked.js");
/// The size that all systems take.
const MAX_OCTETS: &str = "bytes=60000000";

/// A running Haraka; ended when dropped.
pub(super) struct Haraka {
    child: Child,
    address: SocketAddr,
    // Ended after Haraka, which talks to it.
    dovecot: Dovecot,
    folder: PathBuf,
}

impl Haraka {
    /// Starts it with a worker for each core, and its Dovecot.
    pub(super) fn start(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let modules = fs::canonicalize(ground.node_modules).with_context(|| {
            format!("{} is not there: bench/run.sh makes it", ground.node_modules.display())
        })?;
        // Stays until the end of the run, as Postfix's folders do and for the same reason.
        let folder = tempfile::tempdir_in(ground.scratch)?.keep();
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let dovecot = Dovecot::start_delivering(&folder.join("dovecot"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        configure(&folder, &modules, address, &dovecot.socket())?;
        let log = File::create(folder.join("haraka.log"))?;
        let child = Command::new("node")
            .arg(modules.join("Haraka/bin/haraka"))
            .arg("-c")
            .arg(&folder)
            .env("NODE_PATH", &modules)
            .env("NODE_OPTIONS", format!("--require {}", folder.join("dns.js").display()))
            .env("BENCH_DNS", ground.dns.to_string())
            // bench/run.sh finds by it what it has to end when it is itself ended.
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Node.js cannot be started: bench/run.sh installs it")?;
        let mut haraka = Self { child, address, dovecot, folder };
        wait("Haraka to listen", Duration::from_secs(120), || haraka.is_listening())?;
        Ok(haraka)
    }

    fn is_listening(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            bail!("Haraka ended with {status}: {}", self.log());
        }
        Ok(TcpStream::connect(self.address).is_ok())
    }

    fn maildir(&self) -> Maildir {
        self.dovecot.maildir("alice")
    }
}

impl System for Haraka {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn roots(&self) -> Vec<u32> {
        vec![self.child.id(), self.dovecot.pid()]
    }

    fn count(&self) -> anyhow::Result<usize> {
        self.maildir().count()
    }

    fn sample(&self) -> anyhow::Result<String> {
        self.maildir().sample()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("haraka.log")).unwrap_or_default();
        log + &self.dovecot.log()
    }
}

impl Drop for Haraka {
    fn drop(&mut self) {
        // Its main process ends without a word to its workers.
        let processes = process::tree(self.child.id());
        process::end(&mut self.child, &processes);
    }
}

/// Writes its folder: what differs from the package's own files is said here.
fn configure(
    folder: &Path,
    modules: &Path,
    address: SocketAddr,
    delivery: &Path,
) -> anyhow::Result<()> {
    for name in ["config", "plugins", "queue"] {
        fs::create_dir(folder.join(name))?;
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    write("dns.js", DNS)?;
    write("plugins/local_is_checked.js", LOCAL_IS_CHECKED)?;
    write("config/plugins", PLUGINS)?;
    write("config/me", "mx.example.test\n")?;
    write("config/host_list", "example.test\n")?;
    write("config/smtp.ini", &format!("listen={address}\nnodes=cpus\n"))?;
    write("config/lmtp.ini", &format!("[main]\npath={}\n", delivery.display()))?;
    write("config/dkim.ini", "[sign]\nenabled=false\n[verify]\nenabled=true\n")?;
    write("config/log.ini", "[main]\nlevel=warn\n")?;
    let packaged = modules.join("Haraka/config/connection.ini");
    let packaged = fs::read_to_string(&packaged)
        .with_context(|| format!("{} cannot be read", packaged.display()))?;
    write("config/connection.ini", &with_max_octets(&packaged)?)?;
    Ok(())
}

/// The package's `connection.ini` with another limit of size. Haraka reads the one in its folder
/// instead of the package's, so it must have everything.
fn with_max_octets(packaged: &str) -> anyhow::Result<String> {
    let is_limit = |line: &&str| line.starts_with("bytes=");
    let limit = packaged.lines().find(is_limit).context("connection.ini has no limit of size")?;
    Ok(packaged.replacen(limit, MAX_OCTETS, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_size_is_raised_and_the_rest_stays() {
        let packaged = "[headers]\nmax_lines=1000\n[max]\n; bytes\nbytes=26214400\nmime_parts=1\n";
        let raised = with_max_octets(packaged).expect("it has a limit");
        assert_eq!(raised, packaged.replace("26214400", "60000000"));
        assert!(with_max_octets("[max]\n;bytes=1\n").is_err());
    }
}
