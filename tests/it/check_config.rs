//! What `check-config` calls fine works: it looks at everything that a configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::daemon::{BINARY, Daemon, Setup, text};
use crate::support::dns::{Responder, servers};

/// What `check-config` says, and its exit status.
fn checked(daemon: &Daemon) -> (String, Option<i32>) {
    let output = daemon.command(&["check-config"]);
    (text(&output.stderr) + &text(&output.stdout), output.status.code())
}

/// Gives the domains of the usual organization keys that sign, so that nothing is told of those.
fn with_keys(daemon: Daemon) -> Daemon {
    for domain in ["example.test", "example.org"] {
        daemon.keys_that_sign(domain);
    }
    daemon
}

/// A pair for these names with these days left, below the daemon's folder.
fn certificate(daemon: &Daemon, names: &[&str], days_left: i64) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).expect("names");
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(24 * 3600);
    let left = day * u32::try_from(days_left.unsigned_abs()).expect("few");
    let end = if days_left < 0 { now - left } else { now + left };
    parameters.not_before = (now - 400 * day).into();
    parameters.not_after = end.into();
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = parameters.self_signed(&key).expect("signs");
    fs::write(daemon.path("mx.pem"), made.pem()).expect("writes");
    let file = daemon.path("mx.key");
    fs::write(&file, key.serialize_pem()).expect("writes");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("closes");
}

const TLS: &str = "[tls]\ncertificate = \"mx.pem\"\nprivate_key = \"mx.key\"\n";

#[test]
fn a_certificate_is_for_the_host_and_for_today() {
    let mut daemon = with_keys(Setup { sections: TLS.into(), ..Setup::default() }.prepare());
    for (names, days_left, expected, status) in [
        (["mx.example.test"].as_slice(), 60, " is fine\n", 0),
        (&["*.example.test"], 60, " is fine\n", 0),
        (&["mx.example.test"], 5, "mx.pem expires at ", 0),
        (&["mx.example.test"], -2, "mx.pem expired at ", 78),
        (
            &["www.example.test", "b.test"],
            60,
            "is for www.example.test, b.test, not for mx.example.test",
            78,
        ),
    ] {
        certificate(&daemon, names, days_left);
        let (told, found) = checked(&daemon);
        assert!(told.contains(expected), "{names:?} {days_left}: {told}");
        assert_eq!(found, Some(status), "{told}");
        assert_eq!(told.contains(" is fine"), expected.contains(" is fine"), "{told}");
        assert!(expected.contains(" is fine") || told.contains("tls.certificate: "), "{told}");
    }
    // Mail must flow all the same: most servers never look.
    certificate(&daemon, &["mx.example.test"], -2);
    daemon.launch(Command::new(BINARY));
    assert!(daemon.log().contains("mx.pem expired at "), "{}", daemon.log());
}

#[test]
fn a_name_that_means_nothing_outside_is_told() {
    for name in ["localhost", "mx.localhost", "mail", "mx.localdomain", "server.local", "mx.lan"] {
        let daemon = Setup::default().prepare();
        let config = fs::read_to_string(daemon.config()).expect("reads");
        let config = config.replace("\"mx.example.test\"", &format!("\"{name}\""));
        fs::write(daemon.config(), config).expect("writes");
        let (told, status) = checked(&daemon);
        let expected =
            format!("mailweir.toml:2: hostname: \"{name}\" means nothing to other servers");
        assert!(told.contains(&expected), "{told}");
        assert_eq!(status, Some(78));
    }
}

#[test]
fn a_data_folder_that_cannot_be_made_is_told() {
    let daemon = Setup::default().prepare();
    fs::write(daemon.data(), "a file stands in the way").expect("writes");
    let (told, status) = checked(&daemon);
    assert!(told.contains("mailweir.toml:1: data_dir: "), "{told}");
    assert!(told.contains("data is not a folder"), "{told}");
    assert_eq!(status, Some(78));
}

/// A name that is mistyped would begin anew, without mail and passwords.
#[test]
fn a_data_folder_that_is_not_there_yet_is_noted() {
    let mut daemon = Setup::default().prepare();
    let note = format!(
        "note: {}:1: data_dir: {} is not there yet: the first start makes it, without mail or \
         passwords, with a new master key",
        daemon.config().display(),
        daemon.data().display()
    );
    let (told, status) = checked(&daemon);
    assert!(told.contains(&note), "{told}");
    assert_eq!(status, Some(0), "nothing is wrong with it");
    daemon.launch(Command::new(BINARY));
    assert!(daemon.log().contains("is not there yet: the first start makes it"));
    assert!(!checked(&daemon).0.contains("note: "), "it is there");
}

#[test]
fn a_disk_with_too_little_room_is_told() {
    let with = |floor: u64| {
        let sections = format!("[store]\nmin_free_bytes = {floor}\n");
        checked(&with_keys(Setup { sections, ..Setup::default() }.prepare()))
    };
    let (told, status) = with(1 << 50);
    assert!(told.contains("store.min_free_bytes: "), "{told}");
    assert!(told.contains(", and below 1073741824 MiB mail is deferred"), "{told}");
    assert_eq!(status, Some(78));
    assert!(with(1).0.contains(" is fine"));
}

