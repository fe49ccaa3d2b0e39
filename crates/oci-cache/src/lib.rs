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
//! use oci_cache::{CacheDir, Policy, Progress, apply, scan, select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
//! # #[allow(clippy::disallowed_methods)]
//! # let now = std::time::SystemTime::now();
//! let mut cache = CacheDir::open(path, &[])?;
//! assert!(cache.try_lock()?, "another prune is at work");
//! let plan = select(scan(&cache)?, &Policy::default(), now.into());
//! let report = apply(&plan, &Progress::default());
//! assert_eq!((report.blobs_freed, report.bytes_freed), (1, 4));
//! # Ok(())
//! # }
//! ```

mod aside;
mod cache_dir;
mod digest;
mod error;
mod escape;
mod in_use;
mod inventory;
mod layout;
mod ledger;
mod leftover;
mod names;
mod partial;
mod plan;
mod policy;
mod progress;
mod prune;
mod removal;
mod report;
mod status;

pub use aside::apply_aside;
pub use cache_dir::CacheDir;
pub use digest::{Algorithm, BlobName, Digest, ParseDigestError, Spelling};
pub use error::{Error, Refusal};
pub use escape::{escape, escape_path};
pub use inventory::{Blob, Foreign, Inventory, scan};
pub use ledger::Tally;
pub use leftover::Leftover;
pub use partial::Partial;
pub use plan::{Fate, Keep, PrunePlan, Remove};
pub use policy::{Policy, select};
pub use progress::Progress;
pub use prune::{SETTLE, apply};
pub use report::{Failure, Kept, Outcome, PruneParams, PruneReport};
pub use status::Timestamp;
