//! Descriptors: references from a document of a layout to another document or to a blob.
//!
//! Guarantees: only the fields that are read must be well-formed. Anything else that real tools add or
//! leave out is ignored.
//!
//! Source: OCI image specification, `descriptor.md`, and `annotations.md` for the name of an image.

use serde::Deserialize;

use crate::cache::digest::Digest;

/// A reference to content.
#[derive(Debug, Deserialize)]
pub(crate) struct Descriptor {
    /// The digest of the content, of any algorithm.
    pub(crate) digest: String,
    /// The content's size in bytes.
    size: Option<u64>,
    annotations: Option<Annotations>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: Option<String>,
}

impl Descriptor {
    /// The digest, if it is well-formed and its algorithm is supported.
    pub(crate) fn known_digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }

    /// The content's size in bytes, if given.
    pub(crate) const fn size_bytes(&self) -> Option<u64> {
        self.size
    }

    /// The image's name, if given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> serde_json::Result<Descriptor> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_is_not_read_does_not_matter() {
        let digest = format!("sha256:{:064x}", 7);
        let whole = parse(&format!(
            r#"{{"mediaType": "x", "digest": "{digest}", "size": 9, "platform": null, "urls": 7,
                "annotations": {{"org.opencontainers.image.ref.name": "latest", "other": 1}}}}"#
        ));
        let whole = whole.unwrap();
        assert_eq!(whole.known_digest().unwrap().to_string(), digest);
        assert_eq!((whole.size_bytes(), whole.name()), (Some(9), Some("latest")));

        let bare = parse(r#"{"digest": "md5:00", "size": null, "annotations": null}"#).unwrap();
        assert_eq!((bare.known_digest(), bare.size_bytes(), bare.name()), (None, None, None));
        assert_eq!(parse(r#"{"digest": "x", "annotations": {}}"#).unwrap().name(), None);
        for wrong in [r#"{"size": 9}"#, r#"{"digest": null}"#, r#"{"digest": "x", "size": -1}"#, "[]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
