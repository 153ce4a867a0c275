//! The daemon's look at the keys of domains while it runs: what commands change is taken up, and a
//! key that waits signs once DNS has its record. Mail never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::check::is_published;
use super::keys::{DomainKeys, Stage, keys_of, use_next_keys};
use super::{DomainKeyError, ManagedKey};
use crate::dns::{RecordType, Resolver, lookup_all};
use crate::mail::Domain;

/// How often the records of keys that wait are looked up. An answer that there is none is kept by
/// resolvers for longer than that, so more would find nothing sooner.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// For all lookups of a look together.
const DEADLINE: Duration = Duration::from_secs(20);

/// The present resolver; a reload brings another.
pub type CurrentResolver = watch::Receiver<Arc<dyn Resolver>>;

impl DomainKeys {
    /// Refreshes every `interval` until told to stop, and looks for the records of keys that wait.
    pub async fn watch(
        self: Arc<Self>,
        interval: Duration,
        mut resolver: CurrentResolver,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut watch =
            Watch { keys: self, trouble: String::new(), waiting: Vec::new(), looked: None };
        loop {
            tokio::select! {
                // Cancelling a timer or a wait for a change loses nothing.
                () = sleep(interval) => {}
                Ok(()) = resolver.changed() => watch.looked = None,
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let current = Arc::clone(&resolver.borrow_and_update());
            tokio::select! {
                // What is not taken into use now is after the next start.
                () = watch.round(&*current) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// What is known between two rounds.
struct Watch {
    keys: Arc<DomainKeys>,
    /// What went wrong in the last round; it is told once.
    trouble: String,
    /// The keys that wait, as they were told of.
    waiting: Vec<(Domain, String)>,
    /// When DNS was asked last.
    looked: Option<Instant>,
}

impl Watch {
    async fn round(&mut self, resolver: &dyn Resolver) {
        let outcome = self.try_round(resolver).await;
        let trouble = outcome.err().unwrap_or_default();
        if !trouble.is_empty() && trouble != self.trouble {
            tracing::error!(error = %trouble, "the present domain keys stay in use");
        }
        self.trouble = trouble;
    }

    async fn try_round(&mut self, resolver: &dyn Resolver) -> Result<(), String> {
        self.refresh().await?;
        let waiting = self.keys.waiting();
        if waiting != self.waiting {
            self.looked = None;
            for (domain, selector) in &waiting {
                tracing::info!(%domain, selector, "a key waits for its DNS record, and does not sign yet");
            }
            self.waiting = waiting;
        }
        let is_time = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if self.waiting.is_empty() || !is_time {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let keys = self.blocking(next_keys).await?;
        let seen = published(resolver, keys).await;
        if seen.is_empty() {
            return Ok(());
        }
        self.blocking(move |keys| take_into_use(keys, &seen)).await?;
        self.refresh().await
    }

    async fn refresh(&self) -> Result<(), String> {
        if self.blocking(DomainKeys::refresh).await? {
            tracing::info!("domain keys loaded");
        }
        Ok(())
    }

    /// Work with files, where nobody waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DomainKeys) -> Result<T, DomainKeyError> + Send + 'static,
    ) -> Result<T, String> {
        let keys = Arc::clone(&self.keys);
        let done = tokio::task::spawn_blocking(move || work(&keys)).await;
        done.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
    }
}

/// A domain and one of its keys.
type Owned = (Domain, ManagedKey);

fn next_keys(keys: &DomainKeys) -> Result<Vec<Owned>, DomainKeyError> {
    let mut domains: Vec<Domain> = keys.waiting().into_iter().map(|(domain, _)| domain).collect();
    domains.dedup();
    let mut next = Vec::new();
    for domain in domains {
        let all = keys_of(keys.folder(), &domain)?.into_iter();
        next.extend(all.filter(|key| key.stage == Stage::Next).map(|key| (domain.clone(), key)));
    }
    Ok(next)
}

/// Those whose record DNS has.
async fn published(resolver: &dyn Resolver, keys: Vec<Owned>) -> Vec<(Domain, String)> {
    let names: Vec<_> = keys.iter().map(|(domain, key)| key.record_name(domain)).collect();
    let questions: Vec<_> = names.iter().map(|name| (name.as_str(), RecordType::Txt)).collect();
    let answers = lookup_all(resolver, &questions, Instant::now() + DEADLINE).await;
    let answered = keys.into_iter().zip(answers);
    let seen = answered.filter(|((_, key), answer)| is_published(key, answer));
    seen.map(|((domain, key), _)| (domain, key.selector)).collect()
}

fn take_into_use(keys: &DomainKeys, seen: &[(Domain, String)]) -> Result<(), DomainKeyError> {
    for (domain, selector) in seen {
        use_next_keys(keys.folder(), domain, std::slice::from_ref(selector))?;
    }
    Ok(())
}
