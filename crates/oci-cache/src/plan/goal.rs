//! A goal of a policy, and how near a prune came to it.

use serde::Serialize;

use crate::cache::cache_dir::Space;
use crate::plan::policy::Policy;

/// What a goal limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalKind {
    /// [`Policy::max_used`].
    MaxUsedSpace,
    /// [`Policy::min_free`].
    MinFreeSpace,
}

impl GoalKind {
    /// Its name, as in the JSON result.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxUsedSpace => "max_used_space",
            Self::MinFreeSpace => "min_free_space",
        }
    }
}

/// A goal, and what a prune reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// What it limits.
    pub goal: GoalKind,
    /// How much was wanted, in bytes.
    pub wanted: u64,
    /// How much there is after the prune, in bytes.
    pub reached: u64,
    /// Whether that is what was wanted.
    pub met: bool,
}

impl Policy {
    /// The policy's goals, for a cache that uses so much of a file system with so much space.
    #[must_use]
    pub fn goals(&self, used_bytes: u64, space: Space) -> Vec<Goal> {
        let max_used = self.max_used.map(|used| used.bytes_of(space)).map(|wanted| Goal {
            goal: GoalKind::MaxUsedSpace,
            wanted,
            reached: used_bytes,
            met: used_bytes <= wanted,
        });
        let min_free = self.min_free.map(|free| free.bytes_of(space)).map(|wanted| Goal {
            goal: GoalKind::MinFreeSpace,
            wanted,
            reached: space.available_bytes,
            met: space.available_bytes >= wanted,
        });
        max_used.into_iter().chain(min_free).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::amount::Amount;

    #[test]
    fn a_goal_is_met_from_its_limit_on() {
        let policy = Policy {
            max_used: Some(Amount::Bytes(10)),
            min_free: Some(Amount::Bytes(20)),
            ..Policy::default()
        };
        for (used_bytes, available_bytes, met) in
            [(10, 20, [true, true]), (11, 19, [false, false]), (9, 21, [true, true])]
        {
            let goals = policy.goals(used_bytes, Space { available_bytes, total_bytes: 100 });
            let [used, free] = goals[..] else { panic!("{goals:?}") };
            assert_eq!([used.met, free.met], met, "{goals:?}");
            assert_eq!([used.reached, free.reached], [used_bytes, available_bytes]);
            assert_eq!([used.wanted, free.wanted], [10, 20]);
        }
    }
}
