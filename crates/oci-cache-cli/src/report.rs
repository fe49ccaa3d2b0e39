//! What a command came to, where the library has no type for it: what JSON and text are made of.

pub(crate) mod usage;
pub(crate) mod verify;
