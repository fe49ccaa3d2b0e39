//! Counts by kind, and the first few details in words.
//!
//! Guarantees: everything is counted, however few details are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How often each kind of event happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Counts<Kind: Ord>(BTreeMap<Kind, u64>);

impl<Kind: Ord> Default for Counts<Kind> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Kind: Ord> Counts<Kind> {
    /// Adds `count` events of a kind.
    pub(crate) fn add(&mut self, kind: Kind, count: u64) {
        *self.0.entry(kind).or_default() += count;
    }

    /// Adds the counts of another.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.0 {
            self.add(kind, count);
        }
    }

    /// The number of all events.
    pub(crate) fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// The kinds in order, each with its count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Kind, u64)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }
}

/// Appends details until there are `most`.
pub(crate) fn keep_first(details: &mut Vec<String>, most: usize, more: impl IntoIterator<Item = String>) {
    let room = most.saturating_sub(details.len());
    details.extend(more.into_iter().take(room));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_the_first_is_kept() {
        let (mut one, mut other) = (Counts::default(), Counts::default());
        one.add("mkdir", 1);
        other.add("mkdir", 2);
        other.add("create", 4);
        one.merge(other);
        assert_eq!(one.iter().collect::<Vec<_>>(), [(&"create", 4), (&"mkdir", 3)]);
        assert_eq!(one.sum(), 7);

        let mut details = vec!["a".to_owned()];
        keep_first(&mut details, 2, ["b", "c"].map(str::to_owned));
        keep_first(&mut details, 1, ["d".to_owned()]);
        assert_eq!(details, ["a", "b"]);
    }
}
