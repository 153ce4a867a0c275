//! The daemon as a service: reload, drain, connection limits.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::daemon::{BINARY, Setup, rule, text};
use crate::support::smtp::message;
use crate::support::swaks::swaks;
use crate::support::wait_for;

const BOB: &str = "bob@good.test";
const ALICE: &str = "alice@example.test";

#[test]
fn a_reload_is_all_or_nothing() {
    let daemon = Setup::default().start();
    let file = daemon.path("org.toml");
    let organization = fs::read_to_string(&file).expect("reads");
    swaks(&daemon, BOB, ALICE, "before", &[]).accepted();

    fs::write(&file, organization.clone() + "[[user]]\nname = \"new\"\nquota_mb = 0\n")
        .expect("writes");
    daemon.signal("HUP");
    wait_for("the refusal to reload", || daemon.log().contains("not reloaded").then_some(()));
    assert!(daemon.log().contains("quota_mb"), "{}", daemon.log());
    swaks(&daemon, BOB, ALICE, "still", &[]).accepted();
    swaks(&daemon, BOB, "new@example.test", "not yet", &[]).refused("550 5.1.1", "unknown-user");

    let more = "[[user]]\nname = \"new\"\n".to_owned() + &rule("drop", "DROP", "good.test", ALICE);
    fs::write(&file, organization + &more).expect("writes");
    daemon.signal("HUP");
    wait_for("the reload", || daemon.log().contains("configuration reloaded").then_some(()));
    swaks(&daemon, BOB, "new@example.test", "now", &[]).accepted();
    swaks(&daemon, BOB, ALICE, "after", &[]).accepted();
    assert!(daemon.folders("alice", "after").is_empty(), "the new rule drops it");
    assert_eq!(daemon.folders("new", "now"), ["INBOX"]);
}

/// Also what is not in the organization's file can spoil a reload, and then nothing of it counts.
#[test]
fn a_reload_takes_nothing_beside_a_broken_file() {
    let sections = "[store]\nmaster_key_file = \"master.key\"\n".to_owned();
    let setup = Setup { sections, ..Setup::default() };
    let mut daemon = setup.prepare();
    fs::write(daemon.path("master.key"), "0123456789abcdef".repeat(4) + "\n").expect("writes");
    daemon.launch(Command::new(BINARY));
    let organization = fs::read_to_string(daemon.path("org.toml")).expect("reads");
    let more = organization + "[[user]]\nname = \"new\"\n";
    fs::write(daemon.path("org.toml"), more).expect("writes");
    let certificate = daemon.data().join("tls/certificate.pem");
    for broken in [certificate, daemon.path("master.key"), daemon.path("demo.zone")] {
        let whole = fs::read(&broken).expect("reads");
        fs::write(&broken, "$TTL 60\nx.test. IN A 300.1.1.1\n").expect("writes");
        let output = daemon.command(&["reload"]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.starts_with("not reloaded, the old configuration goes on:\n"), "{told}");
        let name = broken.file_name().expect("has a name").to_string_lossy();
        assert!(told.contains(&*name), "no {name} in {told}");
        swaks(&daemon, BOB, "new@example.test", "x", &[]).refused("550 5.1.1", "unknown-user");
        fs::write(&broken, whole).expect("writes");
    }
    let told = daemon.succeeds(&["reload"]);
    assert_eq!(told, "reloaded: organization example: users added: new\n");
    swaks(&daemon, BOB, "new@example.test", "now", &[]).accepted();
    assert!(daemon.log().contains("users added: new"), "{}", daemon.log());
}

