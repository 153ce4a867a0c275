use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::clock::ManualClock;
use crate::directory::credential::new_token;
use crate::directory::{AccessRule, AccessRules, Group, IndexedOrganization, Organization, User};
use crate::events::audit::ArnSettings;
use crate::id::{EntityId, EntityKind};
use crate::mail::Address;
use crate::pipeline::facts::settings::{RecipientQuotas, Settings};
use crate::pipeline::facts::snapshot::Policy;
use crate::rules::RuleSet;
use crate::store::{NewToken, Token};

const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_123);
const RIGHT: &str = "Lemon-tree1";
const WRONG: &str = "Lemon-tree2";
const ALICE: &str = "alice@example.test";
const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    dir: tempfile::TempDir,
    store: Arc<CredentialStore>,
    clock: Arc<ManualClock>,
    snapshot: Snapshot,
    logins: Arc<Logins>,
}

/// The id of whoever has a name first in the organization.
fn id(name: &str) -> EntityId {
    EntityId::of_first(EntityKind::User, OrganizationId::of_alias("example").as_str(), name)
}

fn user(name: &str, state: EntityState) -> User {
    let address = |name: &str| Address::from_parts(name, "example.test").expect("an address");
    let (email, aliases) = (address(name), vec![address(&format!("{name}.alias"))]);
    User { id: id(name), name: name.into(), email, aliases, state, quota_mb: 1 }
}

fn organization() -> Organization {
    let address = |text| Address::parse(text).expect("an address");
    Organization {
        id: OrganizationId::of_alias("example"),
        alias: "example".into(),
        domains: vec!["example.test".parse().expect("a domain")],
        plus_addressing: true,
        postmaster: "alice".into(),
        reserved: address("amazonjournaling@example.test"),
        users: vec![
            user("alice", EntityState::Enabled),
            user("bob", EntityState::Enabled),
            user("carol", EntityState::Disabled),
            user("dave", EntityState::Remote(address("dave@else.test"))),
        ],
        groups: vec![Group {
            id: id("sales"),
            name: "sales".into(),
            email: address("sales@example.test"),
            aliases: vec![],
            members: vec!["alice".into()],
            is_enabled: true,
        }],
        resources: vec![],
        permissions: vec![],
    }
}

fn snapshot(access: AccessRules) -> Snapshot {
    let organization = organization();
    let policy = Policy {
        rules: Arc::new(RuleSet::default()),
        outbound_rules: Arc::default(),
        gateways: HashMap::new(),
        mailbox_rules: Arc::default(),
        blocked_attachments: Arc::default(),
        recipient_quotas: RecipientQuotas::default(),
        journaling: None,
        dmarc_enforcement: true,
        on_reject: None,
        access: Arc::new(access),
    };
    let policies = HashMap::from([(organization.id.clone(), policy)]);
    let indexed = IndexedOrganization::new(Arc::new(organization)).expect("no conflicts");
    let directory = Directory::new(vec![indexed]).expect("no conflicts");
    Snapshot { version: 1, directory, policies, settings: Settings::default(), scanner: None }
}

fn owner(user: &str) -> MailboxOwner {
    let organization = OrganizationId::of_alias("example").as_str().into();
    MailboxOwner { organization, entity: id(user) }
}

impl Scene {
    fn new() -> Self {
        Self::with(AccessRules::default())
    }

