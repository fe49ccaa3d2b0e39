//! Parses lists of what to keep.
//!
//! Guarantees: parsing is pure. A list with anything invalid in it is refused as a whole. So is a list
//! without pins: a list that is empty by mistake must not cause everything to be removed.
//!
//! Sources of the forms: OCI image specification, `manifest.md` and `image-index.md`; `ListImagesResponse` in the
//! Kubernetes CRI API (`api.proto`), which `crictl images -o json` prints; the output of `docker images --format json`,
//! `podman images --format json`, `skopeo list-tags` and `skopeo inspect`.

use std::io::{self, BufRead, BufReader, Read as _};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cache::digest::Digest;
use crate::plan::pins::{ParsePinError, Pin, Pins};

/// The maximum size of a list in JSON. The worst take seventy times as much memory.
const MAX_JSON_BYTES: u64 = 3 << 20;
/// The maximum size of a list of lines, in bytes. A million digests take 72 MB.
const MAX_LIST_BYTES: u64 = 256 << 20;
/// The maximum number of pins in such a list. Two million with names and digests take about a gigabyte of memory.
const MAX_PINS: u64 = 2_000_000;
/// The maximum length of a line, in bytes, with its end.
const MAX_LINE_BYTES: u64 = 8 << 10;

/// Why a list of what to keep is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A line is not a pin.
    #[error("line {line}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: ParsePinError,
    },
    /// It starts like JSON but is not valid JSON.
    #[error("it starts like JSON but is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// It is JSON of no form that is known.
    #[error("it is JSON, but neither an OCI index or manifest nor a list of images of a known tool")]
    Unknown,
    /// It is JSON, and too large.
    #[error("it is JSON of more than 3 MiB: list one name or digest per line instead")]
    TooLarge,
    /// A line is too long.
    #[error("line {line} is longer than 8 KiB: list one name or digest per line")]
    LongLine {
        /// The number of the line, from 1.
        line: usize,
    },
    /// It has too many lines.
    #[error("it has more than two million pins, or more than 256 MiB")]
    TooLong,
    /// It cannot be read to its end.
    #[error(transparent)]
    Unread(io::Error),
    /// It is not UTF-8 text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It contains no digest and no name.
    #[error("it contains no digest and no name")]
    Empty,
}

/// Parses a list of what to keep, as [`read_keep`] does.
///
/// # Errors
///
/// See [`KeepError`].
pub fn parse_keep(content: &[u8]) -> Result<Pins, KeepError> {
    read_keep(content)
}

/// Reads a list of what to keep, as a stream: memory grows only with the pins that are in it.
///
/// The list has one digest, name, or `<name>@<digest>` per line; comments start with `#`, and empty lines are ignored.
/// It may also be JSON: an OCI index or manifest, which pins itself, its manifests and the blobs that it lists; or what
/// `crictl images -o json`, `docker images --digests --no-trunc --format json`, `podman images --format json`,
/// `skopeo list-tags` or `skopeo inspect` print, in one document or one for each line.
///
/// # Errors
///
/// See [`KeepError`].
pub fn read_keep(mut content: impl io::Read) -> Result<Pins, KeepError> {
    let mut start = Vec::new();
    content.by_ref().take(MAX_JSON_BYTES + 1).read_to_end(&mut start).map_err(KeepError::Unread)?;
    let pins = if starts_like_json(&start) {
        if start.len() as u64 > MAX_JSON_BYTES {
            return Err(KeepError::TooLarge);
        }
        pins_of_json(&start)?
    } else {
        pins_of_lines(BufReader::new(start.as_slice().chain(content)))?
    };
    if pins.is_empty() { Err(KeepError::Empty) } else { Ok(pins) }
}

/// The content without the mark that some editors put in front.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content)
}

fn starts_like_json(content: &[u8]) -> bool {
    matches!(without_mark(content).trim_ascii_start().first(), Some(b'{' | b'['))
}

fn pins_of_json(content: &[u8]) -> Result<Pins, KeepError> {
    let text = std::str::from_utf8(without_mark(content)).map_err(|_| KeepError::NotText)?;
    let mut pins = Pins::default();
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut start = 0;
    while let Some(document) = documents.next() {
        let document = document.map_err(KeepError::Json)?;
        let own = text[start..documents.byte_offset()].trim_start();
        start = documents.byte_offset();
        // A manifest may end with a newline, which then counts.
        let own = [own.as_bytes(), content].map(|content| Digest::Sha256(Sha256::digest(content).into()));
        let documents = match document {
            Value::Array(documents) => documents,
            document => vec![document],
        };
        for document in documents {
            pins.extend(pins_of(document, &own).ok_or(KeepError::Unknown)?);
        }
    }
    Ok(pins)
}

