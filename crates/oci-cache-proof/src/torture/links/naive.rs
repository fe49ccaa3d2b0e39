//! A writer by path, as a program must not write for root. It is a role of this program, and the negative control.
//!
//! Guarantees: it writes only in a directory of this part.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{bail, ensure};

/// Writes a file by its path, then replaces it by a rename, also by its path. The argument is the path.
pub(crate) fn write(words: &[&str]) -> anyhow::Result<()> {
    let [path] = words else { bail!("a writer by path takes one word: {words:?}") };
    let path = Path::new(path);
    let is_of_this_part = path.iter().any(|name| name.to_string_lossy().starts_with("links-"));
    ensure!(is_of_this_part, "{} is in no directory of this part", path.display());
    // What fails now may succeed the next time.
    let _ = by_path(path);
    Ok(())
}

fn by_path(path: &Path) -> io::Result<()> {
    fs::write(path, "by path")?;
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, "by path")?;
    fs::rename(temporary, path)
}
