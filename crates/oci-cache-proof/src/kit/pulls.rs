//! What pulls of every manner have in common.
//!
//! Guarantees: a pull that breaks says at which step, and why.

pub(crate) mod broken;
pub(crate) mod flat;
