//! The keys of organizations and mailboxes. Each organization has a file of slots
//! ([`super::slots`]), in which its own keys stand and those of its mailboxes.
//!
//! A delivery never makes a key: some are made beforehand, each with the id of the mailbox that it
//! will be for, and a birth takes one. So a new mailbox at RCPT needs no disk, and the log names a
//! slot that was synced long before the record that names it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use moka::sync::Cache;

use super::key_check::another_key;
use super::keys::{Key, MasterKey};
use super::mailbox::NewMailbox;
use super::slots::{Content, Opened, Purpose, SUFFIX, Slot, SlotFile};
use super::threads::spawn;
use super::{StoreError, damaged, durable};
use crate::heavy;
use crate::id::MailboxId;

/// How long an unwrapped mailbox key is kept (guide 560: cached for a minute at most).
const CACHED_FOR: Duration = Duration::from_secs(60);
const CACHED_KEYS: u64 = 10_000;
/// Keys of mailboxes that a new organization has beforehand. Whenever half of what was made last is
/// taken, twice as many are made, up to the second number: half a MiB, and with it mail for 20,000
/// who never had any waits for a dozen syncs.
const FIRST_KEYS: usize = 8;
const MOST_KEYS: usize = 4096;

/// Whether keys may be made: by whoever has the data folder's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Only what is there is read.
    Reads,
    /// An organization that has no keys gets some.
    Writes,
}

/// The keys of the daemon.
#[derive(Debug)]
pub(super) struct Keyring {
    master: MasterKey,
    master_file: PathBuf,
    data_dir: PathBuf,
    access: Access,
    organizations: RwLock<HashMap<Arc<str>, Arc<OrganizationKeys>>>,
    /// Held by whoever opens or makes the keys of an organization.
    creating: Mutex<()>,
    mailboxes: Cache<MailboxId, Key>,
    /// Taken alone while a key is erased, so that nobody who has read it before keeps it afterwards.
    erasing: RwLock<()>,
    /// Who makes keys beforehand.
    filler: Mutex<Option<Sender<Arc<str>>>>,
}

/// An organization's keys.
#[derive(Debug)]
pub(super) struct OrganizationKeys {
    file: SlotFile,
    /// Held by whoever writes to the file.
    writing: Mutex<()>,
    own: Key,
    leaving: Key,
    pool: Mutex<Pool>,
    /// Held by whoever makes keys beforehand.
    filling: Mutex<()>,
}

/// Keys of mailboxes that are nobody's yet.
#[derive(Debug, Default)]
struct Pool {
    free: VecDeque<(MailboxId, Slot)>,
    /// How many are made the next time.
    next: usize,
    /// Whether they are being made.
    is_filling: bool,
}

impl Pool {
    /// Whether it is time to make more.
    fn is_low(&self) -> bool {
        self.free.len() < (self.next / 4).max(1)
    }
}

impl Keyring {
    pub(super) fn new(
        master: MasterKey,
        master_file: PathBuf,
        data_dir: PathBuf,
        access: Access,
    ) -> Self {
        Self {
            master,
            master_file,
            data_dir,
            access,
            organizations: RwLock::default(),
            creating: Mutex::default(),
            mailboxes: Cache::builder().max_capacity(CACHED_KEYS).time_to_live(CACHED_FOR).build(),
            erasing: RwLock::default(),
            filler: Mutex::default(),
        }
    }

    /// What the whole folder's keys are derived from.
    pub(super) fn master(&self) -> &MasterKey {
        &self.master
    }

    /// Opens the keys of all organizations that have some.
    ///
    /// # Errors
    /// [`StoreError::Key`] if the master key is not theirs; damage; those of the file system.
    pub(super) fn open_all(&self) -> Result<(), StoreError> {
        for path in organization_files(&self.data_dir)? {
            let Some(organization) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            self.insert(organization, self.open(organization)?);
        }
        Ok(())
    }

