//! What a removal must know of others: open files, and pulls that may be under way.

use crate::prune::pulls::Pulls;
use crate::prune::spare::Idle;

/// What to do with a blob that a process has open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenFiles<'a> {
    /// It stays. If a pull may be under way, so does what it may count on.
    Spare(Option<Beside<'a>>),
    /// Removes it anyway: the directory was moved aside, so nobody can reach it. Its space does not count as
    /// freed.
    Disregard,
}

impl OpenFiles<'_> {
    /// Whether what cannot be probed stays too. A strict prune always looks for pulls.
    pub(crate) fn keep_unprobed(&self) -> bool {
        matches!(self, Self::Spare(Some(beside)) if beside.idle.is_strict())
    }
}

/// What is known of pulls, and of how idle entries are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    pub(crate) pulls: &'a Pulls<'a>,
    pub(crate) idle: &'a Idle<'a>,
}