    /// Everybody but bob has the same password.
    fn with(access: AccessRules) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Arc::new(CredentialStore::open(dir.path()).expect("opens"));
        let hash = PasswordHash::of(&Secret::new(RIGHT.into())).expect("hashes");
        for name in ["alice", "carol", "dave", "sales", ""] {
            store.set_password(&owner(name), hash.as_str(), NOW).expect("writes");
        }
        let (events, arns) = (crate::events::Settings::default(), ArnSettings::default());
        let audit = AuditLog::open(&dir.path().join("audit"), events, arns);
        let clock = Arc::new(ManualClock::new(NOW));
        let audit = Arc::new(audit.expect("opens"));
        let logins =
            Arc::new(Logins::new(Arc::clone(&store), audit, Arc::clone(&clock) as Arc<dyn Clock>));
        Self { dir, store, clock, snapshot: snapshot(access), logins }
    }

    async fn login(&self, name: &str, password: &str) -> Result<Login, Reason> {
        self.login_from("192.0.2.1", name, password).await
    }

    async fn login_from(&self, ip: &str, name: &str, password: &str) -> Result<Login, Reason> {
        let peer = peer(ip);
        let credentials = credentials(name, password);
        let login =
            self.logins.authenticate(&self.snapshot, TraceId::generate(), &peer, credentials);
        login.await.map_err(|denied| denied.reason)
    }

    fn new_token(&self, user: &str, expires_at: Option<Timestamp>) -> (String, Token) {
        let secret = new_token().expect("random");
        let hash = token_hash(&secret);
        let new = NewToken { hash, name: "phone", created_at: NOW, expires_at };
        let token = self.store.add_token(&owner(user), new).expect("adds");
        (secret.expose().to_owned(), token)
    }

    /// All lines about access and about logins, when no more will come.
    fn audit_of_both(self) -> (Vec<Value>, Vec<Value>) {
        drop(self.logins);
        let log = |kind: &str| lines(&self.dir.path().join("audit").join(format!("{kind}.jsonl")));
        (log("access-control"), log("authentication"))
    }

    /// All lines of a log, when no more will come.
    fn audit(self, kind: &str) -> Vec<Value> {
        drop(self.logins);
        lines(&self.dir.path().join("audit").join(format!("{kind}.jsonl")))
    }
}

fn peer(ip: &str) -> Peer {
    let ip = ip.parse().expect("an address");
    Peer { ip, port: 40_000, helo: "client.test".into(), esmtp: true, tls: None, login: None }
}

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials { user_name: name.into(), password: Secret::new(password.into()) }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("reads");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn told<'a>(lines: &'a [Value], key: &str) -> Vec<&'a Value> {
    lines.iter().map(|line| &line[key]).collect()
}

