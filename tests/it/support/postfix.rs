//! A real Postfix, as a client of ours, as a server, and as a gateway that wants a login.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::daemon::text;
use super::{free_port, wait_for};

/// A Postfix of our own, with configuration, queue and state in a folder of its own, that relays
/// everything to one address. It only runs as root, so it is started through sudo otherwise.
pub struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

/// Only what an SMTP relay needs; nothing is chrooted.
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
proxymap  unix  - - n -   - proxymap
smtp      unix  - - n -   - smtp
relay     unix  - - n -   - smtp
showq     unix  n - n -   - showq
error     unix  - - n -   - error
retry     unix  - - n -   - error
discard   unix  - - n -   - discard
anvil     unix  - - n -   1 anvil
scache    unix  - - n -   1 scache
postlog   unix-dgram n - n - 1 postlogd
";

impl Postfix {
    pub fn start(next_hop: SocketAddr) -> Self {
        Self::start_with(next_hop, "", |_| String::new())
    }

    /// With options of its SMTP server for `master.cf`, and lines for `main.cf` that may name
    /// files in its folder.
    pub fn start_with(
        next_hop: SocketAddr,
        server_options: &str,
        more: impl FnOnce(&Path) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Postfix's own user must be able to reach what is inside.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
        let port = free_port();
        for name in ["etc", "queue", "state"] {
            fs::create_dir(dir.path().join(name)).expect("creates");
        }
        let root = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {root}/queue\n\
             data_directory = {root}/state\n\
             maillog_file = {root}/postfix.log\n\
             maillog_file_prefixes = {root}\n\
             mail_owner = postfix\n\
             myhostname = relay.good.test\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             mydestination =\n\
             mynetworks = 127.0.0.0/8\n\
             alias_maps =\n\
             alias_database =\n\
             local_recipient_maps =\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             smtpd_recipient_restrictions =\n\
             disable_dns_lookups = yes\n\
             smtp_host_lookup = native\n\
             relayhost = [{}]:{}\n\
             smtp_tls_security_level = may\n\
             smtputf8_enable = yes\n\
             message_size_limit = 60000000\n\
             minimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\n\
             queue_run_delay = 1s\n\
             smtp_connect_timeout = 5s\n\
             notify_classes =\n",
            next_hop.ip(),
            next_hop.port()
        );
        let main = without_repeats(&(main + &more(dir.path())));
        let services =
            format!("127.0.0.1:{port} inet n - n - - smtpd {server_options}\n{SERVICES}");
        fs::write(dir.path().join("etc/main.cf"), main).expect("writes");
        fs::write(dir.path().join("etc/master.cf"), services).expect("writes");
        let status = as_root("chown").arg("postfix").arg(dir.path().join("state")).status();
        assert!(status.expect("runs").success(), "the user postfix exists");
        let child = control(dir.path(), "start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut postfix = Self { dir, port, child };
        postfix.wait_until_ready();
        postfix
    }

