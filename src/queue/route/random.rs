//! Random order, replaceable in tests.

use std::sync::Arc;

/// Gives a number below the one it is given.
pub type Random = Arc<dyn Fn(usize) -> usize + Send + Sync>;

/// The crypto provider's random numbers.
pub fn system() -> Random {
    Arc::new(|below| {
        let mut octets = [0; 8];
        // Without random numbers the order stays as it is.
        if aws_lc_rs::rand::fill(&mut octets).is_err() {
            return below.saturating_sub(1);
        }
        let number = u64::from_le_bytes(octets) % u64::try_from(below.max(1)).unwrap_or(u64::MAX);
        usize::try_from(number).unwrap_or(0)
    })
}

/// Puts items into random order (Fisher and Yates).
pub(super) fn shuffle<T>(items: &mut [T], random: &Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random(last + 1).min(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_up() {
        let random = system();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let mut items = [1, 2, 3];
            shuffle(&mut items, &random);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 6);
    }
}
