//! States and facts of all shapes: what is written is read again, and facts lead from any state to any
//! other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};

use super::*;
use crate::directory::{AccessEffect, AccessProtocol, OrganizationId, ResourceKind};
use crate::id::{EntityId, EntityKind};
use crate::mail::{Address, Domain};
use crate::rules::mailbox::{
    AddressTest, Condition, Fold, MailboxAction, MailboxRule, MailboxRules, TextTest,
};
use crate::rules::{Action, InboundAction, OutboundAction, Pattern, Rule};
use crate::store::Folder;

/// So few that states have many of them in common.
const PEOPLE: usize = 6;

fn id(number: usize) -> EntityId {
    EntityId::of_first(EntityKind::ALL[number % 3], "m-1", &number.to_string())
}

fn ids() -> impl Strategy<Value = EntityId> {
    (0..PEOPLE).prop_map(id)
}

fn addresses() -> impl Strategy<Value = Address> {
    const TEXTS: [&str; 4] =
        ["a@example.test", "B.c@example.test", "\"x y\"@example.org", "ü@xn--bcher-kva.test"];
    prop::sample::select(&TEXTS[..]).prop_map(|text| Address::parse(text).expect("an address"))
}

fn names() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(&["alice", "bob", "Carl Ü"][..]).prop_map(Into::into)
}

fn user() -> impl Strategy<Value = User> {
    let addressed = (option::of(addresses()), vec(addresses(), 0..3));
    (names(), addressed, any::<bool>(), option::of(addresses()), 1..3_u64).prop_map(
        |(name, (email, aliases), enabled, remote, quota_mb)| User {
            name,
            email,
            aliases,
            enabled,
            remote,
            quota_mb,
        },
    )
}

fn entity(number: usize) -> BoxedStrategy<Entity> {
    match EntityKind::ALL[number % 3] {
        EntityKind::User => user().prop_map(Entity::User).boxed(),
        EntityKind::Group => (user(), vec(ids(), 0..3))
            .prop_map(|(like, members)| {
                let User { name, email, aliases, enabled, .. } = like;
                Entity::Group(Group { name, email, aliases, enabled, members })
            })
            .boxed(),
        EntityKind::Resource => {
            let kinds = prop::sample::select(&[ResourceKind::Room, ResourceKind::Equipment][..]);
            (user(), kinds)
                .prop_map(|(mailbox, kind)| Entity::Resource(Resource { mailbox, kind }))
                .boxed()
        }
    }
}

fn entities() -> impl Strategy<Value = Entities> {
    let each: Vec<_> = (0..PEOPLE).map(|number| option::of(entity(number))).collect();
    each.prop_map(|each| {
        let mut entities = Entities::default();
        for (number, entity) in each.into_iter().enumerate() {
            entity.into_iter().for_each(|entity| entities.insert(id(number), Arc::new(entity)));
        }
        entities
    })
}

fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
    const TEXTS: [&str; 4] = ["*", "a@example.test", "example.test", "*.example.test"];
    let one = prop::sample::select(&TEXTS[..]);
    vec(one.prop_map(|text| Pattern::parse(text).expect("a pattern")), 1..3)
}

fn rules<A: Action + 'static>(actions: Vec<A>) -> impl Strategy<Value = Vec<Rule<A>>> {
    let rule = (names(), prop::sample::select(actions), patterns(), patterns());
    let rule = rule.prop_map(|(name, action, senders, destinations)| Rule {
        name,
        action,
        senders,
        destinations,
    });
    vec(rule, 0..3)
}

fn outbound_actions() -> Vec<OutboundAction> {
    let gateway = "filter".into();
    let routed = OutboundAction::RouteToSmtpGateway { gateway };
    vec![OutboundAction::Default, OutboundAction::Drop, OutboundAction::Bounce, routed]
}

fn conditions() -> Vec<Condition> {
    let address = Address::parse("a@example.test").expect("an address");
    let domain = address.domain().clone();
    vec![
        Condition::Sender(AddressTest::Contains(Fold::new("News"))),
        Condition::Recipient(AddressTest::Equals(address)),
        Condition::Sender(AddressTest::Domain(domain)),
        Condition::Subject(TextTest::Equals(Fold::new("ÜBER"))),
        Condition::Header("List-Id".into(), TextTest::Contains(Fold::new("x"))),
    ]
}

fn mailbox_actions() -> Vec<MailboxAction> {
    let address = || Address::parse("a@example.test").expect("an address");
    vec![
        MailboxAction::Move(Folder::JunkEmail),
        MailboxAction::Copy(Folder::Drafts),
        MailboxAction::Forward(address()),
        MailboxAction::Redirect(address()),
        MailboxAction::Delete,
    ]
}