#[tokio::test]
async fn the_right_password_lets_a_user_in_by_each_name() {
    let scene = Scene::new();
    let MailboxOwner { organization, entity } = owner("alice");
    let login = Login { organization, id: entity, user: "alice".into(), token: None };
    for name in [ALICE, "ALICE@Example.test", "alice.alias@example.test", "alice"] {
        assert_eq!(scene.login(name, RIGHT).await.as_ref(), Ok(&login), "{name}");
    }
    let lines = scene.audit("authentication");
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["user"], "alice");
    for line in &lines {
        assert_eq!(line["auth_successful"], true);
        assert_eq!(
            (&line["user_id"], &line["source_ip"]),
            (&id("alice").to_string().into(), &"192.0.2.1".into())
        );
        assert!(line.get("auth_failed_reason").is_none(), "{line}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_the_peer_is_told_the_same() {
    let scene = Scene::new();
    let (of_alice, token) = scene.new_token("alice", None);
    let (expired, _) = scene.new_token("alice", Some(NOW));
    let cases = [
        (ALICE, WRONG, "wrong-password"),
        (ALICE, "", "wrong-password"),
        ("bob", RIGHT, "no-password"),
        ("carol@example.test", RIGHT, "user-disabled"),
        ("dave@example.test", RIGHT, "remote-user"),
        ("sales@example.test", RIGHT, "unknown-user"),
        ("alice+tag@example.test", RIGHT, "unknown-user"),
        ("eve@example.test", RIGHT, "unknown-user"),
        ("eve@else.test", RIGHT, "unknown-user"),
        (ALICE, "mwpat_made-up", "unknown-token"),
        ("bob", &of_alice, "unknown-token"),
        (ALICE, &expired, "expired-token"),
        ("eve@example.test", &of_alice, "unknown-user"),
    ];
    for (name, password, _) in cases {
        let outcome = scene.login(name, password).await;
        assert_eq!(outcome, Err(Reason::BadCredentials), "{name}");
    }
    assert!(scene.store.remove_token(&owner("alice"), &token.id).expect("removes").is_some());
    assert_eq!(scene.login(ALICE, &of_alice).await, Err(Reason::BadCredentials), "revoked");
    let lines = scene.audit("authentication");
    for (line, (name, _, reason)) in lines.iter().zip(cases) {
        assert_eq!((&line["user"], &line["auth_successful"]), (&name.into(), &false.into()));
        assert_eq!(line["auth_failed_reason"], reason, "{name}");
    }
    assert!(lines[7].get("user_id").is_none() && lines[7].get("organization_arn").is_some());
    assert!(lines[8].get("organization_arn").is_none(), "no organization of ours");
}

#[tokio::test]
async fn a_name_that_is_nobodys_takes_as_long() {
    let scene = Scene::new();
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..3 {
        for (place, name) in [ALICE, "eve@example.test"].into_iter().enumerate() {
            let begin = Instant::now();
            assert!(scene.login(name, WRONG).await.is_err());
            fastest[place] = fastest[place].min(begin.elapsed());
        }
    }
    let [known, unknown] = fastest;
    assert!(unknown > known / 4, "{unknown:?} is not like {known:?}");
}

#[tokio::test]
async fn ten_failures_close_an_account_known_or_not() {
    let scene = Scene::new();
    for name in [ALICE, "eve@example.test"] {
        for _ in 0..10 {
            assert_eq!(scene.login(name, WRONG).await, Err(Reason::BadCredentials));
        }
        assert_eq!(scene.login(name, RIGHT).await, Err(Reason::LoginsThrottled), "{name}");
        let (short, _) = name.split_once('@').expect("an address");
        for spelling in [short, &name.to_uppercase()] {
            let again = scene.login(spelling, RIGHT).await;
            assert_eq!(again, Err(Reason::LoginsThrottled), "{spelling}");
        }
    }
    let alias = scene.login("alice.alias@example.test", RIGHT).await;
    assert_eq!(alias, Err(Reason::LoginsThrottled), "the same account");
    let (token, _) = scene.new_token("alice", None);
    assert!(scene.login(ALICE, &token).await.is_ok(), "a token cannot be guessed");
    scene.clock.advance(10 * MINUTE);
    assert!(scene.login(ALICE, RIGHT).await.is_ok());
    let lines = scene.audit("authentication");
    assert_eq!(lines[10]["auth_failed_reason"], "too-many-failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_once_are_counted_as_well() {
    let scene = Arc::new(Scene::new());
    let guesses: Vec<_> = (0..40)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.login(ALICE, WRONG).await })
        })
        .collect();
    let mut verified = 0;
    for guess in guesses {
        let outcome = guess.await.expect("no panic").expect_err("wrong");
        verified += usize::from(outcome == Reason::BadCredentials);
    }
    assert!((10..10 + MAX_TURNS).contains(&verified), "{verified} were verified");
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_only_so_long_for_its_turn() {
    let scene = Scene::new();
    let all = u32::try_from(scene.logins.turns.available_permits()).expect("few");
    let turns = scene.logins.turns.acquire_many(all).await.expect("open");
    assert_eq!(scene.login(ALICE, RIGHT).await, Err(Reason::AuthenticationUnavailable));
    drop(turns);
    assert_eq!(scene.audit("authentication")[0]["auth_failed_reason"], "unavailable");
}

#[tokio::test]
async fn a_token_stands_for_the_password_until_it_expires() {
    let scene = Scene::new();
    let (secret, token) = scene.new_token("bob", Some(NOW.plus(MINUTE)));
    let login = scene.login("bob", &secret).await.expect("lets in");
    assert_eq!(login.token.as_deref(), Some(token.id.as_str()));
    let used = scene.store.tokens(&owner("bob")).expect("reads")[0].last_used_at;
    assert_eq!(used, Some(NOW));
    scene.clock.advance(MINUTE);
    assert_eq!(scene.login("bob", &secret).await, Err(Reason::BadCredentials));
    let lines = scene.audit("authentication");
    assert_eq!(told(&lines, "personal_access_token_id"), [token.id.as_str(); 2]);
}

