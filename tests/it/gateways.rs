//! Outbound rules send mail through a gateway: a real Postfix that wants TLS and a login, one that
//! is not as it should be, and one that is not there (guide 3648–3682, 3729–3743).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::outbound::{ALICE, BOB, delivered, far, prepared, submit, told};
use crate::support::daemon::{BINARY, Daemon, Setup, ZONE, text};
use crate::support::postfix::{Authority, Logins, Postfix, certificate};
use crate::support::{refusing_port, wait_for};

/// `printf '\0mailweir\0secret' | base64`
pub const LOGIN: &str = "AG1haWx3ZWlyAHNlY3JldA==";
pub const HOST: &str = "relay.good.test";
/// A year that ends after these tests are of any use.
const LATER: i32 = 2100;

pub fn rule(name: &str, action: &str, to: &str) -> String {
    format!(
        "[[outbound_rule]]\nname = \"{name}\"\naction = \"{action}\"\nsenders = [\"*\"]\n\
         destinations = [\"{to}\"]\n"
    )
}

/// What the administrator has: an authority, and the password for the gateways, as files.
pub struct Administrator {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Administrator {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let administrator = Self { dir, authority: Authority::new() };
        administrator.authority.write(&administrator.file("authority.pem"));
        administrator.set_password("secret");
        administrator
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn set_password(&self, password: &str) {
        fs::write(self.file("password"), format!("{password}\n")).expect("writes");
    }

    /// A gateway, and the rule of its name that sends mail for `to` through it.
    pub fn gateway(&self, name: &str, address: &str, port: u16, to: &str) -> String {
        let action = format!("ROUTE_TO_SMTP_GATEWAY\"\ngateway = \"{name}");
        let gateway = format!(
            "[[smtp_gateway]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\n\
             user_name = \"mailweir\"\npassword_file = \"{}\"\nca_file = \"{}\"\n",
            self.file("password").display(),
            self.file("authority.pem").display()
        );
        rule(name, &action, to) + &gateway
    }

    /// A Postfix that is as configured, and relays to `far`.
    pub fn relay(&self, far: &Daemon, logins: &Logins, options: &str) -> Postfix {
        Postfix::start_with(far.address(), options, |dir| {
            self.authority.certificate(dir, HOST, LATER) + &logins.lines()
        })
    }
}

/// A daemon whose users submit; mail that no rule concerns goes to the port for far.test.
fn daemon(organization: &str, port: u16) -> Daemon {
    let zone = format!("{ZONE}{HOST}. IN A 127.0.0.1\n");
    let mut daemon = prepared(Setup { zone, ..Setup::with(organization) }, port);
    daemon.launch(Command::new(BINARY));
    daemon
}

fn is_queue_empty(daemon: &Daemon) -> bool {
    daemon.succeeds(&["queue", "list"]).contains("queue is empty")
}

/// What was told of a recipient that bounced: the reason, and the status.
fn bounced(trace: &[Value], recipient: &str) -> (String, String) {
    let is_it = |event: &&Value| event["bouncedRecipient"]["emailAddress"] == recipient;
    let event = trace.iter().find(is_it).unwrap_or_else(|| panic!("{recipient} in {trace:#?}"));
    assert_eq!(event["eventName"], "OUTGOING_EMAIL_BOUNCED");
    assert_eq!(event["reason"], event["bouncedRecipient"]["reason"]);
    let field = |key: &str| event["bouncedRecipient"][key].as_str().expect("a text").to_owned();
    (field("reason"), field("status"))
}

/// The reports that alice has, once there are so many.
fn reports(daemon: &Daemon, count: usize) -> String {
    wait_for("the reports", || {
        let mailbox = daemon.mailbox("alice");
        (mailbox.len() == count).then(|| mailbox.iter().map(|(_, bytes)| text(bytes)).collect())
    })
}

const CONTENT: &str = "From: <alice@example.test>\r\nTo: <carol@far.test>\r\n\
    Subject: by the gateway\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\n\
    Message-ID: <by-the-gateway@example.test>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
    .\r\n..dots\r\n\r\n  für Carol\t\r\nFrom here\r\n";

#[test]
fn a_rule_sends_its_recipients_through_the_gateway_and_no_others() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let via = admin.gateway("filter", HOST, postfix.address().port(), "carol@far.test");
    let daemon = daemon(&via, far.address().port());
    let file = daemon.path("message.eml");
    fs::write(&file, CONTENT).expect("writes");
    let data = format!("@{}", file.display());
    let to = format!("carol@far.test,dave@far.test,{BOB}");
    submit(&daemon, &to, "by the gateway", &["--data", &data]).accepted();

