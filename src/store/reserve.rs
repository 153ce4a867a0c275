//! All that a message needs before it is taken, asked for at once: room in mailboxes, and recipients
//! that users write to.

use super::StoreError;
use super::door::Store;
use super::mailbox::{MailboxOwner, Reservation};
use super::usage::{UsageExceeded, UsageHold, UsageLimits, Written};

/// Room that is asked for in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomAsk {
    /// Whose mailbox it is.
    pub owner: MailboxOwner,
    /// Octets.
    pub size: u64,
    /// What the mailbox may hold.
    pub quota: u64,
    /// Whether it may go past that once, if the mailbox is not full yet.
    pub may_exceed: bool,
}

/// Recipients that a user is to be counted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountAsk {
    /// Who writes to them.
    pub by: MailboxOwner,
    /// Days since the Unix epoch, in UTC.
    pub day: u64,
    /// To whom.
    pub written: Written,
    /// What may be used.
    pub limits: UsageLimits,
}

/// What was given, in the order in which it was asked for. All of it is given back unless a commit
/// takes it.
#[derive(Debug)]
pub struct Reserved {
    /// `None` where the mailbox is full.
    pub rooms: Vec<Option<Reservation>>,
    /// Or the limit that is in the way.
    pub counts: Vec<Result<UsageHold, UsageExceeded>>,
}

impl Store {
    /// Takes what there is of all that is asked for.
    ///
    /// # Errors
    /// [`StoreError::Key`] if the system gives no random bytes for a new mailbox.
    pub fn reserve(&self, rooms: &[RoomAsk], counts: &[CountAsk]) -> Result<Reserved, StoreError> {
        let mut reserved = Reserved {
            rooms: Vec::with_capacity(rooms.len()),
            counts: Vec::with_capacity(counts.len()),
        };
        for ask in rooms {
            let mailbox = self.mailbox(&ask.owner)?;
            let may_exceed = ask.may_exceed && mailbox.used_bytes() < ask.quota;
            let quota = if may_exceed { u64::MAX } else { ask.quota };
            reserved.rooms.push(mailbox.reserve(ask.size, quota));
        }
        for CountAsk { by, day, written, limits } in counts {
            reserved.counts.push(self.count_recipients(by, *day, *written, *limits));
        }
        Ok(reserved)
    }
}