fn mailbox_rules() -> impl Strategy<Value = Arc<MailboxRules>> {
    let conditions = prop::sample::subsequence(conditions(), 0..=5);
    let rule = (prop::sample::select(mailbox_actions()), conditions, any::<bool>());
    vec(rule, 1..3).prop_map(|rules| {
        let mut read = Vec::new();
        for (number, (action, conditions, stop)) in rules.into_iter().enumerate() {
            let name = format!("rule {number}").into();
            read.push(MailboxRule { name, conditions, action, stop });
        }
        Arc::new(MailboxRules::new(read).expect("a name each"))
    })
}

fn rights() -> impl Strategy<Value = Rights> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(full_access, send_as, send_on_behalf)| Rights { full_access, send_as, send_on_behalf },
    )
}

fn gateways() -> impl Strategy<Value = BTreeMap<Arc<str>, GatewaySaid>> {
    let hosts = prop::sample::select(&["192.0.2.1", "2001:db8::1", "filter.example.test"][..]);
    let one = (hosts, 1..3_u16, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(host, port, implicit_tls, is_full)| GatewaySaid {
        host: host.parse().expect("a host"),
        port,
        implicit_tls,
        login: is_full.then(|| LoginSaid {
            user_name: "me".to_owned(),
            password: SecretAt::File("/etc/mailweir/filter.password".into()),
        }),
        authorities: is_full.then(|| Authorities::File("/etc/mailweir/ca.pem".into())),
    });
    btree_map(names(), one, 0..3)
}

fn access() -> impl Strategy<Value = Vec<AccessSaid>> {
    let networks = prop::sample::subsequence(vec!["192.0.2.0/24", "2001:db8::/32"], 0..=2);
    let networks = networks
        .prop_map(|texts| texts.into_iter().map(|text| text.parse().expect("a network")).collect());
    let protocols = || btree_set(prop::sample::select(&AccessProtocol::ALL[..]), 0..3);
    let effects = prop::sample::select(&[AccessEffect::Allow, AccessEffect::Deny][..]);
    let described = option::of(Just("for people".into()));
    let rule = (names(), effects, described, protocols(), networks, btree_set(ids(), 0..3));
    let rule =
        rule.prop_map(|(name, effect, description, protocols, networks, users)| AccessSaid {
            name,
            effect,
            description,
            not_protocols: protocols.clone(),
            protocols,
            ip_ranges: networks,
            not_ip_ranges: ["198.51.100.0/24".parse().expect("a network")].into(),
            not_users: users.clone(),
            users,
        });
    vec(rule, 0..3)
}

fn mail() -> impl Strategy<Value = MailSettings> {
    let blocked = prop::sample::subsequence(vec!["exe", "js"], 0..=2);
    let blocked = blocked.prop_map(|texts| {
        Blocked(texts.into_iter().map(|text| text.parse().expect("an extension")).collect())
    });
    let answers = prop::sample::select(&[OnReject::Reject, OnReject::Drop][..]);
    let quota = || option::of(0..3_u64);
    let quotas = (quota(), quota(), quota());
    (any::<bool>(), any::<bool>(), option::of(answers), quotas, option::of(blocked)).prop_map(
        |(plus_addressing, dmarc_enforcement, on_reject, quotas, blocked_attachments)| {
            let (per_user, per_organization, inside_per_user) = quotas;
            let quotas = OwnQuotas { per_user, per_organization, inside_per_user };
            MailSettings {
                plus_addressing,
                dmarc_enforcement,
                on_reject,
                quotas,
                blocked_attachments,
            }
        },
    )
}

fn retention() -> impl Strategy<Value = BTreeMap<Folder, FolderRule>> {
    let rule = (prop::sample::select(&FolderAction::ALL[..]), option::of(1..3_u16));
    let rule = rule.prop_map(|(action, period_days)| FolderRule { action, period_days });
    btree_map(prop::sample::select(&Folder::ALL[..]), rule, 0..3)
}

fn journaling() -> impl Strategy<Value = JournalingSaid> {
    (addresses(), addresses(), option::of(addresses())).prop_map(
        |(journaling_address, report_address, sender_address)| JournalingSaid {
            journaling_address,
            report_address,
            sender_address,
        },
    )
}

fn domains() -> impl Strategy<Value = Vec<MailDomain>> {
    let all = vec!["example.test", "example.org", "[192.0.2.1]"];
    prop::sample::subsequence(all, 0..=3).prop_map(|texts| {
        let domain = |text: &str| MailDomain { name: Domain::parse(text).expect("a domain") };
        texts.into_iter().map(domain).collect()
    })
}