    /// Takes the keys of these mailboxes, which are all that the log knows; the others that are
    /// there are for new ones. Tells which of them have their keys erased.
    ///
    /// # Errors
    /// A mailbox's key that is not there; those of the file system.
    pub(super) fn adopt(&self, births: &[NewMailbox]) -> Result<HashSet<MailboxId>, StoreError> {
        let mut by_organization: HashMap<Arc<str>, Vec<&NewMailbox>> = HashMap::new();
        for organization in self.read_known().keys() {
            by_organization.insert(Arc::clone(organization), Vec::new());
        }
        for birth in births {
            let organization = Arc::clone(&birth.owner.organization);
            by_organization.entry(organization).or_default().push(birth);
        }
        let mut erased = HashSet::new();
        for (organization, births) in by_organization {
            let known = self.read_known().get(&organization).cloned();
            let keys = match known {
                Some(keys) => keys,
                None => self.insert(&organization, self.open(&organization)?),
            };
            keys.adopt(&births, &mut erased)?;
        }
        Ok(erased)
    }

    /// A mailbox for somebody who has none: its id, and where its key is.
    ///
    /// # Errors
    /// Those of the file system, where a key has to be made.
    pub(super) fn take_mailbox(&self, organization: &str) -> Result<(MailboxId, Slot), StoreError> {
        let keys = self.organization(organization)?;
        loop {
            let mut pool = lock(&keys.pool);
            if let Some(taken) = pool.free.pop_front() {
                if pool.is_low() && !pool.is_filling {
                    pool.is_filling = self.ask_to_fill(organization);
                }
                return Ok(taken);
            }
            drop(pool);
            heavy::beside_the_runtime(|| keys.fill())?;
        }
    }

    /// Gives back a mailbox that somebody else was faster to make.
    pub(super) fn give_back(&self, organization: &str, mailbox: (MailboxId, Slot)) {
        if let Some(keys) = self.read_known().get(organization) {
            lock(&keys.pool).free.push_front(mailbox);
        }
    }

    /// A mailbox's key, opened at most once a minute.
    ///
    /// # Errors
    /// A slot that is not the mailbox's; those of the file system.
    pub(super) fn mailbox(&self, birth: &NewMailbox) -> Result<Opened, StoreError> {
        if let Some(key) = self.mailboxes.get(&birth.id) {
            return Ok(Opened::Key(key));
        }
        let keys = self.organization(&birth.owner.organization)?;
        let _nothing_is_erased = self.erasing.read().unwrap_or_else(PoisonError::into_inner);
        let opened = keys.mailbox(birth)?;
        if let Opened::Key(key) = &opened {
            self.mailboxes.insert(birth.id, key.clone());
        }
        Ok(opened)
    }

    /// An organization's keys, to be looked at one by one.
    pub(super) fn opened(&self, organization: &str) -> Result<Arc<OrganizationKeys>, StoreError> {
        self.organization(organization)
    }

    /// The key that content is wrapped with which leaves an organization or waits to.
    ///
    /// # Errors
    /// Those of the organization's file.
    pub(super) fn leaving(&self, organization: &str) -> Result<Key, StoreError> {
        Ok(self.organization(organization)?.leaving.clone())
    }

    /// A mailbox's key as it stands in its slot at this moment, whatever is remembered of it.
    ///
    /// # Errors
    /// A slot that is not the mailbox's; those of the file system.
    pub(super) fn look(&self, birth: &NewMailbox) -> Result<Opened, StoreError> {
        self.organization(&birth.owner.organization)?.mailbox(birth)
    }

    /// Erases a mailbox's key, durably and for good. What is erased already stays so.
    ///
    /// # Errors
    /// A slot that is another's; those of the file system.
    pub(super) fn erase(&self, birth: &NewMailbox) -> Result<(), StoreError> {
        let keys = self.organization(&birth.owner.organization)?;
        // Whoever has read the key before has it in the cache by now, and nobody reads it meanwhile.
        let _nobody_reads = self.erasing.write().unwrap_or_else(PoisonError::into_inner);
        let _nobody_writes = lock(&keys.writing);
        if keys.mailbox(birth)? != Opened::Erased {
            keys.file.erase(birth.slot)?;
        }
        self.mailboxes.invalidate(&birth.id);
        Ok(())
    }