fn pins_of_lines(mut content: impl BufRead) -> Result<Pins, KeepError> {
    let (mut pins, mut count, mut left) = (Pins::default(), 0, MAX_LIST_BYTES);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let one = content.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes);
        let length = one.map_err(KeepError::Unread)? as u64;
        if length == 0 {
            break;
        }
        if length > MAX_LINE_BYTES {
            return Err(KeepError::LongLine { line });
        }
        left = left.checked_sub(length).ok_or(KeepError::TooLong)?;
        let text = if line == 1 { without_mark(&bytes) } else { &bytes };
        let pin = strip(std::str::from_utf8(text).map_err(|_| KeepError::NotText)?);
        if !pin.is_empty() {
            count += 1;
            if count > MAX_PINS {
                return Err(KeepError::TooLong);
            }
            pins.insert(pin.parse().map_err(|source| KeepError::Line { line, source })?);
        }
    }
    Ok(pins)
}

fn strip(line: &str) -> &str {
    line.split_once('#').map_or(line, |(pin, _)| pin).trim()
}

/// The pins of a document; `None` if its form is unknown. `own` are its own digests.
fn pins_of(document: Value, own: &[Digest]) -> Option<Vec<Pin>> {
    let has = |field: &str| document.get(field).is_some_and(|value| !value.is_null());
    if has("manifests") || has("layers") || has("config") || has("fsLayers") {
        return Some(pins_of_oci(&document, own));
    }
    if let Some(Value::Array(images)) = document.get("images") {
        let images: Result<Vec<Listed>, _> = images.iter().cloned().map(serde_json::from_value).collect();
        return Some(images.ok()?.into_iter().map(Listed::pin).collect());
    }
    if let Some(Value::Array(tags)) = document.get("Tags") {
        let repository = document.get("Repository")?.as_str()?;
        let name = |tag: &Value| Some(format!("{repository}:{}", tag.as_str()?));
        return tags.iter().map(|tag| name(tag)?.parse().ok()).collect();
    }
    if ["id", "Id", "ID", "Digest", "Name", "Repository"].into_iter().any(has) {
        return serde_json::from_value(document).ok().map(|listed: Listed| vec![listed.pin()]);
    }
    None
}

/// An image in the list of a tool. What is not there, or `<none>`, is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    #[serde(alias = "Id", alias = "ID")]
    id: Option<String>,
    #[serde(alias = "Digest")]
    digest: Option<String>,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Repository")]
    repository: Option<String>,
    #[serde(rename = "Tag")]
    tag: Option<String>,
    #[serde(rename = "repoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "repoDigests", alias = "RepoDigests")]
    repo_digests: Option<Vec<String>>,
    #[serde(alias = "Names")]
    names: Option<Vec<String>>,
}

impl Listed {
    fn pin(self) -> Pin {
        let digest = self.digest.filter(|digest| digest.parse::<Digest>().is_ok());
        let name = self.name.map(|name| match &digest {
            Some(digest) => format!("{name}@{digest}"),
            None => name,
        });
        let tagged = self.repository.zip(self.tag).map(|(repository, tag)| format!("{repository}:{tag}"));
        let lists = [self.repo_tags, self.repo_digests, self.names].into_iter().flatten().flatten();
        let texts = lists.chain(name).chain(tagged).chain(digest).chain(self.id);
        let mut all = Pin::default();
        for pin in texts.filter_map(|text| text.parse::<Pin>().ok()) {
            all.digests.extend(pin.digests);
            all.names.extend(pin.names);
        }
        all
    }
}

/// An index or a manifest pins itself and its manifests, with the images that they are, and the other blobs that it
/// lists, without the other images that need them.
fn pins_of_oci(document: &Value, own: &[Digest]) -> Vec<Pin> {
    let mut pin = Pin::default();
    if let Some(manifests) = document.get("manifests") {
        collect(manifests, &mut pin.digests);
    }
    collect(document, &mut pin.blobs);
    if pin.digests.is_empty() && pin.blobs.is_empty() {
        return Vec::new();
    }
    pin.digests.extend_from_slice(own);
    vec![pin]
}

