//! The public RFC 7208 suite through the daemon: PROXY names the client, EHLO and MAIL the rest.

use crate::support::daemon::Setup;
use crate::support::dns::SuiteServer;
use crate::support::smtp::{Client, message};
use crate::support::spf_suite::{Case, scenarios};

const SUITE: &str = include_str!("../../fixtures/spf/rfc7208-tests.yml");

/// What SMTP itself refuses as an address or EHLO name never reaches SPF.
fn can_be_said(case: &Case) -> bool {
    let plain = |text: &str| text.is_ascii() && !text.contains([' ', '<', '>', '"']);
    let domain = case.mailfrom.rsplit('@').next().unwrap_or_default();
    let labels = |name: &str| name.split('.').all(|label| (1..=63).contains(&label.len()));
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let sender_fits = case.mailfrom.is_empty()
        || (plain(&case.mailfrom)
            && case.mailfrom.contains('@')
            && !case.mailfrom.starts_with('@')
            && labels(domain)
            && domain.chars().all(is_host)
            && !domain.split('.').any(|label| label.starts_with('-') || label.ends_with('-'))
            && case.mailfrom.rsplit_once('@').is_some_and(|(local, _)| local.len() <= 64));
    sender_fits
        && plain(&case.helo)
        && labels(&case.helo)
        && case.helo.chars().all(|c| is_host(c) || c == '_')
}

fn verdict_of(result: &str) -> &'static str {
    match result {
        "pass" => "PASS",
        "fail" | "softfail" => "FAIL",
        "none" | "neutral" => "GRAY",
        _ => "PROCESSING_FAILED",
    }
}

#[test]
fn the_suite_holds_through_the_daemon() {
    let mut count = 0;
    let mut failures = Vec::new();
    for scenario in scenarios(SUITE) {
        let server = SuiteServer::start(scenario.zone);
        let listener = "proxy_protocol_from = [\"127.0.0.0/8\"]".to_owned();
        let organization = "dmarc_enforcement = false";
        let dns = format!("servers = [\"{}\"]\ntimeout_ms = 1000\nattempts = 1", server.address);
        let setup = Setup { listener, dns, ..Setup::with_keys(organization) };
        let daemon = setup.start();
        for (name, case) in scenario.cases.iter().filter(|(_, case)| can_be_said(case)) {
            count += 1;
            let family = if case.host.contains(':') { "TCP6" } else { "TCP4" };
            let ours = if family == "TCP6" { "::1" } else { "127.0.0.1" };
            let header = format!("PROXY {family} {} {ours} 4711 25\r\n", case.host);
            let mut client = Client::connect_through_proxy(daemon.address(), header.as_bytes());
            assert!(client.command(&format!("EHLO {}", case.helo)).starts_with("250"), "{name}");
            client.transaction(&case.mailfrom, &["alice@example.test"]);
            let reply = client.data(&message("a@b.test", name));
            assert!(reply.starts_with("250"), "{name}: {reply}");
            let found = daemon.trace(name)[0]["spfVerdict"].as_str().expect("a verdict").to_owned();
            let expected: Vec<_> = case.results().into_iter().map(verdict_of).collect();
            if !expected.contains(&found.as_str()) {
                failures
                    .push(format!("{}: {name}: {expected:?}, got {found}", scenario.description));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // The others have a sender or EHLO name that SMTP does not allow; the evaluator's own run has
    // all 203.
    assert_eq!(count, 194, "cases could be said in SMTP");
}