fn states() -> impl Strategy<Value = State> {
    let people = (
        entities(),
        btree_map(ids(), mailbox_rules(), 0..3),
        option::of(ids()),
        btree_map(ids(), btree_map(ids(), rights(), 1..3), 0..3),
    );
    let flow = (rules(InboundAction::ALL.to_vec()), rules(outbound_actions()), gateways());
    let settings = (access(), retention(), option::of(journaling()), mail());
    let files = option::of(Just(PathBuf::from("/etc/mailweir/example-org.toml")));
    (names(), domains(), people, flow, settings, files).prop_map(
        |(alias, domains, people, flow, settings, managed)| {
            let (entities, mailbox_rules, postmaster, permissions) = people;
            let (inbound_rules, outbound_rules, gateways) = flow;
            let (access, retention, journaling, mail) = settings;
            State {
                id: OrganizationId::of_alias("one"),
                alias,
                domains,
                entities,
                mailbox_rules,
                postmaster,
                permissions,
                inbound_rules,
                outbound_rules,
                gateways,
                access,
                retention,
                journaling,
                mail,
                managed,
            }
        },
    )
}

fn assigned(state: &State, facts: impl IntoIterator<Item = Fact>) -> State {
    let mut state = state.clone();
    facts.into_iter().for_each(|fact| assign(&mut state, fact));
    state
}

proptest! {
    #[test]
    fn every_state_is_read_as_it_is_written(state in states()) {
        let text = serde_json::to_string(&state).expect("JSON");
        let read: State = serde_json::from_str(&text).expect("reads");
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        for fact in difference(None, &state) {
            let text = serde_json::to_string(&fact).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Fact>(&text).expect("reads"), fact);
        }
    }

    #[test]
    fn assigned_differences_make_the_new_state(one in states(), other in states()) {
        let facts = difference(Some(&one), &other);
        let mut things: Vec<_> = facts.iter().map(Fact::about).collect();
        things.sort_unstable();
        things.dedup();
        prop_assert_eq!(things.len(), facts.len(), "one fact about each thing");
        prop_assert_eq!(assigned(&one, facts.clone()), other.clone());
        prop_assert_eq!(assigned(&one, facts.into_iter().rev()), other.clone());
        prop_assert_eq!(difference(Some(&other), &other), vec![]);
        let empty = State::empty(other.id.clone());
        prop_assert_eq!(assigned(&empty, difference(None, &other)), other);
    }

    #[test]
    fn the_last_fact_about_each_thing_is_the_state(all in vec(states(), 1..5)) {
        let mut last = BTreeMap::new();
        let mut before: Option<&State> = None;
        for state in &all {
            for fact in difference(before, state) {
                last.insert(fact.about(), fact);
            }
            before = Some(state);
        }
        let state = before.expect("one at least");
        let present: BTreeMap<_, _> =
            difference(None, state).into_iter().map(|fact| (fact.about(), fact)).collect();
        // Who is gone, and what is off again, are what may stand beside it.
        let others = last.iter().filter(|(about, _)| !present.contains_key(*about));
        let others: Vec<_> = others.map(|(_, fact)| fact.clone()).collect();
        let empty = State::empty(state.id.clone());
        prop_assert_eq!(&assigned(&empty, others), &empty);
        prop_assert_eq!(&assigned(&State::empty(state.id.clone()), last.into_values()), state);
    }

    #[test]
    fn every_fact_can_be_told(one in states(), other in states()) {
        let facts = difference(Some(&one), &other);
        let names = Names::new(&one, &facts);
        for fact in &facts {
            let told = words(fact, &names);
            let is_whole = !told.is_empty() && !told.ends_with(": ");
            let is_new = matches!(fact, Fact::Entity { entity, .. } if entity.email().is_none());
            prop_assert!(is_whole || is_new, "{fact:?}: {told:?}");
        }
    }
}

/// A state that has something everywhere.
fn full() -> State {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let is_full = |state: &State| {
        let is_some = [state.postmaster.is_some(), state.journaling.is_some()];
        let are_full = [
            state.entities.iter().count() == PEOPLE,
            !state.mailbox_rules.is_empty() && !state.permissions.is_empty(),
            !state.inbound_rules.is_empty() && !state.outbound_rules.is_empty(),
            state.gateways.values().any(|gateway| gateway.login.is_some()),
            !state.access.is_empty() && !state.retention.is_empty() && !state.domains.is_empty(),
            state.mail.blocked_attachments.is_some() && state.managed.is_some(),
        ];
        is_some.iter().chain(&are_full).all(|is| *is)
    };
    loop {
        let state = states().new_tree(runner).expect("one").current();
        if is_full(&state) {
            return state;
        }
    }
}

