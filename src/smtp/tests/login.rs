//! Logging in on the state machine; `fixtures/dialogues/auth-*.smtp` has the plain cases.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::machine::Machine;
use super::scripted::Told;
use crate::smtp::auth;
use crate::smtp::reason::Reason;
use crate::smtp::session::Input;
use crate::smtp::settings::{Limits, Protocol};

/// `\0alice\0secret`
const RIGHT: &str = "AGFsaWNlAHNlY3JldA==";
/// `\0alice\0wrong`
const WRONG: &str = "AGFsaWNlAHdyb25n";

/// After EHLO under TLS.
fn machine(limits: &Limits) -> Machine {
    let mut machine = Machine::speaking(Protocol::Submissions, limits);
    machine.feed(b"EHLO client.test\r\n");
    machine.said();
    machine
}

fn say(machine: &mut Machine, line: &str) -> String {
    machine.feed(format!("{line}\r\n").as_bytes());
    machine.said()
}

/// What the handler was told of who sends.
fn logins(machine: &Machine) -> Vec<Option<String>> {
    let login = |told| match told {
        Told::Mail(peer, ..) => Some(peer.login.map(|login| login.user.to_string())),
        _ => None,
    };
    machine.handler.told().into_iter().filter_map(login).collect()
}

#[test]
fn the_handler_learns_who_sends() {
    let mut machine = machine(&Limits::default());
    say(&mut machine, &format!("AUTH PLAIN {RIGHT}"));
    say(&mut machine, "EHLO client.test");
    say(&mut machine, "MAIL FROM:<anybody@example.test>");
    assert_eq!(logins(&machine), [Some("alice".to_owned())]);
}

/// RFC 3207 §4.2, RFC 4954 §4: neither a login nor its beginning comes through a handshake.
#[test]
fn starttls_knows_of_no_login() {
    let mut machine = Machine::speaking(Protocol::Submission, &Limits::default());
    let early = format!("EHLO a\r\nAUTH PLAIN {RIGHT}\r\nSTARTTLS\r\nAUTH PLAIN {RIGHT}\r\n");
    machine.feed(early.as_bytes());
    machine.feed(b"EHLO a\r\nMAIL FROM:<alice@example.test>\r\n");
    let said = machine.said();
    assert!(said.ends_with("[authentication-required <id>]\r\n"), "{said}");
    let asked = |told: &Told| matches!(told, Told::Authenticate(_) | Told::Mail(..));
    assert!(!machine.handler.told().iter().any(asked), "{:?}", machine.handler.told());
}

/// RFC 4954 §4: 12,288 octets, in an exchange only.
#[test]
fn a_response_may_be_longer_than_a_command() {
    let limits = Limits { command_line_bytes: 512, ..Limits::default() };
    // So long that its base64 and CR LF take 12,288 octets, less two that base64 cannot fill.
    let password = "x".repeat(12_284 / 4 * 3 - 7);
    let longest = STANDARD.encode(format!("\0alice\0{password}"));
    assert_eq!(longest.len() + 4, auth::MAX_LINE);
    let mut machine = machine(&limits);
    for (response, word) in [
        (longest.clone(), "[bad-credentials <id>]"),
        ("x".repeat(auth::MAX_LINE - 2), "[bad-auth-response <id>]"),
        ("x".repeat(auth::MAX_LINE - 1), "[auth-line-too-long <id>]"),
        ("x".repeat(2 * auth::MAX_LINE), "[auth-line-too-long <id>]"),
        ("x\0".to_owned(), "[bad-line-ending <id>]"),
    ] {
        assert_eq!(say(&mut machine, "AUTH PLAIN"), "334 \r\n");
        let said = say(&mut machine, &response);
        assert!(said.contains(word) && said.lines().count() == 1, "{said}");
    }
    let command = say(&mut machine, &format!("AUTH PLAIN {longest}"));
    assert!(command.starts_with("500 5.5.2 Line too long"), "{command}");
}

