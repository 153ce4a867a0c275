//! What is measured: message sizes, connections, messages on each connection.

/// Connections at once, and messages on each before it is closed and another opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) connections: usize,
    pub(super) messages: usize,
}

/// Messages of one size.
#[derive(Clone)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) octets: usize,
    /// Sent in each cell, over all rounds; in the key cell in each pass
    pub(super) count: usize,
    pub(super) cells: Vec<Cell>,
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

/// The whole comparison.
pub(super) fn full() -> Vec<Class> {
    let cells: Vec<_> = [1, 8, 32, 128]
        .into_iter()
        .flat_map(|connections| [Cell::new(connections, 1), Cell::new(connections, 20)])
        .collect();
    vec![
        Class {
            name: "4 KB",
            octets: 4 << 10,
            count: 2000,
            cells: cells.clone(),
            sync_cells: vec![Cell::new(1, 1), KEY],
        },
        class("50 KB", 50 << 10, 300, cells),
        class("1 MB", 1 << 20, 30, vec![Cell::new(1, 1), Cell::new(8, 1)]),
        class("38 MB", 38 << 20, 3, vec![Cell::new(1, 1)]),
    ]
}

/// Shows that everything works.
pub(super) fn quick() -> Vec<Class> {
    let cells = vec![Cell::new(1, 1), Cell::new(8, 2)];
    let sync_cells = vec![Cell::new(1, 1)];
    vec![Class { name: "4 KB", octets: 4 << 10, count: 32, cells, sync_cells }]
}

fn class(name: &'static str, octets: usize, count: usize, cells: Vec<Cell>) -> Class {
    Class { name, octets, count, cells, sync_cells: Vec::new() }
}
