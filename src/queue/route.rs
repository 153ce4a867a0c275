//! Where mail for a domain goes next, and how safely: mail exchangers (RFC 5321 §5.1), MTA-STS
//! (RFC 8461) and DANE (RFC 7672). [`Router::route`] is the door; it asks DNS and, for MTA-STS,
//! the web, and never speaks SMTP.

mod dane;
mod error;
mod exchangers;
mod hosts;
pub mod mta_sts;
mod networks;
pub mod random;
mod settings;
mod shown;
mod verifier;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use tokio::time::Instant;

pub use error::RouteError;
pub use hosts::Ourselves;
pub use networks::Networks;
pub use settings::{AddressOrder, FixedRoute, RouteTls, Settings};
pub use verifier::Verifier;

use self::dane::Demand;
use self::exchangers::{Exchanger, Exchangers};
use self::hosts::Host;
use self::mta_sts::{Mode, Policies, Policy};
use self::networks::is_of_one_host;
use self::random::Random;
use super::hop::{Hop, Route};
use crate::dns::{RecordType, Resolver, lookup_all};
use crate::mail::Domain;
use crate::smtp::client::{TlsDemand, any_certificate};

/// For all DNS lookups of one route.
const DNS_DEADLINE: Duration = Duration::from_secs(30);
/// Addresses of a route, over all its hosts.
const MAX_ADDRESSES: usize = 60;

/// Finds the way for mail.
pub struct Router {
    resolver: Arc<dyn Resolver>,
    settings: Settings,
    ourselves: Ourselves,
    policies: Arc<Policies>,
    random: Random,
}

impl Router {
    /// A router for one configuration; `policies` outlive it.
    pub fn new(
        resolver: Arc<dyn Resolver>,
        settings: Settings,
        ourselves: Ourselves,
        policies: Arc<Policies>,
    ) -> Self {
        Self { resolver, settings, ourselves, policies, random: random::system() }
    }

    /// The same, with random numbers from elsewhere.
    #[must_use]
    pub fn with_random(self, random: Random) -> Self {
        Self { random, ..self }
    }

    /// The servers to try for mail to a domain, in their order. Takes at most 30 seconds.
    ///
    /// # Errors
    /// [`RouteError`] if there is none; a route never is empty.
    pub async fn route(&self, domain: &Domain) -> Result<Route, RouteError> {
        let deadline = Instant::now() + DNS_DEADLINE;
        if let Some(fixed) = self.settings.named_for(domain) {
            return self.fixed(domain, fixed, deadline).await;
        }
        if let Some(address) = literal(domain) {
            return self.literal(domain, address);
        }
        let resolver = &*self.resolver;
        let (found, policy) = tokio::join!(
            exchangers::lookup(domain, resolver, &self.random, deadline),
            self.policies.of(domain, resolver),
        );
        let found = found?;
        let hosts = self.hosts(domain, &found, deadline).await?;
        let demands = if found.is_secure {
            self.demands(domain, &hosts.found, deadline).await
        } else {
            hosts.found.iter().map(|_| Demand::Nothing).collect()
        };
        self.hops(domain, hosts, demands, policy.as_deref())
    }

    /// The hosts that have addresses and are not we.
    async fn hosts(
        &self,
        domain: &Domain,
        exchangers: &Exchangers,
        deadline: Instant,
    ) -> Result<Hosts, RouteError> {
        if exchangers.hosts.is_empty() {
            return Err(RouteError::NoHost(domain.clone()));
        }
        let mut hosts = self.resolve(&exchangers.hosts, deadline).await;
        hosts = hosts::better_than_ours(hosts, &self.ourselves, self.settings.port);
        if hosts.is_empty() {
            return Err(RouteError::Loop(domain.clone()));
        }
        let is_refused = match self.settings.networks() {
            // Only now: a server may know itself by an inner address.
            Networks::Public => refuse_inner(&mut hosts),
            Networks::All => false,
        };
        let found = with_addresses(domain, hosts).map_err(|error| match error {
            // Those that were not looked at may have an address.
            RouteError::NoHost(_) if exchangers.are_cut => {
                let problem = "more mail hosts than are looked at, and these have no address";
                RouteError::Dns { name: domain.to_string(), problem: problem.to_owned() }
            }
            RouteError::NoHost(domain) if is_refused => RouteError::PrivateNetwork(domain),
            error => error,
        })?;
        Ok(Hosts { are_all: found.are_all && !exchangers.are_cut, ..found })
    }

