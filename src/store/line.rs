//! Which commits are written and synced together, and in which order; pure.

use std::collections::VecDeque;

/// A record of more octets is written and synced by itself.
const LARGE_FRAME: u64 = 1024 * 1024;
/// Octets, but for one record, and records that one sync serves at most.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
const BATCH_RECORDS: usize = 256;

/// Records that wait to be written, in the order in which they came. The large ones wait apart:
/// each is synced by itself, after a batch of the small ones, so that neither kind holds up the
/// other for longer than one sync.
#[derive(Debug)]
pub(super) struct Line<T> {
    small: Vec<T>,
    small_bytes: u64,
    large: VecDeque<T>,
}

/// What is written next: first the batch, then the large record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round<T> {
    /// Small records that share a sync.
    pub(super) batch: Vec<T>,
    /// A record that has a sync of its own.
    pub(super) large: Option<T>,
}

impl<T> Line<T> {
    /// A line in which nobody waits.
    pub(super) fn new() -> Self {
        Self { small: Vec::new(), small_bytes: 0, large: VecDeque::new() }
    }

    /// Puts a record of so many octets at its end.
    pub(super) fn join(&mut self, record: T, bytes: u64) {
        if bytes > LARGE_FRAME {
            self.large.push_back(record);
        } else {
            self.small_bytes += bytes;
            self.small.push(record);
        }
    }

    /// Whether the next batch has as much as a sync should serve.
    pub(super) fn is_full(&self) -> bool {
        self.small.len() >= BATCH_RECORDS || self.small_bytes >= BATCH_BYTES
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Takes what is next out of the line: all small records and the first large one.
    pub(super) fn next_round(&mut self) -> Round<T> {
        self.small_bytes = 0;
        Round { batch: std::mem::take(&mut self.small), large: self.large.pop_front() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: u64 = LARGE_FRAME;
    const LARGE: u64 = LARGE_FRAME + 1;

    /// Puts as many of the records into the line as it takes.
    fn fill(line: &mut Line<usize>, records: &mut impl Iterator<Item = (usize, u64)>) {
        while !line.is_full() {
            let Some((record, bytes)) = records.next() else { return };
            line.join(record, bytes);
        }
    }

    /// The rounds that serve records of these sizes, which all wait from the start.
    fn rounds(sizes: &[u64]) -> Vec<(Vec<usize>, Option<usize>)> {
        let mut line = Line::new();
        let mut records = sizes.iter().copied().enumerate();
        let mut rounds = Vec::new();
        fill(&mut line, &mut records);
        while !line.is_empty() {
            let Round { batch, large } = line.next_round();
            rounds.push((batch, large));
            fill(&mut line, &mut records);
        }
        rounds
    }

    #[test]
    fn large_records_are_alone_and_each_kind_keeps_its_order() {
        let check = |sizes: &[u64], expected: &[(&[usize], Option<usize>)]| {
            let found = rounds(sizes);
            let found: Vec<_> = found.iter().map(|(batch, large)| (&**batch, *large)).collect();
            assert_eq!(found, expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[1, SMALL, 3], &[(&[0, 1, 2], None)]);
        check(&[LARGE], &[(&[], Some(0))]);
        check(&[1, LARGE, 3], &[(&[0, 2], Some(1))]);
        check(&[LARGE, LARGE, 3], &[(&[2], Some(0)), (&[], Some(1))]);
        check(&[1, LARGE, LARGE, 4, LARGE], &[(&[0, 3], Some(1)), (&[], Some(2)), (&[], Some(4))]);
    }

    #[test]
    fn a_sync_serves_so_many_octets_and_records_at_most() {
        let lengths = |sizes: &[u64]| {
            let found = rounds(sizes);
            found.iter().map(|(batch, _)| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[1; 2 * BATCH_RECORDS + 1]), [BATCH_RECORDS, BATCH_RECORDS, 1]);
        assert_eq!(lengths(&[SMALL; 17]), [8, 8, 1], "8 MiB, and counted anew for each");
        let mut nearly = vec![SMALL; 7];
        nearly.extend([SMALL - 1, SMALL, SMALL]);
        assert_eq!(lengths(&nearly), [9, 1], "one record more than 8 MiB");
    }

    #[test]
    fn neither_kind_waits_for_more_than_one_sync_of_the_other() {
        let large_first = [[LARGE; 3].as_slice(), &[1; 600]].concat();
        let found = rounds(&large_first);
        let found: Vec<_> = found.iter().map(|(batch, large)| (batch.len(), *large)).collect();
        assert_eq!(found, [(256, Some(0)), (256, Some(1)), (88, Some(2))]);
        let small_first = [[1; 600].as_slice(), &[LARGE; 3]].concat();
        let found = rounds(&small_first);
        let found: Vec<_> = found.iter().map(|(batch, large)| (batch.len(), *large)).collect();
        assert_eq!(
            found,
            [(256, None), (256, None), (88, Some(600)), (0, Some(601)), (0, Some(602))]
        );
    }
}
