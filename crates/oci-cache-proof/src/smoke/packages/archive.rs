//! The archive, unpacked over `/usr/local` of a plain Debian.
//!
//! Guarantees: the program, its pages and its completions work there as they are, without Rust. Unpacking changes no
//! directory that was there.

use std::path::Path;

use super::machine::Machine;
use crate::smoke::fill::fill_flat;
use crate::smoke::tally::Tally;

const CACHE: &str = "/var/cache/banger/oci";
/// Completes `oci-cache prune --older` as bash does when a user asks it to. The last line is what bash would offer.
const COMPLETE: &str = r#"
. /usr/share/bash-completion/bash_completion
_completion_loader oci-cache
complete -p oci-cache
COMP_WORDS=(oci-cache prune --older) COMP_CWORD=2 COMP_LINE="oci-cache prune --older" COMP_POINT=23
function=$(complete -p oci-cache | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
"$function" oci-cache --older prune
echo "${COMPREPLY[*]}"
"#;

/// Unpacks the archive, and uses it.
///
/// # Errors
///
/// If nothing can be run on the machine.
pub(super) fn check(machine: &Machine, archive: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    machine.bring(archive, "archive.tar.gz")?;
    let directories = "find /usr/local -type d -printf '%m %u %g %p\\n' | sort";
    let before = machine.output_of(directories)?;
    machine.output_of(&format!("mkdir -p {CACHE}"))?;
    let filled = fill_flat(&machine.path(CACHE));
    let blobs = filled.pulls;
    tally.merge(filled);
    let mut expect = |script: &str, is_right: &dyn Fn(&str) -> bool| -> anyhow::Result<()> {
        let ended = machine.run(script)?;
        let holds = ended.code == Some(0) && is_right(&ended.stdout);
        tally.check(holds, || format!("the archive: `{script}`: {}", ended.story()));
        Ok(())
    };
    expect("! command -v cargo rustc oci-cache", &|_| true)?;
    expect("tar -xf /archive.tar.gz --strip-components=1 -C /usr/local", &|_| true)?;
    expect(directories, &|after| before.lines().all(|line| after.lines().any(|other| other == line)))?;
    expect("cd / && command -v oci-cache && oci-cache --version", &|said| {
        said.starts_with("/usr/local/bin/oci-cache\noci-cache ")
    })?;
    expect("oci-cache usage", &|said| said.contains(CACHE))?;
    let would_free = format!("across {blobs} blob(s) in {CACHE}");
    expect("oci-cache prune -n", &|said| said.starts_with("would free ") && said.contains(&would_free))?;
    for command in ["", "-prune", "-usage", "-verify", "-dir", "-completions"] {
        expect(&format!("man -w oci-cache{command}"), &|said| said.starts_with("/usr/local/"))?;
    }
    // Rendered: a heading and a flag, without a word of the page's language.
    expect("man --warnings=w oci-cache-prune 2>&1", &|page| {
        page.contains("\nSYNOPSIS\n")
            && page.contains("\n       --older-than <AGE>\n")
            && !page.contains("warning: ")
    })?;
    expect(COMPLETE, &|said| said.lines().last() == Some("--older-than"))?;
    expect(
        "cd /usr/local/share/doc/oci-cache && cat LICENSE-MIT LICENSE-APACHE oci-cache.cdx.json",
        &|said| {
            ["MIT License", "Apache License", "\"pkg:cargo/oci-cache@"].iter().all(|text| said.contains(text))
        },
    )
}
