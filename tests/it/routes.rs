//! Where mail goes that leaves: hosts of two address families, the relay for all mail, and what
//! leaves beside users' messages.

use std::process::Command;

use crate::credentials::set_password;
use crate::gateways::{Administrator, HOST, LOGIN};
use crate::outbound::{delivered, far, prepared, submit, told};
use crate::support::daemon::{BINARY, Daemon, Setup, ZONE, rule, text};
use crate::support::postfix::{Logins, Postfix, certificate};
use crate::support::sending::route;
use crate::support::swaks::swaks;
use crate::support::{refusing_port, wait_for};

/// A daemon whose users have a password, and whose mail all goes to the relay.
fn relayed(organization: &str, relay: &str) -> Daemon {
    let listener = "[[listener]]\nname = \"submissions\"\nprotocol = \"submissions\"\n\
                    bind = \"127.0.0.1:0\"\n";
    let zone =
        format!("{ZONE}{HOST}. IN A 127.0.0.1\nfar.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n");
    let setup = Setup {
        listener: format!("{listener}{relay}"),
        sections: "[queue]\nfirst_retry_s = 1\nlongest_retry_s = 1\n".into(),
        zone,
        ..Setup::with(organization)
    };
    let mut daemon = setup.prepare();
    daemon.keys_that_sign("example.test");
    assert!(set_password(&daemon, "alice", "Lemon-tree1").status.success());
    daemon.launch(Command::new(BINARY));
    daemon
}

fn relay(admin: &Administrator, port: u16) -> String {
    format!(
        "[[queue_route]]\ndomain = \"*\"\nhost = \"{HOST}\"\nport = {port}\n\
         user_name = \"mailweir\"\npassword_file = \"{}\"\nca_file = \"{}\"\n",
        admin.file("password").display(),
        admin.file("authority.pem").display()
    )
}

/// The shape of large providers: five hosts, each with an address of either family. Nothing leads
/// to a link-local address without its link, as nothing leads to any IPv6 address on a machine
/// without IPv6.
#[test]
fn hosts_whose_ipv6_cannot_be_reached_get_mail_over_ipv4_in_the_first_attempt() {
    let organization = "alias = \"far\"\ndomains = [\"five.test\"]\n[[user]]\nname = \"carol\"\n";
    let far = Setup { organization: organization.into(), ..Setup::default() }.start();
    let mut zone = ZONE.to_owned();
    for number in 0..5 {
        zone += &format!(
            "five.test. IN MX {number} m{number}.five.test.\n\
             m{number}.five.test. IN AAAA fe80::{}\nm{number}.five.test. IN A 127.0.0.1\n",
            number + 1
        );
    }
    let queue = format!("[queue]\nport = {}\nprivate_networks = true\n", far.address().port());
    let setup = Setup { zone, sections: queue, ..Setup::default() };
    let mut daemon = prepared(setup, refusing_port());
    daemon.launch(Command::new(BINARY));
    submit(&daemon, "carol@five.test", "over IPv4", &[]).accepted();
    delivered(&far, "carol", "over IPv4");
    told(&daemon, "over IPv4", "OUTGOING_EMAIL_SENT");
    assert!(!daemon.log().contains("deferred"), "{}", daemon.log());
}

#[test]
fn a_relay_with_tls_and_a_login_takes_all_mail_that_leaves() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let more = "[journaling]\njournaling_address = \"carol@far.test\"\n\
                report_address = \"alice@example.test\"\n\
                [[user]]\nname = \"away\"\nremote = \"dave@far.test\"\n";
    let daemon = relayed(more, &relay(&admin, postfix.address().port()));
    submit(&daemon, "carol@far.test", "by the relay", &[]).accepted();
    let by_relay = delivered(&far, "carol", "by the relay");
    assert!(by_relay.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{by_relay}");
    let record = wait_for("the journal record", || {
        let mails = far.mailbox("carol").into_iter();
        let mut texts = mails.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned());
        texts.find(|text| text.contains("X-MS-Journal-Report") || text.contains("message/rfc822"))
    });
    assert!(record.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{record}");
    swaks(&daemon, "x@partner.test", "away@example.test", "forwarded", &[]).accepted();
    let forwarded = delivered(&far, "dave", "forwarded");
    assert!(forwarded.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{forwarded}");
    postfix.wait_for_line(&["sasl_method=PLAIN", "sasl_username=mailweir"]);
}

#[test]
fn a_wrong_password_for_the_relay_makes_mail_wait() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    admin.set_password("wrong");
    let daemon = relayed("", &relay(&admin, postfix.address().port()));
    submit(&daemon, "carol@far.test", "waits", &[]).accepted();
    wait_for("the refusal", || {
        let list = daemon.succeeds(&["queue", "list"]);
        list.contains(", AUTH)").then_some(())
    });
    admin.set_password("secret");
    daemon.signal("HUP");
    wait_for("the reload", || daemon.log().contains("configuration reloaded").then_some(()));
    wait_for("the message", || {
        daemon.command(&["queue", "retry", "--all"]);
        daemon.succeeds(&["queue", "list"]).contains("queue is empty").then_some(())
    });
    delivered(&far, "carol", "waits");
}

