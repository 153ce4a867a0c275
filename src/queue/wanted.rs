//! The entries that an operator means.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mail::{Address, Domain};
use crate::store::{Destination, QueueId, QueuedMail};

/// Which entries are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// These.
    Ids(Vec<QueueId>),
    /// All that there are.
    All,
    /// Those that somebody waits for.
    To(Whom),
}

/// Recipients: one address, all of a domain, or all whose mail goes through a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Whom {
    text: String,
    address: Option<Address>,
    domain: Option<Domain>,
}

impl From<String> for Whom {
    fn from(text: String) -> Self {
        let address = Address::parse(&text).ok();
        let domain = Domain::parse(&text).ok();
        Self { text, address, domain }
    }
}

impl From<Whom> for String {
    fn from(whom: Whom) -> Self {
        whom.text
    }
}

impl FromStr for Whom {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Whom {
    /// The places of an entry's recipients that are meant and have no outcome yet.
    pub fn places(&self, mail: &QueuedMail) -> Vec<usize> {
        let are_all = match &mail.entry.destination {
            Destination::Domain(domain) => self.domain.as_ref() == Some(domain),
            Destination::Gateway(name) => name.eq_ignore_ascii_case(&self.text),
        };
        let mut places = Vec::new();
        for (place, recipient) in mail.entry.recipients.iter().enumerate() {
            let is_open = mail.state.settled_at(place).is_none();
            if is_open && (are_all || self.means(&recipient.address)) {
                places.push(place);
            }
        }
        places
    }

    fn means(&self, recipient: &Address) -> bool {
        match &self.address {
            Some(address) => address.key() == recipient.key(),
            None => self.domain.as_ref() == Some(recipient.domain()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::fixture::mail;
    use crate::store::{QueueEntry, Settled, SettledOutcome};

    #[test]
    fn recipients_are_meant_by_address_domain_or_gateway() {
        let to_domain = Destination::Domain(Domain::parse("xn--bcher-kva.test").expect("a domain"));
        let through = Destination::Gateway("Filter".into());
        let books = ["anna@bücher.test", "Bob@bücher.test"];
        let mixed = ["anna@bücher.test", "carol@far.test"];
        for (destination, recipients, whom, expected) in [
            (&to_domain, books, "bücher.test", vec![0, 1]),
            (&to_domain, books, "XN--BCHER-KVA.test", vec![0, 1]),
            (&to_domain, books, "bob@BÜCHER.test", vec![1]),
            (&to_domain, books, "carol@bücher.test", vec![]),
            (&to_domain, books, "test", vec![]),
            (&to_domain, books, "filter", vec![]),
            (&to_domain, books, "", vec![]),
            (&through, mixed, "filter", vec![0, 1]),
            (&through, mixed, "far.test", vec![1]),
            (&through, mixed, "anna@bücher.test", vec![0]),
        ] {
            let mail = mail(1, destination.clone(), &recipients);
            let whom: Whom = whom.to_owned().into();
            assert_eq!(whom.places(&mail), expected, "{whom} of {recipients:?}");
        }
    }

    #[test]
    fn who_has_an_outcome_is_not_meant() {
        let destination = Destination::Domain(Domain::parse("far.test").expect("a domain"));
        let mut mail = mail(1, destination, &["a@far.test", "b@far.test"]);
        mail.state.settled =
            vec![Settled { place: 0, outcome: SettledOutcome::Sent("250 ok".into()) }];
        let whom: Whom = "far.test".to_owned().into();
        assert_eq!(whom.places(&mail), [1]);
        let none = QueueEntry { recipients: Vec::new(), ..(*mail.entry).clone() };
        mail.entry = Arc::new(none);
        assert!(whom.places(&mail).is_empty());
    }
}