#[tokio::test]
async fn a_denied_network_learns_nothing_of_the_password() {
    let office = AccessRule {
        name: "office".into(),
        effect: AccessEffect::Allow,
        protocols: vec![AccessProtocol::Smtp],
        not_protocols: vec![],
        ip_ranges: vec!["192.0.2.0/24".parse().expect("a network")],
        not_ip_ranges: vec![],
        users: vec![],
        not_users: vec![],
    };
    let scene = Scene::with(AccessRules::new(vec![office]));
    for inside in ["192.0.2.1", "::ffff:192.0.2.1"] {
        assert!(scene.login_from(inside, ALICE, RIGHT).await.is_ok(), "{inside}");
    }
    let (token, _) = scene.new_token("alice", None);
    let unused = scene.store.tokens(&owner("alice")).expect("reads");
    for password in [RIGHT, WRONG, &token, "mwpat_made-up"] {
        let outside = scene.login_from("198.51.100.1", ALICE, password).await;
        assert_eq!(outside, Err(Reason::BadCredentials), "{password}");
    }
    assert_eq!(scene.store.tokens(&owner("alice")).expect("reads"), unused, "not used there");
    // The right password does not start the count of failures again.
    for _ in 0..8 {
        let outside = scene.login_from("198.51.100.1", ALICE, RIGHT).await;
        assert_eq!(outside, Err(Reason::BadCredentials));
    }
    for password in [RIGHT, WRONG] {
        let outside = scene.login_from("198.51.100.1", ALICE, password).await;
        assert_eq!(outside, Err(Reason::LoginsThrottled), "{password}");
    }
    let (lines, logins) = scene.audit_of_both();
    assert_eq!(told(&lines, "access_granted")[..4], [true, true, false, false]);
    assert_eq!(told(&lines, "source_ip")[..3], ["192.0.2.1", "192.0.2.1", "198.51.100.1"]);
    assert_eq!(lines.len(), logins.len(), "a line for every attempt");
    let right = told(&logins, "auth_successful");
    assert_eq!(
        right[..6],
        [true, true, true, false, true, false],
        "the operator sees a stolen one"
    );
    assert_eq!(
        (&lines[0]["rule_id"], &lines[0]["scope"]),
        (&"office".into(), &"AccessControl".into())
    );
    assert!(lines[2].get("rule_id").is_none(), "{}", lines[2]);
}

#[tokio::test]
async fn without_rules_nobody_gets_in() {
    let scene = Scene::with(AccessRules::new(vec![]));
    assert_eq!(scene.login(ALICE, RIGHT).await, Err(Reason::BadCredentials));
}

#[tokio::test]
async fn an_account_is_closed_to_who_guesses_and_open_to_its_user() {
    let scene = Scene::new();
    for _ in 0..10 {
        let guess = scene.login_from("198.51.100.1", ALICE, WRONG).await;
        assert_eq!(guess, Err(Reason::BadCredentials));
    }
    let guess = scene.login_from("198.51.100.77", ALICE, RIGHT).await;
    assert_eq!(guess, Err(Reason::LoginsThrottled), "the same network");
    assert!(scene.login(ALICE, RIGHT).await.is_ok());
    let guess = scene.login_from("198.51.100.1", ALICE, RIGHT).await;
    assert_eq!(guess, Err(Reason::LoginsThrottled), "whatever its user does");
    assert!(scene.logins.lift_throttle(&owner("alice")));
    assert!(scene.login_from("198.51.100.1", ALICE, RIGHT).await.is_ok());
    assert!(!scene.logins.lift_throttle(&owner("alice")));
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_our_fault() {
    let scene = Scene::new();
    let file = scene.dir.path().join("credentials.sqlite");
    let broken = rusqlite::Connection::open(file).expect("opens");
    broken.execute_batch("DROP TABLE password; DROP TABLE token;").expect("drops");
    for password in [RIGHT, "mwpat_x"] {
        let outcome = scene.login(ALICE, password).await;
        assert_eq!(outcome, Err(Reason::AuthenticationUnavailable));
    }
}