/// Not what was read, nor what was asked for before: what is another than it was.
#[test]
fn a_reload_names_what_changed_and_nothing_else() {
    let rule = "[[inbound_rule]]\nname = \"first\"\naction = \"DROP\"\nsenders = [\"a.test\"]\n\
                destinations = [\"*\"]\n[[inbound_rule]]\nname = \"second\"\naction = \"DROP\"\n\
                senders = [\"b.test\"]\ndestinations = [\"*\"]\n";
    let sections = "[queue]\nca_file = \"ca.pem\"\n".to_owned();
    let mut daemon = Setup { sections, ..Setup::with(rule) }.prepare();
    let authority = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).expect("makes");
    fs::write(daemon.path("ca.pem"), authority.cert.pem()).expect("writes");
    daemon.launch(Command::new(BINARY));
    let reloaded = || daemon.succeeds(&["reload"]);
    let rewrite = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(daemon.path(name)).expect("reads");
        assert!(text.contains(from), "{from} in {text}");
        fs::write(daemon.path(name), text.replacen(from, to, 1)).expect("writes");
    };
    let nothing = "reloaded: nothing has changed\n";
    assert_eq!(reloaded(), nothing);
    assert!(!daemon.log().contains("certificate loaded"), "{}", daemon.log());
    for name in ["org.toml", "mailweir.toml", "demo.zone"] {
        rewrite(name, "", "");
        assert_eq!(reloaded(), nothing, "{name} is written anew, and says the same");
    }
    rewrite("mailweir.toml", "[limits]\n", "[limits]\nhops = 100\n");
    assert_eq!(reloaded(), nothing, "a default that is written down");
    for (name, from, to, expected) in [
        ("mailweir.toml", "hops = 100", "hops = 99", "limits.hops"),
        ("mailweir.toml", "[queue]\n", "[queue]\nfirst_retry_s = 60\n", "queue.first_retry_s"),
        (
            "mailweir.toml",
            "[queue]\n",
            "[dmarc]\non_reject = \"drop\"\n[queue]\n",
            "dmarc.on_reject",
        ),
        ("org.toml", "a.test", "aa.test", "organization example: inbound rules changed: first"),
        (
            "org.toml",
            "\"second\"",
            "\"third\"",
            "organization example: inbound rules added: third\n\
            reloaded: organization example: inbound rules removed: second",
        ),
        (
            "org.toml",
            "alias = ",
            "dmarc_on_reject = \"drop\"\nalias = ",
            "organization example: dmarc_on_reject changed",
        ),
        ("demo.zone", "$TTL", "more.test. 60 IN A 192.0.2.1\n$TTL", "the content of "),
        ("ca.pem", "-----BEGIN", "\n-----BEGIN", "the content of "),
    ] {
        rewrite(name, from, to);
        let told = reloaded();
        assert!(told.starts_with(&format!("reloaded: {expected}")), "{to}: {told}");
        assert_eq!(told.lines().count(), expected.lines().count(), "and nothing else: {told}");
        assert_eq!(reloaded(), nothing, "once");
    }
    daemon.succeeds(&["domain", "keys", "example.test"]);
    let told = reloaded();
    assert!(told == nothing || told == "reloaded: the keys of mail domains\n", "{told}");
    let pair = rcgen::generate_simple_self_signed(["mx.example.test".to_owned()]).expect("makes");
    fs::write(daemon.data().join("tls/private_key.pem"), pair.signing_key.serialize_pem())
        .expect("writes");
    fs::write(daemon.data().join("tls/certificate.pem"), pair.cert.pem()).expect("writes");
    let told = reloaded();
    // The daemon looks at the files by itself, and may have been faster.
    assert!(told == nothing || told == "reloaded: the certificate\n", "{told}");
    assert_eq!(daemon.log().matches("certificate loaded").count(), 1, "{}", daemon.log());
}

#[test]
fn a_reload_says_what_only_a_restart_changes_and_keeps_it_whole() {
    let daemon = Setup::default().start();
    let config = fs::read_to_string(daemon.config()).expect("reads");
    let config = config.replace("\"mx.example.test\"", "\"other.example.test\"");
    let config = config.replace("banner_delay_ms = 0", "banner_delay_ms = 0\nerrors = 7");
    fs::write(daemon.config(), config).expect("writes");
    let answer: serde_json::Value =
        serde_json::from_str(&daemon.succeeds(&["reload", "--json"])).expect("JSON");
    assert_eq!(answer["inForce"], serde_json::json!(["limits.errors"]));
    assert_eq!(answer["afterRestart"], serde_json::json!(["hostname"]));
    let told = daemon.succeeds(&["reload"]);
    let expected = "reloaded: nothing has changed\nonly a restart changes hostname\n";
    assert_eq!(told, expected, "it still waits for the restart");
    assert!(daemon.log().contains("only a restart changes hostname"), "{}", daemon.log());
    swaks(&daemon, BOB, ALICE, "by the old name", &[]).accepted();
    let mails = daemon.mailbox("alice");
    let mail = text(&mails[0].1);
    assert!(mail.contains("by mx.example.test ") && !mail.contains("other.example.test"), "{mail}");
}

