//! What a user sends: over TLS whose certificate is verified, after a login.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::RootCertStore;

use super::world::{HOSTNAME, Place, Running};
use crate::clock::{Clock, SystemClock};
use crate::directory::credential::PasswordHash;
use crate::id::TraceId;
use crate::mail::{
    Address, Domain, EnvelopeRecipient, MailParameters, RcptParameters, ReversePath, Secret,
};
use crate::queue::route::Verifier;
use crate::smtp::certificate_authorities;
use crate::smtp::client::{
    Connection, Endpoint, Outcome, OutgoingTransaction, Timeouts, TlsDemand,
};
use crate::store::CredentialStore;

/// Who submits, by name.
const USER: &str = "alice";
/// The same by address.
pub(super) const AUTHOR: &str = "alice@example.test";

/// A message that the user submits.
pub(super) struct Submission {
    pub(super) what: &'static str,
    pub(super) recipients: &'static [&'static str],
    subject: &'static str,
    pub(super) message_id: &'static str,
    pub(super) end: End,
}

/// Where a message ends that leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In a mailbox elsewhere.
    Elsewhere,
    /// Nowhere; its author gets a report.
    Bounced,
}

/// Three messages, each with another end.
pub(super) const SUBMISSIONS: [Submission; 3] = [
    Submission {
        what: "7. Submitted, to a colleague and to somebody elsewhere",
        recipients: &["bob@example.test", "erin@elsewhere.test"],
        subject: "The minutes of Friday",
        message_id: "demo-minutes@example.test",
        end: End::Elsewhere,
    },
    Submission {
        what: "8. Submitted, to somebody who is not there: it bounces",
        recipients: &["nobody@elsewhere.test"],
        subject: "Are you there?",
        message_id: "demo-nobody@example.test",
        end: End::Bounced,
    },
    Submission {
        what: "9. Submitted, and the rule \"via-filter\" sends it through a gateway",
        recipients: &["buyer@partner.test"],
        subject: "Re: An order",
        message_id: "demo-gateway@example.test",
        end: End::Elsewhere,
    },
];

impl Submission {
    fn content(&self) -> String {
        format!(
            "From: <{AUTHOR}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: Sat, 21 Nov 2026 09:30:00 +0000\
             \r\nMessage-ID: <{}>\r\n\r\nA demo message.\r\n",
            self.recipients.join(">, <"),
            self.subject,
            self.message_id
        )
    }

    /// Submits it; the reply to the message.
    pub(super) async fn submit(&self, connection: &mut Connection) -> anyhow::Result<String> {
        let to = |address: &&str| {
            let parameters = RcptParameters::default();
            Address::parse(address).map(|address| EnvelopeRecipient { address, parameters })
        };
        let recipients: Vec<_> = self.recipients.iter().map(to).collect::<Result<_, _>>()?;
        let transaction = OutgoingTransaction {
            reverse_path: &ReversePath::Address(Address::parse(AUTHOR)?),
            parameters: &MailParameters::default(),
            recipients: recipients.iter().collect(),
        };
        let outcomes = connection.send(&transaction, &[self.content().as_bytes()]).await?;
        match outcomes.first() {
            Some(Outcome::Sent(receipt)) => Ok(receipt.reply.to_string()),
            Some(Outcome::Deferred(failure) | Outcome::Failed(failure)) => bail!("{failure}"),
            None => bail!("the message has no recipient"),
        }
    }
}

/// Gives the user a password, and logs in with it.
pub(super) async fn log_in(here: &Running) -> anyhow::Result<Connection> {
    let endpoint = Endpoint {
        address: here.address("submissions")?,
        name: HOSTNAME.to_owned(),
        implicit_tls: true,
    };
    let authorities = Arc::new(authorities(&here.place)?);
    let demand = TlsDemand::Verified(Verifier::web_pki(authorities), HOSTNAME.to_owned());
    let credentials = (AUTHOR.to_owned(), give_password(&here.place)?);
    let (name, times) = (Domain::parse("desk.example.test")?, Timeouts::default());
    Ok(Connection::open(&endpoint, &demand, &name, &times, Some(&credentials)).await?)
}

/// The self-signed certificate that the daemon has made at its start.
fn authorities(place: &Place) -> anyhow::Result<RootCertStore> {
    let pem = std::fs::read(place.store.data_dir.join("tls/certificate.pem"))?;
    let mut authorities = RootCertStore::empty();
    for certificate in certificate_authorities(&pem)? {
        authorities.add(certificate)?;
    }
    Ok(authorities)
}

fn give_password(place: &Place) -> anyhow::Result<Secret> {
    let password = Secret::new(format!("Demo-{}", TraceId::generate()));
    let hash = PasswordHash::of(&password)?;
    let owner = place.owner(USER).context("the demo's user is there")?;
    let credentials = CredentialStore::open(&place.store.data_dir)?;
    credentials.set_password(&owner, hash.as_str(), SystemClock.now())?;
    Ok(password)
}

/// The trace that a 250 names first: that of the message as it was submitted.
pub(super) fn trace_of(reply: &str) -> anyhow::Result<TraceId> {
    let mut words = reply.split_whitespace();
    let id = words.find_map(|word| word.parse().ok());
    id.ok_or_else(|| anyhow!("the reply names no trace: {reply}"))
}
