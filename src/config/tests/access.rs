//! Access control rules from their file.

use super::*;
use crate::directory::{AccessEffect, AccessProtocol, AccessRule};

#[test]
fn access_rules_are_read() {
    let read = |rules: &str| {
        let (head, users) = ORGANIZATION.split_at(ORGANIZATION.find("[[user]]").expect("a user"));
        let (keys, sections) = rules.split_at(rules.find("[[").unwrap_or(rules.len()));
        let scratch = Scratch::new(MAIN, &format!("{head}{keys}{users}{sections}"));
        let configuration = load(&scratch.main(), []).expect("loads");
        AccessRules::clone(&configuration.organizations[0].access)
    };
    assert_eq!(read(""), AccessRules::default());
    assert_eq!(read("access_rules = []\n"), AccessRules::new(vec![]));
    let rule = "[[access_rule]]\nname = \"office\"\neffect = \"DENY\"\n\
                description = \"Outside the office\"\nprotocols = [\"SMTP\", \"EWS\"]\n\
                not_protocols = [\"WebMail\"]\nip_ranges = [\"192.0.2.0/24\"]\n\
                not_ip_ranges = [\"2001:db8::/32\"]\nusers = [\"alice\"]\nnot_users = [\"alice\"]\n";
    let expected = AccessRule {
        name: "office".into(),
        effect: AccessEffect::Deny,
        protocols: vec![AccessProtocol::Smtp, AccessProtocol::Ews],
        not_protocols: vec![AccessProtocol::WebMail],
        ip_ranges: vec!["192.0.2.0/24".parse().expect("a network")],
        not_ip_ranges: vec!["2001:db8::/32".parse().expect("a network")],
        users: vec!["alice".into()],
        not_users: vec!["alice".into()],
    };
    assert_eq!(read(rule), AccessRules::new(vec![expected]));
}

#[test]
fn access_rules_are_checked() {
    let bad = "[[access_rule]]\nname = \"a b\"\neffect = \"allow\"\nprotocols = [\"smtp\"]\n\
               ip_ranges = [\"192.0.2.0/40\"]\nusers = [\"nobody\"]\nnot_users = []\nfrom = 1\n\
               [[access_rule]]\neffect = \"ALLOW\"\n\
               [[access_rule]]\nname = \"x\"\n\
               [[access_rule]]\nname = \"x\"\neffect = \"ALLOW\"\n";
    check(
        MAIN,
        &format!("access_rules = [\"x\"]\n{ORGANIZATION}{bad}"),
        &[
            "org.toml:1: access_rules[0]: \"x\": this list is only for saying that there is no \
             rule; write one as [[access_rule]]",
            "org.toml:8: access_rule[0].effect: \"allow\" is not one of ALLOW, DENY, did you mean \"ALLOW\"?",
            "org.toml:9: access_rule[0].protocols[0]: \"smtp\": is not one of ActiveSync, \
             AutoDiscover, EWS, IMAP, SMTP, WindowsOutlook, WebMail, did you mean \"SMTP\"?",
            "org.toml:10: access_rule[0].ip_ranges[0]: \"192.0.2.0/40\": is not a network, such as 192.0.2.0/24 or \
             2001:db8::/32, nor an IP address",
            "org.toml:11: access_rule[0].users: there is no user \"nobody\"",
            "org.toml:12: access_rule[0].not_users: is empty; leave it out where it is no condition",
            "org.toml:13: access_rule[0].from: unknown key",
            "org.toml:7: access_rule[0].name: \"a b\" is not 1 to 64 letters, digits, hyphens and \
             underscores",
            "org.toml:14: access_rule[1].name: is missing",
            "org.toml:16: access_rule[2].effect: is missing",
            "org.toml:19: access_rule[3].name: \"x\" is taken, at org.toml:17",
        ],
    );
}

#[test]
fn access_rules_are_at_most_ten_and_none_only_if_that_is_said() {
    let many = |count: usize| -> String {
        let rule = |n: usize| format!("[[access_rule]]\nname = \"r{n}\"\neffect = \"ALLOW\"\n");
        (0..count).map(rule).collect()
    };
    check(
        MAIN,
        &format!("access_rules = []\n{ORGANIZATION}{}", many(11)),
        &[
            "org.toml:1: access_rules: says that there is no rule, and there is one",
            "org.toml:37: access_rule[10].name: 11 rules; at most 10 are allowed",
        ],
    );
}
