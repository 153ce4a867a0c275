use super::*;
use crate::mail::ReversePath;

/// Send As, Send On Behalf.
fn permission(owner: &str, grantee: &str, send_as: bool, send_on_behalf: bool) -> Permission {
    let (owner, grantee) = (owner.into(), grantee.into());
    Permission { owner, grantee, full_access: true, send_as, send_on_behalf }
}

/// Groups: `sales` and `emea` are in each other, with alice in both and bob in `emea`.
fn with_permissions() -> Organization {
    let mut organization = organization();
    organization.users.push(user("frank", &[], EntityState::Enabled));
    organization.permissions = vec![
        permission("alice", "bob", false, true),
        permission("room", "sales", true, false),
        permission("emea", "emea", false, true),
        permission("emea", "alice", true, false),
        permission("bob", "closed", true, true),
        permission("carol", "bob", true, true),
        permission("frank", "bob", false, false),
        permission("frank", "alice", true, true),
        permission("frank", "carol", true, true),
        permission("alice", "dave", true, false),
    ];
    organization
}

fn right(user: &str, from: &[&str], sender: Option<&str>) -> Result<SendRight, Denied> {
    let directory = directory(with_permissions());
    let from: Vec<_> = from.iter().map(|text| address(text)).collect();
    let sender = sender.map(address);
    let organization = OrganizationId::of_alias("example");
    directory.may_send(organization.as_str(), &entity_id(user), &from, sender.as_ref())
}

fn own() -> Result<SendRight, Denied> {
    Ok(SendRight::Own)
}

fn as_owner(owner: &str) -> Result<SendRight, Denied> {
    Ok(SendRight::As { owner: owner.into() })
}

fn on_behalf(owner: &str, sender: &str) -> Result<SendRight, Denied> {
    Ok(SendRight::OnBehalf { owner: owner.into(), sender: address(sender) })
}

fn not_granted(user: &str, text: &str) -> Result<SendRight, Denied> {
    Err(Denied::NotGranted { user: user.into(), address: address(text) })
}

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const ROOM: &str = "room@example.test";
const EMEA: &str = "emea@example.test";
const FRANK: &str = "frank@example.test";

#[test]
fn everybody_may_send_as_themselves() {
    let check = |user: &str, from: &str, expected| {
        assert_eq!(right(user, &[from], None), expected, "{user} as {from}");
    };
    check("alice", "Alice@Example.test", own());
    check("alice", "a.liddell@xn--bcher-kva.test", own());
    check("alice", "alice+news@example.test", own());
    check("alice", "postmaster@bücher.test", own());
    check("room", ROOM, own());
    check("dave", "dave@example.test", own());
    // A name in another domain of the organization may be somebody else's.
    check("alice", "alice@bücher.test", Err(Denied::Nobody(address("alice@bücher.test"))));
    check("alice", "nobody@example.test", Err(Denied::Nobody(address("nobody@example.test"))));
    check("alice", "dave@else.test", Err(Denied::ForeignDomain(address("dave@else.test"))));
    let reserved = "amazonjournaling@example.test";
    check("alice", reserved, Err(Denied::Nobody(address(reserved))));
    for nobody in ["carol", "sales", "nobody"] {
        check(nobody, ALICE, Err(Denied::NoSuchUser(entity_id(nobody))));
    }
    assert_eq!(right("alice", &[], None), Err(Denied::NoAuthor));
    let elsewhere = directory(with_permissions());
    let elsewhere = elsewhere.may_send("m-0", &entity_id("alice"), &[address(ALICE)], None);
    assert_eq!(elsewhere, Err(Denied::NoSuchUser(entity_id("alice"))));
}

#[test]
fn a_tag_is_ones_own_only_where_it_is_mail_for_one() {
    let organization = Organization { plus_addressing: false, ..with_permissions() };
    let organization_id = organization.id.clone();
    let tagged = [address("alice+news@example.test")];
    let right = directory(organization).may_send(
        organization_id.as_str(),
        &entity_id("alice"),
        &tagged,
        None,
    );
    assert_eq!(right, Err(Denied::Nobody(tagged[0].clone())));
}

