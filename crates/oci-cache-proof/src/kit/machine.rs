//! The machine that figures are measured on.
//!
//! Guarantees: no host name, user name or path appears.

use std::fs;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use oci_cache_cli::clock;

/// The facts that bear on figures.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The processor's name, or `unknown`.
    pub(crate) processor: String,
    /// The number of cores that this process may use.
    pub(crate) cores: usize,
    /// The memory in KiB.
    pub(crate) memory_kibibytes: Option<u64>,
    /// The kernel's version.
    pub(crate) kernel: String,
}

impl Machine {
    /// Describes this machine.
    ///
    /// # Errors
    ///
    /// If a file of `/proc` cannot be read.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let processors = read("/proc/cpuinfo")?;
        Ok(Self {
            processor: value_of(&processors, "model name").unwrap_or("unknown").to_owned(),
            cores: cores()?,
            memory_kibibytes: value_of(&read("/proc/meminfo")?, "MemTotal").and_then(kibibytes),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// Says what measured the figures of a page, when, for how long, and on which machine.
///
/// # Errors
///
/// If a file of `/proc` cannot be read.
pub(crate) fn source(command: &str, time: Duration) -> anyhow::Result<String> {
    let Machine { processor, cores, memory_kibibytes, kernel } = Machine::look()?;
    let memory = memory_kibibytes.map_or("unknown".to_owned(), |kibibytes| format!("{kibibytes} kB"));
    let (date, minutes) = (date(), time.as_secs().div_ceil(60));
    Ok(format!(
        "`{command}` on {date}, {minutes} minutes: {cores} cores ({processor}), memory {memory}, Linux {kernel}."
    ))
}

/// The number of cores that this process may use.
///
/// # Errors
///
/// If the number is unknown.
pub(crate) fn cores() -> anyhow::Result<usize> {
    Ok(thread::available_parallelism().context("count the cores")?.get())
}

/// Today's date, in UTC.
pub(crate) fn date() -> String {
    let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(clock::now().0).unwrap_or_default());
    let time = humantime::format_rfc3339_seconds(now).to_string();
    time.split('T').next().unwrap_or_default().to_owned()
}

/// The value in the first line `key: value`.
pub(crate) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':')).map(str::trim)
}

/// Parses a number of KiB as `/proc` writes it.
pub(crate) fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse().ok()
}

/// Reads a file of `/proc`.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{path}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_proc_files() {
        assert_eq!(value_of("a\t: 1\nmodel name\t: Some CPU\n", "model name"), Some("Some CPU"));
        assert_eq!(value_of("MemTotal:       1024 kB\n", "MemTotal").and_then(kibibytes), Some(1024));
        assert_eq!(value_of("Name:\tx\n", "VmHWM").and_then(kibibytes), None);
    }

    #[test]
    fn the_source_has_the_minutes() {
        let source = source("cargo xtask x", Duration::from_secs(61)).unwrap();
        assert!(source.starts_with("`cargo xtask x` on ") && source.contains(", 2 minutes: "), "{source}");
    }

    #[test]
    fn a_date_is_a_day() {
        let date = date();
        assert_eq!((date.len(), date.matches('-').count()), (10, 2), "{date}");
    }
}
