use super::*;
use crate::directory::OrganizationId;
use crate::id::{EntityId, EntityKind};
use crate::organization::{Entity, JournalingSaid, User};

/// An organization with some users and, for some, journaling.
fn state(users: &[&str], has_journaling: bool) -> State {
    let id = OrganizationId::of_alias("one");
    let address = |name: &str| format!("{name}@example.test").parse().expect("an address");
    let mut state = State { alias: "one".into(), ..State::empty(id.clone()) };
    for name in users {
        let user = User {
            name: (*name).into(),
            email: Some(address(name)),
            aliases: Vec::new(),
            enabled: true,
            remote: None,
            quota_mb: 1,
        };
        let entity = EntityId::of_first(EntityKind::User, id.as_str(), name);
        state.entities.insert(entity, Arc::new(Entity::User(user)));
    }
    state.journaling = has_journaling.then(|| JournalingSaid {
        journaling_address: address("archive"),
        report_address: address("admin"),
        sender_address: None,
    });
    state
}

/// What the log has last about each thing after these states.
fn said(states: &[State]) -> BTreeMap<Box<str>, Said> {
    let mut said = BTreeMap::new();
    let mut before = None;
    for state in states {
        let organization: Arc<str> = (&state.id).into();
        for fact in difference(before, state) {
            said.insert(fact.about(), said_of(&organization, &fact));
        }
        before = Some(state);
    }
    said
}

#[test]
fn what_the_log_says_is_not_said_again() {
    let small = state(&["alice"], false);
    let large = state(&["alice", "bob"], true);
    let histories: [&[State]; 4] = [
        std::slice::from_ref(&small),
        std::slice::from_ref(&large),
        &[small.clone(), large.clone()],
        // Who left and what is off again stays in the log.
        &[large.clone(), small.clone()],
    ];
    for history in histories {
        let said = said(history);
        let last = history.last().expect("one");
        assert!(is_said(last, &said).expect("is known"), "{history:?}");
        let known = read(State::empty(last.id.clone()), said.values()).expect("is known");
        assert_eq!(&known, last);
        for other in [&small, &large, &state(&["alice"], true), &state(&["bob"], false)] {
            assert_eq!(is_said(other, &said).expect("is known"), other == last, "{other:?}");
        }
    }
}

#[test]
fn a_fact_that_is_not_known_is_told_with_its_organization() {
    let small = state(&["alice"], false);
    let mut said = said(std::slice::from_ref(&small));
    let raw = serde_json::value::RawValue::from_string(r#"{"later":1}"#.to_owned());
    let later = Said {
        organization: (&small.id).into(),
        about: "later".into(),
        format: FACT_FORMAT,
        fact: raw.expect("JSON"),
    };
    said.insert("later".into(), later);
    let told = is_said(&small, &said).expect_err("is not known").to_string();
    assert!(told.contains(small.id.as_str()), "{told}");
    assert!(told.contains("(later)") && told.contains("unknown variant `later`"), "{told}");
}
