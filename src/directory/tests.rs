mod permission;

use std::sync::Arc;

use super::*;
use crate::id::{EntityId, EntityKind};
use crate::mail::{Address, Domain};

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn entity_id(name: &str) -> EntityId {
    EntityId::of_first(EntityKind::User, OrganizationId::of_alias("example").as_str(), name)
}

fn user(name: &str, aliases: &[&str], state: EntityState) -> User {
    User {
        id: entity_id(name),
        name: name.into(),
        email: address(&format!("{name}@example.test")),
        aliases: aliases.iter().map(|alias| address(alias)).collect(),
        state,
        quota_mb: 1,
    }
}

pub(super) fn group(name: &str, members: &[&str]) -> Group {
    Group {
        id: entity_id(name),
        name: name.into(),
        email: address(&format!("{name}@example.test")),
        aliases: vec![],
        members: members.iter().map(|&member| member.into()).collect(),
        is_enabled: true,
    }
}

fn organization() -> Organization {
    Organization {
        id: OrganizationId::of_alias("example"),
        alias: "example".into(),
        domains: ["example.test", "bücher.test"]
            .map(|domain| Domain::parse(domain).expect("a domain"))
            .into(),
        plus_addressing: true,
        postmaster: "alice".into(),
        reserved: address("amazonjournaling@example.test"),
        users: vec![
            user("alice", &["a.liddell@bücher.test", "a+b@example.test"], EntityState::Enabled),
            user("bob", &[], EntityState::Enabled),
            user("carol", &[], EntityState::Disabled),
            user("dave", &[], EntityState::Remote(address("dave@else.test"))),
            user("erin", &[], EntityState::Remote(address("erin@else.test"))),
        ],
        groups: vec![
            group("sales", &["alice", "emea", "carol", "dave", "nobody"]),
            group("emea", &["bob", "sales", "alice"]),
            group("empty", &["carol", "empty"]),
            Group { is_enabled: false, ..group("closed", &["alice"]) },
            group("outside", &["dave", "beyond", "outside"]),
            group("beyond", &["outside", "erin", "dave"]),
        ],
        resources: vec![Resource {
            mailbox: user("room", &[], EntityState::Enabled),
            kind: ResourceKind::Room,
        }],
        permissions: vec![],
    }
}

/// The organization, for whoever looks into it.
pub(super) fn indexed() -> Arc<IndexedOrganization> {
    IndexedOrganization::new(Arc::new(organization())).expect("no conflicts")
}

fn directory(organization: Organization) -> Directory {
    let indexed = IndexedOrganization::new(Arc::new(organization)).expect("no conflicts");
    Directory::new(vec![indexed]).expect("no conflicts")
}

/// Mailboxes by their names, then remote users by where they are.
fn check(text: &str, expected: Result<&[&str], ResolveError>) {
    let directory = directory(organization());
    let resolved = directory.resolve(&address(text), 10).map(|resolved| {
        let names = resolved.members.iter().map(|member| member.name.to_string());
        let elsewhere = resolved.remote.iter().map(|remote| remote.forward_to.to_string());
        names.chain(elsewhere).collect::<Vec<_>>()
    });
    let expected = expected.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(resolved, expected, "{text}");
}

#[test]
fn an_address_leads_to_its_mailboxes() {
    check("ALICE@Example.test", Ok(&["alice"]));
    check("a.liddell@xn--bcher-kva.test", Ok(&["alice"]));
    check("bob+shop@example.test", Ok(&["bob"]));
    check("a+b@example.test", Ok(&["alice"]));
    check("room@example.test", Ok(&["room"]));
    check("Postmaster@bücher.test", Ok(&["alice"]));
    check("Abuse@example.test", Ok(&["alice"]));
    check("abuse@bücher.test", Ok(&["alice"]));
    check("hostmaster@example.test", Err(ResolveError::Unknown));
    check("sales@example.test", Ok(&["alice", "bob", "dave@else.test"]));
    check("carol@example.test", Err(ResolveError::Disabled));
    check("closed@example.test", Err(ResolveError::Disabled));
    check("dave@example.test", Ok(&["dave@else.test"]));
    check("dave+tag@example.test", Ok(&["dave@else.test"]));
    check("outside@example.test", Ok(&["dave@else.test", "erin@else.test"]));
    check("beyond@example.test", Ok(&["erin@else.test", "dave@else.test"]));
    check("empty@example.test", Err(ResolveError::EmptyGroup));
    check("nobody@example.test", Err(ResolveError::Unknown));
    check("alice@bücher.test", Err(ResolveError::Unknown));
    check("alice@other.test", Err(ResolveError::NotOurDomain));
}

