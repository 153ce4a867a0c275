//! What can be read, but cannot be meant.

use super::*;

/// The warnings of what loads.
fn warned(main: &str, organization: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let scratch = Scratch::new(main, organization);
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let configuration = load(&scratch.main(), environment).expect("loads");
    let dir = format!("{}/", scratch.0.path().display());
    configuration.warnings.iter().map(|it| it.to_string().replace(&dir, "")).collect()
}

#[test]
fn a_level_is_a_level() {
    let with = |level: &str| format!("{MAIN}[log]\nlevel = \"{level}\"\n");
    for level in ["off", "WARN", "trace", "info,mailweir::smtp=debug", "mailweir=info, error"] {
        let scratch = Scratch::new(&with(level), ORGANIZATION);
        assert_eq!(load(&scratch.main(), []).expect("loads").log.level, level);
    }
    for (level, part, hint) in [
        ("verbose", "verbose", ", did you mean \"debug\"?"),
        ("info,loud", "loud", ""),
        ("", "", ""),
    ] {
        let expected = format!(
            "main.toml:5: log.level: \"{level}\": \"{part}\" is not one of off, error, warn, info, \
             debug, trace, nor a directive such as mailweir::smtp=debug{hint}"
        );
        check(&with(level), ORGANIZATION, &[&expected]);
    }
}

#[test]
fn journal_records_go_to_somebody() {
    let check = |journal: &str, report: &str, expected: &[&str]| {
        let organization = format!(
            "{ORGANIZATION}[[user]]\nname = \"carol\"\nenabled = false\n[journaling]\n\
             journaling_address = \"{journal}\"\nreport_address = \"{report}\"\n"
        );
        let scratch = Scratch::new(MAIN, &organization);
        match expected {
            [] => drop(load(&scratch.main(), []).expect("loads")),
            _ => assert_eq!(scratch.problems(&[]), expected),
        }
    };
    check("alice@example.test", "archive@elsewhere.test", &[]);
    check(
        "nobody@example.test",
        "none@example.test",
        &[
            "org.toml:9: journaling.journaling_address: there is no nobody@example.test",
            "org.toml:10: journaling.report_address: there is no none@example.test",
        ],
    );
    check(
        "carol@example.test",
        "alice@example.test",
        &["org.toml:9: journaling.journaling_address: nobody gets mail for carol@example.test: \
           the user is disabled"],
    );
}

/// An organization where alice has a rule.
fn with_rule(target: &str) -> String {
    format!(
        "plus_addressing = true\n{ORGANIZATION}[[user.mailbox_rule]]\nname = \"on\"\n\
         action = \"REDIRECT\"\nto = \"{target}\"\n\
         [[user]]\nname = \"bob\"\n[[user]]\nname = \"carol\"\nenabled = false\n\
         [[group]]\nname = \"self\"\nmembers = [\"alice\"]\n\
         [[group]]\nname = \"both\"\nmembers = [\"alice\", \"bob\"]\n"
    )
}

#[test]
fn mailbox_rules_send_mail_to_somebody_else() {
    for target in ["bob@example.test", "bob+x@example.test", "both@example.test", "a@b.test"] {
        assert_eq!(warned(MAIN, &with_rule(target), &[]), <[&str; 0]>::default(), "{target}");
    }
    for (target, why) in [
        ("nobody@example.test", "nobody@example.test, which is nobody's"),
        ("self@example.test", "self@example.test, which leads back to the mailbox that it is in"),
        (
            "alice+x@example.test",
            "alice+x@example.test, which leads back to the mailbox that it is in",
        ),
        ("alice@example.test", "the mailbox that it is in"),
    ] {
        let expected = format!("org.toml:6: user[0].mailbox_rule: rule on sends mail to {why}");
        check(MAIN, &with_rule(target), &[&expected]);
    }
    assert_eq!(
        warned(MAIN, &with_rule("carol@example.test"), &[]),
        ["org.toml:6: user[0].mailbox_rule: rule on sends mail to carol@example.test: the user \
          is disabled"]
    );
}

