//! Parses lists of digests to keep.
//!
//! Guarantees: parsing is pure. A list with anything invalid in it is refused as a whole. So is a list
//! without digests: a list that is empty by mistake must not cause everything to be removed.

use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cache::digest::{Digest, ParseDigestError};

/// Why a list of digests to keep is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A line is not a digest.
    #[error("line {line}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// It starts like JSON but is not valid JSON.
    #[error("it starts like an OCI index or manifest but is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// It is not UTF-8 text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It contains no digest.
    #[error("it contains no digest")]
    Empty,
}

/// Parses a list of digests to keep.
///
/// The list has one digest per line; comments start with `#`, and empty lines are ignored. It may also
/// be an OCI index or manifest: then the list is every digest in it, and its own.
///
/// # Errors
///
/// See [`KeepError`].
pub fn parse_keep(content: &[u8]) -> Result<HashSet<Digest>, KeepError> {
    let text = std::str::from_utf8(content).map_err(|_| KeepError::NotText)?;
    let digests = if text.trim_start().starts_with('{') {
        let document: Value = serde_json::from_str(text).map_err(KeepError::Json)?;
        let mut digests = HashSet::new();
        collect(&document, &mut digests);
        if !digests.is_empty() {
            digests.insert(Digest::Sha256(Sha256::digest(content).into()));
        }
        digests
    } else {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, strip(line)));
        let digests = lines.filter(|(_, line)| !line.is_empty());
        digests
            .map(|(line, digest)| digest.parse().map_err(|source| KeepError::Line { line, source }))
            .collect::<Result<_, _>>()?
    };
    if digests.is_empty() { Err(KeepError::Empty) } else { Ok(digests) }
}

fn strip(line: &str) -> &str {
    line.split_once('#').map_or(line, |(digest, _)| digest).trim()
}

/// Collects the digests in fields named `digest`. The JSON parser limits the depth.
fn collect(value: &Value, digests: &mut HashSet<Digest>) {
    match value {
        Value::Object(fields) => {
            let digest = fields.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok());
            digests.extend(digest);
            fields.values().for_each(|field| collect(field, digests));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, digests)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";
    const TWO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000002";

    #[test]
    fn lines_with_comments() {
        let list = format!("# pinned\n\n{ONE}  # the base\n  {TWO}\r\n");
        let digests = parse_keep(list.as_bytes()).unwrap();
        assert_eq!(digests, [ONE, TWO].map(|digest| digest.parse().unwrap()).into());
    }

    #[test]
    fn a_manifest_pins_its_digests_and_its_own() {
        let manifest = format!(r#"{{"config":{{"digest":"{ONE}"}},"layers":[{{"digest":"{TWO}"}}]}}"#);
        let digests = parse_keep(manifest.as_bytes()).unwrap();
        assert_eq!(digests.len(), 3);
        assert!(digests.contains(&Digest::Sha256(Sha256::digest(&manifest).into())));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let message = |content: &[u8]| {
            let error = parse_keep(content).unwrap_err();
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        };
        assert!(
            message(format!("{ONE}\nsha256:1\n").as_bytes())
                .starts_with("line 2: `sha256:1` is not a digest")
        );
        assert_eq!(message(b""), "it contains no digest");
        assert_eq!(message(b"# nothing\n"), "it contains no digest");
        assert_eq!(message(b"{}"), "it contains no digest");
        assert!(message(b"{\"config\":").starts_with("it starts like"));
        assert_eq!(message(b"\xff"), "it is not UTF-8 text");
    }

    proptest! {
        #[test]
        fn nothing_panics(content in any::<Vec<u8>>()) {
            let _ = parse_keep(&content);
        }
    }
}
