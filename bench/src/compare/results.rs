//! What was measured, and the figures over several rounds of it.

use super::kind::Kind;
use super::measure::{Measured, Spread};
use super::plan::{Cell, Class};

pub(super) const MIB: f64 = 1_048_576.0;

/// What a class gave.
pub(super) struct Results {
    pub(super) class: Class,
    /// In the order in which they were measured; several of each system and cell.
    pub(super) measured: Vec<Measured>,
    pub(super) syncs: Vec<Syncs>,
}

/// Syncs for each message.
pub(super) struct Syncs {
    pub(super) kind: Kind,
    pub(super) cell: Cell,
    pub(super) each: f64,
}

impl Results {
    /// The rounds of a system in a cell.
    pub(super) fn rounds(&self, kind: Kind, cell: Cell) -> impl Iterator<Item = &Measured> {
        self.measured.iter().filter(move |row| row.kind == kind && row.cell == cell)
    }

    /// A figure over the rounds of a system in a cell.
    pub(super) fn spread(
        &self,
        kind: Kind,
        cell: Cell,
        figure: fn(&Measured) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.rounds(kind, cell).map(figure))
    }

    /// How many times Mailweir's a figure of another system is, each round held against the one
    /// beside it.
    pub(super) fn ratio(
        &self,
        kind: Kind,
        cell: Cell,
        figure: fn(&Measured) -> f64,
    ) -> Option<Spread> {
        let ours = self.rounds(Kind::Mailweir, cell);
        let pairs = self.rounds(kind, cell).zip(ours);
        Spread::of(pairs.map(|(theirs, ours)| figure(theirs) / figure(ours)))
    }
}