    async fn resolve(&self, exchangers: &[Exchanger], deadline: Instant) -> Vec<Host> {
        let order = self.settings.addresses;
        hosts::resolve(exchangers, order, &*self.resolver, &self.random, deadline).await
    }

    /// What DANE asks of each host; nothing of one for whose addresses DNSSEC does not vouch
    /// (RFC 7672 §2.2.2).
    async fn demands(&self, domain: &Domain, hosts: &[Host], deadline: Instant) -> Vec<Demand> {
        let names: Vec<_> = hosts
            .iter()
            .filter(|host| host.is_secure)
            .map(|host| dane::tlsa_name(&host.name, self.settings.port))
            .collect();
        let questions: Vec<_> =
            names.iter().map(|name| (name.as_str(), RecordType::Tlsa)).collect();
        let mut results = lookup_all(&*self.resolver, &questions, deadline).await.into_iter();
        let demand = |host: &Host| match host.is_secure.then(|| results.next()).flatten() {
            Some(result) => Demand::of(result, &[&host.name, domain.as_str()]),
            None => Demand::Nothing,
        };
        hosts.iter().map(demand).collect()
    }

    fn hops(
        &self,
        domain: &Domain,
        hosts: Hosts,
        demands: Vec<Demand>,
        policy: Option<&Policy>,
    ) -> Result<Route, RouteError> {
        let mut hops = Vec::with_capacity(hosts.found.len());
        let mut refused = None;
        let mut are_all = hosts.are_all;
        let mut left = MAX_ADDRESSES;
        for (mut host, demand) in hosts.found.into_iter().zip(demands) {
            match self.tls(domain, &host, demand, policy) {
                Ok(_) if left == 0 => {
                    are_all = false;
                    break;
                }
                Ok(tls) => {
                    host.addresses.truncate(left);
                    left -= host.addresses.len();
                    hops.push(hop(host.name, host.addresses, self.settings.port, tls));
                }
                Err(error) => {
                    // None of these reasons is for good.
                    are_all = false;
                    refused = refused.or(Some(error));
                }
            }
        }
        match refused {
            Some(error) if hops.is_empty() => Err(error),
            _ if are_all => Ok(Route::complete(hops)),
            _ => Ok(Route::incomplete(hops)),
        }
    }

    /// How safe the connection to a host must be. RFC 8461 §2: DANE goes before MTA-STS.
    fn tls(
        &self,
        domain: &Domain,
        host: &Host,
        demand: Demand,
        policy: Option<&Policy>,
    ) -> Result<TlsDemand, RouteError> {
        let verified = |verifier: Arc<dyn ServerCertVerifier>| {
            TlsDemand::Verified(verifier, host.name.clone())
        };
        let otherwise = match demand {
            Demand::Certificate(associations) => {
                return Ok(verified(Verifier::dane(associations)));
            }
            Demand::Delay(error) => {
                let name = dane::tlsa_name(&host.name, self.settings.port);
                return Err(RouteError::Dns { name, problem: error.to_string() });
            }
            // RFC 7672 §2.2: there must be TLS, nobody can say with whom.
            Demand::Encryption => verified(any_certificate()),
            Demand::Nothing => TlsDemand::Opportunistic,
        };
        let Some(policy) = policy else { return Ok(otherwise) };
        match (policy.mode, policy.allows(&host.name)) {
            (Mode::Enforce, true) => Ok(verified(self.policies.verifier())),
            (Mode::Enforce, false) => Err(RouteError::MtaSts(domain.clone())),
            (Mode::Testing, false) => {
                tracing::warn!(
                    %domain, host = host.name,
                    "the MTA-STS policy, which is being tested, does not allow this mail host"
                );
                Ok(otherwise)
            }
            (Mode::Testing, true) | (Mode::None, _) => Ok(otherwise),
        }
    }