/// Mail belongs to alias and name: whoever takes them away is told where it stays.
#[test]
fn a_reload_says_what_becomes_of_the_mail_of_who_is_gone() {
    let daemon = Setup::with("[[user]]\nname = \"carl\"\n").start();
    let file = daemon.path("org.toml");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("\"carl\"", "\"Carl\"")).expect("writes");
    let told = daemon.succeeds(&["reload"]);
    assert!(told.contains("users removed: carl\n"), "{told}");
    assert!(told.contains("mailboxes of those who were removed are closed, and stay"), "{told}");
    let text = text.replace("alias = \"example\"", "alias = \"other\"");
    fs::write(&file, &text).expect("writes");
    let told = daemon.succeeds(&["reload"]);
    let stays = "organization example is gone; its mail and passwords stay, for when an organization \
                 has this alias or its id m-";
    assert!(told.contains(stays), "{told}");
    assert!(!told.contains("refused"), "everybody's addresses are there: {told}");

    // Resources, groups and addresses: where their mail is, and what becomes of more of it.
    let without = |text: &str, begin: &str| {
        let start = text.find(begin).expect("is there");
        let end = text[start + 2..].find("\n[[").map_or(text.len(), |end| start + 2 + end + 1);
        text[..start].to_owned() + &text[end..]
    };
    let text = without(&text, "[[resource]]").replace(", \"room\"]", "]");
    fs::write(&file, &text).expect("writes");
    let told = daemon.succeeds(&["reload"]);
    assert!(told.contains("resources removed: room\n"), "{told}");
    assert!(told.contains("mailboxes of those who were removed are closed, and stay"), "{told}");
    let refused =
        "mail for room@example.test is refused from now on, since nobody has the address\n";
    assert!(told.contains(refused), "{told}");
    let text = text.replace("aliases = [\"verkauf@example.org\"]\n", "");
    fs::write(&file, &text).expect("writes");
    let told = daemon.succeeds(&["reload"]);
    assert!(told.contains("mail for verkauf@example.org is refused from now on"), "{told}");
    let text = text.replace(", \"example.org\"]", "]").replace("\"sales\"", "\"team\"");
    fs::write(&file, &text).expect("writes");
    let told = daemon.succeeds(&["reload"]);
    assert!(told.contains("groups removed: sales\n"), "{told}");
    assert!(told.contains("mail for sales@example.test is refused from now on"), "{told}");
    swaks(&daemon, BOB, "sales@example.test", "x", &[]).refused("550 5.1.1", "unknown-user");
}

/// A second organization may have users of the same names, whose bare names then log nobody in.
#[test]
fn a_reload_and_the_check_tell_of_namesakes() {
    let second = |name: &str| {
        format!("alias = \"other\"\ndomains = [\"other.test\"]\n[[user]]\nname = \"{name}\"\n")
    };
    let setup = Setup { more_organizations: vec![second("zoe")], ..Setup::default() };
    let daemon = setup.start();
    assert!(!text(&daemon.command(&["check-config"]).stderr).contains("note: "));
    fs::write(daemon.path("org0.toml"), second("Alice")).expect("writes");
    let note = "organization: alice is a user's name in example and other: they log in with their \
                addresses";
    let checked = daemon.command(&["check-config"]);
    assert!(text(&checked.stderr).contains(&format!("note: {note}")), "{}", text(&checked.stderr));
    let told = daemon.succeeds(&["reload"]);
    let both = "organization other: Alice: another organization has a user of this name, so both log \
                in with their addresses from now on, and the name alone logs nobody in\n";
    assert!(told.contains(both), "{told}");
    assert!(!daemon.succeeds(&["reload"]).contains("log in with"), "once");
}

