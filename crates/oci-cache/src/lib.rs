//! Inspects and prunes a local cache of OCI layer blobs.
//!
//! Data flows one way; each stage is a type, each arrow a function:
//!
//! ```text
//! CacheDir ──scan──▶ Inventory ──select(policy)──▶ PrunePlan ──apply(lock)──▶ PruneReport
//! ```
//!
//! A dry run stops before `apply` and shows [`PrunePlan::preview`]. The library never prints, asks
//! for the time of day or ends the process. It reads whatever a policy depends on, such as the references of an OCI
//! image layout. It applies nothing without the cache's [`Lock`].
//!
//! The usual case in one call:
//!
//! ```
//! use std::time::Duration;
//!
//! use oci_cache::{Policy, Progress};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
//! # #[allow(clippy::disallowed_methods)]
//! # let now = std::time::SystemTime::now();
//! let mut policy = Policy::default();
//! policy.older_than = Some(Duration::from_secs(7 * 24 * 3600));
//! let protected: Vec<_> = std::env::home_dir().into_iter().collect();
//! let report = oci_cache::prune(path, &protected, &policy, now.into(), &Progress::default())?;
//! assert_eq!((report.blobs_freed, report.kept.recent.blobs), (0, 1));
//! # Ok(())
//! # }
//! ```
//!
//! The same, stage by stage, for a prune of everything:
//!
//! ```
//! use oci_cache::{CacheDir, Policy, Progress, apply, scan, select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
//! # #[allow(clippy::disallowed_methods)]
//! # let now = std::time::SystemTime::now();
//! let mut cache = CacheDir::open(path, &[])?;
//! let lock = cache.try_lock()?.ok_or("another prune is running")?;
//! let plan = select(scan(&cache)?, &Policy::default(), now.into(), cache.space()?)?;
//! let report = apply(&plan, &lock, &Progress::default())?;
//! assert_eq!((report.blobs_freed, report.bytes_freed), (1, 4));
//! # Ok(())
//! # }
//! ```

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod cache;
mod error;
mod escape;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod os;
mod plan;
mod progress;
mod prune;
mod scan;
mod usage;
mod verify;

// Stages.
pub use cache::cache_dir::{AccessTimes, CacheDir, Space};
pub use cache::lock::Lock;
pub use progress::{Advance, Progress, Stage};
pub use prune::{Pruned, apply, apply_aside, apply_to_goal, check_aside, check_confinement, preview, prune};
pub use scan::holes::{Hole, holes};
pub use scan::references::read_references;
pub use scan::scan;

// Plans.
pub use plan::PrunePlan;
pub use plan::amount::Amount;
pub use plan::fate::{Fate, Keep, Remove};
pub use plan::goal::{Goal, GoalKind};
pub use plan::keep_list::{KeepError, parse_keep, read_keep};
pub use plan::pins::{ParsePinError, Pin, Pins, Unmatched};
pub use plan::plan_reader::{MAX_PLAN_BYTES, SavedPlanError};
pub use plan::policy::{DEFAULT_GRACE, Policy};
pub use plan::saved_plan::{SavedPlan, save_plan};
pub use plan::select::{estimate, select};

// Data.
pub use cache::SETTLE;
pub use cache::digest::{Digest, ParseDigestError};
pub use cache::finding::Finding;
pub use cache::inventory::{Blob, Foreign, Inventory};
pub use cache::ledger::Tally;
pub use cache::leftover::Leftover;
pub use cache::partial::Partial;
pub use cache::references::{Image, References, Remark};
pub use os::status::Timestamp;
pub use usage::{AgeClass, ImageUsage, LargeBlob, Usage, usage};
pub use verify::{Check, Verification, verify};

// Results.
pub use error::{Cause, Error, Failure, Failures, MAX_CAUSES, MAX_EXAMPLES, Refusal};
pub use escape::escape_path;
pub use os::processes::Process;
pub use os::sys::IdleIo;
pub use prune::{Kept, Notes, Outcome, ParamsError, PruneParams, PruneReport, Room, Sign};
