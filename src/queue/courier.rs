//! The courier that is sent out in earnest: finds the servers of a destination, and hands the mail
//! to one of them over SMTP.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::attempt::{Asked, ClientSettings, Job, NO_TIME_LEFT, attempt};
use super::hop::{Hop, Route};
use super::route::{Router, Verifier};
use super::worker::{Carried, Courier};
use crate::dns::{LookupError, RecordData, RecordType, Resolver};
use crate::mail::{Domain, Envelope, EnvelopeRecipient, Gateway, GatewayHost, ReversePath};
use crate::smtp::client::{
    Connection, EnhancedStatus, Failure, Outcome, Stage, Timeouts, TlsDemand,
};
use crate::store::{Destination, Purpose, QueueEntry, QueuedContent, QueuedMail};

/// How long the addresses of a gateway are looked for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// No answer from a host (RFC 3463 §3.5): here, from a gateway.
const UNREACHABLE: EnhancedStatus = EnhancedStatus::new(5, 4, 1);

/// What a reload changes.
pub struct Roads {
    /// To the mail exchangers of domains.
    pub router: Router,
    /// For the addresses of gateways.
    pub resolver: Arc<dyn Resolver>,
    /// Whom to trust for gateways that name no authorities of their own.
    pub authorities: Arc<RootCertStore>,
}

/// The envelope's sender: the token that stands for the entry's own, if there is one.
fn reverse_path(entry: &QueueEntry, content: &QueuedContent) -> ReversePath {
    let token = content.token.clone().map(ReversePath::Address);
    token.unwrap_or_else(|| entry.reverse_path.clone())
}

/// Finds an organization's gateway, by the organization's id and the gateway's name.
pub type FindGateway = Box<dyn Fn(&str, &str) -> Option<Arc<Gateway>> + Send + Sync>;

/// Carries mail over SMTP.
pub struct SmtpCourier {
    roads: ArcSwap<Roads>,
    gateways: FindGateway,
    clients: Clients,
}

/// How the client behaves, by what it carries.
struct Clients {
    usual: ClientSettings,
    /// With less patience.
    for_reports: ClientSettings,
}

impl Clients {
    fn new(hello_name: &Domain) -> Self {
        let client = |timeouts| ClientSettings { hello_name: hello_name.clone(), timeouts };
        let (usual, for_reports) = (Timeouts::default(), Timeouts::for_reports());
        Self { usual: client(usual), for_reports: client(for_reports) }
    }

    fn that_carries(&self, purpose: &Purpose) -> &ClientSettings {
        match purpose {
            Purpose::Report => &self.for_reports,
            Purpose::Message | Purpose::JournalRecord { .. } => &self.usual,
        }
    }
}

impl SmtpCourier {
    /// A courier with its first roads, which introduces itself by this name.
    pub fn new(roads: Roads, gateways: FindGateway, hello_name: &Domain) -> Self {
        Self { roads: ArcSwap::from_pointee(roads), gateways, clients: Clients::new(hello_name) }
    }

    /// Takes other roads from now on.
    pub fn reload(&self, roads: Roads) {
        self.roads.store(Arc::new(roads));
    }

    async fn route(&self, entry: &QueueEntry) -> Result<Route, Outcome> {
        let roads = self.roads.load_full();
        match &entry.destination {
            Destination::Domain(domain) => roads.router.route(domain).await.map_err(|error| {
                let failure = failure(error.status(), error.to_string(), domain.as_str());
                if error.is_permanent() {
                    Outcome::Failed(failure)
                } else {
                    Outcome::Deferred(failure)
                }
            }),
            Destination::Gateway(name) => self.gateway(entry, name, &roads).await,
        }
    }

