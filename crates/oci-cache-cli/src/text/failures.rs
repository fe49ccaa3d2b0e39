//! Failures as error messages.
//!
//! Guarantees: pure; names from the disk are escaped. One line for each cause, however many entries it struck.

use oci_cache::{Cause, Failures};

use crate::text::{count, paths};

/// The messages.
pub(crate) fn failures(failures: &Failures) -> Vec<String> {
    let told: u64 = failures.causes().iter().map(|cause| cause.count).sum();
    let untold = failures.total().saturating_sub(told);
    let more = (untold > 0)
        .then(|| format!("error: {} with other causes", count(untold, "more failure", "more failures")));
    failures.causes().iter().map(cause).chain(more).collect()
}

fn cause(cause: &Cause) -> String {
    let Cause { operation, error, count, examples } = cause;
    let paths = paths(examples, *count);
    match count {
        1 => format!("error: {operation} {paths}: {error}"),
        _ => format!("error: {operation}: {error}: {count} entries: {paths}"),
    }
}