#[test]
fn a_group_is_opened_within_a_limit_and_remembers_its_address() {
    let directory = directory(organization());
    let sales = address("sales@example.test");
    assert_eq!(directory.resolve(&sales, 2).err(), Some(ResolveError::GroupTooLarge));
    let resolved = directory.resolve(&sales, 3).expect("three are allowed");
    assert_eq!(resolved.expanded_from, Some(sales.clone()));
    assert_eq!(
        *resolved.remote,
        [RemoteMember {
            id: entity_id("dave"),
            address: address("dave@example.test"),
            forward_to: address("dave@else.test"),
        }]
    );
    let alone = directory.resolve(&address("dave@example.test"), 1).expect("one");
    assert_eq!(alone.expanded_from, None);
    // Whatever was found out within another limit.
    assert_eq!(directory.resolve(&sales, 2).err(), Some(ResolveError::GroupTooLarge));
}

/// Hundreds of recipients that are the same group, under a tag each or an alias, hold its members
/// once, and so do all transactions; until the organization is another.
#[test]
fn what_a_group_comes_to_is_shared() {
    let mut organization = organization();
    organization.groups[0].aliases.push(address("staff@example.test"));
    let directory = directory(organization.clone());
    let resolve = |text: &str| directory.resolve(&address(text), 10).expect("it has members");
    let first = resolve("sales@example.test");
    for text in
        ["sales@example.test", "Sales+1@example.test", "sales+2@example.test", "staff@example.test"]
    {
        let again = resolve(text);
        assert!(Arc::ptr_eq(&first.members, &again.members), "{text}");
        assert!(Arc::ptr_eq(&first.remote, &again.remote), "{text}");
        assert_eq!(again.expanded_from, Some(address(text)), "each has its own address");
    }
    let nested = resolve("emea@example.test");
    assert!(!Arc::ptr_eq(&first.members, &nested.members), "another group is another list");
    organization.groups[0].members.pop();
    organization.groups[0].members.retain(|name| **name != *"dave");
    let changed = self::directory(organization).resolve(&address("sales@example.test"), 10);
    assert!(changed.expect("it has members").remote.is_empty(), "a change is seen");
}

#[test]
fn plus_addressing_can_be_off() {
    let organization = Organization { plus_addressing: false, ..organization() };
    let directory = directory(organization);
    let unknown = directory.resolve(&address("bob+shop@example.test"), 10);
    assert_eq!(unknown.err(), Some(ResolveError::Unknown));
}

#[test]
fn a_rule_may_name_somebody_by_other_addresses() {
    let off = Organization { plus_addressing: false, ..organization() };
    let (on, off) = (directory(organization()), directory(off));
    let check = |directory: &Directory, text: &str, expected: &[&str]| {
        assert_eq!(directory.other_keys(&address(text)), expected, "{text}");
    };
    check(&on, "Bob+shop@example.test", &["bob@example.test"]);
    check(&off, "bob+shop@example.test", &[]);
    check(&on, "\"bob+a b\"@bücher.test", &["bob@xn--bcher-kva.test"]);
    check(&on, "bob@example.test", &[]);
    // Somebody has this address as it stands.
    check(&on, "a+b@example.test", &["alice@example.test"]);
    check(&on, "A.Liddell@bücher.test", &["alice@example.test"]);
    check(&on, "a.liddell+x@bücher.test", &["a.liddell@xn--bcher-kva.test", "alice@example.test"]);
    check(&on, "postmaster@bücher.test", &["alice@example.test"]);
    check(&on, "sales+x@example.test", &["sales@example.test"]);
    check(&on, "dave+x@example.test", &["dave@example.test"]);
    check(&on, "nobody@example.test", &[]);
    // Whether a system elsewhere has tags is not known.
    check(&on, "bob+shop@else.test", &["bob@else.test"]);
    check(&off, "bob+shop@else.test", &["bob@else.test"]);
}

