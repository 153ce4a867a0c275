//! The signing keys of domains: made, rotated in two steps, and loaded for the daemon.
//!
//! Selectors are `mw`, the number of the generation, and `r` or `e` for the type of key: `mw1r`
//! and `mw1e` first. A rotation makes the next generation, whose records can then be published.
//!
//! A key is made as one that waits, and signs from when its record has been seen in DNS; until then
//! the one before it goes on. The first ones wait too, and mail leaves unsigned meanwhile: a
//! signature whose key nobody finds proves no more than none (RFC 6376 §6.1), and there are
//! receivers that take it for worse, as our own verdicts do. SPF carries DMARC until then.
//!
//! The generation before remains in its files until the next change of that kind, and its records
//! should remain in DNS for as long as mail that it signed may be under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::DomainKeyError;
use crate::mail::Domain;
use crate::msgauth::{KeyType, SelectedKey, Signer, SigningKey};
use crate::store::{DomainKeyFolder, DomainKeyName, Settings, domain_key_files};

/// Begins all our selectors.
const PREFIX: &str = "mw";

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Made, to be published; signs nothing before DNS has its record.
    Next,
    /// Signs what leaves now.
    Current,
    /// Has signed mail that may still be under way.
    Previous,
}

/// A key of a domain.
#[derive(Debug)]
pub struct ManagedKey {
    /// The value of `s=`.
    pub selector: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// The key.
    pub key: SigningKey,
}

impl ManagedKey {
    /// Where its record stands.
    pub fn record_name(&self, domain: &Domain) -> String {
        format!("{}._domainkey.{domain}", self.selector)
    }
}

/// A name with the parts of its selector.
#[derive(Clone, Debug)]
pub(super) struct Named {
    generation: u32,
    pub(super) key_type: KeyType,
    pub(super) name: DomainKeyName,
}

impl Named {
    fn new(domain: &Domain, generation: u32, key_type: KeyType, is_next: bool) -> Self {
        let letter = match key_type {
            KeyType::Rsa => 'r',
            KeyType::Ed25519 => 'e',
        };
        let selector = format!("{PREFIX}{generation}{letter}");
        let name = DomainKeyName { domain: domain.clone(), selector, is_next };
        Self { generation, key_type, name }
    }

    /// `None` for a selector that is not of our making.
    pub(super) fn parse(name: DomainKeyName) -> Option<Self> {
        let rest = name.selector.strip_prefix(PREFIX)?;
        let (number, key_type) = match (rest.strip_suffix('r'), rest.strip_suffix('e')) {
            (Some(number), _) => (number, KeyType::Rsa),
            (_, Some(number)) => (number, KeyType::Ed25519),
            (None, None) => return None,
        };
        let generation = number.parse().ok()?;
        let is_ours = Self::new(&name.domain, generation, key_type, name.is_next).name == name;
        is_ours.then_some(Self { generation, key_type, name })
    }

    fn read(&self, folder: &DomainKeyFolder) -> Result<SigningKey, DomainKeyError> {
        Ok(SigningKey::from_pkcs8(self.key_type, &folder.read(&self.name)?)?)
    }

    fn make(&self, folder: &DomainKeyFolder) -> Result<(), DomainKeyError> {
        Ok(folder.add(&self.name, &SigningKey::generate(self.key_type)?)?)
    }
}

/// The names of one domain's keys.
#[derive(Debug, Default)]
pub(super) struct Generations(pub(super) Vec<Named>);

impl Generations {
    fn read(folder: &DomainKeyFolder, domain: &Domain) -> Result<Self, DomainKeyError> {
        let ours = folder.list()?.into_iter().filter(|name| name.domain == *domain);
        Ok(Self(ours.filter_map(Named::parse).collect()))
    }

    /// The newest generation in use; 0 if there is none.
    fn current(&self) -> u32 {
        let in_use = self.0.iter().filter(|named| !named.name.is_next);
        in_use.map(|named| named.generation).max().unwrap_or(0)
    }

    /// The key of a type that signs: the newest in use. A rotation that was cut off may have left
    /// the types at different generations.
    pub(super) fn signs(&self, key_type: KeyType) -> Option<&Named> {
        let candidates = self.0.iter().filter(|it| it.key_type == key_type && !it.name.is_next);
        candidates.max_by_key(|named| named.generation)
    }

