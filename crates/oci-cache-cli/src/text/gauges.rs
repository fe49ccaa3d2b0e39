//! Gauges of one cache in the Prometheus text format.
//!
//! Guarantees: pure. Every sample has the label `cache_dir`; label values are escaped as the format requires.
//! Each metric has its help and its type once.

use std::fmt::{Display, Write as _};
use std::path::Path;

use oci_cache::escape_path;

/// Gauges, as text.
#[derive(Debug)]
pub(crate) struct Gauges {
    text: String,
    /// The label that every sample has.
    cache_dir: String,
}

impl Gauges {
    /// No gauges yet, of the cache at the path.
    pub(crate) fn of_cache(path: &Path) -> Self {
        Self { text: String::new(), cache_dir: cache_dir(path) }
    }

    /// Adds a gauge with one sample.
    pub(crate) fn add(&mut self, name: &str, help: &str, value: impl Display) {
        self.add_head(name, help);
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "oci_cache_{name}{{{}}} {value}", self.cache_dir);
    }

    /// Adds a gauge with one sample for each value of a label.
    pub(crate) fn add_by<'a, T: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, T)>,
    ) {
        self.add_head(name, help);
        for (of, value) in samples {
            let (cache_dir, of) = (&self.cache_dir, escape_value(of));
            let _ = writeln!(self.text, "oci_cache_{name}{{{cache_dir},{label}=\"{of}\"}} {value}");
        }
    }

    fn add_head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP oci_cache_{name} {help}\n# TYPE oci_cache_{name} gauge");
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// The value of a gauge of the cache with one sample, in a text that [`Gauges`] made.
pub(crate) fn value_in(text: &str, name: &str, cache: &Path) -> Option<f64> {
    let series = format!("oci_cache_{name}{{{}}} ", cache_dir(cache));
    text.lines().find_map(|line| line.strip_prefix(&series))?.parse().ok()
}

/// The label that tells one cache from another.
fn cache_dir(path: &Path) -> String {
    // The format is UTF-8.
    let value = path.to_str().map_or_else(|| escape_path(path), str::to_owned);
    format!("cache_dir=\"{}\"", escape_value(&value))
}

/// Escapes a label's value.
fn escape_value(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let label = |path: &[u8]| cache_dir(Path::new(OsStr::from_bytes(path)));
        assert_eq!(label(b"/var/cache/oci"), r#"cache_dir="/var/cache/oci""#);
        assert_eq!(label(b"a\"b\\c\nd"), r#"cache_dir="a\"b\\c\nd""#);
        assert_eq!(label("höhle".as_bytes()), r#"cache_dir="höhle""#);
        assert_eq!(label(b"a\xff"), r#"cache_dir="a\\xff""#);
    }

    #[test]
    fn a_value_is_found_again_only_under_its_name_and_cache() {
        let path = Path::new("/a \"b\" {c}");
        let mut gauges = Gauges::of_cache(path);
        gauges.add("age_seconds", "Help.", "12.500");
        gauges.add_by("blobs", "Help.", "reason", [("in_use", 1), ("recent", 2)]);
        let text = gauges.into_text();
        assert_eq!(value_in(&text, "age_seconds", path), Some(12.5));
        for (name, path) in [("age_seconds", "/a"), ("age", "/a \"b\" {c}"), ("blobs", "/a \"b\" {c}")] {
            assert_eq!(value_in(&text, name, Path::new(path)), None, "{name} {path}");
        }
        assert_eq!(value_in("oci_cache_x{cache_dir=\"/a\"} soon", "x", Path::new("/a")), None);
    }
}
