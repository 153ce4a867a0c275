//! Why mail of a domain leaves without a signature that every receiver can check. The names of the
//! key files alone say so, with or without a daemon, and no master key is needed.

use std::collections::HashMap;
use std::fmt;

use super::keys::{Generations, Named};
use crate::clock::Timestamp;
use crate::mail::Domain;
use crate::msgauth::KeyType;
use crate::store::{DomainKeyFile, Settings, StoreError, domain_key_files};

/// A domain whose mail leaves unsigned, or signed in a way that many receivers do not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    domain: Domain,
    rsa_key: RsaKey,
    /// Ed25519 signs, which many receivers do not know (RFC 8463 is eleven years younger than
    /// DKIM).
    has_other_signature: bool,
}

/// Why no RSA key signs, which every receiver knows (RFC 8301 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RsaKey {
    /// There is none.
    NotMade,
    /// It waits for its DNS record, since it was made.
    Unpublished { since: Option<Timestamp> },
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, rsa_key, has_other_signature } = self;
        let since = |moment: &Option<Timestamp>| {
            moment.map_or_else(String::new, |moment| format!(" since {moment}"))
        };
        let few_know = "and many receivers know no other signature";
        match (rsa_key, has_other_signature) {
            (RsaKey::NotMade, false) => write!(
                f,
                "{domain} has no DKIM keys, so its mail leaves unsigned: mailweir domain keys \
                 {domain} makes them"
            ),
            (RsaKey::NotMade, true) => write!(
                f,
                "{domain} has no RSA key for DKIM, {few_know}: mailweir domain keys {domain} makes it"
            ),
            (RsaKey::Unpublished { since: moment }, false) => write!(
                f,
                "the DKIM keys of {domain} have waited for their DNS records{}, and its mail \
                 leaves unsigned meanwhile: mailweir domain records {domain} prints them",
                since(moment)
            ),
            (RsaKey::Unpublished { since: moment }, true) => write!(
                f,
                "the RSA key of {domain} for DKIM has waited for its DNS record{}, {few_know}: \
                 mailweir domain records {domain} prints it",
                since(moment)
            ),
        }
    }
}

impl Unsigned {
    /// Whose mail it is.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

/// Those of these domains whose mail leaves unsigned, in their order.
///
/// # Errors
/// The folder of the keys cannot be read.
pub fn unsigned<'a>(
    settings: &Settings,
    domains: impl IntoIterator<Item = &'a Domain>,
) -> Result<Vec<Unsigned>, StoreError> {
    let mut files: HashMap<Domain, Vec<DomainKeyFile>> = HashMap::new();
    for file in domain_key_files(settings)? {
        files.entry(file.name.domain.clone()).or_default().push(file);
    }
    let mut found = Vec::new();
    for domain in domains {
        found.extend(lack_of(domain, files.get(domain).map_or(&[], Vec::as_slice)));
    }
    Ok(found)
}

/// What a domain with these key files lacks.
fn lack_of(domain: &Domain, files: &[DomainKeyFile]) -> Option<Unsigned> {
    let mut generations = Generations::default();
    let mut waits_since = None;
    for file in files {
        let Some(named) = Named::parse(file.name.clone()) else { continue };
        if named.key_type == KeyType::Rsa && named.name.is_next {
            waits_since = Some(file.made_at());
        }
        generations.0.push(named);
    }
    if generations.signs(KeyType::Rsa).is_some() {
        return None;
    }
    let rsa_key = match waits_since {
        None => RsaKey::NotMade,
        Some(since) => RsaKey::Unpublished { since },
    };
    let has_other_signature = generations.signs(KeyType::Ed25519).is_some();
    Some(Unsigned { domain: domain.clone(), rsa_key, has_other_signature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::{make_keys, use_next_keys};
    use crate::store::DomainKeyFolder;

    #[test]
    fn a_domain_signs_with_rsa_or_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings::new(dir.path().join("data"));
        let domain = Domain::parse("example.test").expect("a domain");
        let told = || {
            let found = unsigned(&settings, [&domain]).expect("lists");
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(),
            ["example.test has no DKIM keys, so its mail leaves unsigned: mailweir domain keys \
              example.test makes them"]
        );
        assert!(!settings.data_dir.exists(), "who looks makes nothing");

        let folder = DomainKeyFolder::open(&settings).expect("opens");
        make_keys(&folder, &domain).expect("makes");
        let files = domain_key_files(&settings).expect("lists");
        let rsa = files.iter().find(|file| file.name.selector == "mw1r").expect("is made");
        let made_at = rsa.made_at().expect("has a time");
        let wait = &told()[0];
        let expected = format!("have waited for their DNS records since {}", made_at);
        assert!(wait.contains(&expected) && wait.contains("leaves unsigned meanwhile"), "{wait}");

        use_next_keys(&folder, &domain, &["mw1e".to_owned()]).expect("uses");
        let rsa = &told()[0];
        assert!(rsa.contains("the RSA key of example.test for DKIM has waited for its"), "{rsa}");
        let waiting = folder.list().expect("lists").into_iter().find(|name| name.is_next);
        folder.remove(&waiting.expect("waits")).expect("removes");
        assert!(told()[0].contains("has no RSA key for DKIM"), "{told:?}", told = told());

        make_keys(&folder, &domain).expect("makes the other");
        use_next_keys(&folder, &domain, &["mw1r".to_owned()]).expect("uses");
        assert!(told().is_empty(), "both sign");
        // A rotation changes nothing: the present ones sign until the next can be found.
        crate::domains::rotate_keys(&folder, &domain).expect("makes");
        assert!(told().is_empty());
    }
}