    fn next(&self) -> impl Iterator<Item = &Named> {
        self.0.iter().filter(|named| named.name.is_next)
    }

    fn stage(&self, named: &Named) -> Stage {
        let signs = self.signs(named.key_type);
        match signs {
            _ if named.name.is_next => Stage::Next,
            Some(current) if current.name == named.name => Stage::Current,
            _ => Stage::Previous,
        }
    }

    fn signer(&self, folder: &DomainKeyFolder, domain: &Domain) -> Result<Signer, DomainKeyError> {
        let mut keys = Vec::new();
        for named in KeyType::ALL.iter().filter_map(|key_type| self.signs(*key_type)) {
            let selector = named.name.selector.clone();
            keys.push(SelectedKey { selector, key: named.read(folder)? });
        }
        Ok(Signer::new(domain.clone(), keys))
    }
}

/// A domain's keys: those in use, the next, the previous.
///
/// # Errors
/// [`DomainKeyError`] for a key that does not open.
pub fn keys_of(
    folder: &DomainKeyFolder,
    domain: &Domain,
) -> Result<Vec<ManagedKey>, DomainKeyError> {
    let generations = Generations::read(folder, domain)?;
    let mut keys = Vec::new();
    for named in &generations.0 {
        let (selector, stage) = (named.name.selector.clone(), generations.stage(named));
        keys.push(ManagedKey { selector, stage, key: named.read(folder)? });
    }
    keys.sort_by_key(|key| (key.stage != Stage::Current, key.stage != Stage::Next));
    Ok(keys)
}

/// Makes a domain's first keys, which wait for their records; does nothing where there are some.
///
/// # Errors
/// [`DomainKeyError`].
pub fn make_keys(folder: &DomainKeyFolder, domain: &Domain) -> Result<(), DomainKeyError> {
    let _nobody_else = folder.lock()?;
    let generations = Generations::read(folder, domain)?;
    let generation = generations.current().max(1);
    for key_type in KeyType::ALL {
        if !generations.0.iter().any(|named| named.key_type == key_type) {
            Named::new(domain, generation, key_type, true).make(folder)?;
        }
    }
    Ok(())
}

/// Makes a domain's next keys; does nothing where they are.
///
/// # Errors
/// [`DomainKeyError::NoKeys`] for a domain without keys that sign.
pub fn rotate_keys(folder: &DomainKeyFolder, domain: &Domain) -> Result<(), DomainKeyError> {
    let _nobody_else = folder.lock()?;
    let generations = Generations::read(folder, domain)?;
    if generations.current() == 0 {
        return Err(DomainKeyError::NoKeys(domain.clone()));
    }
    for key_type in KeyType::ALL {
        if !generations.next().any(|named| named.key_type == key_type) {
            Named::new(domain, generations.current() + 1, key_type, true).make(folder)?;
        }
    }
    Ok(())
}

/// Takes those of a domain's next keys into use that have these selectors, and removes those before
/// the ones that they replace.
///
/// # Errors
/// [`DomainKeyError::NoNextKeys`] if there are none.
pub fn use_next_keys(
    folder: &DomainKeyFolder,
    domain: &Domain,
    selectors: &[String],
) -> Result<(), DomainKeyError> {
    let _nobody_else = folder.lock()?;
    let generations = Generations::read(folder, domain)?;
    let taken: Vec<_> =
        generations.next().filter(|named| selectors.contains(&named.name.selector)).collect();
    if taken.is_empty() {
        return Err(DomainKeyError::NoNextKeys(domain.clone()));
    }
    for named in &taken {
        folder.use_next(&named.name)?;
    }
    for named in &generations.0 {
        let is_replaced = taken.iter().any(|taken| taken.key_type == named.key_type);
        if is_replaced && generations.stage(named) == Stage::Previous {
            folder.remove(&named.name)?;
        }
    }
    Ok(())
}