    /// Starts the thread that makes keys beforehand; it ends with [`Keyring::stop_filling`].
    pub(super) fn start_filling(self: &Arc<Self>) -> Result<JoinHandle<()>, StoreError> {
        let (filler, wanted) = std::sync::mpsc::channel();
        *lock(&self.filler) = Some(filler);
        let keyring = Arc::clone(self);
        spawn("keys", move || keyring.fill_pools(&wanted))
    }

    pub(super) fn stop_filling(&self) {
        lock(&self.filler).take();
    }

    fn fill_pools(&self, wanted: &Receiver<Arc<str>>) {
        while let Ok(organization) = wanted.recv() {
            let filled = self.organization(&organization).and_then(|keys| keys.fill());
            if let Err(error) = filled {
                tracing::warn!(%organization, %error, "no keys are made beforehand");
            }
        }
    }

    /// Whether somebody will make keys.
    fn ask_to_fill(&self, organization: &str) -> bool {
        let filler = lock(&self.filler);
        filler.as_ref().is_some_and(|filler| filler.send(organization.into()).is_ok())
    }

    fn organization(&self, organization: &str) -> Result<Arc<OrganizationKeys>, StoreError> {
        if let Some(keys) = self.read_known().get(organization) {
            return Ok(Arc::clone(keys));
        }
        // Once in the life of an organization; who comes second finds the first one's.
        let _one_by_one = lock(&self.creating);
        if let Some(keys) = self.read_known().get(organization) {
            return Ok(Arc::clone(keys));
        }
        let keys = match self.access {
            Access::Reads => self.open(organization)?,
            Access::Writes => heavy::beside_the_runtime(|| self.create(organization))?,
        };
        Ok(self.insert(organization, keys))
    }

    fn read_known(&self) -> RwLockReadGuard<'_, HashMap<Arc<str>, Arc<OrganizationKeys>>> {
        self.organizations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, organization: &str, keys: OrganizationKeys) -> Arc<OrganizationKeys> {
        let keys = Arc::new(keys);
        let mut known = self.organizations.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(organization.into(), Arc::clone(&keys));
        keys
    }

    fn open(&self, organization: &str) -> Result<OrganizationKeys, StoreError> {
        let file = SlotFile::open(&organization_file(&self.data_dir, organization))?;
        self.unlock(file)
    }

    fn create(&self, organization: &str) -> Result<OrganizationKeys, StoreError> {
        let path = organization_file(&self.data_dir, organization);
        // Nobody knows which of its keys are taken.
        if durable::is_there(&path)? {
            return Err(StoreError::InTheWay(path));
        }
        let master = self.master.organizations();
        let ids: Vec<_> = (0..FIRST_KEYS).map(|_| MailboxId::generate()).collect();
        let file = SlotFile::create(&self.data_dir, &path, organization, &master, &ids)?;
        let keys = self.unlock(file)?;
        keys.adopt(&[], &mut HashSet::new())?;
        Ok(keys)
    }

    fn unlock(&self, file: SlotFile) -> Result<OrganizationKeys, StoreError> {
        let master = self.master.organizations();
        let own = match file.key(Slot::ORGANIZATION, Purpose::Organization, &master) {
            // With another master key nothing opens, and nothing is wrong with it.
            Err(StoreError::Key(_)) => return Err(another_key(&self.master_file)),
            opened => there(&file, opened?)?,
        };
        let leaving = there(&file, file.key(Slot::LEAVING, Purpose::Leaving, &own)?)?;
        let writing = Mutex::default();
        let filling = Mutex::default();
        Ok(OrganizationKeys { file, writing, own, leaving, pool: Mutex::default(), filling })
    }
}

