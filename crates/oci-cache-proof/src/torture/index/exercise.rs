//! The exercises: who comes when, and how often.
//!
//! Guarantees: the same clients come beside the tested program and beside the negative control.

use crate::torture::index::layout::Manner;
use crate::torture::mounts::FileSystem;

/// When the clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// While strace holds the prune up.
    HeldUp,
    /// At random, on a disk that others write to.
    AtRandom,
}

/// Who prunes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pruner {
    Tested,
    TheOldWay,
}

/// An exercise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exercise {
    pub(super) file_system: FileSystem,
    pub(super) manner: Manner,
    pub(super) when: When,
    pub(super) pruner: Pruner,
    /// The number of layouts, and of prunes in each, in a full run and in a quick one.
    pub(super) extent: [(usize, usize); 2],
}

const HELD_UP: [(usize, usize); 2] = [(32, 50), (8, 12)];
const AT_RANDOM: [(usize, usize); 2] = [(16, 60), (4, 10)];
const SHORT: [(usize, usize); 2] = [(8, 20), (8, 4)];

impl Exercise {
    /// An exercise of the tested program.
    pub(super) const fn new(file_system: FileSystem, manner: Manner, when: When) -> Self {
        let extent = match when {
            When::HeldUp => HELD_UP,
            When::AtRandom => AT_RANDOM,
        };
        Self { file_system, manner, when, pruner: Pruner::Tested, extent }
    }

    /// A shorter one.
    pub(super) const fn short(self) -> Self {
        Self { extent: SHORT, ..self }
    }

    /// The old way to change the index, in its place.
    pub(super) const fn the_old_way(self) -> Self {
        Self { pruner: Pruner::TheOldWay, ..self.short() }
    }

    /// Who writes how, and when.
    pub(super) const fn what(&self) -> &'static str {
        match (self.manner, self.when) {
            (Manner::Rename, When::HeldUp) => "renamed, held up",
            (Manner::Rename, When::AtRandom) => "renamed, at random",
            (Manner::InPlace, When::HeldUp) => "in place, held up",
            (Manner::InPlace, When::AtRandom) => "in place, at random",
        }
    }

    /// The name in the table, with the numbers of updates that fell into the gap, and between the exchange and the
    /// removal.
    pub(super) fn name(&self, within: u64, after: u64) -> String {
        let name = format!("{}; {within} in the gap, {after} after", self.what());
        match self.pruner {
            Pruner::Tested => name,
            Pruner::TheOldWay => format!("{name}, the old way (must break)"),
        }
    }
}