    fn wait_until_ready(&mut self) {
        wait_for("postfix", || {
            if let Some(status) = self.child.try_wait().expect("waits") {
                panic!("postfix ended with {status}: {}", self.log());
            }
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read(self.dir.path().join("postfix.log")).map(|log| text(&log)).unwrap_or_default()
    }

    /// Waits for a line of the log that has all of `parts`.
    pub fn wait_for_line(&self, parts: &[&str]) -> String {
        wait_for(&format!("{parts:?} in Postfix's log"), || {
            let log = self.log();
            let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        })
    }

    pub fn swaks(&self, from: &str, to: &str, subject: &str, more: &[&str]) {
        let output = Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--helo", "desk.good.test", "--from", from, "--to", to])
            .args(["--header", &format!("Subject: {subject}"), "--timeout", "20"])
            .args(more)
            .output()
            .expect("swaks is installed by tests/setup.sh");
        assert!(output.status.success(), "{}", text(&output.stdout));
    }
}

/// The lines of a `main.cf` in which a name's last line counts. Postfix warns of others in its log,
/// and its log server, told of that as well, may wait for itself to write it down.
fn without_repeats(lines: &str) -> String {
    let name = |line: &str| line.split('=').next().map(|name| name.trim().to_owned());
    let mut kept: Vec<&str> = Vec::new();
    for line in lines.lines() {
        kept.retain(|earlier| name(earlier) != name(line));
        kept.push(line);
    }
    kept.join("\n") + "\n"
}

fn as_root(program: &str) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn control(dir: &Path, action: &str) -> Command {
    let mut command = as_root("/usr/sbin/postfix");
    command.arg("-c").arg(dir.join("etc")).arg(action);
    command
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop =
            control(self.dir.path(), "stop").stdout(Stdio::null()).stderr(Stdio::null()).status();
        drop(stop); // It may have ended by itself.
        drop(self.child.wait());
        // Its queue belongs to its own user.
        drop(as_root("rm").arg("-rf").arg(self.dir.path().join("queue")).status());
        drop(as_root("rm").arg("-rf").arg(self.dir.path().join("state")).status());
        if std::thread::panicking() {
            eprintln!("Postfix's log:\n{}", self.log());
        }
    }
}

/// A self-signed pair for a name, in a folder; the lines that make Postfix's server use it.
pub fn certificate(dir: &Path, name: &str) -> String {
    let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a pair");
    install(dir, &pair.cert, &pair.signing_key)
}

/// A certificate authority of our own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "Example authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate, as a file in a folder.
    pub fn write(&self, file: &Path) {
        fs::write(file, self.0.pem()).expect("writes");
    }

    /// Like [`certificate`], issued by this authority and good until the first day of a year.
    pub fn certificate(&self, dir: &Path, name: &str, until: i32) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.0).expect("a certificate");
        install(dir, &issued, &key)
    }
}

fn install(dir: &Path, certificate: &rcgen::Certificate, key: &KeyPair) -> String {
    let (certificate_file, key_file) = (dir.join("certificate.pem"), dir.join("key.pem"));
    fs::write(&certificate_file, certificate.pem()).expect("writes");
    fs::write(&key_file, key.serialize_pem()).expect("writes");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("sets");
    format!(
        "smtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\nsmtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\n",
        certificate_file.display(),
        key_file.display()
    )
}

/// The lines that make Postfix's server ask a [`Logins`] of one user, under TLS alone.
pub fn logins(answer: &'static str) -> String {
    Logins::start(answer).lines()
}

/// The other side of Postfix's `smtpd_sasl_type = dovecot`: knows one user, whose answer to AUTH
/// PLAIN is a text in base64.
#[derive(Clone)]
pub struct Logins {
    address: SocketAddr,
    answer: &'static str,
    asked: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

impl Logins {
    pub fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let (asked, is_down) = (Arc::default(), Arc::default());
        let logins = Self { address, answer, asked, is_down };
        let server = logins.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, server) = (stream.expect("accepts"), server.clone());
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        logins
    }

    /// The lines that make Postfix's server ask it, under TLS alone, and relay for nobody else.
    pub fn lines(&self) -> String {
        format!(
            "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n\
             smtpd_sasl_path = inet:{}\nsmtpd_sasl_security_options = noanonymous\n\
             smtpd_tls_auth_only = yes\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n",
            self.address
        )
    }

    /// How many logins it was asked about.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// From now on it cannot tell, or can again.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Dovecot's authentication protocol, version 1.1, as far as AUTH PLAIN needs it.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let reader = BufReader::new(stream.try_clone()?);
        stream.write_all(
            b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n",
        )?;
        for line in reader.lines() {
            let line = line?;
            let words: Vec<&str> = line.split('\t').collect();
            let ["AUTH", id, ..] = words[..] else { continue };
            self.asked.fetch_add(1, Ordering::Relaxed);
            let right = words.iter().any(|word| word.strip_prefix("resp=") == Some(self.answer));
            let verdict = match (self.is_down.load(Ordering::Relaxed), right) {
                (true, _) => return Ok(()), // It hangs up, which Postfix takes for a trouble that passes.
                (false, true) => "OK",
                (false, false) => "FAIL",
            };
            stream.write_all(format!("{verdict}\t{id}\tuser=mailweir\n").as_bytes())?;
        }
        Ok(())
    }
}
