//! Answers from the network.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType as WireType};
use hickory_resolver::Resolver as HickoryResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::read_system_conf;

use super::cache::{Fetch, Fetched, Upstream};
use super::connector::Connector;
use super::name::is_name;
use super::{Answer, LookupError, LookupResult, RecordData, RecordType, Settings, record};

/// Asks the system's name servers, or given ones, over UDP and, for long answers, TCP. Keeps
/// nothing: that is [`CachedResolver`](super::CachedResolver)'s work.
pub struct SystemResolver {
    resolver: HickoryResolver<Connector>,
    connector: Connector,
    trust_ad: bool,
}

impl SystemResolver {
    /// Asks the servers of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// What is wrong with that file.
    pub fn system(settings: &Settings) -> Result<Self, String> {
        let (config, options) = read_system_conf().map_err(|error| error.to_string())?;
        // Its search list is not for names that stand in mail.
        let (_, _, servers) = config.into_parts();
        Self::build(ResolverConfig::from_parts(None, vec![], servers), options, settings)
    }

    /// Asks `servers`.
    ///
    /// # Errors
    /// Why the resolver cannot be built.
    pub fn with_servers(servers: &[SocketAddr], settings: &Settings) -> Result<Self, String> {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, vec![], servers);
        Self::build(config, ResolverOpts::default(), settings)
    }

    fn build(
        config: ResolverConfig,
        mut options: ResolverOpts,
        settings: &Settings,
    ) -> Result<Self, String> {
        options.timeout = settings.timeout;
        // hickory counts the retries.
        options.attempts = settings.attempts.saturating_sub(1);
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let trust_ad = settings.trust_ad;
        let connector = Connector::new(trust_ad, config.name_servers().len() > 1);
        HickoryResolver::builder_with_config(config, connector.clone())
            .with_options(options)
            .build()
            .map(|resolver| Self { resolver, connector, trust_ad })
            .map_err(|error| error.to_string())
    }

    async fn ask(&self, name: &str, record_type: RecordType) -> Fetched {
        let Some(query) = wire_name(name) else {
            return Fetched { result: Err(LookupError::NoSuchName), negative_ttl: None };
        };
        match self.resolver.lookup(query.clone(), wire_type(record_type)).await {
            Ok(lookup) => {
                let is_secure = self.trust_ad && is_validated(&lookup, &query);
                let result = answer(&lookup, record_type, is_secure);
                Fetched { result, negative_ttl: None }
            }
            Err(NetError::NoConnections) => {
                let problem = self.connector.last_failure();
                let problem = problem.unwrap_or_else(|| NetError::NoConnections.to_string());
                Fetched { result: Err(LookupError::Transient(problem)), negative_ttl: None }
            }
            Err(error) => failure(&error),
        }
    }
}

impl Upstream for SystemResolver {
    fn fetch<'a>(&'a self, name: &'a str, record_type: RecordType) -> Fetch<'a> {
        Box::pin(self.ask(name, record_type))
    }
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

/// A name of any octets, absolute, so that no search list applies.
fn wire_name(name: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    if !is_name(name) {
        return None;
    }
    let mut wire = Name::from_labels(name.split(|octet| *octet == b'.')).ok()?;
    wire.set_fqdn(true);
    Some(wire)
}

fn wire_type(record_type: RecordType) -> WireType {
    match record_type {
        RecordType::Txt => WireType::TXT,
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Mx => WireType::MX,
        RecordType::Ptr => WireType::PTR,
        RecordType::Tlsa => WireType::TLSA,
    }
}

/// Whether the server vouches for the whole answer. Where hickory had to ask a second time for a
/// CNAME's target, the last response speaks for that target alone; then it has another question.
fn is_validated(lookup: &Lookup, name: &Name) -> bool {
    lookup.message().metadata.authentic_data && lookup.query().name() == name
}

fn answer(lookup: &Lookup, record_type: RecordType, is_secure: bool) -> LookupResult {
    let records: Vec<RecordData> = lookup
        .answers()
        .iter()
        .filter_map(|record| record::from_rdata(&record.data))
        .filter(|record| record.record_type() == record_type)
        .collect();
    if records.is_empty() {
        return Err(LookupError::NoData);
    }
    // With a CNAME in the answer, its TTL counts too.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok(Answer { records: records.into(), ttl: Duration::from_secs(ttl.into()), is_secure })
}

fn failure(error: &NetError) -> Fetched {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        let result = Err(LookupError::Transient(error.to_string()));
        return Fetched { result, negative_ttl: None };
    };
    let result = Err(match none.response_code {
        ResponseCode::NXDomain => LookupError::NoSuchName,
        ResponseCode::NoError => LookupError::NoData,
        code => LookupError::Transient(code.to_string()),
    });
    Fetched { result, negative_ttl: none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())) }
}
