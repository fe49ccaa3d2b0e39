//! `pictures`: what the program prints, as pictures for the documents.
//!
//! Guarantees: the program at the given path prints what the pictures show, on sample caches of fixed content and age, 80 and
//! 40 columns wide, with colours. Only this is replaced: the path of the sample, the disk space that it takes, the room on
//! its file system, and how its mount records reads. A picture has the colours of a light and of a dark screen, and shows
//! those that the reader prefers. `--check` writes nothing, and fails if a picture would change.

mod sample;
mod screenshot;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::Args;
use oci_cache_cli::exit::Exit;

use crate::kit::workspace::workspace;
use crate::pictures::sample::Sample;
use crate::pictures::screenshot::Screenshot;

/// The arguments of `pictures`.
#[derive(Debug, Args)]
pub(crate) struct PicturesArguments {
    /// Only check that the pictures are up to date.
    #[arg(long)]
    check: bool,
}

/// The widths of the screens, in columns.
const WIDTHS: [usize; 2] = [80, 40];

/// Draws all pictures into `docs/pictures`, or compares them.
///
/// # Errors
///
/// If the program cannot be run or ends otherwise than expected, or if a picture cannot be written or is out of date.
pub(crate) fn run(arguments: &PicturesArguments, program: &Path) -> anyhow::Result<Exit> {
    let drawn = draw(program)?;
    let directory = workspace().join("docs/pictures");
    if !arguments.check {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for (name, picture) in &drawn {
            let path = directory.join(name);
            fs::write(&path, picture).with_context(|| format!("write {}", path.display()))?;
        }
    }
    compare(&drawn, &found(&directory)?)?;
    Ok(Exit::Done)
}

/// The pictures, by the names of their files.
fn draw(program: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let layout = Sample::layout().context("make a sample of a layout")?;
    let flat = Sample::flat().context("make a sample of a flat cache")?;
    // Verification reads the blobs, so it comes last.
    let shots: [(&str, &Sample, &[&str], i32); 3] = [
        ("usage", &layout, &["usage"], 0),
        ("prune", &flat, &["prune", "--dry-run", "-v", "--older-than", "30d"], 0),
        ("verify", &layout, &["verify"], 3),
    ];
    let mut drawn = BTreeMap::new();
    for (name, sample, arguments, exit) in shots {
        for columns in WIDTHS {
            let shot = Screenshot { sample, arguments, columns, exit };
            let picture = shot.take(program).with_context(|| format!("take a picture of {arguments:?}"))?;
            drawn.insert(format!("{name}-{columns}.svg"), picture);
        }
    }
    Ok(drawn)
}

/// The files of a directory, by their names.
fn found(directory: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?))
    };
    entries.map(read).collect::<std::io::Result<_>>().with_context(|| format!("read {}", directory.display()))
}

/// Fails if the pictures found are not those that were drawn.
fn compare(drawn: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let names = drawn.keys().chain(found.keys().filter(|name| !drawn.contains_key(*name)));
    let stale: Vec<&str> =
        names.filter(|name| drawn.get(*name) != found.get(*name)).map(String::as_str).collect();
    ensure!(
        stale.is_empty(),
        "docs/pictures is out of date ({}): run `cargo xtask cli-docs`",
        stale.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_changed_came_or_went_is_stale() {
        let pictures = |names: &[(&str, &str)]| -> BTreeMap<String, String> {
            names.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let drawn = pictures(&[("a.svg", "1"), ("b.svg", "2")]);
        assert!(compare(&drawn, &drawn).is_ok());
        for (found, stale) in [
            (pictures(&[("a.svg", "1"), ("b.svg", "3")]), "(b.svg)"),
            (pictures(&[("b.svg", "2")]), "(a.svg)"),
            (pictures(&[("a.svg", "1"), ("b.svg", "2"), ("c.svg", "3")]), "(c.svg)"),
        ] {
            let error = compare(&drawn, &found).unwrap_err().to_string();
            assert!(error.contains(stale), "{error}");
        }
    }
}
