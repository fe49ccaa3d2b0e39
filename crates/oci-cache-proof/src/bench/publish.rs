//! docs/benchmarks.md, .json and .svg, where results are kept.
//!
//! Guarantees: results that are not measured in this run keep their date and machine. Text outside the marks
//! in the document never changes. All files are written after each benchmark, so an interrupted run leaves a
//! correct document.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::bench::record::Record;
use crate::bench::{catalogue, chart, report};
use crate::kit::section;

const INTRODUCTION: &str = "\
# Benchmarks

How long the pruner takes, beside tools that remove, count or hash the same files, and how far it is from \
what the system calls alone cost.

<!-- measured -->
<!-- /measured -->
";

/// The results so far.
#[derive(Debug)]
pub(crate) struct Publication {
    directory: PathBuf,
    records: Vec<Record>,
}

impl Publication {
    /// Reads the results of earlier runs.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let publication = Self { directory: directory.to_owned(), records: Vec::new() };
        let path = publication.path("benchmarks.json");
        let mut records: Vec<Record> = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("read `{}`", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read `{}`", path.display())),
        };
        let names = catalogue::names();
        records.retain(|record| names.contains(&record.name.as_str()));
        let document = publication.document()?;
        section::replace(&document, "").context("read benchmarks.md")?;
        Ok(Self { records, ..publication })
    }

    /// Adds a result, or replaces the old one, and writes all files.
    pub(crate) fn add(&mut self, record: Record) -> anyhow::Result<()> {
        self.records.retain(|known| known.name != record.name);
        self.records.push(record);
        let names = catalogue::names();
        self.records.sort_by_key(|record| names.iter().position(|name| *name == record.name));
        let document = section::replace(&self.document()?, &report::document(&self.records))?;
        let figures = serde_json::to_string_pretty(&self.records).context("write the figures as JSON")?;
        self.write("benchmarks.json", &format!("{figures}\n"))?;
        self.write("benchmarks.svg", &chart::svg(&self.records))?;
        self.write("benchmarks.md", &document)
    }

    /// The document, or a new one.
    fn document(&self) -> anyhow::Result<String> {
        let path = self.path("benchmarks.md");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(section::ensured(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(INTRODUCTION.to_owned()),
            Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::bench::samples::{contender, record};

    #[test]
    fn a_result_replaces_only_its_own_section() {
        let home = TempDir::new().unwrap();
        let measured = |name: &str, wall| record(name, vec![contender("cache-prune", &[wall])]);
        let mut publication = Publication::open(home.path()).unwrap();
        publication.add(measured("large", 3.0)).unwrap();
        publication.add(measured("typical", 1.0)).unwrap();
        let mut publication = Publication::open(home.path()).unwrap();
        publication.add(measured("typical", 2.0)).unwrap();
        let expected = [measured("typical", 2.0), measured("large", 3.0)];
        assert_eq!(Publication::open(home.path()).unwrap().records, expected);
        let document = fs::read_to_string(home.path().join("benchmarks.md")).unwrap();
        assert!(document.starts_with("# Benchmarks\n"), "{document}");
        assert!(document.find("### typical") < document.find("### large"), "{document}");
    }
}
