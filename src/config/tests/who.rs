//! Who the entities of a file are, in the light of what the store knows.

use super::*;
use crate::directory::OrganizationId;
use crate::id::{EntityId, EntityKind};
use crate::store::Fact;

/// What the store knows: user carl, group team, and bob, who is gone.
struct Known {
    organization: OrganizationId,
    carl: EntityId,
    bob: EntityId,
    team: EntityId,
    register: Arc<Register>,
}

impl Known {
    fn new() -> Self {
        let organization = OrganizationId::of_alias("example");
        let id = |kind, name| EntityId::of_first(kind, organization.as_str(), name);
        let [carl, bob] = ["carl", "bob"].map(|name| id(EntityKind::User, name));
        let team = id(EntityKind::Group, "team");
        let at = crate::clock::Timestamp::default();
        let whose: Arc<str> = (&organization).into();
        let entity = |id: &EntityId, kind, name: &str| Fact::Entity {
            organization: Arc::clone(&whose),
            id: id.clone(),
            kind,
            name: name.into(),
            at,
        };
        let facts = [
            Fact::Organization { id: Arc::clone(&whose), alias: "example".into(), at },
            entity(&carl, EntityKind::User, "carl"),
            entity(&bob, EntityKind::User, "bob"),
            entity(&team, EntityKind::Group, "team"),
            Fact::Gone { organization: Arc::clone(&whose), id: bob.clone(), at },
        ];
        let register = Arc::new(facts.into_iter().collect());
        Self { organization, carl, bob, team, register }
    }

    /// An organization with these sections after its head.
    fn read(&self, head: &str, sections: &str) -> Result<Configuration, String> {
        let text = format!("{head}domains = [\"example.test\"]\n{sections}{ALICE}");
        let scratch = Scratch::new(MAIN, &text);
        let read = load_again(&scratch.main(), [], &[], &self.register);
        read.map_err(|problems| {
            let dir = format!("{}/", scratch.0.path().display());
            problems.to_string().replace(&dir, "")
        })
    }

    /// The id of somebody whom a section names, with the warnings that there are.
    fn who(&self, section: &str) -> (EntityId, Vec<String>) {
        let read = self.read(HEAD, section).expect("is fine");
        let organization = &read.organizations[0].organization;
        assert_eq!(organization.id, self.organization);
        let users = organization.users.iter().filter(|user| &*user.name != "alice");
        let users = users.map(|user| user.id.clone());
        let groups = organization.groups.iter().map(|group| group.id.clone());
        let resources = organization.resources.iter().map(|it| it.mailbox.id.clone());
        let id = users.chain(groups).chain(resources).next().expect("somebody");
        (id, read.warnings.iter().map(|warning| warning.message.clone()).collect())
    }
}

const HEAD: &str = "alias = \"example\"\npostmaster = \"alice\"\n";
const ALICE: &str = "[[user]]\nname = \"alice\"\n";

#[test]
fn somebody_is_whoever_has_the_id_or_the_name_or_had_it() {
    let known = Known::new();
    let check = |section: &str, expected: &EntityId| {
        assert_eq!(known.who(section), (expected.clone(), Vec::new()), "{section}");
    };
    check("[[user]]\nname = \"carl\"\n", &known.carl);
    check("[[user]]\nname = \"carla\"\nwas = \"carl\"\n", &known.carl);
    check("[[user]]\nname = \"carl\"\nwas = \"nobody\"\n", &known.carl);
    check(&format!("[[user]]\nname = \"x\"\nid = \"{}\"\n", known.carl), &known.carl);
    check(&format!("[[user]]\nname = \"x\"\nid = \"{}\"\n", known.bob), &known.bob);
    check("[[group]]\nname = \"team\"\nmembers = [\"alice\"]\n", &known.team);
    let brought = "S-1-1-12-1-2-3".parse().expect("an id");
    check("[[user]]\nname = \"x\"\nid = \"S-1-1-12-1-2-3\"\n", &brought);
}

#[test]
fn everybody_else_is_somebody_new() {
    let known = Known::new();
    for (section, warns) in [
        ("[[user]]\nname = \"bob\"\n", true),
        ("[[group]]\nname = \"bob\"\nmembers = [\"alice\"]\n", false),
        ("[[user]]\nname = \"erin\"\n", false),
        ("[[user]]\nname = \"erin\"\nwas = \"bob\"\n", true),
        ("[[user]]\nname = \"erin\"\nwas = \"team\"\n", true),
        ("[[user]]\nname = \"team\"\n", false),
        ("[[group]]\nname = \"carl\"\nmembers = [\"alice\"]\n", false),
        ("[[resource]]\nname = \"carl\"\nkind = \"room\"\n", false),
    ] {
        let (id, warnings) = known.who(section);
        assert!(![&known.carl, &known.bob, &known.team].contains(&&id), "{section}");
        let told = warnings.iter().any(|warning| warning.contains("somebody new"));
        assert_eq!(told, warns, "{section}: {warnings:?}");
    }
}

/// A word that was forgotten at the reload that took the name cannot be made good by itself.
#[test]
fn who_was_forgotten_is_said_with_the_id() {
    let known = Known::new();
    let (id, warnings) = known.who("[[user]]\nname = \"carl\"\nwas = \"bob\"\n");
    let told = format!("\"carl\" is somebody else by now; who is gone has id = \"{}\"", known.bob);
    assert_eq!((id, warnings), (known.carl.clone(), vec![told]));
    let id = OrganizationId::of_alias("another");
    let (of_it, at) = ((&id).into(), crate::clock::Timestamp::default());
    let another = Fact::Organization { id: of_it, alias: "another".into(), at };
    let ours = (&known.organization).into();
    let example = Fact::Organization { id: ours, alias: "example".into(), at };
    let known = Known { register: Arc::new([another, example].into_iter().collect()), ..known };
    let told = known
        .read("alias = \"another\"\nwas = \"example\"\n", "")
        .map(|_| ())
        .expect_err("who is it?");
    let expected = format!(
        "org.toml:2: was: \"another\" is another organization, and the one that was has id = \"{}\"",
        known.organization
    );
    assert!(told.contains(&expected), "{told}");
}

