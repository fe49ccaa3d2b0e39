//! The step at which a pull broke, and the pauses between steps.
//!
//! Guarantees: the step is one of a pull's own names for its steps, so tables can count by it.

use std::io;
use std::thread;
use std::time::Duration;

use rand::RngExt as _;

/// A step of a pull that failed, and why.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The pull's name for the step.
    pub(crate) step: &'static str,
    /// The error.
    pub(crate) cause: io::Error,
}

/// Says of an error that the pull broke at this step.
pub(crate) fn at(step: &'static str) -> impl Fn(io::Error) -> Broken {
    move |cause| Broken { step, cause }
}

/// Checks what a pull read.
///
/// # Errors
///
/// If it is not what belongs there.
pub(crate) fn check(content: &[u8], right: &[u8]) -> io::Result<()> {
    if content == right {
        return Ok(());
    }
    Err(io::Error::other(format!("{} bytes are not the {} that it has", content.len(), right.len())))
}

/// Pauses between two steps, once in so many times: a pull computes a digest, or waits for the network.
pub(crate) fn think(once_in: u32, microseconds: u64) {
    let mut random = rand::rng();
    if random.random_ratio(1, once_in) {
        thread::sleep(Duration::from_micros(random.random_range(0..microseconds)));
    }
}
