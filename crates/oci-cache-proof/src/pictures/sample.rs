//! Sample caches for the pictures.
//!
//! Guarantees: names, sizes, contents and ages are the same each time, so the program prints the same. The ages are an hour
//! more than whole days or hours, so that no run is long enough to change them. The files hold what cannot be compressed, and
//! are in memory where that is possible (`/dev/shm`), so that they use what they hold.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use oci_cache_cli::clock;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::kit::process::while_none_starts;
use crate::kit::random::Random;

const KIB: usize = 1 << 10;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A cache in a temporary directory.
#[derive(Debug)]
pub(crate) struct Sample {
    base: TempDir,
    now: SystemTime,
}

impl Sample {
    /// An OCI image layout of five images, with a corrupt blob, a hole, and what is not the cache's.
    pub(crate) fn layout() -> anyhow::Result<Self> {
        let sample = Self::empty()?;
        let base = sample.layer(1, 3400 * KIB, 2 * HOUR)?;
        let images = [
            (Some("docker.io/library/postgres:17.2"), 5900, 2 * HOUR),
            (Some("ghcr.io/acme/checkout:2026.11.3"), 3200, 3 * DAY),
            (Some("ghcr.io/acme/checkout:2026.9.8"), 2900, 41 * DAY),
            (Some("registry.example.com/platform/payments/api-gateway:main"), 1700, 12 * DAY),
            (None, 1200, 90 * DAY),
        ];
        let mut index = Vec::new();
        for (number, (name, kibibytes, age)) in (2..).zip(images) {
            let mut layers = vec![base.clone(), sample.layer(number, kibibytes * KIB, age)?];
            if number == 4 {
                // It never came.
                let absent = digest_of(b"absent");
                layers.push(json!({"mediaType": LAYER, "digest": absent, "size": 700 * KIB}));
            }
            let config = sample.document(CONFIG, &json!({"architecture": "amd64", "number": number}), age)?;
            let manifest =
                json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
            let mut entry = sample.document(MANIFEST, &manifest, age)?;
            if let Some(name) = name {
                entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            }
            index.push(entry);
        }
        sample.layer(7, 800 * KIB, 20 * DAY)?;
        let rotten = sample.layer(8, 600 * KIB, 20 * DAY)?;
        let digest = rotten["digest"].as_str().unwrap_or_default();
        sample.write(&path_of(digest), &noise(9, 600 * KIB), 20 * DAY)?;
        sample.write("oci-put-blob2718281828", &noise(10, 400 * KIB), HOUR)?;
        sample.write("NOTES.txt", &noise(11, 2 * KIB), 200 * DAY)?;
        sample.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 90 * DAY)?;
        sample.write(
            "index.json",
            json!({"schemaVersion": 2, "manifests": index}).to_string().as_bytes(),
            DAY,
        )?;
        Ok(sample)
    }

    /// A flat cache with old and new blobs, and a file that is not the cache's.
    pub(crate) fn flat() -> anyhow::Result<Self> {
        let sample = Self::empty()?;
        let blobs = [(5900, 90), (3200, 41), (2900, 33), (1700, 12), (800, 0)];
        for (number, (kibibytes, days)) in (1..).zip(blobs) {
            let content = noise(number, kibibytes * KIB);
            sample.write(&digest_of(&content), &content, days * DAY)?;
        }
        sample.write("NOTES.txt", &noise(11, 2 * KIB), 200 * DAY)?;
        Ok(sample)
    }

    fn empty() -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = TempDir::with_prefix_in("oci-cache-picture-", memory).or_else(|_| tempfile::tempdir());
        let base = base.context("make a temporary directory")?;
        let nanos = u64::try_from(clock::now().0).context("read the clock")?;
        let sample = Self { base, now: UNIX_EPOCH + Duration::from_nanos(nanos) };
        fs::create_dir(sample.path()).with_context(|| format!("make {}", sample.path().display()))?;
        Ok(sample)
    }

    /// The cache's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.base.path().join("oci")
    }

    /// Adds a layer of this size. Returns its descriptor.
    fn layer(&self, number: u64, bytes: usize, age: u64) -> anyhow::Result<Value> {
        self.blob(LAYER, &noise(number, bytes), age)
    }

    /// Adds a document. Returns its descriptor.
    fn document(&self, media_type: &str, document: &Value, age: u64) -> anyhow::Result<Value> {
        self.blob(media_type, document.to_string().as_bytes(), age)
    }

    fn blob(&self, media_type: &str, content: &[u8], age: u64) -> anyhow::Result<Value> {
        let digest = digest_of(content);
        self.write(&path_of(&digest), content, age)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": content.len()}))
    }

    /// Writes a file that was last used so many seconds ago, and an hour.
    fn write(&self, name: &str, content: &[u8], age: u64) -> anyhow::Result<()> {
        let path = self.path().join(name);
        let time = self.now - Duration::from_secs(age + HOUR);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, content)?;
            File::open(&path)?.set_times(FileTimes::new().set_accessed(time).set_modified(time))
        };
        while_none_starts(write).with_context(|| format!("write {}", path.display()))
    }
}

fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", const_hex::encode(Sha256::digest(content)))
}

/// Where a blob of this digest is in a layout.
fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Content that looks random and is the same for the same number.
fn noise(number: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    Random::seed_from_u64(number).fill_bytes(&mut content);
    content
}