#[test]
fn two_listeners_do_not_share_an_address() {
    let with = |one: &str, two: &str| {
        let listener = |name: &str, bind: &str| {
            format!("[[listener]]\nname = \"{name}\"\nprotocol = \"mx\"\nbind = \"{bind}\"\n")
        };
        format!("{MAIN}{}{}", listener("a", one), listener("b", two))
    };
    for (one, two) in [("127.0.0.1:25", "127.0.0.1:25"), ("0.0.0.0:25", "127.0.0.1:25")] {
        let expected = format!("main.toml:11: listener[1].bind: {two} is taken by listener \"a\"");
        check(&with(one, two), ORGANIZATION, &[&expected]);
    }
    for (one, two) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:25", "127.0.0.2:25"),
        ("[::]:25", "1.2.3.4:25"),
    ] {
        assert_eq!(warned(&with(one, two), ORGANIZATION, &[]), <[&str; 0]>::default());
    }
}

#[test]
fn a_variable_with_too_few_underscores_is_told() {
    let set = [("MAILWEIR_LIMITS_RECIPIENTS", "3"), ("MAILWEIR_HOSTNAME", "x"), ("MAIL", "y")];
    assert_eq!(
        warned(MAIN, ORGANIZATION, &set),
        [
            "environment MAILWEIR_HOSTNAME: is not read; did you mean MAILWEIR__HOSTNAME?",
            "environment MAILWEIR_LIMITS_RECIPIENTS: is not read; did you mean \
             MAILWEIR__LIMITS__RECIPIENTS?",
        ]
    );
}

#[test]
fn a_route_for_a_domain_of_ones_own_is_told() {
    let with = |domain: &str| {
        format!("{MAIN}[[queue_route]]\ndomain = \"{domain}\"\nhost = \"127.0.0.1\"\n")
    };
    assert_eq!(
        warned(&with("example.test"), ORGANIZATION, &[]),
        ["main.toml:5: queue_route[0].domain: example.test is organization example's own: its \
          mail stays here, and takes no route"]
    );
    assert_eq!(warned(&with("other.test"), ORGANIZATION, &[]), <[&str; 0]>::default());
}

#[test]
fn a_secret_that_is_open_to_everybody_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a folder");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
    };
    set(dir.path(), 0o755);
    let secret = dir.path().join("secret");
    fs::write(&secret, "0".repeat(64)).expect("writes");
    let shown = secret.display();
    let master = format!("{MAIN}[store]\nmaster_key_file = \"{shown}\"\n");
    let tls = format!("{MAIN}[tls]\ncertificate = \"mx.pem\"\nprivate_key = \"{shown}\"\n");
    let login = format!("user_name = \"u\"\npassword_file = \"{shown}\"\n");
    let route = format!("{MAIN}[[queue_route]]\ndomain = \"*\"\nhost = \"127.0.0.1\"\n{login}");
    let gateway = format!(
        "{ORGANIZATION}[[smtp_gateway]]\nname = \"g\"\naddress = \"127.0.0.1\"\nport = 25\n{login}"
    );
    let everybody = format!(
        "everybody on this machine has rights to {shown} (mode 0644): chmod o= {shown} takes them \
         away"
    );
    let everybody = everybody.replace(&format!("{}/", dir.path().display()), "");
    for (main, organization, place) in [
        (master.as_str(), ORGANIZATION, "main.toml:5: store.master_key_file"),
        (tls.as_str(), ORGANIZATION, "main.toml:6: tls.private_key"),
        (route.as_str(), ORGANIZATION, "main.toml:8: queue_route[0].password_file"),
        (MAIN, gateway.as_str(), "org.toml:10: smtp_gateway[0].password_file"),
    ] {
        for (mode, is_told) in [(0o644, true), (0o600, false), (0o440, false)] {
            set(&secret, mode);
            let told = warned(main, organization, &[]);
            let told: Vec<_> = told
                .iter()
                .map(|it| it.replace(&format!("{}/", dir.path().display()), ""))
                .collect();
            let expected = is_told.then(|| format!("{place}: {everybody}"));
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{place} {mode:o}");
        }
    }
}

