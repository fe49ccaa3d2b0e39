//! What all kinds of pulls share.
//!
//! Guarantees: a pull that fails names the step and the cause.

pub(crate) mod broken;
pub(crate) mod flat;
