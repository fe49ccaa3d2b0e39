//! Inspects and prunes a local cache of OCI layer blobs.
//!
//! Data flows one way; each stage is a type, each arrow a function:
//!
//! ```text
//! CacheDir ──scan──▶ Inventory ──select──▶ PrunePlan ──apply──▶ PruneReport
//! ```
//!
//! A dry run stops before `apply` and shows [`PrunePlan::preview`]. Nothing here prints, reads the clock
//! or ends the process.
//!
//! ```
//! use oci_cache::{CacheDir, Policy, Progress, References, Space, apply, scan, select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
//! # #[allow(clippy::disallowed_methods)]
//! # let now = std::time::SystemTime::now();
//! let mut cache = CacheDir::open(path, &[])?;
//! assert!(cache.try_lock()?, "another prune is at work");
//! let everything = Policy::default();
//! let plan = select(scan(&cache)?, References::default(), &everything, now.into(), Space::default());
//! let report = apply(&plan, &Progress::default());
//! assert_eq!((report.blobs_freed, report.bytes_freed), (1, 4));
//! # Ok(())
//! # }
//! ```

mod cache;
mod error;
mod escape;
mod os;
mod plan;
mod progress;
mod prune;
mod scan;
mod usage;
mod verify;

pub use cache::SETTLE;
pub use cache::cache_dir::{AccessTimes, CacheDir, Space};
pub use cache::digest::{Algorithm, BlobName, Digest, ParseDigestError, Spelling};
pub use cache::inventory::{Blob, Foreign, Inventory};
pub use cache::ledger::Tally;
pub use cache::leftover::Leftover;
pub use cache::partial::Partial;
pub use cache::references::{Image, References};
pub use error::{Error, Failure, Refusal};
pub use escape::{escape, escape_path};
pub use os::status::Timestamp;
pub use os::sys::set_idle_io_priority;
pub use plan::PrunePlan;
pub use plan::fate::{Fate, Keep, Remove};
pub use plan::keep_list::{KeepError, parse_keep};
pub use plan::policy::{FreeSpace, Policy};
pub use plan::saved_plan::{SavedPlan, SavedPlanError, save_plan};
pub use plan::select::select;
pub use progress::Progress;
pub use prune::{Kept, Outcome, PruneParams, PruneReport, apply, apply_aside, check_aside};
pub use scan::references::read_references;
pub use scan::scan;
pub use usage::{AgeClass, ImageUsage, LargeBlob, Usage, usage};
pub use verify::{Check, Corrupt, Finding, Verification, verify};
