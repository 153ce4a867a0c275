//! Room for the messages that are being sent, by octets. Those that may take long have a share of
//! it, so that large messages to servers that are silent do not keep all others from being sent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::Class;
use crate::memory;

/// The unit, in octets.
const UNIT: u64 = 1024;

/// `in_flight_bytes`, and who may have how much of it.
#[derive(Debug)]
pub(super) struct Memory {
    all: Pool,
    /// Half, for mail to where nobody has answered yet.
    unproven: Pool,
    /// A quarter, for reports.
    reports: Pool,
}

#[derive(Debug)]
struct Pool {
    size: u32,
    free: Arc<Semaphore>,
}

/// A message's room, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    octets: u64,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Drop for Room {
    fn drop(&mut self) {
        memory::freed(self.octets);
    }
}

impl Memory {
    pub(super) fn new(octets: u64) -> Self {
        let pool = |octets| {
            let size = units(octets);
            Pool { size, free: Arc::new(Semaphore::new(size as usize)) }
        };
        Self { all: pool(octets), unproven: pool(octets / 2), reports: pool(octets / 4) }
    }

    /// Waits for room for a message; what is larger than its share has all of that to itself.
    pub(super) async fn room(&self, octets: u64, class: Class) -> Room {
        let shares = self.shares(class);
        let mut permits = Vec::with_capacity(shares.len());
        for pool in shares.into_iter().flatten() {
            let units = units(octets).min(pool.size);
            // An error would say that the semaphore was closed, which nobody does.
            permits.extend(Arc::clone(&pool.free).acquire_many_owned(units).await);
        }
        Room { octets, _permits: permits }
    }

    /// Room for a message, if nobody has to wait for it.
    pub(super) fn room_at_once(&self, octets: u64, class: Class) -> Option<Room> {
        let shares = self.shares(class);
        let mut permits = Vec::with_capacity(shares.len());
        for pool in shares.into_iter().flatten() {
            let units = units(octets).min(pool.size);
            permits.push(Arc::clone(&pool.free).try_acquire_many_owned(units).ok()?);
        }
        Some(Room { octets, _permits: permits })
    }

    /// What a message counts in: from the narrowest on, so that who waits for it keeps nothing
    /// from others.
    fn shares(&self, class: Class) -> [Option<&Pool>; 3] {
        [
            class.is_report.then_some(&self.reports),
            (!class.is_proven).then_some(&self.unproven),
            Some(&self.all),
        ]
    }
}

fn units(octets: u64) -> u32 {
    u32::try_from(octets.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX).min(1 << 28)
}