#[test]
fn each_failed_login_takes_longer_and_the_third_is_the_last() {
    let mut machine = machine(&Limits::default());
    assert!(say(&mut machine, &format!("AUTH PLAIN {WRONG}")).starts_with("535 5.7.8 "));
    assert!(say(&mut machine, "AUTH LOGIN =").starts_with("334 "));
    assert!(say(&mut machine, "c2VjcmV0").starts_with("535 5.7.8 "), "without a name");
    assert!(!machine.closed);
    let said = say(&mut machine, &format!("AUTH PLAIN {WRONG}"));
    assert!(said.starts_with("421 4.7.0 ") && machine.closed, "{said}");
    assert_eq!(machine.pauses, [1, 2, 4].map(Duration::from_secs));
    // The scripted handler does not record its own refusals.
    let ours = [Reason::BadCredentials, Reason::TooManyFailedLogins];
    assert_eq!(machine.handler.refusals(), ours);
}

#[test]
fn a_failed_login_is_an_error_like_others() {
    let mut machine = machine(&Limits { errors: 2, ..Limits::default() });
    say(&mut machine, "JUNK");
    let said = say(&mut machine, &format!("AUTH PLAIN {WRONG}"));
    assert!(said.starts_with("421 4.7.0 Too many errors") && machine.closed, "{said}");
}

/// What is no failure of the client's costs it nothing, but does not go on for ever.
#[test]
fn asking_again_and_again_leads_nowhere() {
    let limits = Limits { errors: 1, idle_commands: 4, ..Limits::default() };
    let mut machine = machine(&limits);
    let busy = STANDARD.encode("\0busy\0secret");
    for _ in 0..3 {
        let said = say(&mut machine, &format!("AUTH PLAIN {busy}"));
        assert!(said.starts_with("454 4.7.0 "), "{said}");
    }
    let said = say(&mut machine, &format!("AUTH PLAIN {busy}"));
    assert!(said.starts_with("421 4.7.0 Too many errors") && machine.closed, "{said}");
    assert!(machine.pauses.is_empty());
}

#[test]
fn an_exchange_that_is_interrupted_ends_the_connection() {
    let mut machine = machine(&Limits::default());
    say(&mut machine, "AUTH LOGIN");
    machine.input(Input::Interrupted(Reason::TimedOut));
    assert!(machine.said().starts_with("421 4.4.2 ") && machine.closed);
    let told = Told::Refused(Reason::TimedOut, "AUTH".to_owned());
    assert_eq!(machine.handler.told(), [told]);
}

/// Whatever becomes of them, on whatever listener, and in an exchange that did not begin too.
#[test]
fn credentials_never_reach_the_records() {
    let password = STANDARD.encode("secret");
    let lines = [
        format!("AUTH PLAIN {RIGHT}!"),
        format!(" auth PLAIN {RIGHT}"),
        format!("AUTH PLAIN {RIGHT} {RIGHT}"),
        format!("AUTH CRAM-MD5 {RIGHT}"),
        format!("AUTH PLAIN {WRONG}"),
        format!("AUTH LOGIN\r\nYm9i\r\n{password}"),
        format!("AUTH LOGIN Ym9i\r\n{password}!"),
        format!("AUTH GSSAPI\r\n{password}"),
        format!("AUTH LOGIN Ym9i\r\n*\r\n{password}"),
    ];
    for protocol in [Protocol::Mx, Protocol::Submission, Protocol::Submissions] {
        let mut refusals = 0;
        for line in &lines {
            let mut machine = Machine::speaking(protocol, &Limits::default());
            say(&mut machine, "EHLO client.test");
            say(&mut machine, line);
            for told in machine.handler.told() {
                if let Told::Refused(_, about) = told {
                    assert_eq!(about, "AUTH ...", "{protocol:?}: {line}");
                    refusals += 1;
                }
            }
        }
        assert!(refusals >= 7, "{protocol:?}: {refusals}");
    }
}
