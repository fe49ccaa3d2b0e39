//! Failures of single entries, grouped by cause: what failed, and why.
//!
//! Guarantees: every failure is counted. The memory that they take is bounded, however many there are: at most
//! [`MAX_CAUSES`] causes, with at most [`MAX_EXAMPLES`] paths each. The paths are the first in alphabetical order,
//! whichever thread met them first.

use std::io;
use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::escape::escape_path;

/// The maximum number of paths to keep for each cause.
pub const MAX_EXAMPLES: usize = 10;
/// The maximum number of causes to keep. Failures of further causes are only counted.
pub const MAX_CAUSES: usize = 100;

/// An entry that could not be inspected or removed.
#[derive(Debug)]
pub struct Failure {
    /// The operation that failed.
    pub operation: &'static str,
    /// The path that it failed on.
    pub path: PathBuf,
    /// The cause.
    pub error: io::Error,
}

impl Failure {
    pub(crate) fn new(operation: &'static str, path: PathBuf, error: impl Into<io::Error>) -> Self {
        Self { operation, path, error: error.into() }
    }

    /// Copies the failure; `io::Error` does not implement `Clone`.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { operation: self.operation, path: self.path.clone(), error: duplicate(&self.error) }
    }
}

/// Failures with the same operation and the same error.
#[derive(Debug)]
pub struct Cause {
    /// The operation that failed.
    pub operation: &'static str,
    /// Why it failed.
    pub error: io::Error,
    /// The number of entries that it failed on.
    pub count: u64,
    /// Their paths, at least one and at most [`MAX_EXAMPLES`]: the first ones, in order.
    pub examples: Vec<PathBuf>,
}

impl Cause {
    /// The first path.
    #[must_use]
    pub fn first(&self) -> &Path {
        self.examples.first().map_or(Path::new(""), PathBuf::as_path)
    }

    fn is_of(&self, operation: &str, error: &io::Error) -> bool {
        let is_same_error = match (self.error.raw_os_error(), error.raw_os_error()) {
            (None, None) => self.error.to_string() == error.to_string(),
            (own, other) => own == other,
        };
        self.operation == operation && is_same_error
    }

    /// Keeps the path, if it is one of the first.
    fn keep(&mut self, path: PathBuf) {
        if let Err(position) = self.examples.binary_search(&path)
            && position < MAX_EXAMPLES
        {
            self.examples.insert(position, path);
            self.examples.truncate(MAX_EXAMPLES);
        }
    }
}

impl Clone for Cause {
    fn clone(&self) -> Self {
        Self { error: duplicate(&self.error), examples: self.examples.clone(), ..*self }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let examples: Vec<String> = self.examples.iter().map(|path| escape_path(path)).collect();
        let mut object = serializer.serialize_struct("Cause", 4)?;
        object.serialize_field("path", &escape_path(self.first()))?;
        object.serialize_field("error", &format!("{}: {}", self.operation, self.error))?;
        object.serialize_field("count", &self.count)?;
        object.serialize_field("examples", &examples)?;
        object.end()
    }
}

/// Failures by cause.
///
/// In JSON, the two fields `failures` (the causes) and `failures_total`.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    causes: Vec<Cause>,
    total: u64,
}

impl Failures {
    /// Adds a failure.
    pub fn push(&mut self, failure: Failure) {
        let Failure { operation, path, error } = failure;
        self.total += 1;
        match self.cause_mut(operation, &error) {
            Some(cause) => {
                cause.count += 1;
                cause.keep(path);
            }
            None => self.add(Cause { operation, error, count: 1, examples: vec![path] }),
        }
    }

    /// Adds failures of other entries.
    pub fn merge(&mut self, others: Self) {
        self.total += others.total;
        for cause in others.causes {
            match self.cause_mut(cause.operation, &cause.error) {
                Some(own) => {
                    own.count += cause.count;
                    cause.examples.into_iter().for_each(|path| own.keep(path));
                }
                None => self.add(cause),
            }
        }
    }

    /// The number of failures.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing failed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The causes, at most [`MAX_CAUSES`].
    #[must_use]
    pub fn causes(&self) -> &[Cause] {
        &self.causes
    }

    fn cause_mut(&mut self, operation: &str, error: &io::Error) -> Option<&mut Cause> {
        self.causes.iter_mut().find(|cause| cause.is_of(operation, error))
    }

    fn add(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }
}

impl Extend<Failure> for Failures {
    fn extend<I: IntoIterator<Item = Failure>>(&mut self, failures: I) {
        failures.into_iter().for_each(|failure| self.push(failure));
    }
}

impl Serialize for Failures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Failures", 2)?;
        object.serialize_field("failures", &self.causes)?;
        object.serialize_field("failures_total", &self.total)?;
        object.end()
    }
}

fn duplicate(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn failures(numbers: impl IntoIterator<Item = u32>, errno: Errno) -> Failures {
        let mut failures = Failures::default();
        failures.extend(numbers.into_iter().map(|number| Failure::new("remove", path(number), errno)));
        failures
    }

    fn path(number: u32) -> PathBuf {
        PathBuf::from(format!("{number:06}"))
    }

    fn told(failures: &Failures) -> Vec<(u64, usize)> {
        failures.causes().iter().map(|cause| (cause.count, cause.examples.len())).collect()
    }

    #[test]
    fn a_cause_keeps_its_first_ten_paths_and_counts_the_rest() {
        for total in [1, 9, 10, 11, 50_000] {
            let failures = failures((0..total).rev(), Errno::ROFS);
            assert_eq!(told(&failures), [(total.into(), (total as usize).min(MAX_EXAMPLES))]);
            assert_eq!((failures.total(), failures.causes()[0].first()), (total.into(), &*path(0)));
        }
        assert!(Failures::default().is_empty());
    }

    #[test]
    fn operation_and_error_make_the_cause() {
        let mut all = failures(0..3, Errno::ROFS);
        all.merge(failures(3..20, Errno::ROFS));
        all.merge(failures(20..21, Errno::ACCESS));
        all.push(Failure::new("probe", path(21), Errno::ACCESS));
        let text = |text: &str| Failure::new("read", path(22), io::Error::other(text.to_owned()));
        all.extend([text("a"), text("a"), text("b")]);
        assert_eq!((told(&all), all.total()), (vec![(20, 10), (1, 1), (1, 1), (2, 1), (1, 1)], 25));
    }

    #[test]
    fn there_are_a_hundred_causes_at_most() {
        let mut all = Failures::default();
        for number in 0..250 {
            all.push(Failure::new("read", path(number), io::Error::other(number.to_string())));
        }
        assert_eq!((all.causes().len(), all.total()), (MAX_CAUSES, 250));
        let mut twice = Failures::default();
        twice.merge(all.clone());
        twice.merge(all);
        assert_eq!((twice.causes().len(), twice.total()), (MAX_CAUSES, 500));
    }

    #[test]
    fn in_json_a_cause_still_has_path_and_error() {
        let json = serde_json::to_value(failures([7, 3], Errno::ROFS)).unwrap();
        let cause = serde_json::json!({
            "path": "000003",
            "error": "remove: Read-only file system (os error 30)",
            "count": 2,
            "examples": ["000003", "000007"],
        });
        assert_eq!(json, serde_json::json!({"failures": [cause], "failures_total": 2}));
    }
}
