//! Routes through zones, with certificates and a web server made for each test.

mod authority;
mod dane;
mod exchangers;
mod mta_sts;

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::dns::{Answer, Lookup, LookupError, RecordType, ZoneResolver};
use crate::queue::route::mta_sts::{Fetcher, HTTPS_PORT, Policies};

const NOW: Timestamp = Timestamp::from_millis(1_795_235_486_000);

/// DNS that can be changed. All of it is secure, except names with a label `plain`, and the TLSA
/// records of hosts with a label `outsourced`, as behind a CNAME to another zone. Names with a
/// label that begins with `broken` have no answer.
pub(super) struct World(Mutex<Arc<ZoneResolver>>);

impl World {
    pub(super) fn new(zone: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(read(zone))))
    }

    pub(super) fn change(&self, zone: &str) {
        *self.0.lock().unwrap() = read(zone);
    }
}

fn read(zone: &str) -> Arc<ZoneResolver> {
    let text = format!("$TTL 300\n{zone}");
    Arc::new(ZoneResolver::parse(&text, Path::new("test.zone")).unwrap().with_trust(true))
}

impl Resolver for World {
    fn lookup<'a>(&'a self, name: &'a str, record_type: RecordType) -> Lookup<'a> {
        if name.split('.').any(|label| label.starts_with("broken")) {
            let problem = LookupError::Transient("SERVFAIL".to_owned());
            return Box::pin(std::future::ready(Err(problem)));
        }
        let zone = Arc::clone(&self.0.lock().unwrap());
        let is_plain = name.split('.').any(|label| {
            label == "plain" || label == "outsourced" && record_type == RecordType::Tlsa
        });
        Box::pin(async move {
            let answer = zone.lookup(name, record_type).await?;
            Ok(Answer { is_secure: answer.is_secure && !is_plain, ..answer })
        })
    }
}

/// A router of `mx.us.test`, which listens on 192.0.2.99:25 and on all interfaces at port 2525.
/// Nothing is put into another order.
pub(super) fn router(world: &Arc<World>) -> Router {
    router_with(world, Settings::default())
}

pub(super) fn router_with(world: &Arc<World>, settings: Settings) -> Router {
    let fetcher = Fetcher::new(Arc::new(RootCertStore::empty()), HTTPS_PORT, Networks::Public);
    let clock = Arc::new(ManualClock::new(NOW));
    let policies = Arc::new(Policies::open(None, fetcher, clock).unwrap());
    build(world, settings, policies)
}

pub(super) fn build(world: &Arc<World>, settings: Settings, policies: Arc<Policies>) -> Router {
    let listeners = ["192.0.2.99:25", "0.0.0.0:2525"].map(|address| address.parse().unwrap());
    let ourselves = Ourselves { hostname: "mx.us.test".to_owned(), listeners: listeners.into() };
    let resolver = Arc::clone(world) as Arc<dyn Resolver>;
    Router::new(resolver, settings, ourselves, policies).with_random(Arc::new(|below| below - 1))
}

pub(super) fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// Who judges the certificate that a hop's server shows for the hop's name, if anybody does.
pub(super) fn verifier(hop: &Hop) -> Option<Arc<dyn ServerCertVerifier>> {
    match &hop.tls {
        TlsDemand::Verified(verifier, name) => {
            assert_eq!(*name, hop.name);
            Some(Arc::clone(verifier))
        }
        TlsDemand::Opportunistic => None,
    }
}
