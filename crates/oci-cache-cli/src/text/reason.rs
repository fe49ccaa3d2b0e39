//! Why an entry is removed or kept, in words.

use oci_cache::{Keep, Remove};

/// Why an entry is removed.
pub(crate) const fn of_removal(reason: Remove) -> &'static str {
    match reason {
        Remove::Everything => "nothing keeps it",
        Remove::Old => "idle for long enough",
        Remove::Unreferenced => "unreferenced",
        Remove::OverBudget => "over budget",
        Remove::LowSpace => "low on space",
        Remove::Corrupt => "corrupt",
        Remove::Selected => "selected",
        Remove::Listed => "listed in the plan",
    }
}

/// Why an entry is kept.
pub(crate) const fn of_keeping(reason: Keep) -> &'static str {
    match reason {
        Keep::InUse => "in use",
        Keep::Spared => "a pull may need it",
        Keep::Unprobed => "who has it open cannot be told",
        Keep::Recent => "not idle for long enough",
        Keep::Referenced => "referenced",
        Keep::Pinned => "pinned",
        Keep::GoalMet => "goal met",
        Keep::FreesNothing => "would free nothing",
        Keep::Changed => "changed meanwhile",
        Keep::Unlisted => "not in the plan",
        Keep::Intact => "not corrupt",
        Keep::Unread => "not read, so not known to be corrupt",
        Keep::Unselected => "not selected",
    }
}
