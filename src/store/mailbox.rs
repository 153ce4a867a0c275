//! Mailboxes in memory: who they are, how full they are.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::StoreError;
use super::keyring::Keyring;
use super::slots::Slot;
use crate::clock::Timestamp;
use crate::id::{EntityId, MailboxId};

/// Whose a mailbox is: a user's or resource's, by id, so that it stays theirs whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailboxOwner {
    /// `m-` and 32 hexadecimal digits.
    pub organization: Arc<str>,
    /// The user or resource.
    pub entity: EntityId,
}

impl fmt::Display for MailboxOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organization, self.entity)
    }
}

/// A mailbox's birth: its id, and where its key is in its organization's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMailbox {
    pub(super) id: MailboxId,
    pub(super) owner: MailboxOwner,
    pub(super) slot: Slot,
}

/// A mailbox, for as long as the daemon runs.
#[derive(Debug)]
pub struct MailboxHandle {
    pub(super) birth: NewMailbox,
    /// Whether its birth is in the log.
    pub(super) is_durable: AtomicBool,
    used_bytes: AtomicU64,
    full_since: Mutex<Option<Timestamp>>,
    /// Nothing more goes into it: it is being erased.
    is_closed: AtomicBool,
    /// Reservations that are out.
    reservations: AtomicUsize,
    /// Told when the last one of a closed mailbox is back.
    unreserved: Notify,
}

impl MailboxHandle {
    fn new(birth: NewMailbox, used_bytes: u64, is_durable: bool) -> Self {
        Self {
            birth,
            is_durable: AtomicBool::new(is_durable),
            used_bytes: AtomicU64::new(used_bytes),
            full_since: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            reservations: AtomicUsize::new(0),
            unreserved: Notify::new(),
        }
    }

    /// Whose it is.
    pub fn owner(&self) -> &MailboxOwner {
        &self.birth.owner
    }

    /// Octets of the messages in it, those on their way included.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    /// Takes room for a message of `size` octets, or says that the mailbox is full. The room is
    /// given back when the reservation is dropped before [`Reservation::keep`]. One that is being
    /// erased has no room.
    pub fn reserve(self: &Arc<Self>, size: u64, quota: u64) -> Option<Reservation> {
        // Counted first: who closes the mailbox sees it, or it sees that the mailbox is closed.
        self.reservations.fetch_add(1, Ordering::SeqCst);
        let taken = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(size).filter(|after| *after <= quota)
        });
        let before = match taken {
            Ok(_) if self.is_closed.load(Ordering::SeqCst) => {
                self.free(size);
                None
            }
            taken => taken.ok(),
        };
        let Some(before) = before else {
            self.let_go();
            return None;
        };
        *lock(&self.full_since) = None;
        Some(Reservation { mailbox: Arc::clone(self), size, before, is_kept: false })
    }

    /// Since when the mailbox is full; the first call that finds it full sets the moment.
    pub fn full_since(&self, now: Timestamp) -> Timestamp {
        *lock(&self.full_since).get_or_insert(now)
    }

    /// Lets nothing more in, or again.
    pub(super) fn set_closed(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    /// Waits until no reservation of a closed mailbox is out.
    pub(super) async fn until_unreserved(&self) {
        loop {
            let mut told = pin!(self.unreserved.notified());
            // Before the look, so that none is missed between the two.
            told.as_mut().enable();
            if self.reservations.load(Ordering::SeqCst) == 0 {
                return;
            }
            told.await;
        }
    }

    fn let_go(&self) {
        self.reservations.fetch_sub(1, Ordering::SeqCst);
        if self.is_closed.load(Ordering::SeqCst) {
            self.unreserved.notify_waiters();
        }
    }

    /// Gives back the room of a message that was removed.
    pub(super) fn free(&self, size: u64) {
        let less = |used: u64| Some(used.saturating_sub(size));
        // It always says what it becomes.
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding these locks, and the values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room taken in a mailbox for a message that is not durable yet.
#[derive(Debug)]
pub struct Reservation {
    mailbox: Arc<MailboxHandle>,
    size: u64,
    before: u64,
    is_kept: bool,
}

impl Reservation {
    /// The mailbox.
    pub fn mailbox(&self) -> &Arc<MailboxHandle> {
        &self.mailbox
    }

    /// Whether this message takes the mailbox past `percent` of its quota.
    pub fn crosses(&self, percent: u64, quota: u64) -> bool {
        let limit = quota / 100 * percent;
        self.before < limit && self.before + self.size >= limit
    }

    /// The message is durable: the room stays taken.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            self.mailbox.used_bytes.fetch_sub(self.size, Ordering::AcqRel);
        }
        self.mailbox.let_go();
    }
}

/// All mailboxes of the store.
#[derive(Debug, Default)]
pub(super) struct Mailboxes(RwLock<HashMap<MailboxOwner, Arc<MailboxHandle>>>);

impl Mailboxes {
    /// Adds a mailbox that the log knows.
    pub(super) fn insert(&self, birth: NewMailbox, used_bytes: u64) {
        let owner = birth.owner.clone();
        let handle = Arc::new(MailboxHandle::new(birth, used_bytes, true));
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(owner, handle);
    }

    /// The mailbox of that owner, if there is one.
    pub(super) fn known(&self, owner: &MailboxOwner) -> Option<Arc<MailboxHandle>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(owner).cloned()
    }

    /// Forgets a mailbox that was erased; its owner's next mail makes another.
    pub(super) fn forget(&self, birth: &NewMailbox) {
        let mut mailboxes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if mailboxes.get(&birth.owner).is_some_and(|handle| handle.birth.id == birth.id) {
            mailboxes.remove(&birth.owner);
        }
    }

    /// The mailboxes of an organization.
    pub(super) fn of_organization(&self, organization: &str) -> Vec<Arc<MailboxHandle>> {
        let mailboxes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_it =
            |handle: &&Arc<MailboxHandle>| &*handle.birth.owner.organization == organization;
        mailboxes.values().filter(of_it).cloned().collect()
    }

    /// The mailbox of that owner; it is born here on first use, and durable with its first mail.
    pub(super) fn get(
        &self,
        owner: &MailboxOwner,
        keyring: &Keyring,
    ) -> Result<Arc<MailboxHandle>, StoreError> {
        if let Some(handle) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(owner) {
            return Ok(Arc::clone(handle));
        }
        // Before the lock: where no key is left, some are made first.
        let (id, slot) = keyring.take_mailbox(&owner.organization)?;
        let mut mailboxes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = mailboxes.get(owner) {
            keyring.give_back(&owner.organization, (id, slot));
            return Ok(Arc::clone(handle));
        }
        let birth = NewMailbox { id, owner: owner.clone(), slot };
        let handle = Arc::new(MailboxHandle::new(birth, 0, false));
        mailboxes.insert(owner.clone(), Arc::clone(&handle));
        Ok(handle)
    }
}