    let by_gateway = delivered(&far, "carol", "by the gateway");
    assert!(by_gateway.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{by_gateway}");
    let here = delivered(&daemon, "bob", "by the gateway");
    let here = here.split_at(here.find("From: <").expect("the message")).1;
    assert!(here.starts_with(CONTENT) && by_gateway.ends_with(here), "{here}\n{by_gateway}");
    let directly = delivered(&far, "dave", "by the gateway");
    assert!(!directly.contains(HOST) && directly.ends_with(here), "{directly}");
    postfix.wait_for_line(&["TLS connection established from", "TLSv1.3"]);
    postfix.wait_for_line(&["sasl_method=PLAIN", "sasl_username=mailweir"]);
    postfix.wait_for_line(&["to=<carol@far.test>", "status=sent"]);
    assert!(!postfix.log().contains("dave@far.test"), "{}", postfix.log());

    let trace = wait_for("everybody is told", || {
        let trace = daemon.trace("by the gateway");
        (trace.len() == 5).then_some(trace)
    });
    let applied = json!({
        "eventName": "RULE_APPLIED", "ruleName": "filter", "ruleType": "OUTBOUND_RULE",
        "ruleActions": [{"action": "ROUTE_TO_SMTP_GATEWAY", "recipients": ["carol@far.test"]}],
    });
    assert_eq!(trace[1], applied);
    let is_sent = |event: &Value| event["eventName"] == "OUTGOING_EMAIL_SENT";
    let mut sent: Vec<_> = trace[2..].iter().filter(|event| is_sent(event)).collect();
    sent.sort_by_key(|event| event["recipient"].to_string());
    let sent: Vec<_> = sent.iter().map(|event| &event["recipient"]).collect();
    assert_eq!(sent, [BOB, "carol@far.test", "dave@far.test"]);
    assert!(is_queue_empty(&daemon));
}

#[test]
fn a_gateway_with_tls_from_the_first_octet_and_an_older_one_gets_mail() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let options = "-o smtpd_tls_wrappermode=yes -o smtpd_tls_mandatory_protocols=TLSv1.2";
    let postfix = admin.relay(&far, &logins, options);
    let via = admin.gateway("filter", HOST, postfix.address().port(), "far.test");
    let daemon = daemon(&format!("{via}tls = \"implicit\"\n"), refusing_port());
    submit(&daemon, "carol@far.test", "over smtps", &[]).accepted();
    delivered(&far, "carol", "over smtps");
    postfix.wait_for_line(&["TLS connection established from", "TLSv1.2"]);
    told(&daemon, "over smtps", "OUTGOING_EMAIL_SENT");
    assert_eq!(logins.asked(), 1);
}

