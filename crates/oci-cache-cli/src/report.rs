//! Results of commands that the library has no type for. JSON and text are made from them.

pub(crate) mod usage;
pub(crate) mod verify;
