//! Postfix with Debian's defaults, delivering to a Maildir with virtual(8), with rspamd or alone;
//! or sending what its users hand in, signed by rspamd.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::dovecot::Dovecot;
use super::local::{free_port, user_id, wait};
use super::maildir::Maildir;
use super::outgoing;
use super::rspamd::{Rspamd, Task};
use super::system::{Ground, System};
use crate::process;

/// The user that owns the mailbox.
const OWNER: &str = "nobody";
/// The password of the user who sends.
const PASSWORD: &str = "Lemon-tree1";

/// Debian's services, less those that no message here meets; nothing is chrooted.
const SERVICES: &str = "\
pickup    unix  n - n 60  1 pickup
cleanup   unix  n - n -   0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -   - trivial-rewrite
bounce    unix  - - n -   0 bounce
defer     unix  - - n -   0 bounce
trace     unix  - - n -   0 bounce
verify    unix  - - n -   1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -   - proxymap
proxywrite unix - - n -   1 proxymap
smtp      unix  - - n -   - smtp
relay     unix  - - n -   - smtp
showq     unix  n - n -   - showq
error     unix  - - n -   - error
retry     unix  - - n -   - error
discard   unix  - - n -   - discard
local     unix  - n n -   - local
virtual   unix  - n n -   - virtual
anvil     unix  - - n -   1 anvil
scache    unix  - - n -   1 scache
postlog   unix-dgram n - n - 1 postlogd
";

/// A running Postfix; ended when dropped.
pub(super) struct Postfix {
    child: Child,
    address: SocketAddr,
    // Ended after Postfix, which talks to them.
    rspamd: Option<Rspamd>,
    logins: Option<Logins>,
    folder: PathBuf,
}

/// Who decides whether a user may log in, and what AUTH PLAIN says for one who may.
struct Logins {
    dovecot: Dovecot,
    login: String,
}

impl Postfix {
    /// Starts it, with rspamd or alone.
    pub(super) fn start(ground: &Ground<'_>, has_rspamd: bool) -> anyhow::Result<Self> {
        let folder = prepare(ground)?;
        let rspamd = match has_rspamd {
            true => Some(Rspamd::start(&folder.join("rspamd"), ground, Task::Verdicts)?),
            false => None,
        };
        let task = receiving(&folder)?;
        Self::launch(folder, rspamd, None, &task)
    }

    /// Starts it for users, whose mail rspamd signs and a next hop gets.
    pub(super) fn start_sending(ground: &Ground<'_>, next_hop: SocketAddr) -> anyhow::Result<Self> {
        let folder = prepare(ground)?;
        let rspamd = Rspamd::start(&folder.join("rspamd"), ground, Task::Signing)?;
        let dovecot = Dovecot::start_authenticating(&folder.join("dovecot"), PASSWORD)?;
        let task = sending(&folder, &dovecot.socket(), next_hop)?;
        let logins = Logins { dovecot, login: outgoing::login(PASSWORD) };
        Self::launch(folder, Some(rspamd), Some(logins), &task)
    }

    fn launch(
        folder: PathBuf,
        rspamd: Option<Rspamd>,
        logins: Option<Logins>,
        task: &str,
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let milter = rspamd.as_ref().map(Rspamd::socket);
        let main = main_cf(&folder, milter.as_deref()) + task;
        fs::write(folder.join("etc/main.cf"), main)?;
        let services = format!("{address} inet n - n - - smtpd\n{SERVICES}");
        fs::write(folder.join("etc/master.cf"), services)?;
        let child = Command::new("postfix")
            .arg("-c")
            .arg(folder.join("etc"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("Postfix cannot be started")?;
        let mut postfix = Self { child, address, rspamd, logins, folder };
        wait("Postfix to listen", Duration::from_secs(30), || postfix.is_listening())?;
        Ok(postfix)
    }

    fn is_listening(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            bail!("Postfix ended with {status}: {}", self.log());
        }
        Ok(TcpStream::connect(self.address).is_ok())
    }

    fn maildir(&self) -> Maildir {
        Maildir::of(&self.folder.join("mail/alice"))
    }
}

impl System for Postfix {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn login(&self) -> Option<&str> {
        self.logins.as_ref().map(|logins| &*logins.login)
    }

    fn roots(&self) -> Vec<u32> {
        let mut roots = vec![self.child.id()];
        roots.extend(self.rspamd.as_ref().map(Rspamd::pid));
        roots.extend(self.logins.as_ref().map(|logins| logins.dovecot.pid()));
        roots
    }