/// How a gateway is not as it should be, and what is said of it.
type Flaw = (&'static str, fn(&Path, &Authority) -> String, &'static str, &'static str);

const FLAWS: [Flaw; 4] = [
    (
        "unknown@far.test",
        |dir, _| certificate(dir, HOST),
        "5.7.5",
        "the TLS handshake failed: invalid peer certificate: UnknownIssuer",
    ),
    (
        "wrong-name@far.test",
        |dir, authority| authority.certificate(dir, "other.good.test", LATER),
        "5.7.5",
        "the TLS handshake failed: invalid peer certificate: certificate not valid for name \
         \"relay.good.test\"",
    ),
    (
        "expired@far.test",
        |dir, authority| authority.certificate(dir, HOST, 2020),
        "5.7.5",
        "the TLS handshake failed: invalid peer certificate: certificate expired",
    ),
    (
        "plain@far.test",
        |_, _| "smtpd_tls_auth_only = no\n".to_owned(),
        "5.7.4",
        "TLS is required, and the server does not offer it",
    ),
];

#[test]
fn a_gateway_whose_certificate_is_not_good_gets_neither_mail_nor_password() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let gateways: Vec<_> = FLAWS
        .iter()
        .map(|(_, lines, ..)| {
            Postfix::start_with(far.address(), "", |dir| {
                logins.lines() + &lines(dir, &admin.authority)
            })
        })
        .collect();
    let organization: String = FLAWS
        .iter()
        .zip(&gateways)
        .map(|((to, ..), postfix)| admin.gateway(to, HOST, postfix.address().port(), to))
        .collect();
    let daemon = daemon(&organization, far.address().port());
    let to = FLAWS.map(|(to, ..)| to).join(",");
    submit(&daemon, &to, "for nobody", &[]).accepted();

    let reports = reports(&daemon, FLAWS.len());
    let trace = daemon.trace("for nobody");
    for (to, _, expected_status, expected) in FLAWS {
        let (reason, status) = bounced(&trace, to);
        let expected = format!("SMTP gateway {to}: {expected}");
        assert!(reason.starts_with(&expected), "{reason}");
        assert_eq!(status, expected_status, "{reason}");
        assert!(reports.contains(&format!("Final-Recipient: rfc822; {to}\r\n")), "{reports}");
    }
    let told = reports
        .matches("The gateway that your mail leaves through has not taken the message.")
        .count();
    assert_eq!(told, FLAWS.len(), "{reports}");
    gateways[3].wait_for_line(&["disconnect from", "ehlo=1 quit=1 commands=2"]);
    for postfix in &gateways {
        let said = postfix.wait_for_line(&["disconnect from"]);
        assert!(!said.contains("auth=") && !said.contains("mail="), "{said}");
    }
    assert_eq!(logins.asked(), 0);
    assert!(is_queue_empty(&daemon));
}

#[test]
fn a_gateway_that_cannot_be_reached_bounces_mail_at_once() {
    let admin = Administrator::new();
    let refused = admin.gateway("refused", HOST, refusing_port(), "carol@far.test");
    let nowhere = admin.gateway("nowhere", "nowhere.good.test", 25, "dave@far.test");
    // No way leads there from any machine, which says nothing of the gateway.
    let away = admin.gateway("away", "255.255.255.255", 25, "erin@far.test");
    let daemon = daemon(&(refused + &nowhere + &away), refusing_port());
    submit(&daemon, "carol@far.test,dave@far.test,erin@far.test", "not now", &[]).accepted();
    let reports = reports(&daemon, 2);
    let trace = daemon.trace("not now");
    for (to, expected) in [
        ("carol@far.test", "SMTP gateway refused: cannot connect: Connection refused"),
        ("dave@far.test", "SMTP gateway nowhere: its name leads to no address"),
    ] {
        let (reason, status) = bounced(&trace, to);
        assert!(reason.starts_with(expected), "{reason}");
        assert_eq!(status, "5.4.1");
        for line in ["Action: failed\r\n", &format!("Final-Recipient: rfc822; {to}\r\n")] {
            assert!(reports.contains(line), "no {line} in\n{reports}");
        }
    }
    assert!(!reports.contains("Final-Recipient: rfc822; erin@"), "{reports}");
    let waits = wait_for("the attempt", || {
        let queue = daemon.succeeds(&["queue", "list"]);
        queue.contains("cannot connect").then_some(queue)
    });
    assert!(waits.contains("erin@far.test") && waits.contains("1 entry"), "{waits}");
}

