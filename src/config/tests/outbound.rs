use super::*;
use crate::directory::Permission;
use crate::mail::{GatewayHost, Secret};
use crate::organization::OwnQuotas;
use crate::pipeline::{Extensions, RecipientQuotas};
use crate::rules::{Action, OutboundAction};

const GATEWAY: &str = "[[smtp_gateway]]\nname = \"filter\"\naddress = \"127.0.0.1\"\nport = 2526\n";

fn rule(kind: &str, name: &str, action: &str, gateway: &str) -> String {
    format!(
        "[[{kind}]]\nname = \"{name}\"\naction = \"{action}\"\n{gateway}\
         senders = [\"*\"]\ndestinations = [\"*\"]\n"
    )
}

fn outbound(name: &str, action: &str, gateway: &str) -> String {
    rule("outbound_rule", name, action, gateway)
}

/// The keys before the organization's first table, and its tables.
fn check(keys: &str, tables: &[&str], expected: &[&str]) {
    super::check(MAIN, &format!("{keys}{ORGANIZATION}{}", tables.concat()), expected);
}

fn loaded(keys: &str, tables: &[&str]) -> (Scratch, Configuration) {
    let organization = format!("{keys}{ORGANIZATION}{}", tables.concat());
    let scratch = Scratch::new(MAIN, &organization);
    fs::write(scratch.0.path().join("secret"), "pass word\n").expect("writes");
    let configuration = load(&scratch.main(), []).expect("loads");
    (scratch, configuration)
}

#[test]
fn a_gateway_is_read_whole() {
    let login = "user_name = \"mailweir\"\npassword_file = \"secret\"\n";
    let other = "[[smtp_gateway]]\nname = \"other\"\naddress = \"Relay.Test\"\nport = 465\n";
    let (_, configuration) = loaded("", &[GATEWAY, login, other]);
    let [filter, other] = configuration.organizations[0].gateways.as_slice() else {
        panic!("two gateways");
    };
    assert_eq!(filter.host, GatewayHost::Address("127.0.0.1".parse().expect("an address")));
    assert_eq!((&*filter.name, filter.port, filter.implicit_tls), ("filter", 2526, false));
    let login = filter.login.as_ref().expect("a login");
    assert_eq!(login.user_name, "mailweir");
    assert_eq!(login.password, Secret::new("pass word".into()), "without its line end");
    assert!(!format!("{configuration:?}").contains("pass word"), "a password is never printed");
    assert_eq!(other.host.to_string(), "relay.test");
    assert!(other.implicit_tls && other.login.is_none() && other.authorities.is_none());
}

#[test]
fn problems_of_a_gateway_are_told_with_their_lines() {
    check(
        "",
        &["[[smtp_gateway]]\n"],
        &[
            "org.toml:5: smtp_gateway[0].name: is missing",
            "org.toml:5: smtp_gateway[0].address: is missing",
            "org.toml:5: smtp_gateway[0].port: is missing",
        ],
    );
    check(
        "",
        &[
            "[[smtp_gateway]]\nname = \"a\"\naddress = \"smtp://x\"\nport = 65536\ntls = \"none\"\n",
            "user_name = \"\"\npassword = \"open\"\n",
            "[[smtp_gateway]]\nname = \"a\"\naddress = \"x.test\"\nport = 25\npassword_file = \"p\"\n",
        ],
        &[
            "org.toml:7: smtp_gateway[0].address: \"smtp://x\": \"smtp://x\" is not a valid domain name",
            "org.toml:8: smtp_gateway[0].port: 65536 is not between 1 and 65535",
            "org.toml:9: smtp_gateway[0].tls: \"none\" is not one of starttls, implicit",
            "org.toml:10: smtp_gateway[0].user_name: \"\" is empty, or has a control character",
            "org.toml:10: smtp_gateway[0].user_name: needs a password_file beside it",
            "org.toml:11: smtp_gateway[0].password: unknown key, did you mean \"password_file\"?",
            "org.toml:13: smtp_gateway[1].name: \"a\" is taken, at org.toml:6",
            "org.toml:16: smtp_gateway[1].password_file: p cannot be read: No such file or \
             directory (os error 2)",
            "org.toml:16: smtp_gateway[1].password_file: needs a user_name beside it",
        ],
    );
}

