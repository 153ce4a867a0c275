//! DMARC policies: each outcome as the sender's server and the operator see it.

use crate::support::daemon::{Daemon, Setup, ZONE, rule};
use crate::support::dns::Responder;
use crate::support::swaks::swaks;

const ALICE: &str = "alice@example.test";
const MORE_ZONES: &str = r#"
pct.test. IN TXT "v=spf1 -all"
_dmarc.pct.test. IN TXT "v=DMARC1; p=reject; pct=0"
sp.test. IN TXT "v=spf1 -all"
sub.sp.test. IN TXT "v=spf1 -all"
_dmarc.sp.test. IN TXT "v=DMARC1; p=none; sp=reject"
"#;

fn start(keys: &str, more: &str, sections: &str) -> Daemon {
    let setup = Setup::with_keys(keys);
    let organization = setup.organization.clone() + more;
    let zone = format!("{ZONE}{MORE_ZONES}");
    Setup { organization, zone, sections: sections.into(), ..setup }.start()
}

fn received(daemon: &Daemon, subject: &str) -> (String, Option<String>) {
    let event = daemon.trace(subject)[0].clone();
    let text = |key: &str| event[key].as_str().map(str::to_owned);
    (text("dmarcVerdict").expect("a verdict"), text("dmarcPolicy"))
}

fn policy(daemon: &Daemon, subject: &str) -> Option<String> {
    let trace = daemon.trace(subject);
    let applied = trace.iter().find(|event| event["eventName"] == "DMARC_POLICY_APPLIED")?;
    assert_eq!(applied["recipients"][0], ALICE);
    Some(applied["policy"].as_str().expect("a policy").to_owned())
}

#[test]
fn reject_is_refused_in_session_and_recorded() {
    let daemon = start("", "", "");
    swaks(&daemon, "a@reject.test", ALICE, "r", &[]).refused("550 5.7.1", "dmarc-reject");
    assert_eq!(received(&daemon, "r"), ("FAIL".into(), Some("REJECT".into())));
    assert_eq!(policy(&daemon, "r").as_deref(), Some("REJECT"));
    assert!(daemon.mailbox("alice").is_empty());
}

#[test]
fn reject_can_be_a_silent_drop_for_all_or_for_one_organization() {
    for (keys, sections) in
        [("", "[dmarc]\non_reject = \"drop\"\n"), ("dmarc_on_reject = \"drop\"", "")]
    {
        let daemon = start(keys, "", sections);
        swaks(&daemon, "a@reject.test", ALICE, "r", &[]).accepted();
        assert_eq!(daemon.names("r"), ["ORGANIZATION_EMAIL_RECEIVED", "DMARC_POLICY_APPLIED"]);
        assert!(daemon.mailbox("alice").is_empty());
    }
}

#[test]
fn quarantine_goes_to_junk_unless_a_rule_says_never() {
    let daemon = start("", &rule("never", "BYPASS_SPAM_CHECK", "x@quarantine.test", "*"), "");
    swaks(&daemon, "a@quarantine.test", ALICE, "q", &[]).accepted();
    assert_eq!(received(&daemon, "q"), ("FAIL".into(), Some("QUARANTINE".into())));
    assert_eq!(policy(&daemon, "q").as_deref(), Some("QUARANTINE"));
    assert_eq!(daemon.folders("alice", "q"), ["JUNK_EMAIL"]);
    swaks(&daemon, "x@quarantine.test", ALICE, "never", &[]).accepted();
    assert_eq!(daemon.folders("alice", "never"), ["INBOX"]);
}

#[test]
fn none_is_only_told() {
    let daemon = start("", "", "");
    swaks(&daemon, "a@none.test", ALICE, "n", &[]).accepted();
    assert_eq!(received(&daemon, "n"), ("FAIL".into(), Some("NONE".into())));
    assert_eq!(policy(&daemon, "n").as_deref(), Some("NONE"));
    assert_eq!(daemon.folders("alice", "n"), ["INBOX"]);
}

#[test]
fn pass_and_no_policy_are_left_alone() {
    let daemon = start("", "", "");
    swaks(&daemon, "a@good.test", ALICE, "p", &[]).accepted();
    assert_eq!(received(&daemon, "p"), ("PASS".into(), None));
    assert_eq!(policy(&daemon, "p"), None);
    swaks(&daemon, "a@plain.test", ALICE, "g", &[]).accepted();
    assert_eq!(received(&daemon, "g"), ("GRAY".into(), None));
}