#[test]
fn a_wrong_password_bounces_until_the_administrator_corrects_it() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let via = admin.gateway("filter", HOST, postfix.address().port(), "far.test");
    let daemon = daemon(&via, refusing_port());
    admin.set_password("wrong");
    reload(&daemon);
    submit(&daemon, "carol@far.test", "too early", &[]).accepted();
    let report = reports(&daemon, 1);
    let (reason, status) = bounced(&daemon.trace("too early"), "carol@far.test");
    assert!(reason.contains("authentication failed"), "{reason}");
    assert_eq!(status, "5.7.8");
    assert!(report.contains("Diagnostic-Code: smtp; 535 5.7.8 "), "{report}");
    assert!(report.contains(&format!("Remote-MTA: dns; {HOST}\r\n")), "{report}");
    assert!(is_queue_empty(&daemon));
    // RFC 5321 §4.1.1.10: who is refused takes leave all the same.
    postfix.wait_for_line(&["disconnect from", "auth=0/1", "quit=1"]);

    admin.set_password("secret");
    reload(&daemon);
    submit(&daemon, "carol@far.test", "once more", &[]).accepted();
    delivered(&far, "carol", "once more");
}

/// Returns when the configuration was read once more.
fn reload(daemon: &Daemon) {
    let count = || daemon.log().matches("configuration reloaded").count();
    let before = count();
    daemon.signal("HUP");
    wait_for("the reload", || (count() > before).then_some(()));
}

#[test]
fn mail_waits_for_a_gateway_that_says_later() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    // A Postfix process finds out twice that its server of logins hung up, so each serves once.
    let postfix = admin.relay(&far, &logins, "-o max_use=1");
    let via = admin.gateway("filter", HOST, postfix.address().port(), "far.test");
    let daemon = daemon(&via, refusing_port());
    logins.set_down(true);
    submit(&daemon, "carol@far.test", "patience", &[]).accepted();
    let failure = wait_for("an attempt", || {
        let queue = daemon.lists(&["queue", "list"]);
        queue[0]["lastFailure"].as_str().map(str::to_owned)
    });
    assert!(failure.starts_with("454 4.7.0 "), "{failure}");
    logins.set_down(false);
    daemon.succeeds(&["queue", "retry", "--all"]);
    delivered(&far, "carol", "patience");
    told(&daemon, "patience", "OUTGOING_EMAIL_SENT");
    assert!(daemon.mailbox("alice").is_empty(), "there is nothing to report");
}

#[test]
fn nobody_hears_of_a_dropped_message_and_exceptions_go_the_normal_way() {
    let (far, admin) = (far(), Administrator::new());
    let dead = admin.gateway("dead", HOST, refusing_port(), "*");
    let rules = dead
        + &rule("none-for-bob", "DROP", BOB)
        + &rule("quiet", "DROP", "far.test")
        + &rule("but-carol", "DEFAULT", "carol@far.test")
        + &rule("no", "BOUNCE", "admin@example.test");
    let daemon = daemon(&rules, far.address().port());
    submit(&daemon, &format!("dave@far.test,{BOB}"), "unheard", &[]).accepted();
    submit(&daemon, "admin@example.test", "blocked", &[])
        .refused("550 5.7.1 Your administrator has blocked this message", "outbound-rule-bounce");
    submit(&daemon, "carol@far.test", "heard", &[]).accepted();
    delivered(&far, "carol", "heard");

    let trace = told(&daemon, "heard", "OUTGOING_EMAIL_SENT");
    assert_eq!((&trace[1]["ruleName"], trace.len()), (&"but-carol".into(), 3));
    let names = daemon.names("unheard");
    assert_eq!(names, ["OUTGOING_EMAIL_SUBMITTED", "RULE_APPLIED", "RULE_APPLIED"]);
    let names = daemon.names("blocked");
    assert_eq!(names, ["OUTGOING_EMAIL_SUBMITTED", "RULE_APPLIED", "OUTGOING_EMAIL_BOUNCED"]);
    assert!(is_queue_empty(&daemon));
    for (daemon, user) in [(&far, "dave"), (&daemon, "bob"), (&daemon, "admin"), (&daemon, "alice")]
    {
        assert!(daemon.mailbox(user).is_empty(), "{user}");
    }
    let received = |line: &Value| line["event"]["eventName"] == "ORGANIZATION_EMAIL_RECEIVED";
    assert!(!daemon.events().iter().any(received), "it was never received here");
    let told = daemon.succeeds(&[
        "rules",
        "test",
        "--direction",
        "outbound",
        "--sender",
        ALICE,
        "--recipient",
        "carol@far.test",
    ]);
    assert!(told.contains("DEFAULT") && told.contains("but-carol"), "{told}");
}
