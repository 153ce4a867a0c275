//! Servers that the operator has named for domains: mail of several domains that goes to the same
//! one shares its connections, and their limit.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::route::{FixedRoute, Settings};
use crate::mail::Domain;

/// Which domains' mail goes to which of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relays {
    named: BTreeMap<Domain, Relay>,
    /// For all other domains.
    rest: Option<Relay>,
}

/// A server, and all that must be the same for a connection to it to be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Relay(Arc<str>);

impl Relay {
    fn of(route: &FixedRoute, settings: &Settings) -> Self {
        let port = route.port.unwrap_or(settings.port);
        let user = route.login.as_ref().map_or("", |login| &login.user_name);
        let mut authorities = DefaultHasher::new();
        for certificate in route.authorities.iter().flat_map(|it| it.iter()) {
            certificate.hash(&mut authorities);
        }
        let authorities = authorities.finish();
        let host = route.host.to_ascii_lowercase();
        Self(format!("{host} {port} {:?} {authorities:x} {user}", route.tls).into())
    }
}

impl Relays {
    /// Those of these settings.
    pub fn of(settings: &Settings) -> Self {
        let relay = |route: &FixedRoute| Relay::of(route, settings);
        let mut named = BTreeMap::new();
        for (domain, route) in &settings.fixed {
            named.insert(domain.clone(), relay(route));
        }
        Self { named, rest: settings.relay.as_ref().map(relay) }
    }

    pub(super) fn for_domain(&self, domain: &Domain) -> Option<&Relay> {
        self.named.get(domain).or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::route::RouteTls;

    #[test]
    fn mail_shares_connections_where_they_are_the_same_in_everything() {
        let plain = |host: &str, port| FixedRoute::to(host, port);
        let domain = |name: &str| Domain::parse(name).expect("a domain");
        let mut settings =
            Settings { relay: Some(plain("relay.test", None)), ..Settings::default() };
        for (name, route) in [
            ("same.test", plain("Relay.test", Some(25))),
            ("port.test", plain("relay.test", Some(26))),
            ("host.test", plain("other.test", None)),
            ("tls.test", FixedRoute { tls: RouteTls::StartTls, ..plain("relay.test", None) }),
            (
                "authority.test",
                FixedRoute {
                    authorities: Some([vec![1].into()].into()),
                    ..plain("relay.test", None)
                },
            ),
        ] {
            settings.fixed.insert(domain(name), route);
        }
        let relays = Relays::of(&settings);
        let relay = |name: &str| relays.for_domain(&domain(name)).expect("a relay").clone();
        for (name, expected) in [
            ("any.test", true),
            ("same.test", true),
            ("port.test", false),
            ("host.test", false),
            ("tls.test", false),
            ("authority.test", false),
        ] {
            assert_eq!(relay(name) == relay("other.test"), expected, "{name}");
        }
        assert_eq!(Relays::of(&Settings::default()).for_domain(&domain("any.test")), None);
    }
}
