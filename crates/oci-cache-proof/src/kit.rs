//! What smoke, torture and bench share.
//!
//! Guarantees: nothing here imports smoke, torture or bench.

pub(crate) mod counts;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod pulls;
pub(crate) mod random;
pub(crate) mod section;
pub(crate) mod shell;
pub(crate) mod table;
pub(crate) mod total;
pub(crate) mod tree;
pub(crate) mod workspace;
