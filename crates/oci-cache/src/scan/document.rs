//! Documents of a layout: indexes and manifests.
//!
//! Guarantees: only the fields that reference content are read, and only they must be well-formed.
//!
//! Sources: OCI image specification, `image-index.md`, `manifest.md` (with `subject`); Docker image
//! manifest version 2, schema 2 and its manifest list, which have the same fields.

use std::io;

use serde::Deserialize;

use crate::scan::descriptor::Descriptor;

/// The fields of an index or a manifest that reference content.
#[derive(Default, Deserialize)]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    /// Used by the artifact manifest, an obsolete format.
    pub(crate) blobs: Option<Vec<Descriptor>>,
    pub(crate) subject: Option<Descriptor>,
}

impl Document {
    /// Whether the document has a supported format. A document without any of these fields, such as a
    /// manifest of Docker's schema 1, stores its references in an unsupported way.
    pub(crate) const fn is_known(&self) -> bool {
        self.manifests.is_some() || self.config.is_some() || self.layers.is_some() || self.blobs.is_some()
    }
}

/// Parses an index or a manifest.
pub(crate) fn parse(content: &[u8]) -> io::Result<Document> {
    serde_json::from_slice(content).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