/// Guide 3729: the organization's mail for that destination, whoever makes it.
#[test]
fn journal_records_and_forwards_take_the_gateway_that_a_rule_says() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let more = "[journaling]\njournaling_address = \"carol@far.test\"\n\
                report_address = \"alice@example.test\"\n\
                [[user]]\nname = \"away\"\nremote = \"dave@far.test\"\n";
    let via = admin.gateway("filter", HOST, postfix.address().port(), "far.test");
    let zone = format!("{ZONE}{HOST}. IN A 127.0.0.1\n");
    let mut daemon =
        prepared(Setup { zone, ..Setup::with(&(more.to_owned() + &via)) }, refusing_port());
    daemon.launch(Command::new(BINARY));
    swaks(&daemon, "x@partner.test", "away@example.test", "to the gateway", &[]).accepted();
    let forwarded = delivered(&far, "dave", "to the gateway");
    assert!(forwarded.contains(&format!("by {HOST} (Postfix)")), "{forwarded}");
    let record = delivered(&far, "carol", "to the gateway");
    assert!(record.contains(&format!("by {HOST} (Postfix)")), "{record}");
    wait_for("an empty queue", || {
        daemon.succeeds(&["queue", "list"]).contains("queue is empty").then_some(())
    });
}

/// A report for carol, far away, that tells of this address, as her server got it.
fn reported(far: &Daemon, about: &str) -> String {
    wait_for("the report", || {
        let mails = far.mailbox("carol").into_iter();
        let mut texts = mails.map(|(_, bytes)| text(&bytes));
        let is_it = |text: &String| {
            text.contains("report-type=\"delivery-status\"")
                && text.contains(&format!("Final-Recipient: rfc822; {about}\r\n"))
        };
        texts.find(is_it)
    })
}

/// Reports are the organization's mail too, those of a message that comes and those of one that is
/// sent on; there is no other way for them here.
#[test]
fn reports_take_the_gateway_that_a_rule_says() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let more = rule("not-bob", "BOUNCE", "*", "bob@example.test")
        + "[[user]]\nname = \"away\"\nremote = \"nobody@partner.test\"\n"
        + &admin.gateway("filter", HOST, postfix.address().port(), "far.test");
    let zone =
        format!("{ZONE}{HOST}. IN A 127.0.0.1\nfar.test. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n");
    let sections = route("partner.test", far.address().port());
    let setup = Setup { zone, sections, ..Setup::with(&more) };
    let mut daemon = prepared(setup, refusing_port());
    daemon.launch(Command::new(BINARY));
    let to = "alice@example.test,bob@example.test";
    swaks(&daemon, "carol@far.test", to, "bounces for one", &[]).accepted();
    swaks(&daemon, "carol@far.test", "away@example.test", "refused there", &[]).accepted();
    for about in ["bob@example.test", "nobody@partner.test"] {
        let report = reported(&far, about);
        assert!(report.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{report}");
    }
    wait_for("an empty queue", || {
        daemon.succeeds(&["queue", "list"]).contains("queue is empty").then_some(())
    });
}

/// The same with a relay for all mail.
#[test]
fn reports_take_the_relay_for_all_mail() {
    let (far, admin, logins) = (far(), Administrator::new(), Logins::start(LOGIN));
    let postfix = admin.relay(&far, &logins, "");
    let more = rule("not-bob", "BOUNCE", "*", "bob@example.test");
    let daemon = relayed(&more, &relay(&admin, postfix.address().port()));
    let to = "alice@example.test,bob@example.test";
    swaks(&daemon, "carol@far.test", to, "bounces for one", &[]).accepted();
    let report = reported(&far, "bob@example.test");
    assert!(report.contains(&format!("by {HOST} (Postfix) with ESMTPSA")), "{report}");
}

/// A server that relays to `far` and knows only these suites, of these versions.
fn knowing(far: &Daemon, suites: &str, versions: &str) -> Postfix {
    Postfix::start_with(far.address(), "", |dir| {
        certificate(dir, HOST)
            + &format!(
                "tls_preempt_cipherlist = yes\nsmtpd_tls_ciphers = medium\n\
                 tls_medium_cipherlist = {suites}\nsmtpd_tls_protocols = {versions}\n"
            )
    })
}

/// Mail that leaves in plain text, because the server's TLS is too old, says so where its
/// administrator looks.
#[test]
fn a_trace_tells_that_old_suites_led_to_plain_text() {
    let far = far();
    for (subject, suites, versions, is_plain) in [
        ("only CBC", "ECDHE-ECDSA-AES128-SHA256", "TLSv1.2", true),
        ("only CBC and CCM", "ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-CCM", "TLSv1.2", true),
        ("GCM", "ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", false),
    ] {
        let server = knowing(&far, suites, versions);
        let mut daemon = prepared(Setup::default(), server.address().port());
        daemon.launch(Command::new(BINARY));
        submit(&daemon, "carol@far.test", subject, &[]).accepted();
        let events = told(&daemon, subject, "OUTGOING_EMAIL_SENT");
        let id = events.iter().find_map(|event| event["messageId"].as_str()).expect("an id");
        let trace = daemon.succeeds(&["events", "trace", id]);
        let why = "in plain text because the TLS handshake failed: no TLS version and cipher \
                   suite in common, the server may know only old ones: ";
        assert_eq!(trace.contains(why), is_plain, "{subject}: {trace}");
        let lines = daemon.succeeds(&["events", "trace", "--json", id]);
        let traces = lines.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let told: Vec<serde_json::Value> =
            traces.filter_map(|trace: serde_json::Value| trace.get("transport").cloned()).collect();
        assert_eq!(told.len(), 1, "{lines}");
        assert_eq!(told[0][0]["recipients"][0], "carol@far.test");
        assert_eq!(told[0][0]["server"], "127.0.0.1");
        assert_eq!(told[0][0]["noTls"].is_string(), is_plain, "{lines}");
        assert_eq!(told[0][0]["tls"].is_string(), !is_plain, "{lines}");
        if is_plain {
            let log = daemon.log();
            let sent = log.lines().find(|line| line.contains(" sent ")).expect("a line");
            assert!(sent.contains("no_tls=\"the TLS handshake failed: no TLS version"), "{sent}");
        } else {
            assert!(server.log().contains("TLS connection established"), "{}", server.log());
        }
    }
}
