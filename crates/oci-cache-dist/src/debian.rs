//! Stage: the Debian package, packed by cargo-deb.
//!
//! Guarantees: it has the files of the archive, where Debian wants them: below `/usr`, pages and changelog compressed.
//! Its units run `/usr/bin/oci-cache`. What else it says is in `crates/oci-cache-cli/Cargo.toml`.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use cargo_deb::compress::{CompressConfig, Format};
use cargo_deb::config::{BuildEnvironment, BuildOptions, DebugSymbolOptions};
use cargo_deb::listener::Listener;
use cargo_deb::{CargoLockingFlags, write_deb};
use flate2::{Compression, GzBuilder};
use tempfile::TempDir;

use crate::completions::ZSH;
use crate::documents::DOCUMENTS;
use crate::release::{NAME, Release};
use crate::tree::Tree;

/// Where cargo-deb finds the files, in the directory of what is built.
const STAGED: &str = "debian";

/// What cargo-deb says of units that it did not find itself: they are among the files.
const UNITS_ARE_FILES: &str = "No usable systemd units found";

/// Keeps what cargo-deb warns of.
#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

/// Writes the package into `out`. Returns its path.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn write(tree: &Tree, release: &Release, out: &Path) -> anyhow::Result<PathBuf> {
    stage(&debian(tree).context("compress the files of the Debian package")?, &release.built())?;
    let warnings = Warnings::default();
    let manifest = release.package()?.manifest_path.clone().into_std_path_buf();
    let options = BuildOptions {
        manifest_path: Some(&manifest),
        rust_target_triples: vec![&release.target],
        debug: DebugSymbolOptions { strip_override: Some(false), ..DebugSymbolOptions::default() },
        cargo_locking_flags: CargoLockingFlags { locked: true, ..CargoLockingFlags::default() },
        ..BuildOptions::default()
    };
    let (environment, mut packages) =
        BuildEnvironment::from_manifest(options, &warnings).context("read what the Debian package is")?;
    ensure!(packages.len() == 1, "there are {} Debian packages, not one", packages.len());
    let mut package = packages.remove(0);
    package.default_timestamp = release.epoch;
    package.resolve_assets(&warnings).context("find the files of the Debian package")?;
    let depends =
        package.resolved_binary_dependencies(&warnings).context("find what the package depends on")?;
    package.resolved_depends = Some(depends).filter(|depends| !depends.is_empty());
    package.sort_assets_by_type();
    let path = out.join(format!("{NAME}_{}_{}.deb", package.deb_version, package.architecture));
    // Slow compression would save three per cent, and take longer than all the rest of the packing.
    let compress =
        CompressConfig { fast: true, compress_type: Format::Gzip, compress_system: false, rsyncable: false };
    let path =
        write_deb(&environment, path, &package, &compress, &warnings).context("pack the Debian package")?;
    let warnings = warnings.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(warnings.is_empty(), "cargo-deb is not content with the Debian package: {}", warnings.join("; "));
    Ok(path)
}

impl Listener for Warnings {
    fn warning(&self, warning: String) {
        if !warning.starts_with(UNITS_ARE_FILES) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
        }
    }

    fn info(&self, _: String) {}

    fn generated_archive(&self, _: &Path) {}
}

/// The files where Debian wants them.
fn debian(tree: &Tree) -> std::io::Result<Tree> {
    let mut debian = Tree::default();
    for (path, file) in &tree.files {
        let installed = Path::new("usr").join(path);
        let mut file = file.clone();
        let to = if path.starts_with("share/man") {
            file.content = gzipped(&file.content)?;
            with_gz(&installed)
        } else if path == &Path::new(DOCUMENTS).join("CHANGELOG.md") {
            file.content = gzipped(&file.content)?;
            Path::new("usr").join(DOCUMENTS).join("changelog.gz")
        } else if path == Path::new(ZSH) {
            Path::new("usr/share/zsh/vendor-completions").join("_oci-cache")
        } else if path.extension().is_some_and(|kind| kind == "service") {
            let unit = String::from_utf8_lossy(&file.content);
            file.content = unit.replace("=/usr/local/bin/", "=/usr/bin/").into_bytes();
            installed
        } else if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"LICENSE-")) {
            // Debian's copyright file says the same.
            continue;
        } else {
            installed
        };
        debian.files.insert(to, file);
    }
    Ok(debian)
}

/// Lays the files out in `directory`, in the place of what an earlier call laid out.
fn stage(tree: &Tree, directory: &Path) -> anyhow::Result<()> {
    let staged = directory.join(STAGED);
    let context = || format!("lay out the Debian package in `{}`", staged.display());
    // It goes with the temporary directory.
    let earlier = TempDir::new_in(directory).with_context(context)?;
    if staged.exists() {
        fs::rename(&staged, earlier.path().join(STAGED)).with_context(context)?;
    }
    for (path, file) in &tree.files {
        let path = staged.join(path);
        let context = || format!("write `{}`", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&staged)).with_context(context)?;
        fs::write(&path, &file.content).with_context(context)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode)).with_context(context)?;
    }
    Ok(())
}

fn gzipped(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    gzip.finish()
}

fn with_gz(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".gz");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn files_are_where_debian_wants_them() {
        let mut tree = Tree::default();
        tree.add_program("bin/oci-cache", b"program".to_vec());
        tree.add("lib/systemd/system/a.service", "ExecStart=/usr/local/bin/oci-cache prune");
        for path in [
            "man/man1/a.1",
            "doc/oci-cache/CHANGELOG.md",
            "doc/oci-cache/LICENSE-MIT",
            "doc/oci-cache/README.md",
        ] {
            tree.add(format!("share/{path}"), "text");
        }
        tree.add(ZSH, "text");
        let debian = debian(&tree).unwrap();
        let paths: Vec<_> = debian.files.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "usr/bin/oci-cache",
                "usr/lib/systemd/system/a.service",
                "usr/share/doc/oci-cache/README.md",
                "usr/share/doc/oci-cache/changelog.gz",
                "usr/share/man/man1/a.1.gz",
                "usr/share/zsh/vendor-completions/_oci-cache",
            ]
        );
        assert_eq!(debian.files[Path::new("usr/bin/oci-cache")].mode, 0o755);
        for path in ["usr/share/doc/oci-cache/changelog.gz", "usr/share/man/man1/a.1.gz"] {
            let mut text = String::new();
            GzDecoder::new(debian.files[Path::new(path)].content.as_slice())
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "text", "{path}");
        }
        let unit = &debian.files[Path::new("usr/lib/systemd/system/a.service")].content;
        assert_eq!(unit, b"ExecStart=/usr/bin/oci-cache prune");
    }

    #[test]
    fn what_was_laid_out_before_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["old", "new"] {
            let mut tree = Tree::default();
            tree.add(format!("usr/{name}"), name);
            stage(&tree, directory.path()).unwrap();
        }
        let names = |path: &Path| -> Vec<_> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(directory.path()), ["debian"]);
        assert_eq!(names(&directory.path().join("debian/usr")), ["new"]);
    }
}
