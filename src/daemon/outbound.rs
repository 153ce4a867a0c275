//! The outbound half of the daemon: the queue and what it needs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;

use super::StartError;
use crate::clock::{Clock, SystemClock};
use crate::config::Configuration;
use crate::dns::Resolver;
use crate::mail::Domain;
use crate::pipeline::outcomes::Outcomes;
use crate::pipeline::snapshot::Snapshot;
use crate::queue::courier::{FindGateway, Roads, SmtpCourier};
use crate::queue::route::mta_sts::{Fetcher, HTTPS_PORT, Policies};
use crate::queue::route::{Ourselves, Router, Settings};
use crate::queue::{self, Queue, Relays, pki};
use crate::store::{Memo, Store};

/// The queue of a daemon.
pub type MailQueue = Queue<Arc<SmtpCourier>, Outcomes>;

/// What stays across reloads.
pub(super) struct Outbound {
    pub(super) queue: Arc<MailQueue>,
    courier: Arc<SmtpCourier>,
    policies: Arc<Policies>,
    ourselves: Ourselves,
}

impl Outbound {
    /// Builds the queue; nothing is sent before it runs.
    pub(super) fn new(
        configuration: &Configuration,
        resolver: Arc<dyn Resolver>,
        store: &Arc<Store>,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        outcomes: Outcomes,
        listeners: Vec<SocketAddr>,
        hostname: &Domain,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ca_file = configuration.routes.ca_file.as_deref();
        let authorities = pki::authorities(ca_file)?;
        let data_dir = &configuration.store.data_dir;
        let networks = configuration.routes.networks();
        let fetcher = Fetcher::new(Arc::clone(&authorities), HTTPS_PORT, networks);
        let policies = policies(data_dir, fetcher, Arc::clone(&clock))?;
        let ourselves = Ourselves { hostname: hostname.to_string(), listeners };
        let router = router(&resolver, configuration.routes.clone(), &ourselves, &policies);
        let roads = Roads { router, resolver, authorities };
        let gateways = find_gateway(Arc::clone(snapshot));
        let courier = Arc::new(SmtpCourier::new(roads, gateways, hostname));
        let queue = Queue::new(
            configuration.queue.clone(),
            Arc::clone(store),
            Arc::clone(&courier),
            outcomes,
            clock,
            Box::new(chance),
        );
        queue.set_relays(Relays::of(&configuration.routes));
        Ok(Self { queue, courier, policies, ourselves })
    }

    /// Takes what a new configuration says; a message that is being sent keeps its way.
    pub(super) fn reload(&self, change: Change, resolver: Arc<dyn Resolver>) {
        let Change { queue, routes, authorities } = change;
        let networks = routes.networks();
        self.policies.reload(Fetcher::new(Arc::clone(&authorities), HTTPS_PORT, networks));
        let relays = Relays::of(&routes);
        let router = router(&resolver, routes, &self.ourselves, &self.policies);
        self.courier.reload(Roads { router, resolver, authorities });
        self.queue.set_relays(relays);
        self.queue.reload(queue);
    }
}

/// What a reload brings.
pub(super) struct Change {
    queue: queue::Settings,
    routes: Settings,
    authorities: Arc<RootCertStore>,
}

impl Change {
    /// What this configuration says of mail that leaves.
    ///
    /// # Errors
    /// Its certificate authorities cannot be used.
    pub(super) fn to(configuration: &Configuration) -> Result<Self, StartError> {
        let (queue, routes) = (configuration.queue.clone(), configuration.routes.clone());
        let authorities = pki::authorities(routes.ca_file.as_deref())?;
        Ok(Self { queue, routes, authorities })
    }
}

fn policies(
    data_dir: &Path,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Policies>, StartError> {
    let memo = Arc::new(Memo::open(&data_dir.join("mta-sts.sqlite"))?);
    Ok(Arc::new(Policies::open(Some(memo), fetcher, clock)?))
}

fn router(
    resolver: &Arc<dyn Resolver>,
    settings: Settings,
    ourselves: &Ourselves,
    policies: &Arc<Policies>,
) -> Router {
    Router::new(Arc::clone(resolver), settings, ourselves.clone(), Arc::clone(policies))
}

fn find_gateway(snapshot: Arc<ArcSwap<Snapshot>>) -> FindGateway {
    Box::new(move |organization, name| {
        let snapshot = snapshot.load();
        snapshot.policies.get(organization)?.gateways.get(name).cloned()
    })
}

/// From 0 to 1, spread evenly enough to keep attempts apart.
fn chance() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    f64::from((RandomState::new().hash_one(0_u8) >> 32) as u32) / f64::from(u32::MAX)
}
