//! Large memory goes back to the system soon after it was freed. The allocator looks for what it may
//! give back when it frees something, and not before some milliseconds have passed: what is freed last
//! it would keep for as long as nothing else comes.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Less than this, in all, is kept: the next messages need it again.
const MUCH: u64 = 4 << 20;
/// After this the allocator gives back what was freed before; see `cli/allocator.rs` for its own time.
const SOON: Duration = Duration::from_millis(100);
/// More than the allocator keeps for the next who wants as much.
const PIECE: usize = 2 << 20;

/// Octets that were freed since much was given back.
static FREED: AtomicU64 = AtomicU64::new(0);
static IS_MUCH_FREED: Notify = Notify::const_new();

/// Says that about so many octets were freed, or are in a moment.
pub fn freed(octets: u64) {
    if FREED.fetch_add(octets, Ordering::Relaxed) + octets >= MUCH {
        FREED.store(0, Ordering::Relaxed);
        IS_MUCH_FREED.notify_one();
    }
}

/// Has large memory given back until it is told to stop.
pub async fn give_back(mut stop: watch::Receiver<bool>) {
    let is_told = async { drop(stop.wait_for(|is_stopped| *is_stopped).await) };
    let give_back = async {
        loop {
            IS_MUCH_FREED.notified().await;
            sleep(SOON).await;
            // Nothing is written to it, so it takes no memory itself.
            drop(black_box(Vec::<u8>::with_capacity(PIECE)));
        }
    };
    tokio::select! {
        () = is_told => {}
        () = give_back => {}
    }
}
