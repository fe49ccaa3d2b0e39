//! A result with the time since when prunes have been held off.

use serde::Serialize;

use crate::held_off::HeldOff;

/// A prune's result with that time, which is null if the run was not held off.
#[derive(Serialize)]
pub(crate) struct WithHold<T> {
    #[serde(flatten)]
    result: T,
    held_off_since: Option<String>,
}

impl<T> WithHold<T> {
    pub(crate) fn of(result: T, held_off: Option<HeldOff>) -> Self {
        Self { result, held_off_since: held_off.map(HeldOff::since) }
    }
}