#[test]
fn what_is_not_known_is_refused_wherever_it_stands() {
    fn objects(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    objects(value, format!("{path}/{name}"), found);
                }
                found.push(path);
            }
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    objects(item, format!("{path}/{number}"), found);
                }
            }
            _ => {}
        }
    }
    let state = full();
    let value = serde_json::to_value(&state).expect("JSON");
    let mut paths = Vec::new();
    objects(&value, String::new(), &mut paths);
    assert!(paths.len() > 30, "{paths:#?}");
    for path in paths {
        let mut later = value.clone();
        let fields = later.pointer_mut(&path).and_then(Value::as_object_mut).expect("an object");
        fields.insert("later".into(), json!(1));
        assert!(serde_json::from_value::<State>(later).is_err(), "{path}");
    }
    for fact in difference(None, &state) {
        let value = serde_json::to_value(&fact).expect("JSON");
        let mut paths = Vec::new();
        objects(&value, String::new(), &mut paths);
        for path in paths {
            let mut later = value.clone();
            let fields = later.pointer_mut(&path).and_then(Value::as_object_mut).expect("one");
            fields.insert("later".into(), json!(1));
            assert!(serde_json::from_value::<Fact>(later).is_err(), "{path} of {value}");
        }
    }
}

#[test]
fn a_change_is_told_in_words() {
    let person = |name: &str| User {
        name: name.into(),
        email: Address::parse(&format!("{name}@example.test")).ok(),
        aliases: Vec::new(),
        enabled: true,
        remote: None,
        quota_mb: 10,
    };
    let mut old = State::empty(OrganizationId::of_alias("one"));
    old.alias = "one".into();
    let alice = id(0);
    let team = id(1);
    let bob = id(3);
    old.entities.insert(alice.clone(), Arc::new(Entity::User(person("alice"))));
    let members = vec![alice.clone()];
    let User { name, email, aliases, enabled, .. } = person("team");
    let group = Group { name, email, aliases, enabled, members };
    old.entities.insert(team.clone(), Arc::new(Entity::Group(group.clone())));
    let check = |change: &dyn Fn(&mut State), expected: &[&str]| {
        let mut new = old.clone();
        change(&mut new);
        let facts = difference(Some(&old), &new);
        let names = Names::new(&old, &facts);
        let told: Vec<_> = facts.iter().map(|fact| words(fact, &names)).collect();
        assert_eq!(told, expected);
    };
    let put = |state: &mut State, id: &EntityId, entity: Entity| {
        state.entities.insert(id.clone(), Arc::new(entity));
    };
    check(
        &|new| {
            let mut user = person("alice");
            user.quota_mb = 20;
            user.enabled = false;
            put(new, &alice, Entity::User(user));
        },
        &["user alice changed: disabled; quota 20 MB, was 10 MB"],
    );
    check(
        &|new| {
            put(new, &bob, Entity::User(person("bob")));
            let members = vec![alice.clone(), bob.clone()];
            put(new, &team, Entity::Group(Group { members, ..group.clone() }));
        },
        &["user bob added: bob@example.test", "group team changed: members bob added"],
    );
    check(
        &|new| put(new, &alice, Entity::User(person("liz"))),
        &["user liz changed: was alice; email"],
    );
    check(&|new| new.entities.remove(&alice), &["user alice left"]);
    check(&|new| new.alias = "two".into(), &["called two, not one any more"]);
}

#[test]
fn a_change_of_rules_is_told_by_their_names() {
    let mut old = State::empty(OrganizationId::of_alias("one"));
    let rule = |name: &str| Rule {
        name: name.into(),
        action: InboundAction::Drop,
        senders: vec![Pattern::Star],
        destinations: vec![Pattern::Star],
    };
    old.inbound_rules = vec![rule("a"), rule("b")];
    let check = |rules: Vec<Rule<InboundAction>>, expected: &str| {
        let fact = Fact::InboundRules(rules);
        assert_eq!(words(&fact, &Names::new(&old, &[])), expected);
    };
    check(vec![rule("a"), rule("b"), rule("c")], "inbound rules: c added");
    check(vec![rule("b"), rule("a")], "inbound rules: in another order");
    let another = Rule { action: InboundAction::Bounce, ..rule("a") };
    check(vec![another, rule("c")], "inbound rules: c added; a changed; b removed");
}
