//! MTA-STS (RFC 8461): domains that say over the web which hosts take their mail, and that these
//! have certificates of an authority.
//!
//! [`Policies`] finds a domain's policy, and keeps it for as long as the policy says, also over a
//! restart: who can tamper with DNS or the web for a while cannot make a known policy go away.

mod fetch;
mod policy;
mod record;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

pub use fetch::{Fetcher, HTTPS_PORT};
pub use policy::{HostPattern, Mode, Policy, PolicyError};

use super::verifier::Verifier;
use crate::clock::{Clock, Timestamp};
use crate::dns::Resolver;
use crate::mail::Domain;
use crate::store::{Memo, StoreError};

/// Domains whose policies are kept.
pub const MAX_DOMAINS: usize = 10_000;
/// A policy of this many octets counts as one domain; a longer one counts for more.
const OCTETS_PER_DOMAIN: usize = 1024;
/// For finding a policy, from the TXT record to the last octet. RFC 8461 §3.3 suggests a minute
/// for fetching alone; mail does not wait that long for a web server.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// RFC 8461 §3.3: after a failure, the same policy is not asked for again for five minutes.
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// RFC 8461 §10.2: a policy in use is fetched anew once a day, so that it does not run out.
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The policies of other domains.
pub struct Policies {
    known: Cache<Domain, Arc<Known>>,
    failed: Cache<Domain, Arc<Failed>>,
    memo: Option<Arc<Memo>>,
    fetcher: ArcSwap<Fetcher>,
    clock: Arc<dyn Clock>,
}

/// A policy, and when it was got.
struct Known {
    policy: Arc<Policy>,
    kept: Kept,
}

/// What outlasts a restart.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    policy: String,
    fetched_at: Timestamp,
}

/// The policy that could not be fetched.
struct Failed {
    id: String,
    at: Timestamp,
}

impl Known {
    fn new(id: String, policy: Policy, fetched_at: Timestamp) -> Self {
        let kept = Kept { id, policy: policy.to_string(), fetched_at };
        Self { policy: Arc::new(policy), kept }
    }

    fn read(json: &str) -> Option<Self> {
        let kept: Kept = serde_json::from_str(json).ok()?;
        let policy = Arc::new(Policy::parse(&kept.policy).ok()?);
        Some(Self { policy, kept })
    }

    fn expires(&self) -> Timestamp {
        self.kept.fetched_at.plus(self.policy.max_age)
    }

    /// Whether this is the policy that a record names, lately enough fetched.
    fn is_current(&self, id: &str, now: Timestamp) -> bool {
        let refresh = REFRESH_AFTER.min(self.policy.max_age / 2);
        self.kept.id == id && now < self.kept.fetched_at.plus(refresh)
    }
}

impl Policies {
    /// Takes up the policies that `memo` remembers. Blocks; a policy that cannot be read is
    /// fetched again.
    ///
    /// # Errors
    /// The memo cannot be read.
    pub fn open(
        memo: Option<Arc<Memo>>,
        fetcher: Fetcher,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let max_domains = u64::try_from(MAX_DOMAINS).unwrap_or(u64::MAX);
        let known = Cache::builder().max_capacity(max_domains).weigher(weight).build();
        let failed = Cache::builder().max_capacity(max_domains).build();
        let kept = match &memo {
            Some(memo) => memo.all(clock.now())?,
            None => Vec::new(),
        };
        for (domain, json) in kept {
            if let (Ok(domain), Some(read)) = (Domain::parse(&domain), Known::read(&json)) {
                known.insert(domain, Arc::new(read));
            }
        }
        Ok(Self { known, failed, memo, fetcher: ArcSwap::from_pointee(fetcher), clock })
    }

    /// Fetches by other settings from now on; the policies that are known stay.
    pub fn reload(&self, fetcher: Fetcher) {
        self.fetcher.store(Arc::new(fetcher));
    }

    /// Verifies mail hosts as policies want it: by the authorities that vouch for policy hosts too.
    pub(super) fn verifier(&self) -> Arc<Verifier> {
        self.fetcher.load().verifier()
    }

    /// The policy to which mail for a domain must keep. Takes at most ten seconds: whatever fails
    /// counts as "no other policy than the one that is known", if one is.
    pub(super) async fn of(&self, domain: &Domain, resolver: &dyn Resolver) -> Option<Arc<Policy>> {
        let deadline = Instant::now() + DISCOVERY_TIMEOUT;
        let now = self.clock.now();
        let known = self.known.get(domain).filter(|known| now < known.expires());
        let id = timeout_at(deadline, record::id(domain, resolver)).await.ok().flatten();
        let is_current =
            |id: &String| known.as_ref().is_some_and(|known| known.is_current(id, now));
        if let Some(id) = id.filter(|id| !is_current(id) && !self.has_failed(domain, id, now))
            && let Some(policy) = self.refresh(domain, id, resolver, deadline).await
        {
            return Some(policy);
        }
        known.map(|known| Arc::clone(&known.policy))
    }

    fn has_failed(&self, domain: &Domain, id: &str, now: Timestamp) -> bool {
        let failed = self.failed.get(domain);
        failed.is_some_and(|failed| failed.id == id && now < failed.at.plus(RETRY_AFTER))
    }

    /// Fetches the policy and keeps it.
    async fn refresh(
        &self,
        domain: &Domain,
        id: String,
        resolver: &dyn Resolver,
        deadline: Instant,
    ) -> Option<Arc<Policy>> {
        let fetcher = self.fetcher.load_full();
        let fetched = fetcher.fetch(domain, resolver, deadline).await;
        let at = self.clock.now();
        match fetched {
            Ok(policy) => {
                let known = Arc::new(Known::new(id, policy, at));
                self.known.insert(domain.clone(), Arc::clone(&known));
                self.remember(domain, &known).await;
                Some(Arc::clone(&known.policy))
            }
            Err(error) => {
                tracing::warn!(%domain, %error, "the MTA-STS policy cannot be fetched");
                self.failed.insert(domain.clone(), Arc::new(Failed { id, at }));
                None
            }
        }
    }

    async fn remember(&self, domain: &Domain, known: &Known) {
        let Some(memo) = self.memo.clone() else { return };
        let (key, expires, now) = (domain.to_string(), known.expires(), self.clock.now());
        let json = match serde_json::to_string(&known.kept) {
            Ok(json) => json,
            Err(error) => return tracing::error!(%error, "an MTA-STS policy cannot be kept"),
        };
        let written =
            tokio::task::spawn_blocking(move || memo.put(&key, &json, expires, now, MAX_DOMAINS));
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%domain, %error, "an MTA-STS policy is not kept"),
            Err(error) => tracing::error!(%domain, %error, "an MTA-STS policy is not kept"),
        }
    }
}

fn weight(domain: &Domain, known: &Arc<Known>) -> u32 {
    let octets = domain.as_str().len() + known.kept.policy.len();
    u32::try_from(octets.div_ceil(OCTETS_PER_DOMAIN)).unwrap_or(u32::MAX)
}
