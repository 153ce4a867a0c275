//! What an organization's file says, as a state.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::config::organization_file::{Around, Claims, organization};
use crate::config::stamp::Stamps;
use crate::organization::{Fact, difference};

/// The example with all that it has in comments.
fn whole_example() -> String {
    let text = include_str!("../../../config/example-org.toml");
    let mut lines = Vec::new();
    for line in text.lines() {
        let shown = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']));
        lines.push(shown.unwrap_or(line));
    }
    lines.join("\n")
}

/// A folder with the example and the files that it names.
fn scratch() -> Scratch {
    let scratch = Scratch::new(MAIN, &whole_example());
    let made = rcgen::generate_simple_self_signed(vec!["ca.test".into()]).expect("a pair");
    fs::write(scratch.0.path().join("filter-ca.pem"), made.cert.pem()).expect("writes");
    fs::write(scratch.0.path().join("filter.password"), "open sesame\n").expect("writes");
    scratch
}

/// The state that a file's text says, and the keys that were asked for in it.
fn read(path: &Path, text: &str) -> (Arc<State>, BTreeSet<String>) {
    let reader = reader::Reader::default();
    let node = reader::read_text(path, text, &reader);
    let register = Register::default();
    let around = Around { hostname: None, register: &register };
    let mut claims = Claims::default();
    let read = organization(path, Stamps::of(path), &node, around, &reader, &mut claims);
    let known = reader.known();
    assert_eq!(reader.into_problems(), []);
    (Arc::clone(&read.expect("is read").state), known)
}

fn state(text: &str) -> Arc<State> {
    read(Path::new("/etc/mailweir/org.toml"), text).0
}

/// What of the file is said to whoever reads it, and of nothing that lasts.
const NO_STATE: [&str; 6] =
    ["was", "user[].was", "group[].was", "resource[].was", "removes_users", "access_rules"];

