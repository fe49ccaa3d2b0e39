//! docs/benchmarks.md, benchmarks-in-detail.md, benchmarks.json and benchmarks.svg, where results are kept, and the table in the
//! README.
//!
//! Guarantees: results that are not measured in this run keep their date and machine. Text outside the marks
//! in the document never changes. All files are written after each benchmark, so an interrupted run leaves a
//! correct document.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::bench::record::Record;
use crate::bench::{aims, catalogue, chart, report, summary};
use crate::kit::section;

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
        let publication = Self { records, ..publication };
        // A document without its marks is an error before anything is measured.
        publication.write_documents()?;
        Ok(publication)
    }

    /// Adds a result, or replaces the old one, and writes all files.
    pub(crate) fn add(&mut self, record: Record) -> anyhow::Result<()> {
        self.records.retain(|known| known.name != record.name);
        self.records.push(record);
        let names = catalogue::names();
        self.records.sort_by_key(|record| names.iter().position(|name| *name == record.name));
        let figures = serde_json::to_string_pretty(&self.records).context("write the figures as JSON")?;
        self.write("benchmarks.json", &format!("{figures}\n"))?;
        self.write("benchmarks.svg", &chart::svg(&self.records))?;
        self.write_documents()
    }

    fn write_documents(&self) -> anyhow::Result<()> {
        section::write(&self.path("benchmarks.md"), &summary::document(&self.records))?;
        let in_detail = self.path("benchmarks-in-detail.md");
        section::write_named(&in_detail, "aims", &aims::table(&self.records))?;
        section::write(&in_detail, &report::document(&self.records))?;
        section::write_named(
            &self.directory.with_file_name("README.md"),
            "speed",
            &summary::short(&self.records),
        )
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
    fn a_result_replaces_only_its_own() {
        let home = TempDir::new().unwrap();
        let docs = home.path().join("docs");
        fs::create_dir(&docs).unwrap();
        assert!(Publication::open(&docs).is_err(), "there are no documents");
        let marks = "# By hand\n<!-- measured -->\n<!-- /measured -->\n";
        fs::write(docs.join("benchmarks.md"), marks).unwrap();
        let aims = "<!-- measured: aims -->\n<!-- /measured: aims -->\n";
        fs::write(docs.join("benchmarks-in-detail.md"), format!("{marks}{aims}")).unwrap();
        let readme = home.path().join("README.md");
        fs::write(&readme, "<!-- measured: speed -->\n<!-- /measured: speed -->\n").unwrap();
        let measured = |name: &str, wall| {
            record(name, vec![contender("cache-prune", &[wall]), contender("rm -rf", &[8.0])])
        };
        let mut publication = Publication::open(&docs).unwrap();
        publication.add(measured("large", 3.0)).unwrap();
        publication.add(measured("small-10k", 1.0)).unwrap();
        let mut publication = Publication::open(&docs).unwrap();
        publication.add(measured("small-10k", 2.0)).unwrap();
        let expected = [measured("small-10k", 2.0), measured("large", 3.0)];
        assert_eq!(Publication::open(&docs).unwrap().records, expected);
        let detail = fs::read_to_string(docs.join("benchmarks-in-detail.md")).unwrap();
        assert!(detail.starts_with("# By hand\n"), "{detail}");
        assert!(detail.find("### small-10k") < detail.find("### large"), "{detail}");
        assert!(detail.contains("| small-10k ") && detail.contains("| met "), "{detail}");
        assert!(fs::read_to_string(docs.join("benchmarks.md")).unwrap().contains("| 2.00 s |"));
        assert!(fs::read_to_string(readme).unwrap().contains("| 2.00 s | 0.25 of `rm -rf` |"));
    }
}
