//! The fate of an entry, and the reason for it.

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes.
    Remove(Remove),
    /// It stays.
    Keep(Keep),
}

impl Fate {
    /// Whether it goes.
    #[must_use]
    pub const fn goes(self) -> bool {
        matches!(self, Self::Remove(_))
    }
}

/// Why an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// Everything goes.
    Everything,
    /// It was not used for long enough.
    Old,
    /// The layout's index does not lead to it.
    Unreferenced,
    /// The cache is over its budget.
    OverBudget,
    /// The file system has too little room.
    LowSpace,
    /// Its content does not hash to its name.
    Corrupt,
    /// The saved plan lists it.
    Listed,
}

/// Why an entry stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A process has it open, or a pull that is under way may count on it.
    InUse,
    /// It was used too recently.
    Recent,
    /// The layout's index leads to it.
    Referenced,
    /// It was named to be kept.
    Pinned,
    /// The goal is met without it.
    GoalMet,
    /// It is not what it was when the plan was made.
    Changed,
    /// The saved plan does not list it.
    Unlisted,
    /// It is not corrupt, and only what is corrupt goes.
    Intact,
    /// It could not be read, or its turn did not come, and only what is corrupt goes.
    Unread,
}

impl Keep {
    /// The reason as it is named in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Recent => "recent",
            Self::Referenced => "referenced",
            Self::Pinned => "pinned",
            Self::GoalMet => "goal_met",
            Self::Changed => "changed",
            Self::Unlisted => "unlisted",
            Self::Intact => "intact",
            Self::Unread => "unread",
        }
    }
}
