//! Stage: the completions, where each shell looks for them below a prefix.

use clap_complete::Shell;
use oci_cache_cli::commands::completions::script;

use crate::tree::Tree;

/// Where the completions of zsh are.
pub(crate) const ZSH: &str = "share/zsh/site-functions/_oci-cache";

/// The shells, and where each looks.
const PLACES: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/oci-cache"),
    (Shell::Zsh, ZSH),
    (Shell::Fish, "share/fish/vendor_completions.d/oci-cache.fish"),
];

/// Adds the completions.
///
/// # Errors
///
/// If a script cannot be made.
pub(crate) fn add(tree: &mut Tree) -> anyhow::Result<()> {
    for (shell, path) in PLACES {
        tree.add(path, script(shell)?);
    }
    Ok(())
}