#[test]
fn a_login_names_a_user_exactly() {
    let check = |directory: &Directory, name: &str, expected: Option<&str>| {
        let found = directory.user_for_login(name).map(|(_, user)| &*user.name);
        assert_eq!(found, expected, "{name}");
    };
    let one = directory(organization());
    check(&one, "Alice@EXAMPLE.test", Some("alice"));
    check(&one, "a.liddell@xn--bcher-kva.test", Some("alice"));
    check(&one, "alice", Some("alice"));
    check(&one, "carol", Some("carol"));
    for nobody in ["bob+shop@example.test", "postmaster@example.test", "sales", "room"] {
        check(&one, nobody, None);
    }
    for nobody in ["sales@example.test", "room@example.test", "alice@other.test", "", "@"] {
        check(&one, nobody, None);
    }
    let domains = vec![Domain::parse("other.test").expect("a domain")];
    let mut second = Organization {
        alias: "other".into(),
        id: OrganizationId::of_alias("other"),
        domains,
        ..organization()
    };
    // bob and carol are users of the first alone, zoe of the second; alice and sales of both, the
    // one as a user with another capital, the other as a user and a group.
    second.users.retain(|user| &*user.name == "alice");
    for name in ["Zoe", "sales"] {
        let id = entity_id(name);
        second.users.push(User { id, name: name.into(), ..second.users[0].clone() });
    }
    second.users[0].name = "Alice".into();
    for user in &mut second.users {
        let local_part = user.name.to_lowercase();
        user.email = Address::from_parts(&local_part, "other.test").expect("an address");
        user.aliases.clear();
    }
    second.groups.clear();
    second.resources.clear();
    second.permissions.clear();
    let both = [organization(), second].map(Arc::new).map(IndexedOrganization::new);
    let both = both.into_iter().map(|indexed| indexed.expect("no conflicts within")).collect();
    let two = Directory::new(both).expect("no conflicts between");
    check(&two, "alice@example.test", Some("alice"));
    for shared in ["alice", "Alice", "ALICE"] {
        check(&two, shared, None);
    }
    check(&two, "Alice@other.test", Some("Alice"));
    check(&two, "bob", Some("bob"));
    check(&two, "Zoe", Some("Zoe"));
    check(&two, "zoe", None);
    check(&two, "sales", Some("sales"));
    let shared = two.shared_names();
    assert_eq!(
        shared.into_iter().collect::<Vec<_>>(),
        [("alice".to_owned(), vec!["example", "other"])]
    );
    let first = OrganizationId::of_alias("example");
    for (name, has_one) in [("alice", true), ("Alice", true), ("bob", false), ("zoe", true)] {
        assert_eq!(two.has_namesake(&first, name), has_one, "{name}");
    }
    assert!(one.shared_names().is_empty());
    let domains = ["eve@example.test", "eve@other.test", "eve@else.test", "eve"];
    let found = domains.map(|name| two.organization_for_login(name).map(|it| it.alias.as_str()));
    assert_eq!(found, [Some("example"), Some("other"), None, None]);
}

#[test]
fn what_two_claim_is_told() {
    let mut first = organization();
    first.users.push(user("bob", &["sales@example.test"], EntityState::Enabled));
    first.users.push(user("amazonjournaling", &[], EntityState::Enabled));
    let second = Organization {
        alias: "other".into(),
        id: OrganizationId::of_alias("other"),
        users: vec![],
        groups: vec![],
        resources: vec![],
        ..organization()
    };
    let mut conflicts = IndexedOrganization::new(Arc::new(first)).expect_err("conflicts");
    let both = [organization(), second].map(Arc::new).map(IndexedOrganization::new);
    let both = both.into_iter().map(|indexed| indexed.expect("no conflicts within")).collect();
    conflicts.extend(Directory::new(both).expect_err("conflicts between"));
    let told: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    for expected in [
        "the name bob belongs to user bob and to user bob",
        "the address bob@example.test belongs to user bob and to user bob",
        "the address sales@example.test belongs to user bob and to group sales",
        "the reserved journaling address amazonjournaling@example.test belongs to the organization \
         and to user amazonjournaling",
        "domain example.test belongs to organization example and to organization other",
    ] {
        assert!(told.iter().any(|told| told == expected), "{expected} is not in {told:#?}");
    }
}

#[test]
fn an_id_has_the_form_that_workmail_uses() {
    let id = OrganizationId::of_alias("example");
    assert_eq!(OrganizationId::parse(id.as_str()), Some(id));
    assert_eq!(OrganizationId::parse("m-123"), None);
}