/// Where each key of the file stands in the golden state, and what it has there; what stands in a
/// resource as in a user is asked of the user alone.
const PLACES: [(&str, &str); 68] = [
    ("alias", "/alias"),
    ("id", "/id"),
    ("domains", "/domains/0/name"),
    ("dmarc_enforcement", "/mail/dmarcEnforcement"),
    ("dmarc_on_reject", "/mail/onReject"),
    ("plus_addressing", "/mail/plusAddressing"),
    ("postmaster", "/postmaster"),
    ("recipients_per_user_per_day", "/mail/quotas/perUser"),
    ("recipients_per_day", "/mail/quotas/perOrganization"),
    ("inside_recipients_per_user_per_day", "/mail/quotas/insidePerUser"),
    ("blocked_attachments", "/mail/blockedAttachments/0"),
    ("journaling", "/journaling"),
    ("journaling.journaling_address", "/journaling/journalingAddress"),
    ("journaling.report_address", "/journaling/reportAddress"),
    ("journaling.sender_address", "/journaling/senderAddress"),
    ("retention", "/retention"),
    ("retention[].folder", "/retention/JUNK_EMAIL"),
    ("retention[].action", "/retention/JUNK_EMAIL/action"),
    ("retention[].period_days", "/retention/JUNK_EMAIL/periodDays"),
    ("user", "/entities"),
    ("user[].id", "/entities/ALICE"),
    ("user[].name", "/entities/ALICE/user/name"),
    ("user[].email", "/entities/ALICE/user/email"),
    ("user[].aliases", "/entities/ALICE/user/aliases/0"),
    ("user[].enabled", "/entities/ALICE/user/enabled"),
    ("user[].quota_mb", "/entities/ALICE/user/quotaMb"),
    ("user[].remote", "/entities/DAVE/user/remote"),
    ("user[].mailbox_rule", "/mailboxRules/BOB"),
    ("user[].mailbox_rule[].name", "/mailboxRules/BOB/0/name"),
    ("user[].mailbox_rule[].condition", "/mailboxRules/BOB/0/conditions"),
    ("user[].mailbox_rule[].condition[].field", "/mailboxRules/BOB/0/conditions/0/sender"),
    ("user[].mailbox_rule[].condition[].domain", "/mailboxRules/BOB/0/conditions/0/sender/domain"),
    ("user[].mailbox_rule[].condition[].name", "/mailboxRules/BOB/0/conditions/1/header/0"),
    (
        "user[].mailbox_rule[].condition[].contains",
        "/mailboxRules/BOB/0/conditions/1/header/1/contains",
    ),
    ("user[].mailbox_rule[].action", "/mailboxRules/BOB/0/action"),
    ("user[].mailbox_rule[].folder", "/mailboxRules/BOB/0/action/MOVE"),
    ("user[].mailbox_rule[].to", "/mailboxRules/BOB/1/action/FORWARD"),
    ("user[].mailbox_rule[].stop", "/mailboxRules/BOB/0/stop"),
    ("resource", "/entities/ROOM/resource"),
    ("resource[].kind", "/entities/ROOM/resource/kind"),
    ("group", "/entities/SALES/group"),
    ("group[].id", "/entities/SALES"),
    ("group[].name", "/entities/SALES/group/name"),
    ("group[].email", "/entities/SALES/group/email"),
    ("group[].aliases", "/entities/SALES/group/aliases/0"),
    ("group[].members", "/entities/SALES/group/members/0"),
    ("group[].enabled", "/entities/SALES/group/enabled"),
    ("permission", "/permissions/SALES"),
    ("permission[].owner", "/permissions/SALES"),
    ("permission[].grantee", "/permissions/SALES/SALES"),
    ("permission[].full_access", "/permissions/SALES/SALES/fullAccess"),
    ("permission[].send_as", "/permissions/SALES/SALES/sendAs"),
    ("permission[].send_on_behalf", "/permissions/SALES/SALES/sendOnBehalf"),
    ("access_rule", "/access/0"),
    ("access_rule[].name", "/access/0/name"),
    ("access_rule[].effect", "/access/0/effect"),
    ("access_rule[].description", "/access/0/description"),
    ("access_rule[].protocols", "/access/0/protocols/0"),
    ("access_rule[].not_protocols", "/access/0/notProtocols/0"),
    ("access_rule[].ip_ranges", "/access/0/ipRanges/0"),
    ("access_rule[].not_ip_ranges", "/access/0/notIpRanges/0"),
    ("access_rule[].users", "/access/0/users/0"),
    ("access_rule[].not_users", "/access/0/notUsers/0"),
    ("outbound_rule[].gateway", "/outboundRules/1/gateway"),
    ("smtp_gateway[].user_name", "/gateways/filter/login/userName"),
    ("smtp_gateway[].password_file", "/gateways/filter/login/password/file"),
    ("smtp_gateway[].ca_file", "/gateways/filter/authorities/file"),
    ("smtp_gateway[].tls", "/gateways/filter/implicitTls"),
];

/// The same of tables whose keys are called alike in the file and in the state.
const ALIKE: [(&str, &str, &[&str]); 3] = [
    ("inbound_rule", "/inboundRules/0", &["name", "action", "senders", "destinations"]),
    ("outbound_rule", "/outboundRules/0", &["name", "action", "senders", "destinations"]),
    ("smtp_gateway", "/gateways/filter", &["name", "address", "port"]),
];

/// A key without the numbers of lists.
fn without_numbers(key: &str) -> String {
    let mut pieces = key.split('[');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (_, rest) = piece.split_once(']').expect("a number ends");
        plain = format!("{plain}[]{rest}");
    }
    plain
}

#[test]
fn an_exported_state_is_read_as_the_same() {
    let scratch = scratch();
    let path = scratch.0.path().join("org.toml");
    let (state, _) = read(&path, &whole_example());
    let exported = export(&state);
    let (again, _) = read(&path, &exported);
    assert_eq!(difference(Some(&state), &again), [], "{exported}");
    assert_eq!(export(&again), exported);
    for odd in ["\u{7f}", "\u{1f}", "\\", "\"", "\u{2028}", "ü\t\n"] {
        let quoted = serde_json::json!(odd).to_string().replace('\u{7f}', "\\u007f");
        let text = format!(
            "{HEAD}[[user]]\nname = \"alice\"\n[[user.mailbox_rule]]\nname = {quoted}\n\
             action = \"DELETE\"\n"
        );
        let (state, _) = read(&path, &text);
        assert_eq!(difference(Some(&state), &read(&path, &export(&state)).0), [], "{odd:?}");
    }
}