/// What keeps a listener from its address, and what would let it.
#[test]
fn a_listener_that_cannot_listen_says_what_would_let_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = taken.local_addr().expect("is bound").to_string();
    for (bind, expected) in [
        (taken.as_str(), "another program has it: ss -ltnp"),
        ("192.0.2.77:2525", "this host has no such address"),
        ("127.0.0.1:25", "setcap cap_net_bind_service=+ep FILE"),
    ] {
        let daemon = Setup::default().prepare();
        let config = fs::read_to_string(daemon.config()).expect("reads");
        fs::write(daemon.config(), config.replace("127.0.0.1:0", bind)).expect("writes");
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config"]).arg(daemon.config());
        if rustix::process::geteuid().is_root() {
            let nobody = uzers::get_user_by_name("nobody").expect("every system has it");
            fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o777))
                .expect("opens");
            command.uid(nobody.uid()).gid(nobody.primary_group_id());
        }
        let output = command.output().expect("runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let refusal = format!("listener mx cannot listen on {bind}: ");
        assert!(told.contains(&refusal) && told.contains(expected), "{told}");
        assert_eq!(told.matches("(os error").count(), 1, "told once: {told}");
        assert!(!told.contains("run this as root"), "{told}");
    }
}

#[test]
fn a_reload_needs_a_daemon_not_a_right_configuration() {
    let daemon = Setup::default().prepare();
    let output = daemon.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no daemon is running on "), "{}", text(&output.stderr));

    let daemon = Setup::default().start();
    fs::write(daemon.path("org.toml"), "alias = 3\n").expect("writes");
    let output = daemon.command(&["reload"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("org.toml:1: alias: expected a text"), "{told}");
}

#[test]
fn a_message_keeps_the_rules_it_began_with() {
    let daemon = Setup::default().start();
    let mut client = daemon.client();
    client.envelope(BOB, &[ALICE]);
    let file = daemon.path("org.toml");
    let organization = fs::read_to_string(&file).expect("reads");
    fs::write(&file, organization + &rule("drop", "DROP", "*", "*")).expect("writes");
    daemon.signal("HUP");
    wait_for("the reload", || daemon.log().contains("configuration reloaded").then_some(()));
    assert!(client.data(&message(BOB, "old rules")).starts_with("250"));
    assert_eq!(daemon.folders("alice", "old rules"), ["INBOX"]);
}

#[test]
fn sigterm_lets_a_message_finish() {
    let mut daemon = Setup::default().start();
    let mut idle = daemon.client();
    let mut busy = daemon.client();
    busy.envelope(BOB, &[ALICE]);
    assert!(busy.command("DATA").starts_with("354"));
    busy.send(b"From: bob@good.test\r\nSubject: drained\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    daemon.signal("TERM");
    let farewell = idle.reply();
    assert!(
        farewell.starts_with("421 4.3.2") && farewell.contains("[shutting-down "),
        "{farewell}"
    );
    busy.send(b"the rest\r\n.\r\n");
    assert!(busy.reply().starts_with("250"), "the message under way is taken");
    drop(busy);
    let status = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(daemon.folders("alice", "drained"), ["INBOX"]);
}

#[test]
fn one_network_cannot_take_all_connections() {
    let sections = "[limits]\nbanner_delay_ms = 0\nconnections_per_network = 2\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let first = daemon.client();
    let _second = daemon.client();
    let mut third = crate::support::smtp::Client::open(daemon.address());
    let reply = third.reply();
    assert!(reply.starts_with("421 4.7.0") && reply.contains("[too-many-from-network "), "{reply}");
    drop(first);
    wait_for("a free place", || {
        let mut client = crate::support::smtp::Client::open(daemon.address());
        client.reply().starts_with("220").then_some(())
    });
}

#[test]
fn a_denied_network_is_refused() {
    let sections = "[access]\ndeny = [\"127.0.0.0/8\"]\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.start();
    let mut client = crate::support::smtp::Client::open(daemon.address());
    let reply = client.reply();
    assert!(reply.starts_with("554 5.7.1") && reply.contains("[network-denied "), "{reply}");
}

#[test]
fn a_changed_certificate_is_served_without_a_restart() {
    let daemon = Setup::default().start();
    let fingerprint = || {
        let command = format!(
            "openssl s_client -starttls smtp -connect {} </dev/null 2>/dev/null | \
             openssl x509 -noout -fingerprint",
            daemon.address()
        );
        let output =
            std::process::Command::new("sh").args(["-c", &command]).output().expect("runs");
        crate::support::daemon::text(&output.stdout)
    };
    let before = fingerprint();
    assert!(before.contains("Fingerprint"), "{before}");
    let dir = daemon.data().join("tls");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=mx.example.test",
        ])
        .arg("-keyout")
        .arg(dir.join("private_key.pem"))
        .arg("-out")
        .arg(dir.join("certificate.pem"))
        .output()
        .expect("runs openssl");
    assert!(made.status.success());
    wait_for("the new certificate", || (fingerprint() != before).then_some(()));
}

