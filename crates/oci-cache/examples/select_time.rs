//! Measures `select`: scans 100,000 empty blobs and times `select` with a budget, nine times.
//!
//! ```console
//! $ cargo run --release --example select_time
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use oci_cache::{Amount, CacheDir, Policy, Space, Timestamp, read_references, scan, select};

const BLOBS: u32 = 100_000;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    for number in 0..BLOBS {
        // Spread the digests as those of real blobs are.
        let file =
            File::create(directory.path().join(format!("sha256:{:064x}", u64::from(number) * 0x9e37_79b9)))?;
        file.set_len(u64::from(number % 977))?;
    }
    #[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
    let now = Timestamp::from(SystemTime::now());
    let cache = CacheDir::open(directory.path(), &[])?;
    let mut inventory = scan(&cache)?;
    read_references(&mut inventory);
    let budget = inventory.used_bytes() / 2;
    let mut policy = Policy::default();
    (policy.older_than, policy.max_used) = (Some(Duration::ZERO), Some(Amount::Bytes(budget)));
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let plan = select(inventory, &policy, now, Space::default())?;
        times.push(started.elapsed());
        inventory = plan.into_inventory();
    }
    times.sort_unstable();
    let (median, slowest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    writeln!(
        std::io::stdout(),
        "{BLOBS} blobs, half of them to go: median {median:.1?}, slowest {slowest:.1?}"
    )?;
    Ok(())
}