/// Two who swap their names by that word alone would keep each other's mail.
#[test]
fn a_word_that_points_at_somebody_else_who_is_there_is_refused() {
    let known = Known::new();
    let user = |name: &str, was: &str| format!("[[user]]\nname = \"{name}\"\nwas = \"{was}\"\n");
    let told = known.read(HEAD, &user("alice2", "carl")).map(|_| ());
    assert_eq!(told, Ok(()), "a name that is free");
    let erin = EntityId::generate(EntityKind::User);
    let whose: Arc<str> = (&known.organization).into();
    let is = |id: &EntityId, name: &str| Fact::Entity {
        organization: Arc::clone(&whose),
        id: id.clone(),
        kind: EntityKind::User,
        name: name.into(),
        at: crate::clock::Timestamp::default(),
    };
    let (id, alias) = (Arc::clone(&whose), "example".into());
    let at = crate::clock::Timestamp::default();
    let example = Fact::Organization { id, alias, at };
    let facts = [example, is(&known.carl, "carl"), is(&erin, "erin")];
    let known = Known { register: Arc::new(facts.into_iter().collect()), ..known };
    let swapped = user("carl", "erin") + &user("erin", "carl");
    let told = known.read(HEAD, &swapped).map(|_| ()).expect_err("who is who?");
    for (line, name, other) in [(6, "carl", &erin), (9, "erin", &known.carl)] {
        let expected =
            format!("\"{name}\" is somebody else, and who has that name has id = \"{other}\"");
        let place = format!("org.toml:{line}: user[");
        let problem = told.lines().find(|told| told.starts_with(&place)).expect("a problem");
        assert!(problem.contains(&expected), "{told}");
    }
}

/// Whoever comes under a leaver's name is told of, with the id of the leaver; and a `was` that has
/// stayed from the leaver's days must not give the newcomer the mailbox of a third.
#[test]
fn a_leavers_name_is_told_of_and_refused_with_the_name_of_another() {
    let known = Known::new();
    let (_, warnings) = known.who("[[user]]\nname = \"bob\"\n");
    let back = format!("id = \"{}\" would bring back who is gone", known.bob);
    assert!(warnings.len() == 1 && warnings[0].contains(&back), "{warnings:?}");
    let section = "[[user]]\nname = \"bob\"\nwas = \"carl\"\n";
    let told = known.read(HEAD, section).map(|_| ()).expect_err("who is it?");
    let expected = format!(
        "org.toml:6: user[0].was: somebody called \"bob\" is gone and has id = \"{}\", and who was has \
         id = \"{}\": say which id it is",
        known.bob, known.carl
    );
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn an_id_of_another_organization_is_refused() {
    let known = Known::new();
    let head = "alias = \"other\"\npostmaster = \"alice\"\n";
    for id in [&known.carl, &known.bob] {
        let section = format!("[[user]]\nname = \"x\"\nid = \"{id}\"\n");
        let told = known.read(head, &section).map(|_| ()).expect_err("is another's");
        let expected =
            format!("{id} is somebody of the organization example ({})", known.organization);
        assert!(told.contains(&expected), "{told}");
    }
}

#[test]
fn an_id_is_one_persons_and_of_the_kind() {
    let known = Known::new();
    let carl = &known.carl;
    for (sections, expected) in [
        (
            format!("[[user]]\nname = \"carl\"\n[[user]]\nname = \"x\"\nid = \"{carl}\"\n"),
            "org.toml:8: user[1].id: that is said of somebody else too, at org.toml:5",
        ),
        (
            "[[user]]\nname = \"carl\"\n[[user]]\nname = \"x\"\nwas = \"carl\"\n".to_owned(),
            "org.toml:8: user[1].was: that is said of somebody else too, at org.toml:5",
        ),
        (
            format!("[[group]]\nname = \"x\"\nmembers = [\"alice\"]\nid = \"{carl}\"\n"),
            "is the id of user carl",
        ),
        (
            "[[resource]]\nname = \"x\"\nkind = \"room\"\nid = \"S-1-1-12-1\"\n".to_owned(),
            "S-1-1-12-1 cannot be the id of a resource",
        ),
    ] {
        let told = known.read(HEAD, &sections).expect_err("is wrong");
        assert!(told.contains(expected), "{sections}: {told}");
    }
}

#[test]
fn an_organization_is_whichever_has_the_alias_or_had_it() {
    let known = Known::new();
    let id = |head: &str| {
        let read = known.read(head, "").expect("is fine");
        read.organizations[0].organization.id.clone()
    };
    assert_eq!(id("alias = \"example\"\n"), known.organization);
    assert_eq!(id("alias = \"other\"\nwas = \"example\"\n"), known.organization);
    assert_eq!(id("alias = \"other\"\n"), OrganizationId::of_alias("other"));
    assert_eq!(id("alias = \"other\"\nwas = \"nobody\"\n"), OrganizationId::of_alias("other"));
    // Whoever had the alias first has another now.
    let (id_of_first, at) = ((&known.organization).into(), crate::clock::Timestamp::default());
    let renamed = Fact::Organization { id: id_of_first, alias: "renamed".into(), at };
    let known = Known { register: Arc::new([renamed].into_iter().collect()), ..known };
    let read = known.read("alias = \"example\"\n", "").expect("is fine");
    assert_ne!(read.organizations[0].organization.id, known.organization);
}