    async fn gateway(
        &self,
        entry: &QueueEntry,
        name: &str,
        roads: &Roads,
    ) -> Result<Route, Outcome> {
        let failed = |text: &str| {
            let text = format!("SMTP gateway {name}: {text}");
            Outcome::Failed(failure("5.4.1", text, name))
        };
        let gateway = (self.gateways)(&entry.organization, name);
        let gateway = gateway.ok_or_else(|| failed("there is none of this name"))?;
        let found = addresses(&gateway.host, &*roads.resolver).await;
        let addresses = found.map_err(|problem| {
            let text = format!("SMTP gateway {name}: {problem}");
            Outcome::Deferred(failure("4.4.3", text, name))
        })?;
        let Addresses { found: addresses, are_all } = addresses;
        if addresses.is_empty() {
            return Err(failed("its name leads to no address"));
        }
        let roots = match &gateway.authorities {
            None => Arc::clone(&roads.authorities),
            Some(own) => Arc::new(trusting(own).map_err(|error| failed(&error.to_string()))?),
        };
        let login = gateway.login.as_ref();
        let hop = Hop {
            name: gateway.host.to_string(),
            addresses,
            port: gateway.port,
            tls: TlsDemand::Verified(Verifier::web_pki(roots), gateway.host.to_string()),
            implicit_tls: gateway.implicit_tls,
            credentials: login.map(|login| (login.user_name.clone(), login.password.clone())),
        };
        Ok(if are_all { Route::complete(vec![hop]) } else { Route::incomplete(vec![hop]) })
    }
}

fn trusting(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// The addresses of a gateway.
struct Addresses {
    found: Vec<IpAddr>,
    /// Whether DNS has answered for both families.
    are_all: bool,
}

/// None is an answer; that there was no answer is the error, since it may come later.
async fn addresses(host: &GatewayHost, resolver: &dyn Resolver) -> Result<Addresses, LookupError> {
    let name = match host {
        GatewayHost::Address(ip) => return Ok(Addresses { found: vec![*ip], are_all: true }),
        GatewayHost::Name(name) => name.as_str(),
    };
    let lookups = async {
        tokio::join!(resolver.lookup(name, RecordType::Aaaa), resolver.lookup(name, RecordType::A))
    };
    let late = || LookupError::Transient("DNS did not answer in time".to_owned());
    let (v6, v4) = timeout(LOOKUP_TIMEOUT, lookups).await.map_err(|_| late())?;
    let (mut found, mut silence) = (Vec::new(), None);
    for answer in [v6, v4] {
        match answer {
            Ok(answer) => found.extend(answer.records.iter().filter_map(|record| match record {
                RecordData::A(ip) => Some(IpAddr::from(*ip)),
                RecordData::Aaaa(ip) => Some(IpAddr::from(*ip)),
                _ => None,
            })),
            Err(error) if error.is_void() => {}
            Err(error) => silence = Some(error),
        }
    }
    match silence {
        Some(error) if found.is_empty() => Err(error),
        silence => Ok(Addresses { found, are_all: silence.is_none() }),
    }
}

fn failure(status: &str, text: String, remote: &str) -> Failure {
    Failure {
        stage: Stage::Connect,
        code: None,
        enhanced: status.parse().unwrap_or(UNREACHABLE),
        said: None,
        text,
        remote: remote.to_owned(),
        address: None,
        maybe_delivered: false,
    }
}

/// A server of the operator's that refuses the login says nothing of the recipients: their mail
/// waits until the password is right again. Servers that DNS names are not logged in to.
fn by_route(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if failure.stage == Stage::Auth => {
            Outcome::Deferred(failure.for_now())
        }
        outcome => outcome,
    }
}

/// A gateway that cannot be reached, or not safely, bounces its mail (guide 3681), with the same
/// status for good; what it says itself may be temporary, and who was left over because it is slow
/// can be tried again. That no way leads from here to an address of it, or that DNS does not tell
/// all of them now, says nothing of the gateway.
fn by_gateway(name: &str, outcome: Outcome, asked: Asked) -> Outcome {
    match outcome {
        Outcome::Deferred(failure) if asked == Asked::All && is_unreachable(&failure) => {
            let (subject, detail) = (failure.enhanced.subject(), failure.enhanced.detail());
            let enhanced = EnhancedStatus::new(5, subject, detail);
            let text = format!("SMTP gateway {name}: {}", failure.text);
            Outcome::Failed(Failure { enhanced, text, ..failure })
        }
        outcome => outcome,
    }
}

fn is_unreachable(failure: &Failure) -> bool {
    failure.code.is_none() && !failure.maybe_delivered && failure.enhanced != NO_TIME_LEFT
}

impl Courier for SmtpCourier {
    type Connection = Connection;

