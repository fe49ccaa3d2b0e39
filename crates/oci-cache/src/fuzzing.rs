//! What fuzz targets reach besides the public names. `cargo fuzz` sets `cfg(fuzzing)`; nothing else compiles this.
//!
//! Guarantees: pure.

use crate::plan::IndexChange;
use crate::prune::index_splice::{NoIndex, spliced};

/// The index without the entries at `positions`, in ascending order; `None` within if it stays as it is, and `None` if it
/// is no index.
#[must_use]
pub fn index_without(content: &[u8], positions: &[usize]) -> Option<Option<Vec<u8>>> {
    change(content, &IndexChange::Drop(positions.to_vec()))
}

/// The index without any entry; `None` if it stays as it is.
#[must_use]
pub fn emptied_index(content: &[u8]) -> Option<Vec<u8>> {
    change(content, &IndexChange::Empty).flatten()
}

fn change(content: &[u8], change: &IndexChange) -> Option<Option<Vec<u8>>> {
    match spliced(content, change) {
        Ok(spliced) => Some(spliced),
        Err(NoIndex) => None,
    }
}