    /// A server that the operator has named: no mail exchangers, no policies.
    async fn fixed(
        &self,
        domain: &Domain,
        fixed: &FixedRoute,
        deadline: Instant,
    ) -> Result<Route, RouteError> {
        let hosts = if let Ok(address) = fixed.host.parse() {
            Hosts { found: vec![Host::at(fixed.host.clone(), address)], are_all: true }
        } else {
            let exchanger = Exchanger { preference: 0, name: fixed.host.clone() };
            with_addresses(domain, self.resolve(&[exchanger], deadline).await)?
        };
        let tls = match fixed.tls {
            RouteTls::Opportunistic => TlsDemand::Opportunistic,
            RouteTls::StartTls | RouteTls::Implicit => {
                let verifier = self.verifier(fixed).map_err(|problem| RouteError::Authorities {
                    domain: domain.clone(),
                    problem: problem.to_string(),
                })?;
                TlsDemand::Verified(verifier, fixed.host.clone())
            }
        };
        let port = fixed.port.unwrap_or(self.settings.port);
        let login = fixed.login.as_ref();
        let mut hops = Vec::with_capacity(hosts.found.len());
        for host in hosts.found {
            hops.push(Hop {
                implicit_tls: fixed.tls == RouteTls::Implicit,
                credentials: login.map(|login| (login.user_name.clone(), login.password.clone())),
                ..hop(host.name, host.addresses, port, tls.clone())
            });
        }
        Ok(if hosts.are_all { Route::complete(hops) } else { Route::incomplete(hops) })
    }

    /// Who judges the certificate of a server that the operator has named.
    fn verifier(&self, fixed: &FixedRoute) -> Result<Arc<Verifier>, rustls::Error> {
        let Some(own) = &fixed.authorities else { return Ok(self.policies.verifier()) };
        let mut roots = RootCertStore::empty();
        for certificate in own.iter() {
            roots.add(certificate.clone())?;
        }
        Ok(Verifier::web_pki(Arc::new(roots)))
    }

    /// RFC 5321 §4.1.3: the address is the host.
    fn literal(&self, domain: &Domain, address: IpAddr) -> Result<Route, RouteError> {
        let port = self.settings.port;
        if self.ourselves.listen_at(address, port) {
            return Err(RouteError::Loop(domain.clone()));
        }
        if !is_of_one_host(address) {
            return Err(RouteError::NoHost(domain.clone()));
        }
        if !self.settings.networks().have(address) {
            return Err(RouteError::PrivateNetwork(domain.clone()));
        }
        let hop = hop(domain.to_string(), vec![address], port, TlsDemand::Opportunistic);
        Ok(Route::complete(vec![hop]))
    }
}

fn hop(name: String, addresses: Vec<IpAddr>, port: u16, tls: TlsDemand) -> Hop {
    Hop { name, addresses, port, tls, implicit_tls: false, credentials: None }
}

/// Takes all addresses of inner networks from the hosts; whether there were any.
fn refuse_inner(hosts: &mut [Host]) -> bool {
    let mut is_refused = false;
    for host in hosts {
        let before = host.addresses.len();
        host.addresses.retain(|address| Networks::Public.have(*address));
        is_refused |= host.addresses.len() < before;
    }
    is_refused
}

/// Hosts that have addresses.
#[derive(Debug)]
struct Hosts {
    found: Vec<Host>,
    /// Whether there are no others.
    are_all: bool,
}

/// The hosts that have addresses; if none has, the reason why.
fn with_addresses(domain: &Domain, mut hosts: Vec<Host>) -> Result<Hosts, RouteError> {
    let failure = hosts.iter_mut().find_map(|host| Some((host.name.clone(), host.failure.take()?)));
    hosts.retain(|host| !host.addresses.is_empty());
    match failure {
        _ if !hosts.is_empty() => Ok(Hosts { found: hosts, are_all: failure.is_none() }),
        Some((name, problem)) => Err(RouteError::Dns { name, problem }),
        None => Err(RouteError::NoHost(domain.clone())),
    }
}

/// The address of an address literal.
fn literal(domain: &Domain) -> Option<IpAddr> {
    let inner = domain.as_str().strip_prefix('[')?.strip_suffix(']')?;
    match inner.strip_prefix("ipv6:") {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(|v6| IpAddr::V6(v6).to_canonical()),
        None => inner.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
