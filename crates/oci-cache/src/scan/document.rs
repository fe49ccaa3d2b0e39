//! Documents of a layout: indexes and manifests.
//!
//! Guarantees: only the fields that reference content, and those that tell what a document is, are read. Only they must
//! be well-formed. `null` is read as absent.
//!
//! Sources: OCI image specification, `image-index.md`, `manifest.md` (with `subject`); Docker image manifest version 2,
//! schema 2 and its manifest list, which have the same fields, and schema 1 (`manifest-v2-1.md`), with `fsLayers`.

use std::io;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::scan::descriptor::{Descriptor, Kind, Target, empty_if_null};

/// The fields of an index or a manifest that reference content.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Document {
    #[serde(default, rename = "mediaType", deserialize_with = "empty_if_null")]
    media_type: String,
    #[serde(rename = "schemaVersion")]
    schema_version: Option<IgnoredAny>,
    manifests: Option<Vec<Option<Descriptor>>>,
    pub(crate) config: Option<Descriptor>,
    layers: Option<Vec<Option<Descriptor>>>,
    /// Used by the artifact manifest, an obsolete format.
    blobs: Option<Vec<Option<Descriptor>>>,
    /// Used by Docker's schema 1.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<Vec<Option<Descriptor>>>,
    pub(crate) subject: Option<Descriptor>,
}

impl Document {
    /// Whether this is an index or a manifest, if its descriptor does not say what it is: by its own media type; without
    /// one, by its fields. A config has neither a schema version nor a list of descriptors.
    pub(crate) fn says_it_is_one(&self) -> bool {
        match Kind::of(&self.media_type) {
            Kind::Document => true,
            Kind::Leaf => false,
            Kind::Unstated => self.schema_version.is_some() || self.has_list(),
        }
    }

    /// Whether the document has a known format, if its descriptor says that it is an index or a manifest.
    pub(crate) fn is_known(&self) -> bool {
        self.says_it_is_one() || self.config.is_some()
    }

    fn has_list(&self) -> bool {
        let lists = [&self.manifests, &self.layers, &self.blobs, &self.fs_layers];
        let is_list = |list: &Vec<Option<Descriptor>>| {
            list.iter().flatten().all(|one| one.target() != Target::Malformed)
        };
        lists.into_iter().flatten().any(is_list)
    }

    /// What it lists: indexes and manifests, or anything else.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().flatten().flatten()
    }

    /// What it lists, with the position of each.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        let entries = self.manifests.iter().flatten().enumerate();
        entries.filter_map(|(position, entry)| Some((position, entry.as_ref()?)))
    }

    /// Its layers and blobs.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.layers, &self.blobs, &self.fs_layers].into_iter().flatten().flatten().flatten()
    }

    /// Its layers and blobs, and its config.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers().chain(&self.config)
    }
}

/// Parses an index or a manifest. A list of what the fields hold, without their names, is neither.
pub(crate) fn parse(content: &[u8]) -> io::Result<Document> {
    let invalid = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let document = serde_json::from_slice(content).map_err(invalid)?;
    match starts_as_object(content) {
        true => Ok(document),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a JSON object")),
    }
}

/// Whether the content can only be JSON, however broken: whether it starts as an object.
pub(crate) fn starts_as_object(content: &[u8]) -> bool {
    content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_fields_is_no_document() {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let list = format!(r#"["{media_type}", 2, [], null, null, null, null, null]"#);
        assert!(parse(list.as_bytes()).is_err());
        let object = format!(r#" {{"mediaType": "{media_type}", "schemaVersion": 2, "manifests": []}}"#);
        assert!(parse(object.as_bytes()).unwrap().says_it_is_one());
    }
}
