//! `serve` starts itself again with the allocator's setting: once, as the same process, with all that
//! it was given.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::smtp::{Client, message};
use crate::support::strace;
use crate::support::swaks::swaks;
use crate::support::wait_for;

const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
/// An environment has octets, not text.
const ODD: &[u8] = b"a b\"\xff=\n";

/// What the process is started with, without what the caller's own environment says of the setting.
fn serve(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove(PURGE_DELAY);
    command
}

/// What the kernel says that a running daemon was started with.
fn started_with(daemon: &Daemon, what: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(format!("/proc/{}/{what}", daemon.pid())).expect("reads");
    let whole = bytes.strip_suffix(b"\0").expect("ends with NUL");
    whole.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn settings(daemon: &Daemon) -> Vec<String> {
    let mut environment = started_with(daemon, "environ");
    environment.retain(|entry| entry.starts_with(PURGE_DELAY.as_bytes()));
    environment.iter().map(|entry| text(entry)).collect()
}

#[test]
fn the_daemon_starts_itself_again_with_all_that_it_was_given() {
    let mut daemon = Setup::default().prepare();
    let path = daemon.path("notify");
    let socket = UnixDatagram::bind(&path).expect("binds");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
    let mut command = serve(BINARY);
    command.env("NOTIFY_SOCKET", &path).env("ODD", std::ffi::OsStr::from_bytes(ODD));
    // `daemon.pid` is the process that was started here: the one that listens is the same.
    daemon.launch(command);
    assert_eq!(settings(&daemon), [format!("{PURGE_DELAY}=30")]);
    let config = daemon.config();
    let arguments = [BINARY.as_bytes(), b"serve", b"--config", config.as_os_str().as_bytes()];
    assert_eq!(started_with(&daemon, "cmdline"), arguments);
    let environment = started_with(&daemon, "environ");
    assert!(environment.contains(&[b"ODD=", ODD].concat()), "{environment:?}");
    let notify = [b"NOTIFY_SOCKET=", path.as_os_str().as_bytes()].concat();
    assert!(environment.contains(&notify));
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).expect("a notification");
    assert!(text(&message[..length]).contains("READY=1"));
    let output = format!("/proc/{}/fd/2", daemon.pid());
    assert_eq!(fs::read_link(output).expect("is open"), daemon.path("stderr.log"));
    swaks(&daemon, "bob@good.test", "alice@example.test", "again", &[]).accepted();
    assert!(daemon.stop().success());
}

#[test]
fn a_setting_of_ones_own_stands() {
    let mut daemon = Setup::default().prepare();
    for value in ["7", "0", ""] {
        let mut command = serve(BINARY);
        command.env(PURGE_DELAY, value);
        daemon.launch(command);
        assert_eq!(settings(&daemon), [format!("{PURGE_DELAY}={value}")]);
        assert!(daemon.stop().success());
    }
}

/// Under a loader that is called by name the program is the loader, which would not know what to load.
#[test]
fn a_program_that_is_not_itself_is_not_started_again() {
    let mut daemon = Setup::default().prepare();
    let mut command = serve(BINARY);
    command.arg0("somebody-else");
    daemon.launch(command);
    assert!(settings(&daemon).is_empty());
    assert!(daemon.stop().success());
    let Some(loader) = loader() else {
        eprintln!("skipped: there is no loader at the usual place");
        return;
    };
    let mut command = serve(&loader);
    command.arg(BINARY);
    daemon.launch(command);
    assert!(settings(&daemon).is_empty());
    swaks(&daemon, "bob@good.test", "alice@example.test", "loaded", &[]).accepted();
    assert!(daemon.stop().success());
}

/// The loader that the program names (the System V ABI's PT_INTERP), if it is there.
fn loader() -> Option<String> {
    let program = fs::read(BINARY).expect("reads");
    let at = memchr::memmem::find(&program, b"/lib")?;
    let name = program.get(at..)?.split(|byte| *byte == 0).next()?;
    let name = text(name);
    (name.contains("/ld-") && fs::exists(&name).ok()?).then_some(name)
}

#[test]
fn it_starts_again_once() {
    let mut daemon = Setup::default().prepare();
    for (given, expected) in [(None, 2), (Some("10"), 1)] {
        let recorded = daemon.path("execve");
        let file = recorded.display().to_string();
        let mut command = strace::command(&["-o", &file, "-e", "trace=execve"]);
        command.env_remove(PURGE_DELAY).envs(given.map(|value| (PURGE_DELAY, value)));
        daemon.launch(command);
        assert!(daemon.stop().success());
        strace::wait_for_end(&recorded);
        let calls = fs::read_to_string(&recorded).expect("reads");
        let started =
            calls.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0"));
        assert_eq!(started.count(), expected, "{calls}");
        fs::remove_file(&recorded).expect("removes");
    }
}

/// Resident memory in MiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("is there");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number");
    kib / 1024
}

/// Also where nothing else comes: not one more message, and no time that passes, would make the
/// allocator look.
#[test]
fn what_a_large_message_took_goes_back_to_the_system() {
    const SIZE: usize = 24 << 20;
    let daemon = Setup::default().start();
    let line = format!("{}\r\n", "x".repeat(76));
    let mut large = message("bob@good.test", "large");
    large.extend_from_slice(line.repeat(SIZE / line.len()).as_bytes());
    let mut client = Client::connect(daemon.address());
    client.envelope("bob@good.test", &["alice@example.test"]);
    assert!(client.data(&message("bob@good.test", "small")).starts_with("250"));
    let before = resident(&daemon);
    client.envelope("bob@good.test", &["alice@example.test"]);
    assert!(client.data(&large).starts_with("250"));
    wait_for("the memory", || (resident(&daemon) < before + 12).then_some(()));
}

/// None of them is large, and no reply follows: the clients are gone before the end.
#[test]
fn what_many_messages_took_together_goes_back_to_the_system() {
    const SIZE: usize = 3 << 20;
    let daemon = Setup::default().start();
    let line = format!("{}\r\n", "x".repeat(76));
    let part = message("bob@good.test", "cut off");
    let part = [part, line.repeat(SIZE / line.len()).into_bytes()].concat();
    let mut client = Client::connect(daemon.address());
    client.envelope("bob@good.test", &["alice@example.test"]);
    assert!(client.data(&message("bob@good.test", "small")).starts_with("250"));
    let before = resident(&daemon);
    let mut cut_off = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(daemon.address());
        client.envelope("bob@good.test", &["alice@example.test"]);
        assert!(client.command("DATA").starts_with("354"));
        client.send(&part);
        cut_off.push(client);
    }
    wait_for("the messages", || (resident(&daemon) > before + 50).then_some(()));
    drop(cut_off);
    wait_for("the memory", || (resident(&daemon) < before + 20).then_some(()));
}