    fn count(&self) -> anyhow::Result<usize> {
        self.maildir().count()
    }

    fn sample(&self) -> anyhow::Result<String> {
        self.maildir().sample()
    }

    fn log(&self) -> String {
        let mut log = String::new();
        log.push_str(&self.logins.as_ref().map(|it| it.dovecot.log()).unwrap_or_default());
        log.push_str(&self.rspamd.as_ref().map(Rspamd::log).unwrap_or_default());
        log + &fs::read_to_string(self.folder.join("postfix.log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The child only waits for the master, which ends all that it started.
        let pid = fs::read_to_string(self.folder.join("queue/pid/master.pid")).ok();
        let master: Option<u32> = pid.and_then(|pid| pid.trim().parse().ok());
        process::end(&mut self.child, master.as_slice());
    }
}

/// A folder for a new one.
fn prepare(ground: &Ground<'_>) -> anyhow::Result<PathBuf> {
    // Stays until the end of the run: ext4 passes over inodes deleted in the last half minute, so
    // the thousands of an earlier row would make this one's files dearer.
    let folder = tempfile::tempdir_in(ground.scratch)?.keep();
    // Its users must be able to reach what is inside.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    for name in ["etc", "queue", "state", "mail"] {
        fs::create_dir(folder.join(name))?;
    }
    chown(folder.join("state"), Some(user_id("postfix")?), None)?;
    chown(folder.join("mail"), Some(user_id(OWNER)?), None)?;
    Ok(folder)
}

/// What differs from the defaults, whatever it does: limits that would refuse or slow this load are
/// raised or off, and everything lies in the scratch folder.
fn main_cf(folder: &Path, milter: Option<&Path>) -> String {
    let root = folder.display();
    let mut text = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {root}/queue\n\
         data_directory = {root}/state\n\
         maillog_file = {root}/postfix.log\n\
         maillog_file_prefixes = {root}\n\
         mail_owner = postfix\n\
         myhostname = mx.example.test\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         biff = no\n\
         mydestination =\n\
         mynetworks = 127.0.0.0/8\n\
         alias_maps =\n\
         alias_database =\n\
         local_recipient_maps =\n\
         mailbox_size_limit = 0\n\
         message_size_limit = 60000000\n\
         default_process_limit = 200\n\
         in_flow_delay = 0\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_client_connection_rate_limit = 0\n\
         smtpd_client_message_rate_limit = 0\n\
         smtpd_client_recipient_rate_limit = 0\n\
         disable_dns_lookups = yes\n\
         smtp_host_lookup = native\n\
         notify_classes =\n"
    );
    if let Some(milter) = milter {
        text.push_str(&format!("smtpd_milters = unix:{}\n", milter.display()));
    }
    text
}

/// What makes it deliver to a mailbox; its one table is the fastest kind there is.
fn receiving(folder: &Path) -> anyhow::Result<String> {
    let root = folder.display();
    let owner = user_id(OWNER)?;
    Ok(format!(
        "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         virtual_mailbox_domains = example.test\n\
         virtual_mailbox_base = {root}/mail\n\
         virtual_mailbox_maps = inline:{{ {{ alice@example.test = alice/ }} }}\n\
         virtual_uid_maps = static:{owner}\n\
         virtual_gid_maps = static:{owner}\n\
         virtual_minimum_uid = 1\n\
         virtual_mailbox_limit = 0\n"
    ))
}

/// What makes it take mail from users who have logged in under TLS, and hand it on. Its certificate
/// is made here, of the kind that Mailweir makes for itself.
fn sending(folder: &Path, logins: &Path, next_hop: SocketAddr) -> anyhow::Result<String> {
    let root = folder.display();
    let pair = rcgen::generate_simple_self_signed(["mx.example.test".to_owned()])?;
    fs::write(folder.join("certificate.pem"), pair.cert.pem())?;
    let key = folder.join("key.pem");
    fs::write(&key, pair.signing_key.serialize_pem())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    Ok(format!(
        "smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_cert_file = {root}/certificate.pem\n\
         smtpd_tls_key_file = {root}/key.pem\n\
         smtpd_tls_auth_only = yes\n\
         smtpd_sasl_auth_enable = yes\n\
         smtpd_sasl_type = dovecot\n\
         smtpd_sasl_path = {}\n\
         relayhost = [{}]:{}\n",
        logins.display(),
        next_hop.ip(),
        next_hop.port()
    ))
}
