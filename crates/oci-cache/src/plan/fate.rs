//! The fate of an entry: removed or kept, and the reason.

use serde::Serialize;

/// The fate of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It will be removed.
    Remove(Remove),
    /// It will be kept.
    Keep(Keep),
    /// An earlier round of the prune removed it.
    Removed(Remove),
    /// It was gone when an earlier round of the prune came to it.
    Gone,
    /// An earlier round of the prune could not remove it; the failure in the report says why.
    Failed,
}

impl Fate {
    /// Whether the entry will be removed.
    #[must_use]
    pub const fn goes(self) -> bool {
        matches!(self, Self::Remove(_))
    }

    /// Keeps the entry after all, if it was to go.
    pub(crate) const fn stay(&mut self, reason: Keep) {
        if self.goes() {
            *self = Self::Keep(reason);
        }
    }

    /// Whether an earlier round of the prune left nothing of it.
    pub(crate) const fn is_past(self) -> bool {
        matches!(self, Self::Removed(_) | Self::Gone)
    }
}

/// Why an entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remove {
    /// The prune removes everything.
    Everything,
    /// It was last used long enough ago.
    Old,
    /// The layout's index does not reference it.
    Unreferenced,
    /// The cache is over its budget.
    OverBudget,
    /// The file system has too little free space.
    LowSpace,
    /// Its content does not hash to its name.
    Corrupt,
    /// It belongs to an image that the policy selects.
    Selected,
    /// The saved plan lists it.
    Listed,
}

/// Why an entry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A process has it open, or used it while the prune looked for pulls.
    InUse,
    /// A pull is in progress, and may depend on it.
    Spared,
    /// Who has it open cannot be told, or it belongs to a blob or image of which that is so.
    Unprobed,
    /// It was used too recently.
    Recent,
    /// The layout's index references it.
    Referenced,
    /// The policy pins it, or an image that needs it.
    Pinned,
    /// The goal is met without removing it.
    GoalMet,
    /// Removing it brings no goal nearer: its file has other names, or belongs to a lower layer of an overlay.
    FreesNothing,
    /// It changed after it was looked at, or is gone.
    Changed,
    /// The saved plan does not list it.
    Unlisted,
    /// It is not corrupt, and only corrupt blobs are removed.
    Intact,
    /// It was not read successfully, and only corrupt blobs are removed.
    Unread,
    /// It belongs to no image that the policy selects.
    Unselected,
}

impl Keep {
    /// The name of the reason in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Spared => "spared",
            Self::Unprobed => "unprobed",
            Self::Recent => "recent",
            Self::Referenced => "referenced",
            Self::Pinned => "pinned",
            Self::GoalMet => "goal_met",
            Self::FreesNothing => "frees_nothing",
            Self::Changed => "changed",
            Self::Unlisted => "unlisted",
            Self::Intact => "intact",
            Self::Unread => "unread",
            Self::Unselected => "unselected",
        }
    }
}