#[test]
fn the_service_manager_is_told() {
    let mut daemon = Setup::default().start();
    assert!(daemon.stop().success());
    let path = daemon.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("binds");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("sets");
    let told = || {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).expect("a notification");
        crate::support::daemon::text(&message[..length])
    };
    let mut command = std::process::Command::new(crate::support::daemon::BINARY);
    command.env("NOTIFY_SOCKET", &path);
    daemon.launch(command);
    assert!(told().contains("READY=1"));
    daemon.signal("HUP");
    assert!(told().contains("RELOADING=1"));
    assert!(told().contains("READY=1"));
    assert!(daemon.stop().success());
    assert!(told().contains("STOPPING=1"));
}

/// Every path below a folder that others than its owner have rights to.
fn wide(path: &Path) -> Vec<PathBuf> {
    let metadata = fs::symlink_metadata(path).expect("stats");
    let mut found = Vec::new();
    if metadata.permissions().mode() & 0o077 != 0 {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("lists") {
            found.extend(wide(&entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn the_data_folder_is_its_owners_whatever_the_umask_and_a_wider_one_is_told() {
    let mut daemon = Setup::default().prepare();
    let generous = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000; exec \"$0\" \"$@\"", BINARY]);
        command
    };
    daemon.launch(generous());
    swaks(&daemon, "bob@good.test", "alice@example.test", "private", &[]).accepted();
    swaks(&daemon, "bob@good.test", "nobody@example.test", "refused", &[])
        .refused("550", "unknown-user");
    for arguments in [
        &["token", "create", "alice", "--name", "phone"][..],
        &["domain", "keys", "example.test"],
        &["mailbox", "list", "alice"],
    ] {
        let output = generous().args(arguments).arg("--config").arg(daemon.config()).output();
        assert!(output.expect("runs").status.success(), "{arguments:?}");
    }
    assert_eq!(wide(&daemon.data()), Vec::<PathBuf>::new());
    daemon.stop();
    assert!(!daemon.log().contains("have rights to"), "{}", daemon.log());
    fs::set_permissions(daemon.data(), fs::Permissions::from_mode(0o750)).expect("changes");
    daemon.launch(generous());
    let told = daemon.log();
    let line = told.lines().find(|line| line.contains("have rights to")).expect("is told");
    assert!(line.contains(&daemon.data().display().to_string()), "{line}");
}

/// What `openssl s_client` with these options reports of its connection, and how a command under it
/// is answered.
fn s_client(address: std::net::SocketAddr, options: &str) -> String {
    let command = format!(
        "printf 'QUIT\\n' | timeout 20 openssl s_client -starttls smtp -crlf -ign_eof \
         -connect {address} {options} 2>&1"
    );
    text(&Command::new("sh").args(["-c", &command]).output().expect("runs").stdout)
}

/// What the peer's options are, and the certificate that it is to see: by the file's name.
const PEERS: [(&str, &str); 10] = [
    ("", "certificate.pem"),
    ("-tls1_2", "certificate.pem"),
    ("-tls1_3", "certificate.pem"),
    ("-tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256", "rsa_certificate.pem"),
    ("-tls1_2 -sigalgs RSA+SHA256", "rsa_certificate.pem"),
    ("-tls1_2 -sigalgs RSA+SHA384:RSA+SHA1", "rsa_certificate.pem"),
    ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "rsa_certificate.pem"),
    ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA", "rsa_certificate.pem"),
    ("-tls1_3 -sigalgs RSA-PSS+SHA256", "rsa_certificate.pem"),
    ("-sigalgs RSA-PSS+SHA512:RSA+SHA256", "rsa_certificate.pem"),
];

#[test]
fn the_self_made_pair_serves_peers_that_know_rsa_only() {
    let mut daemon = Setup::default().start();
    let dir = daemon.data().join("tls");
    let pem = |name: &str| fs::read_to_string(dir.join(name)).expect("reads");
    let check = |address| {
        for (options, expected) in PEERS {
            let said = s_client(address, options);
            assert!(said.contains("\n221 2.0.0 "), "{options}: {said}");
            let (_, shown) = said.split_once("-----BEGIN CERTIFICATE-----").expect("one");
            let (shown, _) = shown.split_once("-----END").expect("its end");
            let kept = pem(expected).replace('\r', "");
            assert!(kept.contains(shown.trim()), "{options}: not {expected}");
        }
    };
    check(daemon.address());
    let before = pem("rsa_certificate.pem");
    for name in ["private_key.pem", "rsa_private_key.pem"] {
        let mode = fs::metadata(dir.join(name)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(daemon.stop().success());
    daemon.launch(Command::new(BINARY));
    check(daemon.address());
    assert_eq!(pem("rsa_certificate.pem"), before, "it is made once");
}

/// What the administrator names is the only one.
#[test]
fn a_certificate_of_the_administrators_has_no_second_beside_it() {
    let other = Setup::default().start();
    let pair = other.data().join("tls");
    let sections = format!(
        "[tls]\ncertificate = \"{0}/certificate.pem\"\nprivate_key = \"{0}/private_key.pem\"\n",
        pair.display()
    );
    let daemon = Setup { sections, ..Setup::default() }.start();
    assert!(s_client(daemon.address(), "-tls1_2").contains("\n221 2.0.0 "));
    let said = s_client(daemon.address(), "-tls1_2 -sigalgs RSA+SHA256");
    assert!(said.contains("handshake failure"), "{said}");
    assert!(!daemon.data().join("tls").exists() && !pair.join("rsa_private_key.pem").exists());
}

#[test]
fn keys_that_a_first_start_makes_leave_a_line() {
    let mut daemon = Setup::default().start();
    for (made, file) in
        [("a master key is made", "keys/master.key"), ("a self-signed pair is made", "tls/")]
    {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains(made)).expect("a line");
        assert!(line.contains(&daemon.data().join(file).display().to_string()), "{line}");
    }
    daemon.stop();
    daemon.launch(Command::new(BINARY));
    assert_eq!(daemon.log().matches("a master key is made").count(), 1, "{}", daemon.log());
}

/// What is made below a folder with the setgid bit has its group, which the daemon's user need not be
/// in, and cannot change. Only rights count.
#[test]
fn a_data_folder_with_a_foreign_group_serves() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a folder of a group that it is not in");
        return;
    }
    let nobody = uzers::get_user_by_name("nobody").expect("every system has it");
    let foreign = 12_345;
    let mut daemon = Setup::default().prepare();
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    fs::create_dir(daemon.data()).expect("makes");
    chown(daemon.data(), Some(nobody.uid()), Some(foreign)).expect("gives away");
    fs::set_permissions(daemon.data(), fs::Permissions::from_mode(0o2700)).expect("sets");
    let as_nobody = || {
        let mut command = Command::new(BINARY);
        command.uid(nobody.uid()).gid(nobody.primary_group_id());
        command
    };
    // Before the daemon has made anything, and beside it.
    daemon.succeeds(&["domain", "keys", "example.test"]);
    daemon.launch(as_nobody());
    daemon.succeeds(&["token", "create", "alice", "--name", "phone"]);
    swaks(&daemon, BOB, ALICE, "in a foreign group", &[]).accepted();
    daemon.stop();
    daemon.launch(as_nobody());
    assert_eq!(daemon.folders("alice", "in a foreign group"), ["INBOX"]);
    assert!(!daemon.log().contains("have rights to"), "{}", daemon.log());
    let master = fs::metadata(daemon.data().join("keys/master.key")).expect("is there");
    assert_eq!((master.uid(), master.mode() & 0o777), (nobody.uid(), 0o600));
    let index = fs::metadata(daemon.data().join("index.sqlite")).expect("is there");
    assert_eq!(index.gid(), foreign, "as the folder has it");
}