    async fn carry(
        &self,
        mail: &QueuedMail,
        places: &[usize],
        content: &QueuedContent,
        open: Option<Connection>,
    ) -> Carried<Connection> {
        let entry = &mail.entry;
        let route = match self.route(entry).await {
            Ok(route) => route,
            Err(outcome) => {
                let outcomes = places.iter().map(|place| (*place, outcome.clone())).collect();
                return Carried { outcomes, open };
            }
        };
        let recipients: Vec<EnvelopeRecipient> =
            places.iter().filter_map(|place| entry.recipients.get(*place).cloned()).collect();
        let envelope = Envelope {
            reverse_path: reverse_path(entry, content),
            parameters: entry.parameters.clone(),
            recipients,
        };
        let parts = [content.prefix.as_slice(), &content.content, &content.suffix];
        let job = Job { envelope: &envelope, content: &parts };
        let client = self.clients.that_carries(&entry.purpose);
        let attempted = attempt(&route, &job, client, open).await;
        let asked = attempted.asked;
        let outcomes = attempted.outcomes.into_iter().map(|outcome| match &entry.destination {
            Destination::Domain(_) => by_route(outcome),
            Destination::Gateway(name) => by_gateway(name, outcome, asked),
        });
        let outcomes = places.iter().copied().zip(outcomes);
        Carried { outcomes: outcomes.collect(), open: attempted.connection }
    }

    fn close(&self, connection: Connection) -> impl Future<Output = ()> + Send {
        connection.quit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Answer, Lookup};

    /// Answers each type of record in its own way.
    struct Dns {
        v6: Result<RecordData, LookupError>,
        v4: Result<RecordData, LookupError>,
    }

    impl Resolver for Dns {
        fn lookup<'a>(&'a self, _name: &'a str, record_type: RecordType) -> Lookup<'a> {
            let found = if record_type == RecordType::A { &self.v4 } else { &self.v6 };
            let answer = |record| Answer {
                records: [record].into(),
                ttl: Duration::from_secs(60),
                is_secure: false,
            };
            Box::pin(std::future::ready(found.clone().map(answer)))
        }
    }

    #[test]
    fn a_report_is_worth_less_patience_than_a_users_message() {
        let clients = Clients::new(&Domain::parse("mx.example.test").expect("valid"));
        let waits = |purpose: &Purpose| {
            let timeouts = &clients.that_carries(purpose).timeouts;
            [timeouts.banner, timeouts.hello, timeouts.mail].map(|it| it.as_secs())
        };
        assert_eq!(waits(&Purpose::Report), [60, 60, 300]);
        assert_eq!(waits(&Purpose::Message), [300; 3], "RFC 5321 §4.5.3.2");
    }

    #[test]
    fn a_gateway_that_cannot_be_reached_bounces_and_one_that_is_slow_does_not() {
        for (status, asked, expected) in [
            ("4.4.1", Asked::All, Some("5.4.1 SMTP gateway filter: because (remote, connection)")),
            ("4.7.5", Asked::All, Some("5.7.5 SMTP gateway filter: because (remote, connection)")),
            ("4.4.1", Asked::Some, None),
            ("4.4.5", Asked::All, None),
        ] {
            let failure = failure(status, "because".to_owned(), "remote");
            let told = match by_gateway("filter", Outcome::Deferred(failure), asked) {
                Outcome::Failed(failure) => Some(failure.to_string()),
                Outcome::Sent(_) | Outcome::Deferred(_) => None,
            };
            assert_eq!(told.as_deref(), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn a_gateway_of_which_dns_says_nothing_now_is_asked_for_again() {
        let silent = || Err(LookupError::Transient("SERVFAIL".to_owned()));
        let found = || Ok(RecordData::A([192, 0, 2, 1].into()));
        for (v6, v4, expected) in [
            (silent(), silent(), Err(())),
            (silent(), Err(LookupError::NoData), Err(())),
            (Err(LookupError::NoSuchName), Err(LookupError::NoSuchName), Ok((0, true))),
            (Err(LookupError::NoData), found(), Ok((1, true))),
            (silent(), found(), Ok((1, false))),
        ] {
            let host: GatewayHost = "filter.example.test".parse().expect("a host");
            let found = addresses(&host, &Dns { v6, v4 }).await;
            let found = found.map(|it| (it.found.len(), it.are_all)).map_err(|_| ());
            assert_eq!(found, expected);
        }
    }
}