/// An organization of two domains, with a rule in one direction.
fn with_rule_for(kind: &str, action: &str, patterns: &str) -> String {
    let other = if kind == "inbound_rule" { "senders" } else { "destinations" };
    let own = if kind == "inbound_rule" { "destinations" } else { "senders" };
    format!(
        "alias = \"example\"\ndomains = [\"example.test\", \"one.corp.test\"]\n\
         [[{kind}]]\nname = \"r\"\naction = \"{action}\"\n{other} = [\"*\"]\n\
         {own} = [{patterns}]\n\
         [[user]]\nname = \"alice\"\naliases = [\"al@one.corp.test\"]\n\
         [[user]]\nname = \"carol\"\nenabled = false\n\
         [[resource]]\nname = \"room\"\nkind = \"room\"\n\
         [[group]]\nname = \"team\"\nmembers = [\"alice\"]\n"
    )
}

const IDLE: &str =
    "the rule never applies: none of them is an address or a domain of the organization";

#[test]
fn an_inbound_rule_is_for_somebody_here() {
    let told = |patterns: &str| warned(MAIN, &with_rule_for("inbound_rule", "DROP", patterns), &[]);
    for patterns in [
        "\"*\"",
        "\"example.test\"",
        "\"EXAMPLE.test\"",
        "\"*.example.test\"",
        "\"*.corp.test\"",
        "\"*.test\"",
        "\"alice@example.test\"",
        "\"Al@One.Corp.Test\"",
        "\"carol@example.test\"",
        "\"room@example.test\"",
        "\"team@example.test\"",
        "\"postmaster@one.corp.test\"",
        "\"abuse@example.test\"",
        "\"elsewhere.test\", \"alice@example.test\"",
    ] {
        assert_eq!(told(patterns), <[&str; 0]>::default(), "{patterns}");
    }
    for (patterns, meant) in [
        ("\"foo.test\"", ""),
        ("\"corp.test\"", ""),
        ("\"two.corp.test\", \"*.two.corp.test\"", ""),
        ("\"below.example.test\"", ""),
        ("\"nobody@example.test\"", ""),
        ("\"alice@elsewhere.test\"", ""),
        ("\"nobody@example.test\", \"foo.test\"", ""),
        ("\"alice@exmaple.test\"", ", did you mean \"example.test\"?"),
        ("\"foo.test\", \"*.one.crop.test\"", ", did you mean \"one.corp.test\"?"),
    ] {
        let expected = format!("org.toml:7: inbound_rule[0].destinations: {IDLE}{meant}");
        assert_eq!(told(patterns), [expected], "{patterns}");
    }
    assert_eq!(
        told("\"alice@example.test\", \"alcie@example.test\""),
        ["org.toml:7: inbound_rule[0].destinations: there is no alcie@example.test"]
    );
}

#[test]
fn an_outbound_rule_is_of_somebody_here() {
    let with = |patterns: &str| with_rule_for("outbound_rule", "DROP", patterns);
    for patterns in [
        "\"*\"",
        "\"*.corp.test\"",
        "\"al@one.corp.test\"",
        "\"team@example.test\"",
        // Who makes reports, which a rule may route.
        "\"mx.example.test\"",
        "\"foo.test\", \"example.test\"",
    ] {
        assert_eq!(warned(MAIN, &with(patterns), &[]), <[&str; 0]>::default(), "{patterns}");
    }
    for (patterns, meant) in [
        ("\"foo.test\"", ""),
        ("\"nobody@example.test\"", ""),
        ("\"*.exampel.test\"", ", did you mean \"example.test\"?"),
    ] {
        let expected = format!("org.toml:7: outbound_rule[0].senders: {IDLE}{meant}");
        assert_eq!(warned(MAIN, &with(patterns), &[]), [expected], "{patterns}");
    }
    // What is sent on from here has somebody else's authors.
    for more in [
        "[[user]]\nname = \"dave\"\nremote = \"dave@far.test\"\n",
        "[[user]]\nname = \"dave\"\n[[user.mailbox_rule]]\nname = \"on\"\n\
         action = \"FORWARD\"\nto = \"dave@far.test\"\n",
    ] {
        let organization = format!("{}{more}", with("\"foo.test\""));
        assert_eq!(warned(MAIN, &organization, &[]), <[&str; 0]>::default(), "{more}");
    }
    let journal = "[journaling]\njournaling_address = \"a@b.test\"\n\
                   report_address = \"alice@example.test\"\nsender_address = \"j@foo.test\"\n";
    let organization = format!("{}{journal}", with("\"foo.test\""));
    assert_eq!(warned(MAIN, &organization, &[]), <[&str; 0]>::default());
}