/// What is wrong with a gateway's file of this content; `None` stands for a folder.
fn problem_of(key: &str, content: Option<&[u8]>) -> String {
    let user_name = if key == "password_file" { "user_name = \"u\"\n" } else { "" };
    let organization = format!("{ORGANIZATION}{GATEWAY}{user_name}{key} = \"file\"\n");
    let scratch = Scratch::new(MAIN, &organization);
    let file = scratch.0.path().join("file");
    match content {
        Some(content) => fs::write(file, content).expect("writes"),
        None => fs::create_dir(file).expect("makes a folder"),
    }
    let problems = scratch.problems(&[]);
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    let line = organization.lines().count();
    let start = format!("org.toml:{line}: smtp_gateway[0].{key}: file ");
    problem.strip_prefix(&start).unwrap_or_else(|| panic!("{problem}")).to_owned()
}

#[test]
fn a_file_that_a_gateway_names_is_checked() {
    let password = |content| problem_of("password_file", content);
    assert_eq!(password(Some(b"")), "is empty");
    assert_eq!(password(Some(b"\r\n")), "is empty");
    assert_eq!(password(None), "is not a file");
    assert_eq!(password(Some(b"\xff\n")), "is not UTF-8");
    assert_eq!(password(Some(&[b'x'; 1025])), "is larger than 1024 octets");
    for several in [b"a\nb\n", b"a\0b\n", b"a\n\n\n"] {
        assert_eq!(password(Some(several)), "has more than one line, or a control character");
    }
    let authorities = |content| problem_of("ca_file", content);
    assert_eq!(authorities(Some(b"nothing here")), "has no certificate");
    assert_eq!(authorities(None), "is not a file");
    let broken = authorities(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n"));
    assert!(broken.starts_with("is not PEM: "), "{broken}");
}

#[test]
fn authorities_of_its_own_are_read() {
    let made = rcgen::generate_simple_self_signed(vec!["ca.test".into()]).expect("a pair");
    let scratch =
        Scratch::new(MAIN, &format!("{ORGANIZATION}{GATEWAY}ca_file = \"authorities.pem\"\n"));
    fs::write(scratch.0.path().join("authorities.pem"), made.cert.pem()).expect("writes");
    let configuration = load(&scratch.main(), []).expect("loads");
    let authorities = configuration.organizations[0].gateways[0].authorities.as_deref();
    assert_eq!(authorities, Some([made.cert.der().clone()].as_slice()));
}

#[test]
fn outbound_rules_are_read_and_name_gateways_that_are_there() {
    let via = "gateway = \"filter\"\n";
    let (_, configuration) = loaded(
        "",
        &[
            &outbound("route", "ROUTE_TO_SMTP_GATEWAY", via),
            &outbound("bounce", "BOUNCE", ""),
            &outbound("drop", "DROP", ""),
            &outbound("default", "DEFAULT", ""),
            &rule("inbound_rule", "route", "DROP", ""),
            GATEWAY,
        ],
    );
    let rules = configuration.organizations[0].outbound.rules();
    let read: Vec<_> = rules.iter().map(|rule| (&*rule.name, rule.action.clone())).collect();
    let route = OutboundAction::RouteToSmtpGateway { gateway: "filter".into() };
    assert_eq!(
        read,
        [
            ("route", route),
            ("bounce", OutboundAction::Bounce),
            ("drop", OutboundAction::Drop),
            ("default", OutboundAction::Default),
        ]
    );
    assert!(rules.iter().all(|rule| rule.action.gateway().is_none() || &*rule.name == "route"));
}

#[test]
fn problems_of_outbound_rules_are_told_with_their_lines() {
    let bad_gateway = "[[smtp_gateway]]\nname = \"bad\"\naddress = \"x.test\"\nport = 0\n";
    check(
        "",
        &[
            bad_gateway,
            &outbound("unknown", "ROUTE_TO_SMTP_GATEWAY", "gateway = \"filtre\"\n"),
            &outbound("without", "ROUTE_TO_SMTP_GATEWAY", ""),
            &outbound("idle", "DROP", "gateway = \"bad\"\n"),
            &outbound("lambda", "RUN_LAMBDA", ""),
            &outbound("known", "ROUTE_TO_SMTP_GATEWAY", "gateway = \"bad\"\n"),
            &outbound("known", "DROP", ""),
            &rule("inbound_rule", "in", "DROP", "gateway = \"bad\"\n"),
            &rule("inbound_rule", "route", "ROUTE_TO_SMTP_GATEWAY", ""),
        ],
        &[
            "org.toml:8: smtp_gateway[0].port: 0 is not between 1 and 65535",
            "org.toml:45: inbound_rule[0].gateway: unknown key; it belongs under [[outbound_rule]]",
            "org.toml:50: inbound_rule[1].action: \"ROUTE_TO_SMTP_GATEWAY\" is not one of DROP, \
             BOUNCE, MOVE_TO_JUNK, DEFAULT, BYPASS_SPAM_CHECK",
            "org.toml:12: outbound_rule[0].gateway: there is no smtp_gateway \"filtre\"",
            "org.toml:15: outbound_rule[1].gateway: is missing",
            "org.toml:23: outbound_rule[2].gateway: only ROUTE_TO_SMTP_GATEWAY has one",
            "org.toml:28: outbound_rule[3].action: RUN_LAMBDA is not supported by this version",
            "org.toml:38: outbound_rule[5].name: there are two rules with the name known",
        ],
    );
}

#[test]
fn both_directions_share_the_quota_of_sender_patterns() {
    let senders = |count: usize| {
        let list: Vec<_> = (0..count).map(|number| format!("\"d{number}.test\"")).collect();
        list.join(", ")
    };
    let rule = |kind: &str, number: usize, count: usize| {
        format!(
            "[[{kind}]]\nname = \"r{number}\"\naction = \"DROP\"\nsenders = [{}]\n\
             destinations = [\"*\"]\n",
            senders(count)
        )
    };
    let inbound: Vec<_> = (0..2).map(|number| rule("inbound_rule", number, 250)).collect();
    let outbound: Vec<_> = (0..2).map(|number| rule("outbound_rule", number, 250)).collect();
    let (inbound, outbound) = (inbound.concat(), outbound.concat());
    loaded("", &[&inbound, &outbound]);
    let one_more = rule("outbound_rule", 2, 1);
    check(
        "",
        &[&inbound, &outbound, &one_more],
        &[
            "org.toml:5: inbound_rule: the rules have 1001 sender patterns together; at most 1000 are \
         allowed",
        ],
    );
}

#[test]
fn permissions_are_read_and_checked() {
    let users = "[[user]]\nname = \"bob\"\n[[group]]\nname = \"sales\"\nmembers = [\"bob\"]\n";
    let permission = |owner: &str, grantee: &str, rights: &str| {
        format!("[[permission]]\nowner = \"{owner}\"\ngrantee = \"{grantee}\"\n{rights}")
    };
    let (_, configuration) = loaded(
        "",
        &[
            &permission("alice", "sales", "send_as = true\n"),
            &permission("alice", "bob", "full_access = true\nsend_on_behalf = true\n"),
            &permission("sales", "sales", ""),
            users,
        ],
    );
    let none = |owner: &str, grantee: &str| Permission {
        owner: owner.into(),
        grantee: grantee.into(),
        full_access: false,
        send_as: false,
        send_on_behalf: false,
    };
    assert_eq!(
        configuration.organizations[0].organization.permissions,
        [
            Permission { send_as: true, ..none("alice", "sales") },
            Permission { full_access: true, send_on_behalf: true, ..none("alice", "bob") },
            none("sales", "sales"),
        ]
    );
    check(
        "",
        &[
            users,
            "[[permission]]\nsend_as = 1\n",
            &permission("alice@example.test", "nobody", "send_on_behalf = true\n"),
            &permission("sales", "bob", "full_access = true\n"),
            &permission("alice", "sales", "full_access = true\n"),
            &permission("alice", "bob", "send_as = true\n"),
            &permission("alice", "bob", "send_all = true\n"),
        ],
        &[
            "org.toml:10: permission[0].owner: is missing",
            "org.toml:10: permission[0].grantee: is missing",
            "org.toml:11: permission[0].send_as: expected true or false, found a number: write send_as = true",
            "org.toml:13: permission[1].owner: there is no user, resource or group \
             \"alice@example.test\"",
            "org.toml:14: permission[1].grantee: there is no user, resource or group \"nobody\"",
            "org.toml:19: permission[2].full_access: a group has no mailbox to access",
            "org.toml:23: permission[3].full_access: cannot be granted to a group",
            "org.toml:31: permission[5].send_all: unknown key, did you mean \"send_as\"?",
            "org.toml:30: permission[5].grantee: bob has its permission of alice already, at \
             org.toml:26",
        ],
    );
}

#[test]
fn an_organization_has_its_own_quotas_and_attachments() {
    let default = RecipientQuotas::default();
    let (_, configuration) = loaded("", &[]);
    let config = &configuration.organizations[0];
    assert_eq!(configuration.pipeline.recipient_quotas.unless(config.quotas), default);
    assert_eq!(*config.blocked_attachments, Extensions::default());

    let own = "recipients_per_user_per_day = 0\ninside_recipients_per_user_per_day = 9\nblocked_attachments = [\"zip\", \".EXE\"]\n";
    let (scratch, configuration) = loaded(own, &[]);
    let config = &configuration.organizations[0];
    assert_eq!(
        config.quotas,
        OwnQuotas { per_user: Some(0), per_organization: None, inside_per_user: Some(9) }
    );
    assert_eq!(config.blocked_attachments.iter().collect::<Vec<_>>(), ["exe", "zip"]);
    let variable = "MAILWEIR__OUTBOUND__RECIPIENTS_PER_ORGANIZATION_PER_DAY".to_owned();
    let configuration = load(&scratch.main(), [(variable, "7".to_owned())]).expect("loads");
    let quotas = configuration.pipeline.recipient_quotas.unless(config.quotas);
    assert_eq!(quotas, RecipientQuotas { per_user: 0, per_organization: 7, inside_per_user: 9 });

    check(
        "recipients_per_day = -1\nblocked_attachments = [\"tar.gz\"]\n",
        &[],
        &[
            "org.toml:2: blocked_attachments[0]: \"tar.gz\": an extension has letters, digits, - and _ \
         only, as in exe",
            "org.toml:1: recipients_per_day: -1 is not between 0 and 1000000000",
        ],
    );
}

#[test]
fn a_remote_user_is_not_in_the_organization() {
    check(
        "",
        &["[[user]]\nname = \"dave\"\nremote = \"alice@Example.test\"\n"],
        &["org.toml:7: user[1].remote: alice@example.test is in a domain of the organization"],
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "files must have been left alone for a while")]
fn an_organization_is_read_again_when_a_file_that_it_names_changes() {
    let login = "user_name = \"mailweir\"\npassword_file = \"secret\"\n";
    let (scratch, _) = loaded("", &[GATEWAY, login]);
    std::thread::sleep(std::time::Duration::from_millis(2 * stamp::SETTLED_AFTER_MS as u64));
    let first = load(&scratch.main(), []).expect("loads").organizations;
    let again =
        load_again(&scratch.main(), [], &first, &Arc::default()).expect("loads").organizations;
    assert!(Arc::ptr_eq(&first[0], &again[0]), "all is as it was");
    fs::write(scratch.0.path().join("secret"), "another\n").expect("writes");
    let again =
        load_again(&scratch.main(), [], &first, &Arc::default()).expect("loads").organizations;
    let login = again[0].gateways[0].login.as_ref().expect("a login");
    assert_eq!(login.password.expose(), "another");
}
