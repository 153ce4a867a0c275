//! Which commits are written and synced together, and in which order; pure.

use std::collections::VecDeque;

/// A record of more octets, or of more rows in the index, is large.
const LARGE_FRAME: u64 = 1024 * 1024;
const LARGE_ROWS: usize = 20;
/// Rows of the index, but for one record, that large records come to together which one sync serves.
const BATCH_ROWS: usize = 1000;
/// Octets, but for one record, and records that one sync serves at most.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
const BATCH_RECORDS: usize = 256;

/// What makes a record large: octets to write, or rows of the index, as those of a message to many
/// mailboxes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    pub(super) rows: usize,
}

impl Extent {
    fn is_large(self) -> bool {
        self.bytes > LARGE_FRAME || self.rows > LARGE_ROWS
    }

    /// Both together, if one sync may serve so much of the large.
    fn with(self, other: Self) -> Option<Self> {
        let both = Self { bytes: self.bytes + other.bytes, rows: self.rows + other.rows };
        (both.bytes <= LARGE_FRAME && both.rows <= BATCH_ROWS).then_some(both)
    }
}

/// Records that wait to be written, in the order in which they came. The large ones wait apart: a
/// sync of their own serves them, one or a few that are not very large, after a batch of the small
/// ones, so that neither kind holds up the other for longer than one sync. While the index is
/// behind, they wait on, so that what many mailboxes cost it does not keep out the small ones.
#[derive(Debug)]
pub(super) struct Line<T> {
    small: Vec<T>,
    small_bytes: u64,
    large: VecDeque<(T, Extent)>,
}

/// Whether the large ones are to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Large {
    Go,
    Wait,
}

/// What is written next: first the batch, then the large records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round<T> {
    /// Small records that share a sync.
    pub(super) batch: Vec<T>,
    /// Large records that share a sync.
    pub(super) large: Vec<T>,
}

impl<T> Line<T> {
    /// A line in which nobody waits.
    pub(super) fn new() -> Self {
        Self { small: Vec::new(), small_bytes: 0, large: VecDeque::new() }
    }

