//! Keeps a cache within a budget. What was not used for the longest time goes first.
//!
//! ```console
//! $ cargo run --example budget -- /var/cache/images 20000000000
//! freed 1.2 GiB across 47 blob(s) in /var/cache/images
//! ```

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use banger_fmt::format_bytes;
use oci_cache::{Amount, Policy, Progress, escape_path};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [directory, bytes] = &words[..] else { return Err("usage: budget DIRECTORY BYTES".into()) };
    let mut policy = Policy::default();
    policy.max_used = Some(Amount::Bytes(bytes.parse()?));
    // These directories, and those that contain them, are refused.
    let protected: Vec<PathBuf> = std::env::home_dir().into_iter().collect();
    #[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
    let now = SystemTime::now().into();
    let report = oci_cache::prune(directory.as_ref(), &protected, &policy, now, &Progress::default())?;
    let (size, blobs) = (format_bytes(report.bytes_freed), report.blobs_freed);
    let cache = escape_path(&report.cache_dir);
    writeln!(std::io::stdout(), "freed {size} across {blobs} blob(s) in {cache}")?;
    if report.is_complete() { Ok(()) } else { Err("some of it could not be removed".into()) }
}