#[test]
fn pct_takes_the_next_milder_policy_and_subdomains_have_their_own() {
    let daemon = start("", "", "");
    swaks(&daemon, "a@pct.test", ALICE, "pct", &[]).accepted();
    assert_eq!(policy(&daemon, "pct").as_deref(), Some("QUARANTINE"));
    assert_eq!(daemon.folders("alice", "pct"), ["JUNK_EMAIL"]);
    swaks(&daemon, "a@sp.test", ALICE, "org", &[]).accepted();
    assert_eq!(policy(&daemon, "org").as_deref(), Some("NONE"));
    swaks(&daemon, "a@sub.sp.test", ALICE, "sub", &[]).refused("550 5.7.1", "dmarc-reject");
}

#[test]
fn enforcement_can_be_off() {
    let daemon = start("dmarc_enforcement = false", "", "");
    swaks(&daemon, "a@reject.test", ALICE, "off", &[]).accepted();
    assert_eq!(received(&daemon, "off"), ("FAIL".into(), Some("REJECT".into())));
    assert_eq!(policy(&daemon, "off"), None);
    assert_eq!(daemon.folders("alice", "off"), ["INBOX"]);
}

/// Authors of several domains are one organization's where DNS says so, and each domain is asked.
#[test]
fn several_domains_of_one_organization_are_taken() {
    let rules = rule("junk", "MOVE_TO_JUNK", "b@two.several.test", "*");
    let zone = format!(
        "{ZONE}{MORE_ZONES}\
         several.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
         _dmarc.several.test. IN TXT \"v=DMARC1; p=reject\"\n\
         forged.test. IN TXT \"v=spf1 -all\"\n\
         _dmarc.forged.test. IN TXT \"v=DMARC1; p=none\"\n\
         _dmarc.two.forged.test. IN TXT \"v=DMARC1; p=reject\"\n\
         unsaid.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
         apart.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
         _dmarc.apart.test. IN TXT \"v=DMARC1; p=none\"\n\
         _dmarc.two.apart.test. IN TXT \"v=DMARC1; p=none; psd=n\"\n"
    );
    let daemon = Setup { zone, ..Setup::with(&rules) }.start();
    for (subject, from) in [
        ("siblings", "a@one.several.test, b@two.several.test"),
        ("the other way", "B <b@two.several.test>, A <a@one.several.test>"),
        ("a parent", "a@several.test, b@two.several.test"),
    ] {
        let field = format!("From: {from}");
        swaks(&daemon, "x@several.test", ALICE, subject, &["--header", &field]).accepted();
        assert_eq!(received(&daemon, subject), ("PASS".into(), None), "{subject}");
        // Rules match any of the authors.
        assert_eq!(daemon.folders("alice", subject), ["JUNK_EMAIL"], "{subject}");
    }
    let events = daemon.events();
    let line = events.iter().find(|line| line["event"]["subject"] == "siblings").expect("received");
    let told = daemon.succeeds(&["events", "trace", line["traceId"].as_str().expect("an id")]);
    assert!(told.contains("  From: a@one.several.test, b@two.several.test\n"), "{told}");
    let organization = "  DMARC pass for one.several.test, policy REJECT, \
                        the authors' domains are all of several.test\n";
    assert!(told.contains(organization), "{told}");
    for (domain, word) in [
        ("forged.test", "dmarc-reject"),
        ("unsaid.test", "several-authors"),
        ("apart.test", "several-authors"),
    ] {
        for from in ["a@one.D, b@two.D", "b@two.D, a@one.D", "a@D, b@two.D"] {
            let from = from.replace('D', domain);
            let field = format!("From: {from}");
            swaks(&daemon, &format!("x@{domain}"), ALICE, "refused", &["--header", &field])
                .refused("550 5.7.1", word);
        }
    }
}

/// Whether authors are of one organization is not guessed: while DNS does not tell, their message
/// comes again later.
#[test]
fn authors_of_several_domains_wait_for_dns() {
    let server = Responder::servfail();
    let dns = format!("servers = [\"{}\"]\ntimeout_ms = 300\nattempts = 1", server.address);
    let daemon = Setup { dns, ..Setup::default() }.start();
    let two = ["--header", "From: a@one.several.test, b@two.several.test"];
    swaks(&daemon, "x@several.test", ALICE, "two", &two)
        .refused("451 4.4.3", "authors-unconfirmed");
    assert!(daemon.events().is_empty() && daemon.mailbox("alice").is_empty());
    // One domain is one organization's without a question, and domains that have nothing in
    // common are not.
    let one = ["--header", "From: a@one.several.test, b@one.several.test"];
    swaks(&daemon, "x@several.test", ALICE, "one", &one).accepted();
    let apart = ["--header", "From: a@one.several.test, b@two.other.test"];
    swaks(&daemon, "x@several.test", ALICE, "apart", &apart)
        .refused("550 5.7.1", "several-authors");
}

