//! Stage: `SHA256SUMS`, as `sha256sum --check` reads it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// Writes the checksums of `files` into `out`. Returns the path of the list.
///
/// # Errors
///
/// If a file cannot be read, or the list not be written.
pub(crate) fn write(files: &[&Path], out: &Path) -> anyhow::Result<PathBuf> {
    let mut lines = String::new();
    for file in files {
        let content = fs::read(file).with_context(|| format!("read `{}`", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        lines += &format!("{}  {name}\n", const_hex::encode(Sha256::digest(&content)));
    }
    let path = out.join("SHA256SUMS");
    fs::write(&path, lines).with_context(|| format!("write `{}`", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256sum_reads_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a file");
        fs::write(&path, "content").unwrap();
        write(&[&path], directory.path()).unwrap();
        let check = || {
            let mut command = std::process::Command::new("sha256sum");
            command
                .args(["--check", "--strict", "SHA256SUMS"])
                .current_dir(directory.path())
                .output()
                .unwrap()
        };
        let output = check();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"a file: OK\n");
        fs::write(&path, "contents").unwrap();
        assert!(!check().status.success());
    }
}
