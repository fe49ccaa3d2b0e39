//! The results of commands, and those that the library has no type for. JSON and text are made from them.

pub(crate) mod entries;
pub(crate) mod hold;
pub(crate) mod usage;
pub(crate) mod verify;

use oci_cache::PruneReport;

use crate::report::usage::UsageReport;
use crate::report::verify::VerifyReport;

/// The result of a command that can be recorded.
#[derive(Debug)]
pub(crate) enum Report {
    Prune(Box<PruneReport>),
    Verify(Box<VerifyReport>),
    Usage(Box<UsageReport>),
}