/// As root for a daemon that is somebody else, or as somebody who may not read it either.
#[test]
fn a_key_that_the_daemon_cannot_read_is_told() {
    let sections = "[store]\nmaster_key_file = \"master.key\"\n".to_owned();
    let daemon = Setup { sections, ..Setup::default() }.prepare();
    let key = daemon.path("master.key");
    fs::write(&key, "0123456789abcdef".repeat(4) + "\n").expect("writes");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("closes");
    let daemon = with_keys(daemon);
    assert!(checked(&daemon).0.contains(" is fine"), "{}", checked(&daemon).0);

    let is_root = rustix::process::geteuid().is_root();
    fs::create_dir_all(daemon.data()).expect("makes");
    if is_root {
        std::os::unix::fs::chown(daemon.data(), Some(65_533), Some(65_533)).expect("gives away");
        fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    }
    let mode = if is_root { 0o600 } else { 0 };
    fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("closes");
    let (told, status) = checked(&daemon);
    assert!(told.contains("store.master_key_file: "), "{told}");
    assert!(told.contains("master.key cannot be read"), "{told}");
    assert_eq!(status, Some(78));
}

/// Nobody has mail yet, so nothing would fail to open; later everything would.
#[test]
fn another_master_key_is_told_before_anybody_has_mail() {
    let mut daemon = with_keys(Setup::default().start());
    daemon.stop();
    let key = daemon.data().join("keys/master.key");
    let right = fs::read(&key).expect("reads");
    fs::write(&key, "0123456789abcdef".repeat(4) + "\n").expect("writes");
    let expected = "master.key is not the key that this data folder is sealed with";
    let (told, status) = checked(&daemon);
    assert!(told.contains(expected) && told.contains("store.master_key_file: "), "{told}");
    assert_eq!(status, Some(78));
    for command in [["serve"].as_slice(), &["fsck"], &["mailbox", "list"], &["backup", "copy"]] {
        let output = daemon.command(command);
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{command:?}: {told}");
    }
    fs::write(&key, right).expect("writes");
    assert!(checked(&daemon).0.contains(" is fine"), "{}", checked(&daemon).0);
    daemon.launch(Command::new(BINARY));
}

/// The daemon cannot open what a command of root's has left in its folder.
#[test]
fn what_root_left_in_the_data_folder_is_told() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can leave files in the folder of somebody else");
        return;
    }
    let daemon = Setup::default().prepare();
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    for folder in ["", "log"] {
        let path = daemon.data().join(folder);
        fs::create_dir(&path).expect("makes");
        std::os::unix::fs::chown(&path, Some(65_533), Some(65_533)).expect("gives away");
    }
    let left = |name: &str| daemon.data().join(name);
    for name in ["lock", "log/reader.lock"] {
        fs::write(left(name), "").expect("writes");
        let (told, status) = checked(&daemon);
        let expected =
            format!("data_dir: {} belongs to root, not to user 65533", left(name).display());
        assert!(told.contains(&expected) && told.contains("chown -R"), "{told}");
        assert_eq!(status, Some(78));
        std::os::unix::fs::chown(left(name), Some(65_533), Some(65_533)).expect("gives back");
        let told = checked(&daemon).0;
        assert!(!told.contains("belongs to"), "{told}");
    }
}

#[test]
fn a_resolver_that_does_not_answer_is_told() {
    let silent = Responder::silent();
    let dns = servers(silent.address) + "\ntimeout_ms = 200\nattempts = 1";
    let (told, status) = checked(&Setup { dns, ..Setup::default() }.prepare());
    assert!(told.contains("dns.servers: "), "{told}");
    assert!(told.contains("did not say where mail for example.test goes"), "{told}");
    assert_eq!(status, Some(78));
}