/// Root looks into a store of somebody else: the daemon starts afterwards. And who may not look is
/// told so, not that there is nothing.
#[test]
fn commands_beside_a_daemon_that_is_somebody_else_leave_it_its_folder() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a daemon as somebody else");
        return;
    }
    let nobody = uzers::get_user_by_name("nobody").expect("every system has it");
    let mut daemon = Setup::default().prepare();
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    fs::create_dir(daemon.data()).expect("makes");
    chown(daemon.data(), Some(nobody.uid()), Some(nobody.primary_group_id())).expect("gives");
    fs::set_permissions(daemon.data(), fs::Permissions::from_mode(0o700)).expect("sets");
    let as_user = |uid: u32| {
        let mut command = Command::new(BINARY);
        command.uid(uid).gid(nobody.primary_group_id());
        command
    };
    daemon.launch(as_user(nobody.uid()));
    swaks(&daemon, BOB, ALICE, "for nobody", &[]).accepted();
    daemon.stop();

    let copy = daemon.path("copy").display().to_string();
    let commands: [&[&str]; 6] = [
        &["fsck"],
        &["queue", "list"],
        &["mailbox", "list", "alice"],
        &["events", "trace", ALICE],
        &["events", "tail"],
        &["backup", &copy],
    ];
    for arguments in commands {
        let mut command = as_user(12_345);
        command.args(arguments).arg("--config").arg(daemon.config());
        let output = command.output().expect("runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains("Permission denied"), "{arguments:?}: {told}");
        assert!(told.contains("run this as root or as the daemon's user"), "{arguments:?}: {told}");
    }
    for lock in ["lock", "log/lock"] {
        fs::remove_file(daemon.data().join(lock)).expect("removes");
    }
    for arguments in commands {
        daemon.succeeds(arguments);
    }
    for lock in ["lock", "log/lock"] {
        let made = fs::metadata(daemon.data().join(lock)).expect("is there");
        assert_eq!((made.uid(), made.mode() & 0o777), (nobody.uid(), 0o600), "{lock}");
    }
    daemon.launch(as_user(nobody.uid()));
    assert_eq!(daemon.folders("alice", "for nobody"), ["INBOX"]);
}

/// What the allocator does with freed memory is set before it begins, by one more start of the same
/// process; who has set it himself keeps it.
#[test]
fn freed_memory_goes_back_soon() {
    let mut daemon = Setup::default().prepare();
    daemon.launch(Command::new(BINARY));
    let of_process = |name: &str| {
        fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).expect("the daemon runs")
    };
    let environment = of_process("environ");
    assert!(environment.split('\0').any(|it| it == "MIMALLOC_PURGE_DELAY=30"), "{environment:?}");
    assert_eq!(of_process("comm"), "mailweir\n");
    assert!(of_process("cmdline").starts_with(BINARY));
    drop(daemon);

    let mut daemon = Setup::default().prepare();
    let mut command = Command::new(BINARY);
    command.env("MIMALLOC_PURGE_DELAY", "77");
    daemon.launch(command);
    let environment = fs::read_to_string(format!("/proc/{}/environ", daemon.pid()));
    assert!(environment.expect("the daemon runs").contains("MIMALLOC_PURGE_DELAY=77\0"));
}
