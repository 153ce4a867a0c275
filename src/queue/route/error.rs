//! Why there is no route.

use crate::mail::Domain;

/// Why there is nowhere to send mail for a domain, now or ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// NXDOMAIN.
    #[error("the domain {0} does not exist")]
    NoSuchDomain(Domain),
    /// RFC 7505.
    #[error("the domain {0} does not accept mail (null MX)")]
    NullMx(Domain),
    /// No host of the domain has an address.
    #[error("no mail host of {0} has an address")]
    NoHost(Domain),
    /// All addresses of its hosts are of networks that are not everybody's.
    #[error(
        "mail for {0} would go to a private network, where this server sends none unless [queue] private_networks or a [[queue_route]] allows it"
    )]
    PrivateNetwork(Domain),
    /// The best host is this server, for which the domain is not local.
    #[error("mail for {0} loops back to this server")]
    Loop(Domain),
    /// DNS does not answer.
    #[error("DNS has no answer for {name}: {problem}")]
    Dns {
        /// The name that was asked for.
        name: String,
        /// What went wrong.
        problem: String,
    },
    /// The certificate authorities of the operator's route cannot be used.
    #[error("the authorities of the route for {domain} cannot be used: {problem}")]
    Authorities {
        /// Whose mail it is.
        domain: Domain,
        /// What is wrong with them.
        problem: String,
    },
    /// No host is one that the domain's MTA-STS policy allows.
    #[error("the MTA-STS policy of {0} allows none of its mail hosts")]
    MtaSts(Domain),
}

impl RouteError {
    /// The enhanced status code (RFC 3463 and RFC 7505 §4.2). Those that begin with 5 are for
    /// good, with 4 a later attempt may go better.
    pub fn status(&self) -> &'static str {
        match self {
            Self::NoSuchDomain(_) => "5.1.2",
            Self::NullMx(_) => "5.1.10",
            Self::NoHost(_) | Self::PrivateNetwork(_) => "5.4.4",
            Self::Loop(_) => "5.4.6",
            Self::Dns { .. } => "4.4.3",
            Self::MtaSts(_) => "4.7.0",
            Self::Authorities { .. } => "4.7.5",
        }
    }

    /// Whether a later attempt can only end in the same way.
    pub fn is_permanent(&self) -> bool {
        self.status().starts_with('5')
    }
}