#[test]
fn a_mistake_in_one_file_hides_none_in_another() {
    let second =
        "alias = \"two\"\ndomains = [\"two.test\"]\n[[user]]\nname = \"u\"\nquota_mb = 0\n";
    let setup = Setup {
        more_organizations: vec![second.into(), "alias = ".into()],
        keys: "nonsense = 1\n".into(),
        sections: "[spam]\nscanner = \"rspamd\"\naddress = \"127.0.0.1\"\n[tls]\n\
                   certificate = \"none.pem\"\nprivate_key = \"none.key\"\n"
            .into(),
        zone: "$TTL 60\nx.test. IN A 300.1.1.1\n".into(),
        ..Setup::with("[[group]]\nname = \"broken\"\nmembers = [\"nobody\"]\n")
    };
    let (told, status) = checked(&setup.prepare());
    assert_eq!(status, Some(78));
    for expected in [
        "nonsense: unknown key",
        "there is no user, resource or group \"nobody\"",
        "org0.toml:5: user[0].quota_mb: 0 is not between",
        "org1.toml:1: ",
        "spam.address: \"127.0.0.1\": has no port, such as 11333 in 127.0.0.1:11333",
        "tls.certificate: ",
        "demo.zone:2: ",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
}

#[test]
fn groups_that_reach_nobody_are_no_reason_to_say_fine() {
    let groups = "[[group]]\nname = \"one\"\nmembers = [\"two\"]\n\
                  [[group]]\nname = \"two\"\nmembers = [\"one\"]\n\
                  [[group]]\nname = \"gone\"\nmembers = [\"carol\"]\n";
    let (told, status) = checked(&with_keys(Setup::with(groups).prepare()));
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(told.matches("members: lead to nobody who takes mail").count(), 3, "{told}");
    assert!(told.contains("can be used, with 3 warnings") && !told.contains("is fine"), "{told}");
}

/// Mail that leaves unsigned is told wherever an administrator looks: by the check, in the log, and
/// by a reload.
#[test]
fn domains_without_keys_are_told() {
    let second = "alias = \"two\"\ndomains = [\"two.test\", \"unused.test\"]\n\
                  [[user]]\nname = \"u\"\n";
    let setup = Setup { more_organizations: vec![second.into()], ..Setup::default() };
    let mut daemon = setup.prepare();
    let no_keys = |domain: &str| {
        format!(
            "domains: {domain} has no DKIM keys, so its mail leaves unsigned: mailweir domain keys \
             {domain} makes them"
        )
    };
    let host = " (reports from postmaster@mx.example.test need them too)";
    let (told, status) = checked(&daemon);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains(&format!("org.toml:3: {}{host}\n", no_keys("example.test"))), "{told}");
    assert!(told.contains(&format!("org.toml:3: {}\n", no_keys("example.org"))), "{told}");
    assert!(told.contains(&format!("org0.toml:2: {}\n", no_keys("two.test"))), "{told}");
    assert!(!told.contains("unused.test"), "nobody has an address there: {told}");
    assert!(told.contains("can be used, with 3 warnings"), "{told}");
    assert!(!daemon.data().exists(), "who looks makes nothing");

    daemon.keys_that_sign("example.test");
    daemon.succeeds(&["domain", "keys", "two.test"]);
    daemon.launch(Command::new(BINARY));
    let log = daemon.log();
    let unpublished = "the DKIM keys of two.test have waited for their DNS records since ";
    assert_eq!(log.matches(unpublished).count(), 1, "{log}");
    assert_eq!(log.matches("example.org has no DKIM keys").count(), 1, "{log}");
    assert!(!log.contains("example.test has no DKIM keys"), "{log}");
    let reloaded = daemon.command(&["reload"]);
    let told = text(&reloaded.stderr);
    assert!(told.contains("example.org has no DKIM keys") && told.contains(unpublished), "{told}");
    let json: serde_json::Value =
        serde_json::from_slice(&daemon.command(&["reload", "--json"]).stdout).expect("JSON");
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(2), "{json}");

    daemon.keys_that_sign("example.org");
    daemon.succeeds(&["domain", "keys", "two.test", "--use-next", "--unseen"]);
    let reloaded = daemon.command(&["reload"]);
    assert_eq!(text(&reloaded.stderr), "", "all of them sign");
}

/// Who signs elsewhere, or hosts hundreds, has a few lines, not hundreds.
#[test]
fn of_many_domains_or_namesakes_some_are_named() {
    let organization = |alias: &str, domain: &str| {
        let mut domains = format!("\"{domain}\"");
        let mut users = String::new();
        for number in 0..12 {
            domains.push_str(&format!(", \"d{number}.{domain}\""));
            users.push_str(&format!(
                "[[user]]\nname = \"user{number}\"\nemail = \"u@d{number}.{domain}\"\n"
            ));
        }
        format!("alias = \"{alias}\"\ndomains = [{domains}]\n{users}")
    };
    let setup = Setup {
        organization: organization("one", "one.test"),
        more_organizations: vec![organization("two", "two.test")],
        ..Setup::default()
    };
    let (told, status) = checked(&setup.prepare());
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(told.matches(" has no DKIM keys").count(), 10, "{told}");
    assert!(told.contains("domains: mail of 14 more domains leaves unsigned as well"), "{told}");
    assert_eq!(told.matches("is a user's name in one and two").count(), 10, "{told}");
    assert!(told.contains("organization: and so it is with 2 more names"), "{told}");
}

/// A key that does not open keeps the daemon from starting, so the check does not call it fine.
#[test]
fn a_domain_key_that_does_not_open_is_told() {
    let mut daemon = with_keys(Setup::default().prepare());
    assert!(checked(&daemon).0.contains(" is fine"), "{}", checked(&daemon).0);
    let file = daemon.data().join("keys/dkim/mw1r.example.test");
    let right = fs::read(&file).expect("reads");
    fs::write(&file, "00\n").expect("writes");
    let (told, status) = checked(&daemon);
    let expected = "mw1r.example.test does not open with this master key";
    assert!(told.contains("data_dir: ") && told.contains(expected), "{told}");
    assert_eq!(status, Some(78));
    assert!(!daemon.launch_doomed(Command::new(BINARY)), "it does not start either");
    fs::write(&file, right).expect("writes");
    assert!(checked(&daemon).0.contains(" is fine"), "{}", checked(&daemon).0);
}
