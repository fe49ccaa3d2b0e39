//! The workspace's path.
//!
//! Guarantees: it is the workspace that this program was built in. Its documents receive the figures.

use std::path::Path;

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest)
}
