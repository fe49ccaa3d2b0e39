//! `oci-cache-dist`: builds what people install. `cargo xtask dist` runs it.
//!
//! Guarantees: the files depend on the sources, the compiler, the target and the time of the release alone: not on the
//! directory, the machine or the clock. Each stage has a file of its own, and none changes what another one made:
//!
//! ```text
//! Release -> program -> Tree (with pages, completions, sbom, documents) -> archive, debian -> checksums
//! ```

mod archive;
mod checksums;
mod cli;
mod completions;
mod debian;
mod documents;
mod pages;
mod program;
mod release;
mod sbom;
mod tree;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use banger_fmt::format_bytes;
use oci_cache_cli::output;

use crate::cli::Cli;
use crate::release::Release;
use crate::tree::Tree;

fn main() -> ExitCode {
    oci_cache_cli::program::run(|| {
        let cli: Cli = oci_cache_cli::program::parse();
        if cli.markdown {
            return output::print(&cli::markdown());
        }
        let files = run(&cli)?;
        let mut lines = String::new();
        for file in &files {
            let size = fs::metadata(file).with_context(|| format!("inspect `{}`", file.display()))?.len();
            lines += &format!("{}  {}\n", file.display(), format_bytes(size));
        }
        output::print(&lines)
    })
}

/// Builds all files. Returns their paths.
fn run(cli: &Cli) -> anyhow::Result<Vec<PathBuf>> {
    let manifest_path = cli.manifest_path.clone().unwrap_or_else(cli::manifest_path);
    let release = Release::find(&manifest_path, cli.target.as_deref())?;
    let out = cli.out.clone().unwrap_or_else(|| release.target_directory.join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("create the directory `{}`", out.display()))?;

    let mut tree = Tree::default();
    tree.add_program("bin/oci-cache", program::build(&release)?);
    pages::add(&mut tree, release.epoch)?;
    completions::add(&mut tree)?;
    documents::add(&mut tree, &release)?;
    tree.add("share/doc/oci-cache/oci-cache.cdx.json", sbom::json(&release)?);

    let archive = archive::write(&tree, &release, &out)?;
    let package = debian::write(&tree, &release, &out)?;
    let checksums = checksums::write(&[&archive, &package], &out)?;
    Ok(vec![archive, package, checksums])
}
