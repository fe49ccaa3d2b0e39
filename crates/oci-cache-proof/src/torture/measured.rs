//! The figures in `docs/reliability.md`, and the rates of what is not promised in `docs/prune-protocol.md`, each
//! between `<!-- measured -->` and `<!-- /measured -->`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

use crate::kit::workspace::workspace;
use crate::torture::row::{Row, table};
use oci_cache_cli::clock;

const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- /measured -->";

/// Writes the sections.
///
/// # Errors
///
/// If a page has no such section, or cannot be written.
pub(crate) fn write(rows: &[Row], quick: bool, time: Duration) -> anyhow::Result<()> {
    let source = machine(quick, time);
    write_section(&page("reliability.md"), &format!("\n{source}\n\n{}", table(rows)))?;
    write_section(&page("prune-protocol.md"), &format!("\n{source}\n\n{}", rates(rows)))
}

fn write_section(path: &Path, section: &str) -> anyhow::Result<()> {
    let context = || format!("write the figures to {}", path.display());
    let text = fs::read_to_string(path).with_context(context)?;
    let text = with_section(&text, section).with_context(context)?;
    fs::write(path, text).with_context(context)
}

fn page(name: &str) -> PathBuf {
    workspace().join("docs").join(name)
}

/// How many pulls broke where that is not ruled out.
fn rates(rows: &[Row]) -> String {
    let mut text =
        "| file system | prunes | pulls | broke | of 100,000 |\n|---|---|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|row| row.pulls > 0 && !row.strategy.ends_with("(must break)")) {
        let broke: u64 = row.breaks.values().sum();
        let (file_system, strategy, pulls) = (&row.file_system, &row.strategy, row.pulls);
        // In tenths, rounded.
        let tenths = (broke * 1_000_000 + pulls / 2) / pulls;
        let rate = format!("{}.{}", tenths / 10, tenths % 10);
        text.push_str(&format!("| {file_system} | {strategy} | {pulls} | {broke} | {rate} |\n"));
    }
    text
}

fn with_section(text: &str, section: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("it has no section for them")?;
    let (_, after) = rest.split_once(END).context("the section has no end")?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

/// Where the figures come from.
fn machine(quick: bool, time: Duration) -> String {
    let command = if quick { "cargo xtask torture --quick --publish" } else { "cargo xtask torture" };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(clock::now().0).unwrap_or_default());
    let date = humantime::format_rfc3339_seconds(now).to_string();
    let date = date.split('T').next().unwrap_or_default();
    let (kernel, minutes) = (kernel.trim(), time.as_secs().div_ceil(60));
    format!(
        "`{command}` on {date}, {minutes} minutes: {cores} cores ({processor}), memory {memory}, Linux {kernel}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_promising_strategies() {
        let row = |strategy, pulls, broke| {
            let mut row = Row::new("storm", "ext4", strategy);
            row.pulls = pulls;
            row.breaks.insert("reopen of a hit".to_owned(), broke);
            row
        };
        let text =
            rates(&[row("in place", 150_438, 7), row("aside (must break)", 9, 9), row("stalled", 8, 4)]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let expected = ["| ext4 | in place | 150438 | 7 | 4.7 |", "| ext4 | stalled | 8 | 4 | 50000.0 |"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn only_the_section_changes() {
        let page = "a\n<!-- measured -->\nold\n<!-- /measured -->\nb\n";
        let new = with_section(page, "new").unwrap();
        assert_eq!(new, "a\n<!-- measured -->\nnew\n<!-- /measured -->\nb\n");
        assert!(with_section("a", "new").is_err());
        assert!(machine(true, Duration::from_secs(61)).contains("2 minutes"));
    }
}