/// All that the file can say is in the state: a key that the reader learns to ask for is asked for
/// here, until it has its place.
#[test]
fn a_state_has_all_that_its_file_says() {
    let scratch = scratch();
    let path = scratch.0.path().join("org.toml");
    let (state, known) = read(&path, &whole_example());
    let id = |name: &str| {
        let mut all = state.entities.iter();
        let found = all.find(|(_, entity)| &**entity.name() == name).expect("is there");
        found.0.to_string()
    };
    let ids = [
        ("ALICE", "alice"),
        ("BOB", "bob"),
        ("DAVE", "dave"),
        ("SALES", "sales"),
        ("ROOM", "meeting-room"),
    ];
    let dir = scratch.0.path().display().to_string();
    let text = serde_json::to_string_pretty(&*state).expect("JSON").replace(&dir, "/etc/mailweir");
    assert!(!text.contains("open sesame"), "no secret is in it");
    let found = text + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/organization.json");
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        fs::write(&golden, &found).expect("writes");
    }
    assert_eq!(found, fs::read_to_string(&golden).expect("a golden file"));
    let value: Value = serde_json::from_str(&found).expect("JSON");
    let place = |pointer: &str| {
        let mut pointer = pointer.to_owned();
        for (word, name) in ids {
            pointer = pointer.replace(word, &id(name));
        }
        value.pointer(&pointer).is_some_and(|value| !value.is_null())
    };
    for key in known.iter().map(|key| without_numbers(key)) {
        let key = match key.strip_prefix("resource[].") {
            Some("kind") | None => key,
            Some(rest) => format!("user[].{rest}"),
        };
        if NO_STATE.contains(&&*key) || key == "user[].mailbox_rule[].condition[].equals" {
            continue;
        }
        let alike = ALIKE.iter().find_map(|(table, pointer, keys)| {
            let rest = key.strip_prefix(table)?;
            let name = rest.strip_prefix("[].");
            let is_one = name.map_or(rest.is_empty(), |name| keys.contains(&name));
            is_one.then(|| match name {
                // A map has it by name, and calls the address a host.
                None | Some("name") => (*pointer).to_owned(),
                Some("address") => format!("{pointer}/host"),
                Some(name) => format!("{pointer}/{name}"),
            })
        });
        let listed = PLACES.iter().find(|(listed, _)| *listed == key);
        let pointer = alike.or_else(|| listed.map(|(_, pointer)| (*pointer).to_owned()));
        let pointer = pointer.unwrap_or_else(|| panic!("{key} has no place in a state"));
        assert!(place(&pointer), "{key}: {pointer}");
    }
}

const HEAD: &str = "alias = \"example\"\ndomains = [\"example.test\"]\npostmaster = \"alice\"\n";

#[test]
fn the_order_of_a_file_that_means_nothing_is_no_difference() {
    let head = |domains: &str| {
        format!("alias = \"example\"\ndomains = [{domains}]\npostmaster = \"alice\"\n")
    };
    let alice = |aliases: &str| format!("[[user]]\nname = \"alice\"\naliases = [{aliases}]\n");
    let bob = "[[user]]\nname = \"bob\"\n";
    let team = "[[group]]\nname = \"team\"\nmembers = [\"bob\", \"alice\"]\n";
    let room = "[[resource]]\nname = \"room\"\nkind = \"room\"\n";
    let permission = |owner: &str, grantee: &str| {
        format!("[[permission]]\nowner = \"{owner}\"\ngrantee = \"{grantee}\"\nsend_as = true\n")
    };
    let gateway = |name: &str| {
        format!("[[smtp_gateway]]\nname = \"{name}\"\naddress = \"192.0.2.1\"\nport = 25\n")
    };
    let retention =
        |folder: &str| format!("[[retention]]\nfolder = \"{folder}\"\naction = \"NONE\"\n");
    let access = |protocols: &str, users: &str, ranges: &str| {
        format!(
            "[[access_rule]]\nname = \"a\"\neffect = \"ALLOW\"\nprotocols = [{protocols}]\n\
             users = [{users}]\nip_ranges = [{ranges}]\n"
        )
    };
    let one = [
        head("\"example.test\", \"a.test\", \"b.test\""),
        alice("\"x@example.test\", \"y@b.test\""),
        bob.to_owned(),
        team.to_owned(),
        room.to_owned(),
        permission("alice", "bob") + &permission("bob", "alice") + &permission("alice", "team"),
        gateway("one") + &gateway("other"),
        retention("INBOX") + &retention("DRAFTS"),
        access("\"SMTP\", \"IMAP\"", "\"alice\", \"bob\"", "\"192.0.2.1\", \"2001:db8::/32\""),
    ];
    let other = [
        head("\"example.test\", \"b.test\", \"A.test\""),
        retention("DRAFTS") + &retention("INBOX"),
        room.to_owned(),
        access("\"IMAP\", \"SMTP\"", "\"bob\", \"alice\"", "\"2001:db8::/32\", \"192.0.2.1/32\""),
        gateway("other") + &gateway("one"),
        permission("alice", "team") + &permission("bob", "alice") + &permission("alice", "bob"),
        team.to_owned(),
        bob.to_owned(),
        alice("\"y@b.test\", \"x@example.test\""),
    ];
    let one = state(&one.concat());
    let other = state(&other.concat());
    assert_eq!(difference(Some(&one), &other), []);
    assert!(!one.permissions.is_empty() && !one.access.is_empty() && one.domains.len() == 3);
}