    /// Puts a record at its end.
    pub(super) fn join(&mut self, record: T, extent: Extent) {
        if extent.is_large() {
            self.large.push_back((record, extent));
        } else {
            self.small_bytes += extent.bytes;
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

    /// Whether there is somebody whose turn it is.
    pub(super) fn is_ready(&self, large: Large) -> bool {
        !self.small.is_empty() || (large == Large::Go && !self.large.is_empty())
    }

    /// Takes what is next out of the line: all small records and the first large ones.
    pub(super) fn next_round(&mut self, large: Large) -> Round<T> {
        self.small_bytes = 0;
        let batch = std::mem::take(&mut self.small);
        Round { batch, large: if large == Large::Go { self.next_large() } else { Vec::new() } }
    }

    fn next_large(&mut self) -> Vec<T> {
        let Some((first, mut together)) = self.large.pop_front() else { return Vec::new() };
        let mut batch = vec![first];
        while let Some(both) = self.large.front().and_then(|(_, next)| together.with(*next)) {
            together = both;
            batch.extend(self.large.pop_front().map(|(record, _)| record));
        }
        batch
    }

    /// Takes all large ones out of the line.
    pub(super) fn take_large(&mut self) -> Vec<T> {
        self.large.drain(..).map(|(record, _)| record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn extent(bytes: u64, rows: usize) -> Extent {
        Extent { bytes, rows }
    }

    const fn bytes(bytes: u64) -> Extent {
        extent(bytes, 1)
    }

    /// Of a few octets, for so many mailboxes.
    const fn rows(rows: usize) -> Extent {
        extent(1, rows)
    }

    const SMALL: Extent = extent(LARGE_FRAME, LARGE_ROWS);
    const LARGE: Extent = bytes(LARGE_FRAME + 1);
    const WIDE: Extent = rows(LARGE_ROWS + 1);

    /// Puts as many of the records into the line as it takes.
    fn fill(line: &mut Line<usize>, records: &mut impl Iterator<Item = (usize, Extent)>) {
        while !line.is_full() {
            let Some((record, extent)) = records.next() else { return };
            line.join(record, extent);
        }
    }

    /// The rounds that serve records of these extents, which all wait from the start.
    fn rounds(extents: &[Extent]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut line = Line::new();
        let mut records = extents.iter().copied().enumerate();
        let mut rounds = Vec::new();
        fill(&mut line, &mut records);
        while !line.is_empty() {
            let Round { batch, large } = line.next_round(Large::Go);
            rounds.push((batch, large));
            fill(&mut line, &mut records);
        }
        rounds
    }

    #[test]
    fn large_records_are_apart_and_each_kind_keeps_its_order() {
        let check = |extents: &[Extent], expected: &[(&[usize], &[usize])]| {
            let found = rounds(extents);
            let found: Vec<_> = found.iter().map(|(batch, large)| (&**batch, &**large)).collect();
            assert_eq!(found, expected, "{extents:?}");
        };
        check(&[], &[]);
        check(&[bytes(1), SMALL, bytes(3)], &[(&[0, 1, 2], &[])]);
        check(&[LARGE], &[(&[], &[0])]);
        check(&[bytes(1), LARGE, bytes(3)], &[(&[0, 2], &[1])]);
        check(&[LARGE, LARGE, bytes(3)], &[(&[2], &[0]), (&[], &[1])]);
        let mixed = [bytes(1), LARGE, LARGE, bytes(4), LARGE];
        check(&mixed, &[(&[0, 3], &[1]), (&[], &[2]), (&[], &[4])]);
        check(&[bytes(1), WIDE, bytes(3)], &[(&[0, 2], &[1])]);
    }

    #[test]
    fn large_records_that_are_not_very_large_share_a_sync() {
        let check = |extents: &[Extent], expected: &[&[usize]]| {
            let found: Vec<_> = rounds(extents).into_iter().map(|(_, large)| large).collect();
            assert_eq!(found, expected, "{extents:?}");
        };
        check(&[WIDE, WIDE, WIDE], &[&[0, 1, 2]]);
        check(&[rows(BATCH_ROWS - 21), WIDE, WIDE], &[&[0, 1], &[2]]);
        check(&[rows(BATCH_ROWS - 20), WIDE, WIDE], &[&[0], &[1, 2]]);
        check(&[rows(20_000), WIDE], &[&[0], &[1]]);
        check(&[WIDE, rows(20_000), WIDE], &[&[0], &[1], &[2]]);
        check(&[LARGE, WIDE], &[&[0], &[1]]);
        let half = extent(LARGE_FRAME / 2, LARGE_ROWS + 1);
        check(&[half, half, WIDE], &[&[0, 1], &[2]]);
    }

    #[test]
    fn large_records_wait_while_the_small_go_on() {
        let mut line = Line::new();
        let all = [WIDE, bytes(1), LARGE, bytes(3)];
        fill(&mut line, &mut all.into_iter().enumerate());
        assert!(line.is_ready(Large::Wait));
        let first = line.next_round(Large::Wait);
        assert_eq!(first, Round { batch: vec![1, 3], large: vec![] });
        assert!(!line.is_ready(Large::Wait) && line.is_ready(Large::Go) && !line.is_empty());
        assert_eq!(line.next_round(Large::Wait), Round { batch: vec![], large: vec![] });
        assert_eq!(line.next_round(Large::Go), Round { batch: vec![], large: vec![0] });
        assert_eq!(line.take_large(), [2]);
        assert!(line.is_empty() && !line.is_ready(Large::Go));
    }

    #[test]
    fn a_sync_serves_so_many_octets_and_records_at_most() {
        let lengths = |extents: &[Extent]| {
            let found = rounds(extents);
            found.iter().map(|(batch, _)| batch.len()).collect::<Vec<_>>()
        };
        let many = [bytes(1); 2 * BATCH_RECORDS + 1];
        assert_eq!(lengths(&many), [BATCH_RECORDS, BATCH_RECORDS, 1]);
        assert_eq!(lengths(&[SMALL; 17]), [8, 8, 1], "8 MiB, and counted anew for each");
        let mut nearly = vec![SMALL; 7];
        nearly.extend([bytes(LARGE_FRAME - 1), SMALL, SMALL]);
        assert_eq!(lengths(&nearly), [9, 1], "one record more than 8 MiB");
    }

    #[test]
    fn neither_kind_waits_for_more_than_one_sync_of_the_other() {
        let found = |extents: &[Extent]| {
            let found = rounds(extents).into_iter();
            found.map(|(batch, large)| (batch.len(), large)).collect::<Vec<_>>()
        };
        let large_first = [[LARGE; 3].as_slice(), &[bytes(1); 600]].concat();
        assert_eq!(found(&large_first), [(256, vec![0]), (256, vec![1]), (88, vec![2])]);
        let small_first = [[bytes(1); 600].as_slice(), &[LARGE; 3]].concat();
        assert_eq!(
            found(&small_first),
            [(256, vec![]), (256, vec![]), (88, vec![600]), (0, vec![601]), (0, vec![602])]
        );
    }
}
