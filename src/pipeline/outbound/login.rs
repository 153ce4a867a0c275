//! Logins: who has these credentials, and may that user in from there? What a peer learns is
//! whether the login succeeds; why it does not, the audit logs tell. Whoever may not in from where
//! it is does not learn either whether the password would be right.
//!
//! A name that is nobody's costs what a wrong password costs, in time too.

#[cfg(test)]
mod tests;
mod throttle;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::clock::{Clock, Timestamp};
use crate::directory::credential::{PasswordHash, is_token, token_hash};
use crate::directory::{
    AccessEffect, AccessProtocol, AccessRequest, Directory, EntityState, OrganizationId,
};
use crate::events::audit::{AccessControl, AuditLog, AuthFailure, Authentication, Occasion};
use crate::id::{EntityId, TraceId};
use crate::mail::{Address, Login, Peer, Secret};
use crate::pipeline::facts::snapshot::Snapshot;
use crate::smtp::handler::Credentials;
use crate::smtp::reason::Reason;
use crate::store::{CredentialStore, MailboxOwner};
use throttle::{Account as ThrottledAccount, Throttle};

/// Passwords verified at once, at most: each takes a processor and 19 MiB.
const MAX_TURNS: usize = 4;
/// What the operator reads of a login that the access control rules do not let in.
const ACCESS_DENIED: &str = "access-denied";
/// So many characters of a user name are told.
const MAX_TOLD: usize = 64;
/// How long a login waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Verifies logins.
pub struct Logins {
    credentials: Arc<CredentialStore>,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    throttle: Mutex<Throttle>,
    turns: Arc<Semaphore>,
}

/// Whose login it is, as far as the name says it.
struct Account {
    /// Whose login it is; absent if it names nobody.
    user: Option<KnownUser>,
    /// The organization that the name belongs to by its domain, if it is one of ours.
    organization: Option<OrganizationId>,
    /// Why this account cannot log in, whatever the password is.
    closed: Option<AuthFailure>,
    /// Whether the access control rules let this account in from where the client is.
    is_granted: bool,
    throttled: ThrottledAccount,
}

impl Account {
    fn of(directory: &Directory, user_name: &str, client: IpAddr, throttle: &Throttle) -> Self {
        let Some((organization, user)) = directory.user_for_login(user_name) else {
            let organization = directory.organization_for_login(user_name);
            return Self {
                user: None,
                organization: organization.map(|organization| organization.id.clone()),
                closed: Some(AuthFailure::UnknownUser),
                is_granted: false,
                throttled: throttle.account(nobodys_name(directory, user_name), client),
            };
        };
        let id = organization.id.as_str();
        let owner = MailboxOwner { organization: id.into(), entity: user.id.clone() };
        Self {
            throttled: throttle.account(&owner, client),
            user: Some(KnownUser { owner, name: Arc::clone(&user.name) }),
            organization: Some(organization.id.clone()),
            closed: match user.state {
                EntityState::Enabled => None,
                EntityState::Disabled => Some(AuthFailure::UserDisabled),
                EntityState::Remote(_) => Some(AuthFailure::RemoteUser),
            },
            is_granted: false,
        }
    }

    /// The user's id, unless the login names nobody.
    fn id(&self) -> Option<EntityId> {
        self.user.as_ref().map(|user| user.owner.entity.clone())
    }

    /// Whose credentials to look for, unless the login names nobody.
    fn owner(&self) -> Option<MailboxOwner> {
        self.user.as_ref().map(|user| user.owner.clone())
    }
}

/// A user whom a login names.
struct KnownUser {
    owner: MailboxOwner,
    name: Arc<str>,
}

/// How a name that is nobody's is counted: in one spelling for all, and by the address that it
/// would be short for, as a user's is.
fn nobodys_name(directory: &Directory, user_name: &str) -> String {
    let mut organizations = directory.organizations();
    let domain = match (organizations.next(), organizations.next()) {
        (Some(only), None) if !user_name.contains('@') => only.domains.first(),
        _ => None,
    };
    let address = match domain {
        Some(domain) => Address::from_parts(user_name, domain.as_str()),
        None => Address::parse(user_name),
    };
    address.map_or_else(|_| user_name.to_lowercase(), |address| address.key())
}

/// A login that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What the peer is told.
    pub reason: Reason,
    /// What the operator is told: whose login it is, as the client names it, and what is wrong.
    pub about: String,
}

impl Denied {
    fn new(reason: Reason, user_name: &str, why: &str) -> Self {
        let name = user_name.chars().filter(|c| !c.is_control()).take(MAX_TOLD);
        Self { reason, about: format!("AUTH as <{}> ({why})", name.collect::<String>()) }
    }
}

/// What came of looking at a password or token.
struct Proof {
    outcome: Result<(), AuthFailure>,
    /// The token's id, if it was one of the user's.
    token: Option<Arc<str>>,
}

