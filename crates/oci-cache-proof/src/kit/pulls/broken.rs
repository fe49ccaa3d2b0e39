//! The step at which a pull failed, and the pauses between steps.
//!
//! Guarantees: each pull names its steps itself, so tables can count by step.

use std::io;
use std::thread;
use std::time::Duration;

use rand::RngExt as _;

use crate::kit::random::random;

/// A failed step, and the cause.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The name of the step.
    pub(crate) step: &'static str,
    /// The cause.
    pub(crate) cause: io::Error,
}

/// Turns an I/O error into a failure of this step.
pub(crate) fn at(step: &'static str) -> impl Fn(io::Error) -> Broken {
    move |cause| Broken { step, cause }
}

/// Compares what a pull has read with what the blob contains.
///
/// # Errors
///
/// If they differ.
pub(crate) fn check(content: &[u8], right: &[u8]) -> io::Result<()> {
    if content == right {
        return Ok(());
    }
    Err(io::Error::other(format!("{} bytes, not the right {}", content.len(), right.len())))
}

/// Pauses in one of `once_in` cases. Real pulls compute digests or wait for the network between steps.
pub(crate) fn think(once_in: u32, microseconds: u64) {
    let mut random = random();
    if random.random_ratio(1, once_in) {
        thread::sleep(Duration::from_micros(random.random_range(0..microseconds)));
    }
}
