//! The prune: carries a plan out, in place or aside.
//!
//! Takes a plan; gives a [`report::PruneReport`].

mod aside;
mod confine;
mod in_place;
mod index_rewrite;
mod layout_guard;
mod leftovers;
mod partials;
mod preview;
mod queue;
mod removal;
mod report;

pub use aside::{apply_aside, check_aside};
pub use in_place::apply;
pub use report::{Kept, Outcome, PruneParams, PruneReport};