/// A key of the organization's own, which nothing erases while it has mail.
fn there(file: &SlotFile, opened: Opened) -> Result<Key, StoreError> {
    match opened {
        Opened::Key(key) => Ok(key),
        Opened::Erased => Err(damaged(file.path(), 0, "the organization's own keys are gone")),
    }
}

impl OrganizationKeys {
    /// What stands in its file.
    pub(super) fn contents(&self) -> Result<Vec<(Slot, Content)>, StoreError> {
        self.file.contents()
    }

    /// A key that stands under the organization's own.
    pub(super) fn key(&self, slot: Slot, purpose: Purpose) -> Result<Opened, StoreError> {
        self.file.key(slot, purpose, &self.own)
    }

    /// Finds out which keys are nobody's.
    fn adopt(
        &self,
        births: &[&NewMailbox],
        erased: &mut HashSet<MailboxId>,
    ) -> Result<(), StoreError> {
        let contents = self.file.contents()?;
        let slots: HashMap<Slot, Content> = contents.iter().copied().collect();
        let mut taken = HashSet::with_capacity(births.len());
        for birth in births {
            taken.insert(birth.slot);
            match slots.get(&birth.slot) {
                Some(Content::Whole(Purpose::Mailbox(id))) if *id == birth.id => {}
                Some(Content::Erased) => drop(erased.insert(birth.id)),
                _ => {
                    let problem = format!("the key of mailbox {} is not there", birth.owner);
                    return Err(damaged(self.file.path(), birth.slot.offset(), &problem));
                }
            }
        }
        let is_mark = |(_, content): &(Slot, Content)| *content == Content::Whole(Purpose::Mark);
        let since_mark = contents.iter().rposition(is_mark).map_or(0, |mark| mark + 1);
        let mut pool = lock(&self.pool);
        for (slot, content) in contents.get(since_mark..).unwrap_or_default() {
            if let Content::Whole(Purpose::Mailbox(id)) = content
                && !taken.contains(slot)
            {
                pool.free.push_back((*id, *slot));
            }
        }
        pool.next = (pool.free.len() * 2).clamp(FIRST_KEYS * 2, MOST_KEYS);
        Ok(())
    }

    fn mailbox(&self, birth: &NewMailbox) -> Result<Opened, StoreError> {
        self.key(birth.slot, Purpose::Mailbox(birth.id))
    }

    /// Makes keys beforehand, unless somebody else has just done so.
    fn fill(&self) -> Result<(), StoreError> {
        let _one_by_one = lock(&self.filling);
        let count = {
            let mut pool = lock(&self.pool);
            if !pool.is_low() {
                pool.is_filling = false;
                return Ok(());
            }
            pool.next
        };
        let made = self.make(count);
        let mut pool = lock(&self.pool);
        pool.is_filling = false;
        pool.free.extend(made?);
        pool.next = (count * 2).min(MOST_KEYS);
        Ok(())
    }

    fn make(&self, count: usize) -> Result<Vec<(MailboxId, Slot)>, StoreError> {
        let ids: Vec<_> = (0..count).map(|_| MailboxId::generate()).collect();
        let purposes: Vec<_> = ids.iter().map(|id| Purpose::Mailbox(*id)).collect();
        let _nobody_else_writes = lock(&self.writing);
        let slots = self.file.append(&self.own, &purposes)?;
        Ok(ids.into_iter().zip(slots).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these locks, and the values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an organization's keys are.
fn organization_file(data_dir: &Path, organization: &str) -> PathBuf {
    // Not `with_extension`: what is no plain name is refused where a file is made.
    data_dir.join(KEYS).join(format!("{organization}.{SUFFIX}"))
}

/// The folder of all keys, below the data folder.
pub(super) const KEYS: &str = "keys";

/// The key files of all organizations that have one, sorted.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn organization_files(data_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let dir = data_dir.join(KEYS);
    if !durable::is_there(&dir)? {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).map_err(StoreError::file(&dir))? {
        let path = entry.map_err(StoreError::file(&dir))?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
