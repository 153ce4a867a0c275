//! A file of keys, one for each organization: `keys/ORGANIZATION.keys`.
//!
//! It has slots of 128 octets, little-endian. A slot is written once, synced before anything names
//! it by its number, and later only erased, in place, to zeros. What is no whole slot and named by
//! nobody is what a crash left of an append; it is passed over for good. Whoever has the folder's
//! lock writes; anybody reads, also beside them.
//!
//! The first slot says what the file is: magic, the file's own id, the organization's. All others:
//!
//! | octets | what |
//! |---|---|
//! | 0 | purpose |
//! | 1 | version |
//! | 8–23 | whose it is: the mailbox's id, or zeros |
//! | 24–31 | when it was made, in milliseconds |
//! | 32–91 | nonce, sealed key, tag |
//! | 124–127 | CRC-32 of what stands before it |
//!
//! A key is sealed for its file, place, purpose and owner, so none opens anywhere else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use super::keys::{Key, WRAPPED_LEN};
use super::mailbox::NewMailbox;
use super::{StoreError, damaged, durable};
use crate::clock::{Clock, SystemClock};
use crate::id::MailboxId;

/// How a key file's name ends.
pub(super) const SUFFIX: &str = "keys";
/// Octets of a slot.
const SLOT: usize = 128;
const MAGIC: &[u8; 8] = b"mwkeys-1";
/// Octets that an organization's id may have: it stands in the first slot, and is a file's name.
const ORGANIZATION: usize = 64;
const VERSION: u8 = 1;
/// What is said of a slot that is not what was written there.
const BROKEN: &str = "the key that stands there is not whole: put the file back from a backup";
const CRC_AT: usize = SLOT - 4;

/// A slot's number: its place in the file, divided by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Slot(u32);

impl Slot {
    /// The organization's own key, under the master key.
    pub(super) const ORGANIZATION: Self = Self(1);
    /// The key of what leaves or waits.
    pub(super) const LEAVING: Self = Self(2);

    /// The slot of this number.
    pub(super) fn numbered(number: u32) -> Self {
        Self(number)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Where it begins in the file.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.0) * SLOT as u64
    }
}

/// What a slot is for, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The organization's key.
    Organization,
    /// A mailbox's key, whether there is such a mailbox or will be one.
    Mailbox(MailboxId),
    /// The key of what leaves or waits.
    Leaving,
    /// No key: a restored, older log begins to use the file here, so no slot before it that the log
    /// does not name is anybody's.
    Mark,
}

impl Purpose {
    /// Purposes have their number for ever; those that are left out are for keys to come.
    fn number(self) -> u8 {
        match self {
            Self::Organization => 1,
            Self::Mailbox(_) => 2,
            Self::Leaving => 3,
            Self::Mark => 9,
        }
    }

    fn owner(self) -> [u8; 16] {
        match self {
            Self::Mailbox(id) => *id.as_bytes(),
            Self::Organization | Self::Leaving | Self::Mark => [0; 16],
        }
    }