impl Proof {
    fn failed(failure: AuthFailure) -> Self {
        Self { outcome: Err(failure), token: None }
    }
}

impl Logins {
    /// Logins with these passwords and tokens, told in these logs.
    pub fn new(
        credentials: Arc<CredentialStore>,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            credentials,
            audit,
            clock,
            throttle: Mutex::default(),
            turns: Arc::new(Semaphore::new(processors.min(MAX_TURNS))),
        }
    }

    /// Who has these credentials, if the organization's access control rules let that user in
    /// over SMTP from the peer's address. The user name is one of a user's addresses, or the bare
    /// name where one organization alone has a user of that name.
    ///
    /// Dropped while it waits, it has told the peer nothing, and verifies to its end.
    ///
    /// # Errors
    /// [`Reason::BadCredentials`], whatever is wrong with name or password, and where access is
    /// denied; [`Reason::LoginsThrottled`]; [`Reason::AuthenticationUnavailable`].
    pub async fn authenticate(
        &self,
        snapshot: &Snapshot,
        trace_id: TraceId,
        peer: &Peer,
        credentials: Credentials,
    ) -> Result<Login, Denied> {
        let Credentials { user_name, password } = credentials;
        let mut account = Account::of(&snapshot.directory, &user_name, peer.ip, &self.throttle());
        let organization = account.organization.as_ref().map(Arc::from);
        let occasion = Occasion::new(self.clock.now(), trace_id, organization, account.id());
        // Asked before the password, so that nothing of what follows tells about it.
        account.is_granted = self.check_access(snapshot, &account, peer, &occasion);
        let proof = match is_token(password.expose()) {
            true => self.by_token(&account, password).await,
            false => self.by_password(&account, password).await,
        };
        let (ip, token) = (peer.ip.to_canonical(), proof.token.as_deref());
        let told = Authentication::smtp(occasion, &user_name, ip, proof.outcome, token);
        self.audit.record(told);
        proof
            .outcome
            .map_err(|failure| Denied::new(reason_of(failure), &user_name, failure.word()))?;
        let user = account.user.filter(|_| account.is_granted);
        let denied = || Denied::new(Reason::BadCredentials, &user_name, ACCESS_DENIED);
        let KnownUser { owner, name } = user.ok_or_else(denied)?;
        let MailboxOwner { organization, entity: id } = owner;
        Ok(Login { organization, id, user: name, token: proof.token })
    }

    /// A login from a network whose logins fail too often: its password is not looked at, but that
    /// it was tried is told.
    pub fn not_asked(&self, snapshot: &Snapshot, trace_id: TraceId, peer: &Peer, user_name: &str) {
        let account = Account::of(&snapshot.directory, user_name, peer.ip, &self.throttle());
        let organization = account.organization.as_ref().map(Arc::from);
        let occasion = Occasion::new(self.clock.now(), trace_id, organization, account.id());
        let outcome = Err(AuthFailure::TooManyFailures);
        let ip = peer.ip.to_canonical();
        self.audit.record(Authentication::smtp(occasion, user_name, ip, outcome, None));
    }

    /// A password is slow to verify, so logins take turns, and an account that fails often is not
    /// looked at for a while.
    async fn by_password(&self, account: &Account, password: Secret) -> Proof {
        if self.is_throttled(account) {
            return Proof::failed(AuthFailure::TooManyFailures);
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(TURN_TIMEOUT, turn).await else {
            tracing::warn!("a login waited too long for its turn");
            return Proof::failed(AuthFailure::Unavailable);
        };
        // Others of this account may have failed meanwhile.
        if self.is_throttled(account) {
            return Proof::failed(AuthFailure::TooManyFailures);
        }
        let (store, owner) = (Arc::clone(&self.credentials), account.owner());
        // The turn goes along, so that it ends with the work even if nobody waits for it, and
        // comes back, so that the failure is counted before the next one begins.
        let work = move || (verify_password(&store, owner.as_ref(), &password), turn);
        let (verified, turn) = match spawn_blocking(work).await {
            Ok((verified, turn)) => (verified, Some(turn)),
            Err(error) => (Err(unavailable(&error)), None),
        };
        let outcome = judged(account, verified);
        match outcome {
            // A right password that is of no use here counts as a wrong one, to whoever counts.
            Ok(()) if account.is_granted => self.throttle().succeeded(account.throttled),
            Err(AuthFailure::Unavailable) => {}
            Ok(()) | Err(_) => self.throttle().failed(account.throttled, self.clock.now()),
        }
        drop(turn);
        Proof { outcome, token: None }
    }

    /// A token cannot be guessed, and is looked up at once: it is not throttled, and one that has
    /// expired, in some forgotten device, locks nobody out.
    async fn by_token(&self, account: &Account, token: Secret) -> Proof {
        let (store, owner) = (Arc::clone(&self.credentials), account.owner());
        let is_open = account.closed.is_none() && account.is_granted;
        let now = self.clock.now();
        let work = move || verify_token(&store, owner.as_ref(), &token, now, is_open);
        let verified = spawn_blocking(work).await.map_err(|error| unavailable(&error));
        let proof = verified.flatten().unwrap_or_else(Proof::failed);
        Proof { outcome: judged(account, proof.outcome), ..proof }
    }

    /// Whether the rules let the account in from where the client is.
    fn check_access(
        &self,
        snapshot: &Snapshot,
        account: &Account,
        peer: &Peer,
        occasion: &Occasion,
    ) -> bool {
        let Some(user) = &account.user else {
            return false; // No rule is about nobody.
        };
        let policy = account.organization.as_ref().and_then(|id| snapshot.policies.get(id));
        let (protocol, user) = (AccessProtocol::Smtp, &*user.name);
        let request = AccessRequest { protocol, ip: peer.ip, user };
        let decision = policy.map(|policy| policy.access.decide(&request));
        let is_granted =
            decision.as_ref().is_some_and(|decision| decision.effect == AccessEffect::Allow);
        let rule = decision.as_ref().and_then(|decision| decision.matched.first());
        let ip = peer.ip.to_canonical();
        let (occasion, rule) = (occasion.clone(), rule.map(|rule| &**rule));
        self.audit.record(AccessControl::smtp(occasion, ip, rule, is_granted));
        is_granted
    }

    /// Forgets a user's failed logins; whether some network was kept from trying.
    pub fn lift_throttle(&self, user: &MailboxOwner) -> bool {
        self.throttle().lift(user, self.clock.now())
    }

    /// The users of a directory whom some network is kept from.
    pub fn throttled(&self, directory: &Directory) -> Vec<MailboxOwner> {
        let users = directory.organizations().flat_map(|organization| {
            let id: Arc<str> = (&organization.id).into();
            organization.users.iter().map(move |user| MailboxOwner {
                organization: Arc::clone(&id),
                entity: user.id.clone(),
            })
        });
        self.throttle().throttled_of(users, self.clock.now())
    }

    fn is_throttled(&self, account: &Account) -> bool {
        self.throttle().is_throttled(account.throttled, self.clock.now())
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A count is whole at every moment, so a panic elsewhere cannot have harmed it.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn verify_password(
    store: &CredentialStore,
    owner: Option<&MailboxOwner>,
    password: &Secret,
) -> Result<(), AuthFailure> {
    let kept = owner.map_or(Ok(None), |owner| store.password_hash(owner));
    let kept = kept.map_err(|error| unavailable(&error))?;
    let is_known = kept.is_some();
    let hash = kept.map_or_else(PasswordHash::dummy, PasswordHash::from_phc);
    match (hash.verify(password), is_known) {
        (_, false) => Err(AuthFailure::NoPassword),
        (true, true) => Ok(()),
        (false, true) => Err(AuthFailure::WrongPassword),
    }
}

fn verify_token(
    store: &CredentialStore,
    owner: Option<&MailboxOwner>,
    token: &Secret,
    now: Timestamp,
    is_open: bool,
) -> Result<Proof, AuthFailure> {
    let found = store.find_token(&token_hash(token)).map_err(|error| unavailable(&error))?;
    let (_, token) =
        found.filter(|(known, _)| Some(known) == owner).ok_or(AuthFailure::UnknownToken)?;
    let is_expired = token.expires_at.is_some_and(|end| now >= end);
    if !is_expired
        && is_open
        && let Err(error) = store.token_used(&token, now)
    {
        tracing::warn!(%error, "the last use of a personal access token is not recorded");
    }
    let outcome = if is_expired { Err(AuthFailure::ExpiredToken) } else { Ok(()) };
    Ok(Proof { outcome, token: Some(token.id.into()) })
}

/// What was verified, for an account that may be closed whatever the password is.
fn judged(account: &Account, verified: Result<(), AuthFailure>) -> Result<(), AuthFailure> {
    match verified {
        Err(AuthFailure::Unavailable) => verified,
        _ => account.closed.map_or(verified, Err),
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> AuthFailure {
    tracing::error!(%error, "a login cannot be verified");
    AuthFailure::Unavailable
}

fn reason_of(failure: AuthFailure) -> Reason {
    match failure {
        AuthFailure::TooManyFailures => Reason::LoginsThrottled,
        AuthFailure::Unavailable => Reason::AuthenticationUnavailable,
        AuthFailure::UnknownUser
        | AuthFailure::UserDisabled
        | AuthFailure::RemoteUser
        | AuthFailure::NoPassword
        | AuthFailure::WrongPassword
        | AuthFailure::UnknownToken
        | AuthFailure::ExpiredToken
        | AuthFailure::WeakPassword => Reason::BadCredentials,
    }
}