/// However a From field is spelled, the rule and the policy for its domain hold, or the message is
/// refused for what is wrong with it; and a spelling that all readers take alike is taken.
#[test]
fn odd_spellings_evade_no_rule_and_no_policy() {
    let daemon = start("", &rule("drop", "DROP", "*.bad.test", "*"), "");
    let mut client = daemon.client();
    client.command("EHLO mail.good.test");
    let mut send = |before: &str, field: &[u8], subject: &str| {
        client.transaction("x@good.test", &[ALICE]);
        let front = format!("{before}From: ");
        let rest = format!("\r\nSubject: {subject}\r\n\r\nx\r\n");
        client.data(&[front.as_bytes(), field, rest.as_bytes()].concat())
    };
    let long = format!("{}@reject.test", "x".repeat(65));
    for (field, word) in [
        (&b"CEO <ceo@reject. test>"[..], "dmarc-reject"),
        (b"CEO <ceo @ reject .\r\n test>", "dmarc-reject"),
        (long.as_bytes(), "dmarc-reject"),
        (b"ceo@a_b.reject.test", "dmarc-reject"),
        (b"ceo@REJECT.test.", "dmarc-reject"),
        (b"'x@good.test' <ceo@reject.test>", "dmarc-reject"),
        (b"x@good.test via X <ceo@reject.test>", "dmarc-reject"),
        (b"<@good.test:ceo@reject.test>", "dmarc-reject"),
        (b"\"x@good.test\"@reject.test", "dmarc-reject"),
        (b"ceo..x@reject.test", "dmarc-reject"),
        (b"c(x@)eo@reject.test", "unreadable-author"),
        (b"x@good.test <ceo@ reject.test>", "unreadable-author"),
        (b"ceo(x)@reject.test (x@good.test)", "unreadable-author"),
        (b"CEO <ceo . \x17 @ reject. test>", "unreadable-author"),
        (b"\"ceo@reject.test\" <>", "unreadable-author"),
        (b"\"CEO <ceo@reject.test>", "unreadable-author"),
        ("ceo@rej\u{200b}ect.test".as_bytes(), "unreadable-author"),
        (b"ceo@reject\0.test", "unreadable-author"),
        (b"ceo@reject\xa0.test", "unreadable-author"),
        (b"ceo@reject.test\xa0", "unreadable-author"),
        (b"x@good.test, ceo@reject.test", "several-authors"),
        (b"(ceo@reject.test)", "unreadable-author"),
        (b"(ceo)", "no-author"),
    ] {
        let reply = send("", field, "refused");
        let shown = String::from_utf8_lossy(field);
        assert!(reply.starts_with("550 5.7.1"), "{shown}: {reply}");
        assert!(reply.contains(&format!("[{word} ")), "{shown}: {reply}");
    }
    for (number, (before, field)) in [
        ("", "a..b@sub.bad.test"),
        ("", "a@b_c.bad.test"),
        ("", "a(x)@sub.bad.test"),
        ("", "X <a@ sub.bad.test>"),
        ("From a@good.test\r\n", "a@sub.bad.test"),
        ("no field\r\n", "a@sub.bad.test"),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = format!("dropped {number}");
        let reply = send(before, field.as_bytes(), &subject);
        assert!(reply.starts_with("250"), "{field}: {reply}");
        let names = daemon.names(&subject);
        assert_eq!(names.last().map(String::as_str), Some("RULE_APPLIED"), "{before}{field}");
    }
    assert!(daemon.mailbox("alice").is_empty());
    for (number, (before, field)) in [
        ("", "'bob@partner.example' <news@good.test>"),
        ("", "a@corp.example via X <noreply@good.test>"),
        ("", "Foo [a@corp.example] <a@good.test>"),
        ("", "<@corp.example:a@good.test>"),
        ("", "a(x)@good.test (A)"),
        ("From a@corp.example\r\n", "a@good.test"),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = format!("taken {number}");
        let reply = send(before, field.as_bytes(), &subject);
        assert!(reply.starts_with("250"), "{field}: {reply}");
        assert_eq!(received(&daemon, &subject), ("PASS".into(), None), "{before}{field}");
        assert_eq!(daemon.folders("alice", &subject), ["INBOX"], "{before}{field}");
    }
}

#[test]
fn an_author_must_be_one() {
    let daemon = start("", "", "");
    let two = ["--h-From", "a@good.test, b@reject.test"];
    swaks(&daemon, "a@good.test", ALICE, "two", &two).refused("550 5.7.1", "several-authors");
    let twice = ["--add-header", "From: b@reject.test"];
    swaks(&daemon, "a@good.test", ALICE, "twice", &twice).refused("550 5.7.1", "several-authors");
}
