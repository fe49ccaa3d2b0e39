//! Where the workspace is: its documents take the figures, and have files that are put to the proof.

use std::path::Path;

/// The directory of the workspace that this program was built in.
pub(crate) fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest)
}