    fn parse(number: u8, owner: [u8; 16]) -> Option<Self> {
        match number {
            1 => Some(Self::Organization),
            2 => Some(Self::Mailbox(MailboxId::from_bytes(owner))),
            3 => Some(Self::Leaving),
            9 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A whole slot.
    Whole(Purpose),
    /// Its key is gone.
    Erased,
    /// Not what was written, or an append that did not end.
    Broken,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is there.
    Key(Key),
    /// It was erased; what it opened is noise.
    Erased,
}

impl Opened {
    /// The key, for whoever needs the mail of a mailbox that must be there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was erased.
    pub(super) fn or_gone(self, mailbox: &NewMailbox) -> Result<Key, StoreError> {
        match self {
            Self::Key(key) => Ok(key),
            Self::Erased => {
                let owner = &mailbox.owner;
                Err(StoreError::NotFound(format!("the mailbox of {owner} was erased")))
            }
        }
    }
}

/// A file of slots. It is opened for each look, so that a thousand organizations keep no file open.
#[derive(Debug)]
pub(super) struct SlotFile {
    path: PathBuf,
    id: [u8; 16],
}

impl SlotFile {
    /// Makes an organization's file, durably, with its own keys and those of `mailboxes`.
    ///
    /// # Errors
    /// An id that is no file's name; those of the file system.
    pub(super) fn create(
        data_dir: &Path,
        path: &Path,
        organization: &str,
        master: &Key,
        mailboxes: &[MailboxId],
    ) -> Result<Self, StoreError> {
        check_name(organization)?;
        let mut id = [0; 16];
        rand::fill(&mut id)
            .map_err(|_| StoreError::Key("the system gives no random bytes".into()))?;
        let file = Self { path: path.into(), id };
        let key = Key::generate()?;
        let mut slots = first_slot(id, organization).to_vec();
        slots.extend(file.slot(Slot::ORGANIZATION, Purpose::Organization, &key, master)?);
        slots.extend(file.slot(Slot::LEAVING, Purpose::Leaving, &Key::generate()?, &key)?);
        for (number, mailbox) in (Slot::LEAVING.0 + 1..).zip(mailboxes) {
            let purpose = Purpose::Mailbox(*mailbox);
            slots.extend(file.slot(Slot(number), purpose, &Key::generate()?, &key)?);
        }
        // Under a name that is nobody's: half a file would not be taken for an organization's.
        let unfinished = path.with_extension("keys.new");
        durable::create_dir_below(data_dir, path.parent().unwrap_or(data_dir))?;
        durable::remove_if_there(&unfinished)?;
        durable::create_file(&unfinished, &slots)?;
        durable::own_like(&unfinished, data_dir)?;
        durable::rename(&unfinished, path)?;
        Ok(file)
    }

    /// An organization's file.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it has none; a file that is not what its name says; those of the
    /// file system.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::NotFound(format!(
                "{}: there is no such file; put the organization's keys there, from a backup",
                path.display()
            )),
            _ => StoreError::file(path)(error),
        })?;
        let (id, organization) = read_first(&file, path)?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(organization.as_str()) {
            let problem = format!("it has the keys of {organization}");
            return Err(damaged(path, 0, &problem));
        }
        Ok(Self { path: path.into(), id })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes keys behind all others, with one write and one sync, and tells where they are.
    ///
    /// # Errors
    /// Those of the file system; then none of them may be used.
    pub(super) fn append(
        &self,
        under: &Key,
        purposes: &[Purpose],
    ) -> Result<Vec<Slot>, StoreError> {
        let first = self.end()?;
        let mut slots = Vec::with_capacity(purposes.len());
        let mut octets = Vec::with_capacity(purposes.len() * SLOT);
        for (number, purpose) in (first.0..).zip(purposes) {
            octets.extend(self.slot(Slot(number), *purpose, &Key::generate()?, under)?);
            slots.push(Slot(number));
        }
        durable::write_at(&self.path, first.offset(), &octets)?;
        Ok(slots)
    }

    /// Says that a restored log begins to use the file: what only a lost life's log named is
    /// nobody's.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn mark(&self) -> Result<(), StoreError> {
        let end = self.end()?;
        let mark = encode(Purpose::Mark, &[0; WRAPPED_LEN]);
        durable::write_at(&self.path, end.offset(), &mark)
    }

    /// A key, or that it was erased.
    ///
    /// # Errors
    /// A slot that is not what was written there for this purpose under this key.
    pub(super) fn key(
        &self,
        slot: Slot,
        purpose: Purpose,
        under: &Key,
    ) -> Result<Opened, StoreError> {
        let file = File::open(&self.path).map_err(StoreError::file(&self.path))?;
        let mut octets = [0; SLOT];
        file.read_exact_at(&mut octets, slot.offset()).map_err(StoreError::file(&self.path))?;
        match content(&octets, slot, &self.path)? {
            Content::Erased => return Ok(Opened::Erased),
            Content::Broken => return Err(damaged(&self.path, slot.offset(), BROKEN)),
            Content::Whole(_) => {}
        }
        let wrapped = octets[32..].first_chunk::<WRAPPED_LEN>();
        let opened =
            wrapped.and_then(|wrapped| under.unwrap_sealed(wrapped, &self.context(slot, purpose)));
        let another = || {
            let path = self.path.display();
            let Slot(number) = slot;
            StoreError::Key(format!("{path}: key {number} is not the one that is asked for"))
        };
        opened.map(Opened::Key).ok_or_else(another)
    }

    /// Erases a slot, durably and for good.
    ///
    /// In place: a slot shares its sector with its neighbours, and it is the disk's promise that a
    /// sector is written as a whole or not at all, as SQLite relies on too; what stands around the
    /// slot is written again as it was. A whole new file in place of the old one would not need that
    /// promise, but a crash between the two would leave the old octets where nobody can reach them to
    /// erase them, and this must be a thing that can be done again until it is done.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn erase(&self, slot: Slot) -> Result<(), StoreError> {
        durable::write_at(&self.path, slot.offset(), &[0; SLOT])
    }

    /// What all slots behind the organization's own are, in order.
    ///
    /// # Errors
    /// A purpose that this version does not know; those of the file system.
    pub(super) fn contents(&self) -> Result<Vec<(Slot, Content)>, StoreError> {
        let octets = fs::read(&self.path).map_err(StoreError::file(&self.path))?;
        let mut contents = Vec::with_capacity(octets.len() / SLOT);
        for (number, octets) in (0..).zip(octets.chunks(SLOT)).skip(3) {
            let slot = Slot(number);
            let found = match octets.first_chunk::<SLOT>() {
                Some(octets) => content(octets, slot, &self.path)?,
                None => Content::Broken,
            };
            contents.push((slot, found));
        }
        Ok(contents)
    }

    /// Whether another file is this one as it was earlier: a copy of it, with no more in it.
    ///
    /// # Errors
    /// A file that is none of keys; those of the file system.
    pub(super) fn goes_on_from(&self, copy: &Path) -> Result<bool, StoreError> {
        let file = File::open(copy).map_err(StoreError::file(copy))?;
        let octets = file.metadata().map_err(StoreError::file(copy))?.len();
        Ok(read_first(&file, copy)?.0 == self.id && octets <= self.end()?.offset())
    }

    /// Where the next slot goes: behind all others, also behind one that is not whole.
    fn end(&self) -> Result<Slot, StoreError> {
        let octets = fs::metadata(&self.path).map_err(StoreError::file(&self.path))?.len();
        let slots = octets.div_ceil(SLOT as u64);
        let full = || damaged(&self.path, octets, "it has no room for a further key");
        Ok(Slot(u32::try_from(slots).map_err(|_| full())?))
    }

    fn slot(
        &self,
        slot: Slot,
        purpose: Purpose,
        key: &Key,
        under: &Key,
    ) -> Result<[u8; SLOT], StoreError> {
        Ok(encode(purpose, &under.wrap_sealed(key, &self.context(slot, purpose))?))
    }

    /// What a key is sealed for.
    fn context(&self, slot: Slot, purpose: Purpose) -> Vec<u8> {
        let number = slot.0.to_le_bytes();
        let owner = purpose.owner();
        [b"mailweir slot 1".as_slice(), &self.id, &number, &[purpose.number()], &owner].concat()
    }
}