/// The signers of all domains, for the daemon. What `mailweir domain keys` changes meanwhile is
/// found by [`DomainKeys::refresh`].
#[derive(Debug)]
pub struct DomainKeys {
    folder: DomainKeyFolder,
    current: ArcSwap<HashMap<Domain, Arc<Signer>>>,
    /// The names that `current` was read from; a key never changes under its name.
    seen: Mutex<Vec<DomainKeyName>>,
}

impl DomainKeys {
    /// Opens the keys of all domains.
    ///
    /// # Errors
    /// [`DomainKeyError`] for the first that does not open.
    pub fn load(settings: &Settings) -> Result<Self, DomainKeyError> {
        let folder = DomainKeyFolder::open(settings)?;
        let keys = Self { folder, current: ArcSwap::default(), seen: Mutex::default() };
        keys.refresh()?;
        Ok(keys)
    }

    /// Whether [`DomainKeys::load`] would open all that are there; nothing is made for it.
    ///
    /// # Errors
    /// [`DomainKeyError`] for the first that does not open.
    pub fn try_out(settings: &Settings) -> Result<(), DomainKeyError> {
        if domain_key_files(settings)?.is_empty() {
            return Ok(());
        }
        let folder = DomainKeyFolder::open_known(settings)?;
        let keys = Self { folder, current: ArcSwap::default(), seen: Mutex::default() };
        keys.refresh().map(drop)
    }

    /// Where the keys are.
    pub(super) fn folder(&self) -> &DomainKeyFolder {
        &self.folder
    }

    /// The domains that have keys which wait for their records, as the last refresh found them, and
    /// the keys' selectors.
    pub(super) fn waiting(&self) -> Vec<(Domain, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = seen.iter().filter(|name| name.is_next).cloned().filter_map(Named::parse);
        waiting.map(|named| (named.name.domain, named.name.selector)).collect()
    }

    /// Who signs the mail of an author at `domain`; `None` if it has no keys. A subdomain has keys
    /// of its own or none.
    pub fn signer_for(&self, domain: &Domain) -> Option<Arc<Signer>> {
        self.current.load().get(domain).cloned()
    }

    /// Who signs mail that we make ourselves, whose author is at `author`: the nearest domain above
    /// it that has keys, because a signature by it counts for DMARC as the author's own (RFC 9989,
    /// relaxed alignment), else the first of the organization's `domains` that has keys.
    pub fn signer_of_our_own_mail(&self, author: &str, domains: &[Domain]) -> Option<Arc<Signer>> {
        let mut name = author;
        loop {
            if let Some(signer) = Domain::parse(name).ok().and_then(|it| self.signer_for(&it)) {
                return Some(signer);
            }
            match name.split_once('.') {
                Some((_, above)) => name = above,
                None => return domains.iter().find_map(|domain| self.signer_for(domain)),
            }
        }
    }

    /// Takes up what changed in the folder: one listing, and reading only if a name is new or
    /// gone. Whether there was anything. On an error all remains as it was.
    ///
    /// # Errors
    /// [`DomainKeyError`].
    pub fn refresh(&self) -> Result<bool, DomainKeyError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.folder.list()?;
        if names == *seen {
            return Ok(false);
        }
        let mut domains: HashMap<Domain, Generations> = HashMap::new();
        for named in names.iter().cloned().filter_map(Named::parse) {
            domains.entry(named.name.domain.clone()).or_default().0.push(named);
        }
        let mut signers = HashMap::new();
        for (domain, generations) in domains {
            let signer = generations.signer(&self.folder, &domain)?;
            if signer.selectors().next().is_some() {
                signers.insert(domain, Arc::new(signer));
            }
        }
        let before = self.current.swap(Arc::new(signers));
        // At the start nothing begins to sign that has not signed before.
        if !seen.is_empty() {
            self.tell_who_begins(&before);
        }
        *seen = names;
        Ok(true)
    }

    /// A key that has begun to sign leaves a line: who receives mail with it may ask since when.
    fn tell_who_begins(&self, before: &HashMap<Domain, Arc<Signer>>) {
        for (domain, signer) in self.current.load().iter() {
            let known: Vec<&str> =
                before.get(domain).into_iter().flat_map(|signer| signer.selectors()).collect();
            for selector in signer.selectors().filter(|selector| !known.contains(selector)) {
                tracing::info!(%domain, selector, "the key signs from now on");
            }
        }
    }
}