/// What the compiled forms do not tell apart is told apart by a state.
#[test]
fn what_is_said_is_kept_as_it_is_said() {
    let alice = |more: &str| format!("{HEAD}[[user]]\nname = \"alice\"\n{more}");
    let plain = alice("");
    let carol = |more: &str| format!("{plain}[[user]]\nname = \"carol\"\nenabled = false\n{more}");
    let journaling = |more: &str| {
        format!(
            "{plain}[journaling]\njournaling_address = \"alice@example.test\"\n\
             report_address = \"alice@example.test\"\n{more}"
        )
    };
    let rule = "[[access_rule]]\nname = \"default\"\neffect = \"ALLOW\"\n";
    let described = format!("{plain}{rule}description = \"all\"\n");
    let guides: Vec<_> =
        pipeline::Extensions::default().iter().map(|it| format!("\"{it}\"")).collect();
    let blocked = |list: &str| format!("blocked_attachments = [{list}]\n{plain}");
    let pairs = [
        (carol(""), carol("remote = \"c@elsewhere.test\"\n"), "entity/"),
        (
            journaling(""),
            journaling("sender_address = \"amazonjournaling@example.test\"\n"),
            "journaling",
        ),
        (plain.clone(), described, "access"),
        (
            plain.clone(),
            format!("{plain}[[retention]]\nfolder = \"INBOX\"\naction = \"NONE\"\n"),
            "retention",
        ),
        (plain.clone(), blocked(&guides.join(",")), "mail"),
        (blocked(""), plain.clone(), "mail"),
        (plain.clone(), format!("access_rules = []\n{plain}"), "access"),
        (plain.clone(), format!("dmarc_on_reject = \"reject\"\n{plain}"), "mail"),
    ];
    for (one, other, about) in pairs {
        let facts = difference(Some(&state(&one)), &state(&other));
        let [fact] = facts.as_slice() else { panic!("{other}: {facts:?}") };
        assert!(fact.about().starts_with(about), "{other}: {fact:?}");
    }
    // The rule that every organization has is the same written out, and so are other defaults.
    for same in
        [format!("{plain}{rule}"), alice("email = \"alice@example.test\"\nquota_mb = 51200\n")]
    {
        assert_eq!(difference(Some(&state(&plain)), &state(&same)), []);
    }
    let odd = std::ffi::OsStr::from_bytes(b"/etc/\xff/org.toml");
    let odd = read(Path::new(odd), &plain).0;
    assert!(serde_json::to_string(&*odd).is_ok(), "a path is a text");
    let relative = read(Path::new("org.toml"), &plain).0;
    assert!(relative.managed.as_ref().is_some_and(|file| file.is_absolute()));
    let facts = difference(Some(&state(&plain)), &relative);
    assert!(matches!(facts.as_slice(), [Fact::Managed(_)]), "{facts:?}");
}
