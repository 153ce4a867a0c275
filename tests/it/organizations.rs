//! Several organizations in one daemon.

use crate::support::daemon::{Setup, rule, text};
use crate::support::smtp::message;
use crate::support::swaks::swaks;

const OTHER: &str = "alias = \"other\"\ndomains = [\"other.test\"]\ndmarc_enforcement = false\n\
                     [[user]]\nname = \"alice\"\n";

fn setup(more: &str) -> Setup {
    Setup { more_organizations: vec![format!("{OTHER}{more}")], ..Setup::default() }
}

#[test]
fn a_message_to_two_is_handled_once_for_each() {
    let daemon = setup("").start();
    let mut client = daemon.client();
    client
        .envelope("bob@good.test", &["alice@example.test", "alice@other.test", "bob@example.test"]);
    assert!(client.data(&message("bob@good.test", "two")).starts_with("250"));
    assert_eq!(daemon.folders("example/alice", "two"), ["INBOX"]);
    assert_eq!(daemon.folders("other/alice", "two"), ["INBOX"]);
    let events = daemon.events();
    let received: Vec<_> = events
        .iter()
        .filter(|line| line["event"]["eventName"] == "ORGANIZATION_EMAIL_RECEIVED")
        .collect();
    assert_eq!(received.len(), 2);
    assert_ne!(received[0]["organizationId"], received[1]["organizationId"]);
    assert_ne!(received[0]["traceId"], received[1]["traceId"]);
    let recipients =
        |line: &serde_json::Value| line["event"]["recipients"].as_array().map(Vec::len);
    assert_eq!((recipients(received[0]), recipients(received[1])), (Some(2), Some(1)));
    let log = std::fs::read_dir(daemon.data().join("log")).expect("lists");
    let bytes: u64 =
        log.map(|entry| entry.expect("an entry").metadata().expect("metadata").len()).sum();
    assert!(bytes < 40_000, "{bytes}");
}

#[test]
fn each_has_its_own_rules_and_policy() {
    let daemon = setup(&rule("drop", "DROP", "good.test", "*")).start();
    let to = "alice@example.test,alice@other.test";
    swaks(&daemon, "bob@good.test", to, "rules", &[]).accepted();
    assert_eq!(daemon.folders("example/alice", "rules"), ["INBOX"]);
    assert!(daemon.folders("other/alice", "rules").is_empty());
    // One enforces DMARC and one does not: the second gets it, the first has it dropped.
    swaks(&daemon, "x@reject.test", to, "policy", &[]).accepted();
    assert!(daemon.folders("example/alice", "policy").is_empty());
    assert_eq!(daemon.folders("other/alice", "policy"), ["INBOX"]);
}

#[test]
fn a_group_reaches_its_mailboxes_beside_remote_users() {
    let remote = "[[user]]\nname = \"dave\"\nremote = \"dave@elsewhere.test\"\n\
                  [[group]]\nname = \"mixed\"\nmembers = [\"dave\", \"alice\"]\n\
                  [[group]]\nname = \"outside\"\nmembers = [\"dave\", \"outside\"]\n";
    let daemon = Setup::with(remote).start();
    swaks(&daemon, "bob@good.test", "mixed@example.test", "mixed", &[]).accepted();
    assert_eq!(daemon.folders("alice", "mixed"), ["INBOX"]);
    for nobody_here in ["dave@example.test", "outside@example.test"] {
        swaks(&daemon, "bob@good.test", nobody_here, nobody_here, &[]).accepted();
        assert_eq!(daemon.names(nobody_here)[0], "ORGANIZATION_EMAIL_RECEIVED");
    }
    let told = daemon.command(&["mailbox", "list", "dave@example.test"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stderr).contains("elsewhere: dave@elsewhere.test"), "{told:?}");
}
