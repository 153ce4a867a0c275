//! Room for the messages that are being sent, by octets. Those that may take long have a share of
//! it, and so has each lane, so that large messages to servers that are silent do not keep all
//! others from being sent; and small ones never wait for large ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::{Class, Lane};
use crate::memory;

/// The unit, in octets.
const UNIT: u64 = 1024;
/// Messages of up to so many octets have an eighth of `in_flight_bytes` to themselves, which with
/// the usual settings is more than all connections together can carry of them.
const SMALL: u64 = 64 * 1024;

/// `in_flight_bytes`, and who may have how much of it.
#[derive(Debug)]
pub(super) struct Memory {
    small: Area,
    large: Area,
}

/// Memory that is for messages of some sizes.
#[derive(Debug)]
struct Area {
    all: Pool,
    /// Half, for mail to where nobody has answered yet.
    unproven: Pool,
    /// A quarter, for reports.
    reports: Pool,
    /// Half, for each lane; of those that have messages under way.
    lanes: Mutex<HashMap<Lane, Weak<Semaphore>>>,
}

#[derive(Clone, Debug)]
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
        let for_small = octets / 8;
        Self { small: Area::new(for_small), large: Area::new(octets - for_small) }
    }

    /// Waits for room for a message; what is larger than its share has all of that to itself.
    pub(super) async fn room(&self, octets: u64, lane: &Lane, class: Class) -> Room {
        let shares = self.shares(octets, lane, class);
        let mut permits = Vec::with_capacity(shares.len());
        for pool in shares.into_iter().flatten() {
            let units = units(octets).min(pool.size);
            // An error would say that the semaphore was closed, which nobody does.
            permits.extend(pool.free.acquire_many_owned(units).await);
        }
        Room { octets, _permits: permits }
    }

    /// Room for a message, if nobody has to wait for it.
    pub(super) fn room_at_once(&self, octets: u64, lane: &Lane, class: Class) -> Option<Room> {
        let shares = self.shares(octets, lane, class);
        let mut permits = Vec::with_capacity(shares.len());
        for pool in shares.into_iter().flatten() {
            let units = units(octets).min(pool.size);
            permits.push(pool.free.try_acquire_many_owned(units).ok()?);
        }
        Some(Room { octets, _permits: permits })
    }

    /// What a message counts in: from the narrowest on, so that who waits for it keeps nothing
    /// from others.
    fn shares(&self, octets: u64, lane: &Lane, class: Class) -> [Option<Pool>; 4] {
        let area = if octets <= SMALL { &self.small } else { &self.large };
        [
            Some(area.of_lane(lane)),
            class.is_report.then(|| area.reports.clone()),
            (!class.is_proven).then(|| area.unproven.clone()),
            Some(area.all.clone()),
        ]
    }
}

impl Area {
    fn new(octets: u64) -> Self {
        Self {
            all: Pool::new(octets),
            unproven: Pool::new(octets / 2),
            reports: Pool::new(octets / 4),
            lanes: Mutex::default(),
        }
    }

    fn of_lane(&self, lane: &Lane) -> Pool {
        let size = (self.all.size / 2).max(1);
        // Nothing panics while holding this lock.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = lanes.get(lane).and_then(Weak::upgrade) {
            return Pool { size, free };
        }
        // What is forgotten here has no message under way: each holds its lane's semaphore.
        lanes.retain(|_, free| free.strong_count() > 0);
        let free = Arc::new(Semaphore::new(size as usize));
        lanes.insert(lane.clone(), Arc::downgrade(&free));
        Pool { size, free }
    }
}

impl Pool {
    fn new(octets: u64) -> Self {
        let size = units(octets);
        Self { size, free: Arc::new(Semaphore::new(size as usize)) }
    }
}

fn units(octets: u64) -> u32 {
    u32::try_from(octets.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX).min(1 << 28)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Domain;
    use crate::queue::fixture;
    use crate::queue::relays::Relays;
    use crate::store::Destination;

    const MIB: u64 = 1024 * 1024;
    const PROVEN: Class = Class { is_report: false, is_proven: true };

    fn lane(domain: &str) -> Lane {
        let destination = Destination::Domain(Domain::parse(domain).expect("a domain"));
        Lane::of(&fixture::mail(1, destination, &[]), &Relays::default())
    }

    /// As many messages of a size as have room, at most a thousand.
    fn fill(memory: &Memory, octets: u64, lane: &Lane) -> Vec<Room> {
        (0..1000).map_while(|_| memory.room_at_once(octets, lane, PROVEN)).collect()
    }

    #[test]
    fn no_lane_has_more_than_half() {
        for octets in [100 * 1024, MIB, 7 * MIB, 7 * MIB + 1, 20 * MIB] {
            let memory = Memory::new(32 * MIB);
            let slow = fill(&memory, octets, &lane("slow.test"));
            let alone = u64::try_from(slow.len()).expect("few") * octets;
            assert!(slow.len() == 1 || alone <= 16 * MIB, "{octets}: {}", slow.len());
            assert!(memory.room_at_once(8 * MIB, &lane("other.test"), PROVEN).is_some());
        }
    }

    #[test]
    fn small_messages_have_room_when_large_ones_take_all_that_they_may() {
        let memory = Memory::new(32 * MIB);
        let names = ["a.test", "b.test", "c.test"];
        let taken: Vec<_> =
            names.iter().flat_map(|name| fill(&memory, SMALL + 1, &lane(name))).collect();
        assert!(memory.room_at_once(SMALL + 1, &lane("d.test"), PROVEN).is_none());
        assert!(memory.room_at_once(SMALL, &lane("d.test"), PROVEN).is_some());
        assert!(
            memory.room_at_once(SMALL, &lane("a.test"), PROVEN).is_some(),
            "also where they go"
        );
        let unproven = Class { is_report: true, is_proven: false };
        assert!(memory.room_at_once(SMALL, &lane("d.test"), unproven).is_some());
        drop(taken);
        assert!(memory.room_at_once(20 * MIB, &lane("d.test"), PROVEN).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_lanes_room_keeps_none_from_others() {
        let memory = Memory::new(32 * MIB);
        let slow = lane("slow.test");
        let unproven = Class { is_report: false, is_proven: false };
        let first = memory.room(12 * MIB, &slow, PROVEN).await;
        let second = memory.room(12 * MIB, &slow, unproven);
        tokio::pin!(second);
        assert!(is_pending(second.as_mut()).await);
        let other = memory.room_at_once(14 * MIB, &lane("other.test"), unproven);
        assert!(other.is_some());
        drop((first, other));
        assert_eq!(second.await.octets, 12 * MIB);
    }

    #[test]
    fn nothing_is_kept_of_a_lane_that_has_no_message_under_way() {
        let memory = Memory::new(32 * MIB);
        for number in 0..100 {
            drop(memory.room_at_once(MIB, &lane(&format!("d{number}.test")), PROVEN));
        }
        assert_eq!(memory.large.lanes.lock().expect("nothing panics").len(), 1);
    }

    async fn is_pending(future: std::pin::Pin<&mut impl Future<Output = Room>>) -> bool {
        let mut future = future;
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
        })
        .await
    }
}