/// Collects the digests in fields named `digest` or `blobSum`. The JSON parser limits the depth.
fn collect(value: &Value, digests: &mut Vec<Digest>) {
    match value {
        Value::Object(fields) => {
            let named = ["digest", "blobSum"].into_iter().filter_map(|name| fields.get(name)?.as_str());
            digests.extend(named.filter_map(|text| text.parse().ok()));
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

    /// Whether each of the digests is pinned.
    fn pinned(list: &str, digests: &[&str]) -> bool {
        let pins = parse_keep(list.as_bytes()).unwrap_or_else(|error| panic!("{list}: {error}"));
        digests.iter().all(|digest| pins.has_blob(&digest.parse().unwrap()))
    }

    #[test]
    fn lines_with_comments() {
        for start in ["", "\u{feff}"] {
            assert!(pinned(&format!("{start}# pinned\n\n{ONE}  # the base\n  app@{TWO}\r\n"), &[ONE, TWO]));
        }
    }

    #[test]
    fn a_manifest_pins_its_digests_and_its_own() {
        let manifest = format!(r#"{{"config":{{"digest":"{ONE}"}},"layers":[{{"digest":"{TWO}"}}]}}"#);
        let own = Digest::Sha256(Sha256::digest(&manifest).into()).to_string();
        assert!(pinned(&manifest, &[ONE, TWO, &own]));
        // Another newline, or another document, does not change what it is.
        assert!(pinned(&format!("{manifest}\n"), &[&own]));
        assert!(pinned(&format!("{manifest} {{\"layers\":[{{\"digest\":\"{ONE}\"}}]}}"), &[&own]));
    }

    #[test]
    fn a_manifest_is_known_by_any_field_that_lists_blobs() {
        for manifest in [
            format!(r#"{{"schemaVersion":1,"name":"x","fsLayers":[{{"blobSum":"{ONE}"}}]}}"#),
            format!(r#"{{"layers":[{{"digest":"{ONE}"}}]}}"#),
            format!(r#"{{"config":{{"digest":"{ONE}"}}}}"#),
        ] {
            assert!(pinned(&manifest, &[ONE]), "{manifest}");
        }
    }

    #[test]
    fn lists_of_tools_are_read() {
        let hex = TWO.strip_prefix("sha256:").unwrap();
        for list in [
            format!(r#"{{"images":[{{"id":"{ONE}","repoTags":[],"repoDigests":["x@{TWO}"],"size":"1"}}]}}"#),
            format!(
                "{{\"ID\":\"{ONE}\",\"Digest\":\"{TWO}\",\"Repository\":\"a\",\"Tag\":\"1\"}}\r\n\
                 {{\"ID\":\"{ONE}\",\"Digest\":\"<none>\",\"Repository\":\"<none>\",\"Tag\":\"<none>\"}}\r\n"
            ),
            format!(r#"[{{"Id":"{hex}","Names":null,"Digest":"{ONE}"}},{{"Id":"{hex}","Names":["a:1"]}}]"#),
            format!(r#"{{"Name":"docker.io/a","Digest":"{ONE}","RepoTags":["1"],"Layers":["{TWO}"]}}"#),
        ] {
            let has_second = !list.contains("Layers");
            assert!(pinned(&list, &[ONE]) && pinned(&list, &[TWO]) == has_second, "{list}");
        }
        assert!(parse_keep(br#"{"Repository":"docker.io/a","Tags":["1","2"]}"#).is_ok());
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
        assert!(message(b"two words\n").starts_with("line 1: `two words` is neither"));
        for empty in [&b""[..], b"# nothing\n", b"[]", br#"{"images":[]}"#, br#"{"layers":[]}"#] {
            assert_eq!(message(empty), "it contains no digest and no name");
        }
        for unknown in [&b"{}"[..], b"[1]", br#"{"name":"x"}"#, br#"{"Tags":["1"]}"#] {
            assert!(message(unknown).starts_with("it is JSON, but neither"));
        }
        assert!(message(b"{\"config\":").starts_with("it starts like"));
        assert_eq!(message(b"\xff"), "it is not UTF-8 text");
    }

    #[test]
    fn what_is_too_much_is_refused_where_it_shows() {
        /// Goes on with this byte for ever.
        fn endless(start: &str, byte: u8) -> String {
            let content = start.as_bytes().chain(io::repeat(byte));
            read_keep(content).unwrap_err().to_string()
        }
        assert!(endless("", 0).starts_with("line 1 is longer than 8 KiB"));
        assert!(endless(&format!("{ONE}\n# "), b'x').starts_with("line 2 is longer than 8 KiB"));
        let many = "a\n".repeat(2_000_000);
        assert!(parse_keep(many.as_bytes()).is_ok());
        let error = parse_keep(format!("{many}a").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "it has more than two million pins, or more than 256 MiB");
        assert!(endless("{", b' ').starts_with("it is JSON of more than 3 MiB"));
        // At the limit, and one above.
        let line = |length: usize| format!("{}\n{ONE}\n", "#".repeat(length - 1));
        assert!(pinned(&line(8 << 10), &[ONE]));
        assert!(parse_keep(line((8 << 10) + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(content in any::<Vec<u8>>()) {
            let _ = parse_keep(&content);
        }
    }
}
