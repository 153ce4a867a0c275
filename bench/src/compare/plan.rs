//! What is measured: message sizes, connections, messages on each connection.

use super::kind::Kind;

/// How often each cell is measured, the systems in turn, and how often the key cell is.
const ROUNDS: usize = 3;
const KEY_ROUNDS: usize = 5;
/// How often the messages are sent in a round of the key cell: a pass of them takes some systems
/// only a moment.
const KEY_PASSES: usize = 5;
/// The same of Haraka, which takes longer for each than the others for all of theirs.
const HARAKA_KEY_PASSES: usize = 2;

/// Which way messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Another server brings them, for a mailbox here
    Incoming,
    /// A user hands them in, for another server
    Outgoing,
}

/// Connections at once, and messages on each before it is closed and another opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) connections: usize,
    pub(super) messages: usize,
}

/// Messages of one size that go one way.
#[derive(Clone)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) direction: Direction,
    pub(super) octets: usize,
    /// Sent in each cell, over all rounds; in the key cell in each pass
    pub(super) count: usize,
    /// How often a cell is measured that is not the key cell
    pub(super) rounds: usize,
    pub(super) cells: Vec<Cell>,
    /// Those of them in which Haraka is measured: it takes some seconds to start
    pub(super) haraka_cells: Vec<Cell>,
    /// Cells in which syncs are counted, in a pass of their own
    pub(super) sync_cells: Vec<Cell>,
}

/// The cell of the summary.
pub(super) const KEY: Cell = Cell::new(32, 20);

impl Cell {
    const fn new(connections: usize, messages: usize) -> Self {
        Self { connections, messages }
    }

    /// For tables and axes.
    pub(super) fn name(self) -> String {
        format!("{} × {}", self.connections, self.messages)
    }
}

impl Class {
    /// The systems that are measured in a cell.
    pub(super) fn kinds(&self, cell: Cell) -> Vec<Kind> {
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| match (self.direction, kind) {
            (Direction::Outgoing, kind) => kind.signs(),
            (Direction::Incoming, Kind::HarakaDovecot) => self.haraka_cells.contains(&cell),
            (Direction::Incoming, Kind::Mailweir | Kind::PostfixRspamd | Kind::Postfix) => true,
        });
        kinds
    }

    /// The systems that are measured in any of its cells, in the order of tables.
    pub(super) fn all_kinds(&self) -> Vec<Kind> {
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| self.cells.iter().any(|cell| self.kinds(*cell).contains(kind)));
        kinds
    }

    /// How often a cell is measured.
    pub(super) fn rounds(&self, cell: Cell) -> usize {
        if cell == KEY { KEY_ROUNDS } else { self.rounds }
    }

    /// How many messages a system is sent in each round of a cell.
    pub(super) fn round_count(&self, cell: Cell, kind: Kind) -> usize {
        match (cell, kind) {
            (KEY, Kind::HarakaDovecot) => self.count * HARAKA_KEY_PASSES,
            (KEY, _) => self.count * KEY_PASSES,
            _ => self.count.div_ceil(self.rounds),
        }
    }
}

/// The whole comparison.
pub(super) fn full() -> Vec<Class> {
    let cells: Vec<_> = [1, 8, 32, 128]
        .into_iter()
        .flat_map(|connections| [Cell::new(connections, 1), Cell::new(connections, 20)])
        .collect();
    let some_cells = vec![Cell::new(1, 1), Cell::new(8, 20), KEY];
    vec![
        Class {
            haraka_cells: some_cells.clone(),
            sync_cells: vec![Cell::new(1, 1), KEY],
            ..class("4 KB", 4 << 10, 2000, cells.clone())
        },
        Class {
            direction: Direction::Outgoing,
            ..class("4 KB outgoing", 4 << 10, 1000, some_cells)
        },
        class("50 KB", 50 << 10, 300, cells),
        class("1 MB", 1 << 20, 30, vec![Cell::new(1, 1), Cell::new(8, 1)]),
        class("38 MB", 38 << 20, 3, vec![Cell::new(1, 1)]),
    ]
}

/// Shows that everything works.
pub(super) fn quick() -> Vec<Class> {
    let cells = vec![Cell::new(1, 1), Cell::new(8, 2)];
    let incoming = Class {
        rounds: 1,
        haraka_cells: vec![Cell::new(8, 2)],
        sync_cells: vec![Cell::new(1, 1)],
        ..class("4 KB", 4 << 10, 32, cells)
    };
    let outgoing = Class {
        direction: Direction::Outgoing,
        rounds: 1,
        ..class("4 KB outgoing", 4 << 10, 32, vec![Cell::new(8, 2)])
    };
    vec![incoming, outgoing]
}

/// Messages that come from elsewhere, without Haraka and without counting syncs.
fn class(name: &'static str, octets: usize, count: usize, cells: Vec<Cell>) -> Class {
    Class {
        name,
        direction: Direction::Incoming,
        octets,
        count,
        rounds: ROUNDS,
        cells,
        haraka_cells: Vec::new(),
        sync_cells: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_has_its_cells() {
        let usual = [Kind::Mailweir, Kind::PostfixRspamd, Kind::Postfix];
        let sends = [Kind::Mailweir, Kind::PostfixRspamd];
        for (name, cell, expected) in [
            ("4 KB", Cell::new(1, 1), &Kind::ALL[..]),
            ("4 KB", Cell::new(1, 20), &usual),
            ("4 KB", Cell::new(8, 20), &Kind::ALL),
            ("4 KB", KEY, &Kind::ALL),
            ("4 KB", Cell::new(128, 20), &usual),
            ("4 KB outgoing", Cell::new(1, 1), &sends),
            ("4 KB outgoing", KEY, &sends),
            ("50 KB", KEY, &usual),
            ("38 MB", Cell::new(1, 1), &usual),
        ] {
            let classes = full();
            let class = classes.iter().find(|class| class.name == name).expect("a class");
            assert!(class.cells.contains(&cell), "{name} {}", cell.name());
            assert_eq!(class.kinds(cell), expected, "{name} {}", cell.name());
        }
    }

    #[test]
    fn the_quick_comparison_has_every_system_and_both_directions() {
        let classes = quick();
        assert_eq!(classes[0].all_kinds(), Kind::ALL);
        assert!(classes.iter().any(|class| class.direction == Direction::Outgoing));
    }
}