#[test]
fn others_may_be_sent_as_by_permission_only() {
    let check = |user: &str, from: &str, expected| {
        assert_eq!(right(user, &[from], None), expected, "{user} as {from}");
    };
    check("alice", BOB, not_granted("alice", BOB));
    check("bob", ALICE, on_behalf("alice", BOB));
    check("bob", "alice+news@example.test", on_behalf("alice", BOB));
    check("alice", FRANK, as_owner("frank"));
    // Full access alone gives no right to send.
    check("bob", FRANK, not_granted("bob", FRANK));
    // By a group, and by groups in it that have it in them.
    check("alice", ROOM, as_owner("room"));
    check("bob", ROOM, as_owner("room"));
    check("dave", ROOM, as_owner("room"));
    check("frank", ROOM, not_granted("frank", ROOM));
    // A group's address is not its members' own, and the stronger of two permissions counts.
    check("bob", EMEA, on_behalf("emea", BOB));
    check("alice", EMEA, as_owner("emea"));
    check("frank", EMEA, not_granted("frank", EMEA));
    check("bob", "sales@example.test", not_granted("bob", "sales@example.test"));
    // What is disabled neither gives nor gets.
    check("frank", BOB, not_granted("frank", BOB));
    check("alice", BOB, not_granted("alice", BOB));
    let carol = "carol@example.test";
    check("bob", carol, Err(Denied::Nobody(address(carol))));
}

#[test]
fn the_sender_field_names_the_user_or_whom_the_user_may_send_as() {
    let check = |user: &str, from: &str, sender: &str, expected| {
        assert_eq!(right(user, &[from], Some(sender)), expected, "{user}: {from}, {sender}");
    };
    let denied = |sender: &str| Err(Denied::Sender(address(sender)));
    check("alice", ALICE, "a.liddell@bücher.test", own());
    check("alice", ALICE, BOB, denied(BOB));
    check("alice", ALICE, FRANK, denied(FRANK));
    check("alice", ALICE, "postmaster@else.test", denied("postmaster@else.test"));
    // Send As
    check("alice", FRANK, "Frank@example.test", as_owner("frank"));
    check("alice", FRANK, ALICE, on_behalf("frank", ALICE));
    check("alice", FRANK, ROOM, denied(ROOM));
    // Send On Behalf
    check("bob", ALICE, "bob+1@example.test", on_behalf("alice", "bob+1@example.test"));
    check("bob", ALICE, ALICE, denied(ALICE));
    check("bob", ALICE, "x@else.test", denied("x@else.test"));
}

#[test]
fn every_author_counts() {
    let check = |user: &str, from: &[&str], sender: Option<&str>, expected| {
        assert_eq!(right(user, from, sender), expected, "{user}: {from:?}, {sender:?}");
    };
    check("alice", &[ALICE, "a.liddell@bücher.test"], None, own());
    check("alice", &[ALICE, BOB], None, not_granted("alice", BOB));
    check("alice", &[ALICE, FRANK], None, as_owner("frank"));
    check("alice", &[FRANK, ROOM], Some(ROOM), as_owner("frank"));
    check("bob", &[ROOM, ALICE], None, on_behalf("room", BOB));
    check("bob", &[ROOM, ALICE], Some(ROOM), Err(Denied::Sender(address(ROOM))));
    check("bob", &[ALICE, FRANK], Some(BOB), not_granted("bob", FRANK));
}

#[test]
fn a_reverse_path_is_null_or_of_somebody_the_user_may_send_for() {
    let directory = directory(with_permissions());
    let organization = OrganizationId::of_alias("example");
    let check = |user: &str, path: ReversePath, expected: Result<(), Denied>| {
        let may = directory.may_use_reverse_path(organization.as_str(), &entity_id(user), &path);
        assert_eq!(may, expected, "{path}");
    };
    let path = |text: &str| ReversePath::Address(address(text));
    check("bob", ReversePath::Null, Ok(()));
    check("bob", path("bob+x@example.test"), Ok(()));
    check("bob", path(ALICE), Ok(()));
    check("bob", path(ROOM), Ok(()));
    check("bob", path(FRANK), not_granted("bob", FRANK).map(|_| ()));
    check("bob", path("b@else.test"), Err(Denied::ForeignDomain(address("b@else.test"))));
    check("carol", ReversePath::Null, Err(Denied::NoSuchUser(entity_id("carol"))));
}
