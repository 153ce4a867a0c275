//! One golden line for each kind. `MAILWEIR_WRITE_GOLDEN=1` writes them anew, to be reviewed as a
//! diff.

use std::sync::Arc;

use super::*;
use crate::id::EntityId;

const ORGANIZATION: &str = "m-5da3381ced335dc4845927223e1a23b7";
const ALICE: &str = "0193a0c8-1d1c-7aa1-9f4e-3b1f6c1c0a11";
const BOB: &str = "0193a0c8-1d1c-7aa1-9f4e-3b1f6c1c0b0b";

fn entity(text: &str) -> EntityId {
    text.parse().expect("an id")
}

fn occasion(organization: Option<&str>, user: Option<&str>) -> Occasion {
    let id = "01939e10-0000-7000-8000-000000000001".parse().expect("an id");
    let at = Timestamp::from_millis(1_795_235_486_123);
    Occasion::new(at, id, organization.map(Arc::from), user.map(entity))
}

fn encoded(line: impl Into<AuditLine>) -> Vec<u8> {
    let mut text = Vec::new();
    line.into().write_to(&ArnSettings::default(), &mut text);
    text
}

fn check(name: &str, line: impl Into<AuditLine>) {
    let found = encoded(line);
    let path = format!("{}/fixtures/golden/audit/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MAILWEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("writes");
    }
    let golden = std::fs::read(&path).expect("a golden file");
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&golden), "{name}");
}

#[test]
fn logins_have_their_golden_lines() {
    let ip = "192.0.2.7".parse().expect("an address");
    let alice = || occasion(Some(ORGANIZATION), Some(ALICE));
    let user = "alice@example.test";
    let token = Some("01939e10-0000-7000-8000-000000000002");
    check("authentication", Authentication::smtp(alice(), user, ip, Ok(()), token));
    let failed = Err(AuthFailure::WrongPassword);
    check("authentication.failed", Authentication::smtp(alice(), user, ip, failed, None));
    let unknown = Err(AuthFailure::UnknownUser);
    let nobody = Authentication::smtp(occasion(None, None), "x\"\r\n", ip, unknown, None);
    check("authentication.nobody", nobody);
    let set = Authentication::password_by_command(alice(), user, Ok(()));
    check("authentication.set-password", set);
    check("access-control", AccessControl::smtp(alice(), ip, Some("office"), true));
    let ip = "2001:db8::7".parse().expect("an address");
    check("access-control.unmatched", AccessControl::smtp(alice(), ip, None, false));
}

#[test]
fn mailboxes_and_tokens_have_their_golden_lines() {
    let ip = "192.0.2.7".parse().expect("an address");
    let alice = || occasion(Some(ORGANIZATION), Some(ALICE));
    let delivery = occasion(Some(ORGANIZATION), None);
    let delivered = MailboxAccess::delivered(delivery.clone(), Some(ip), entity(BOB), "INBOX");
    check("mailbox-access.create", delivered);
    let internal = MailboxAccess::delivered(delivery, None, entity(BOB), "JUNK_EMAIL");
    check("mailbox-access.internal", internal);
    let full = MailboxAccess::without_room(occasion(Some(ORGANIZATION), None), ip, entity(BOB));
    check("mailbox-access.full", full);
    check("mailbox-access.submit", MailboxAccess::submitted(alice(), ip, entity(BOB), false));
    let item = "01939e10-0000-7000-8000-000000000002".parse().expect("an id");
    let by_command = || occasion(Some(ORGANIZATION), None);
    let read = MailboxAccess::read_by_command(by_command(), entity(BOB), item, Some("INBOX"));
    check("mailbox-access.read", read);
    let listed = MailboxAccess::listed_by_command(by_command(), entity(BOB), "INBOX");
    check("mailbox-access.list", listed);
    let failed = PersonalAccessToken::failed_by_command(
        alice(),
        "alice@example.test",
        TokenAction::Delete,
        None,
        "no such token",
    );
    check("personal-access-token.failed", failed);
    let expires = Some(Timestamp::from_millis(1_826_771_486_123));
    let scopes = ["mailbox".to_owned()];
    let token = ("phone", scopes.as_slice());
    for (action, name) in [(TokenAction::Create, "create"), (TokenAction::Delete, "delete")] {
        let user = "alice@example.test";
        let line = PersonalAccessToken::by_command(alice(), user, action, token, expires);
        check(&format!("personal-access-token.{name}"), line);
    }
}

#[test]
fn an_attackers_user_name_is_cut() {
    let ip = "192.0.2.7".parse().expect("an address");
    let name = "ü".repeat(5000);
    let failed = Err(AuthFailure::UnknownUser);
    let line = Authentication::smtp(occasion(None, None), &name, ip, failed, None);
    assert!(encoded(line).len() < 1000);
}

#[test]
fn an_organization_is_named_with_region_and_account() {
    let arns = ArnSettings {
        region: "eu-west-1".parse().expect("a region"),
        account_id: "111122223333".parse().expect("an account"),
    };
    let ip = "192.0.2.7".parse().expect("an address");
    let mut text = Vec::new();
    let line = AccessControl::smtp(occasion(Some(ORGANIZATION), None), ip, None, true);
    AuditLine::from(line).write_to(&arns, &mut text);
    let line: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let expected = format!("arn:aws:workmail:eu-west-1:111122223333:organization/{ORGANIZATION}");
    assert_eq!(line["organization_arn"], expected);
}