/// Whole slots of a file that may be growing: what a copy has of it.
pub(super) fn whole_slots(octets: u64) -> u64 {
    octets / SLOT as u64 * SLOT as u64
}

/// An id that can be a file's name, and no path.
fn check_name(organization: &str) -> Result<(), StoreError> {
    let is_plain = organization.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if is_plain && !organization.is_empty() && organization.len() <= ORGANIZATION {
        return Ok(());
    }
    Err(StoreError::Key(format!("{organization:?} cannot be the id of an organization")))
}

fn first_slot(id: [u8; 16], organization: &str) -> [u8; SLOT] {
    let mut octets = [0; SLOT];
    octets[..8].copy_from_slice(MAGIC);
    octets[8..24].copy_from_slice(&id);
    octets[24..24 + organization.len()].copy_from_slice(organization.as_bytes());
    with_checksum(octets)
}

/// The file's own id, and whose it is.
fn read_first(file: &File, path: &Path) -> Result<([u8; 16], String), StoreError> {
    let mut octets = [0; SLOT];
    let read = file.read_exact_at(&mut octets, 0);
    let foreign = || damaged(path, 0, "it does not begin as a file of keys does");
    read.map_err(|_| foreign())?;
    if !octets.starts_with(MAGIC) || !is_whole(&octets) {
        return Err(foreign());
    }
    let organization = octets[24..24 + ORGANIZATION].split(|octet| *octet == 0).next();
    let organization = String::from_utf8_lossy(organization.unwrap_or_default()).into_owned();
    Ok((octets[8..].first_chunk().copied().unwrap_or_default(), organization))
}

fn encode(purpose: Purpose, wrapped: &[u8; WRAPPED_LEN]) -> [u8; SLOT] {
    let mut octets = [0; SLOT];
    octets[0] = purpose.number();
    octets[1] = VERSION;
    octets[8..24].copy_from_slice(&purpose.owner());
    octets[24..32].copy_from_slice(&SystemClock.now().as_millis().to_le_bytes());
    octets[32..32 + WRAPPED_LEN].copy_from_slice(wrapped);
    with_checksum(octets)
}

fn with_checksum(mut octets: [u8; SLOT]) -> [u8; SLOT] {
    let checksum = crc32fast::hash(&octets[..CRC_AT]).to_le_bytes();
    octets[CRC_AT..].copy_from_slice(&checksum);
    octets
}

fn is_whole(octets: &[u8; SLOT]) -> bool {
    octets[CRC_AT..] == crc32fast::hash(&octets[..CRC_AT]).to_le_bytes()
}

fn content(octets: &[u8; SLOT], slot: Slot, path: &Path) -> Result<Content, StoreError> {
    if octets.iter().all(|octet| *octet == 0) {
        return Ok(Content::Erased);
    }
    if !is_whole(octets) {
        return Ok(Content::Broken);
    }
    let owner = octets[8..].first_chunk().copied().unwrap_or_default();
    let known = Purpose::parse(octets[0], owner).filter(|_| octets[1] == VERSION);
    let unknown = || StoreError::UnknownRecord {
        path: path.into(),
        offset: slot.offset(),
        problem: format!("a key for purpose {} in version {}", octets[0], octets[1]),
    };
    known.map(Content::Whole).ok_or_else(unknown)
}
