//! Descriptors: references from a document of a layout to another document or to a blob.
//!
//! Guarantees: only the fields that are read must be well-formed. Anything else that real tools add or
//! leave out is ignored, and `null` is read as absent. What a malformed digest means is not guessed: it is no
//! digest of another algorithm, which no blob of a cache can have.
//!
//! Sources: OCI image specification, `descriptor.md` (for the grammar of digests, its section "Digests"),
//! `annotations.md` for the name of an image, and `media-types.md`; its version 1.1.0-rc2, `artifact.md`; Docker's
//! distribution, `manifest-v2-2.md` and `manifest-v2-1.md`, for media types.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cache::digest::{Algorithm, Digest};

/// A reference to content.
#[derive(Debug, Deserialize)]
pub(crate) struct Descriptor {
    /// The digest of the content, of any algorithm; empty if there is none. Docker's schema 1 calls it `blobSum`.
    #[serde(default, alias = "blobSum", deserialize_with = "empty_if_null")]
    pub(crate) digest: String,
    /// What the content is; empty if that is not said.
    #[serde(default, rename = "mediaType", deserialize_with = "empty_if_null")]
    media_type: String,
    /// The content's size in bytes.
    size: Option<u64>,
    annotations: Option<Annotations>,
    /// Where else the content is.
    urls: Option<Value>,
    /// The content itself.
    data: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: Option<String>,
    /// What containerd, and so BuildKit, calls the image (`images/annotations.go`).
    #[serde(rename = "io.containerd.image.name")]
    full_name: Option<String>,
}

/// What the content of a media type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An index or a manifest.
    Document,
    /// Anything else. It references nothing.
    Leaf,
    /// That is not said. The content may say.
    Unstated,
}

impl Kind {
    pub(crate) fn of(media_type: &str) -> Self {
        // A media type may have parameters, and its case does not matter: RFC 9110, section 8.3.1.
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" => Self::Unstated,
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.oci.artifact.manifest.v1+json"
            | "application/vnd.cncf.oras.artifact.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Self::Document,
            _ => Self::Leaf,
        }
    }
}

/// Reads `null` as empty text.
pub(crate) fn empty_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::<String>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The content that a descriptor references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The content with this digest.
    Known(Digest),
    /// Content with a digest of an unsupported algorithm: no blob of a cache.
    Foreign,
    /// Unknown content: the digest breaks the grammar of digests, or the rules of its algorithm.
    Malformed,
}

impl Descriptor {
    /// The content that is referenced.
    pub(crate) fn target(&self) -> Target {
        if let Ok(digest) = self.digest.parse() {
            return Target::Known(digest);
        }
        let is_foreign = self.digest.split_once(':').is_some_and(|(algorithm, encoded)| {
            is_algorithm(algorithm)
                && Algorithm::ALL.iter().all(|supported| supported.name() != algorithm)
                && is_encoded(encoded)
        });
        if is_foreign { Target::Foreign } else { Target::Malformed }
    }

    /// What the content is.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(&self.media_type)
    }

    /// Whether the content must be in the layout: it is neither embedded, nor elsewhere, nor of a kind that is not
    /// distributed with an image.
    pub(crate) fn is_needed(&self) -> bool {
        let has_some = |field: &Option<Value>| match field {
            Some(Value::Array(values)) => !values.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        };
        let is_elsewhere = has_some(&self.urls)
            || self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.");
        !has_some(&self.data) && !is_elsewhere
    }

    /// The content's size in bytes, if given.
    pub(crate) const fn size_bytes(&self) -> Option<u64> {
        self.size
    }

    /// The image's name, if given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.name.as_deref()
    }

    /// What containerd calls the image, if given.
    pub(crate) fn full_name(&self) -> Option<&str> {
        self.annotations.as_ref()?.full_name.as_deref()
    }
}

/// Whether the text is an algorithm: components of lower-case letters and digits, separated by one of
/// `+._-`.
fn is_algorithm(text: &str) -> bool {
    let is_component = |component: &str| {
        !component.is_empty()
            && component.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split(['+', '.', '_', '-']).all(is_component)
}

/// Whether the text is an encoded hash.
fn is_encoded(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte))
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
        assert_eq!(whole.target(), Target::Known(digest.parse().unwrap()));
        assert_eq!((whole.size_bytes(), whole.name()), (Some(9), Some("latest")));

        let bare = parse(r#"{"digest": "md5:00", "size": null, "annotations": null}"#).unwrap();
        assert_eq!((bare.target(), bare.size_bytes(), bare.name()), (Target::Foreign, None, None));
        assert_eq!(parse(r#"{"digest": "x", "annotations": {}}"#).unwrap().name(), None);
        for nothing in [r#"{"size": 9}"#, r#"{"digest": null, "mediaType": null}"#] {
            let nothing = parse(nothing).unwrap();
            assert_eq!((nothing.target(), nothing.kind()), (Target::Malformed, Kind::Unstated));
        }
        for wrong in [r#"{"digest": "x", "size": -1}"#, "[]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_indexes_and_manifests_are_documents() {
        for document in [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json; charset=utf-8",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ] {
            assert_eq!(Kind::of(document), Kind::Document, "{document}");
        }
        for leaf in
            ["application/vnd.buildkit.cacheconfig.v0", "application/vnd.oci.image.config.v1+json", "x"]
        {
            assert_eq!(Kind::of(leaf), Kind::Leaf, "{leaf}");
        }
        assert_eq!([Kind::of(""), Kind::of(" ")], [Kind::Unstated; 2]);
    }

    #[test]
    fn a_malformed_digest_is_not_one_of_another_algorithm() {
        let target = |digest: &str| parse(&format!(r#"{{"digest": "{digest}"}}"#)).unwrap().target();
        let hex = format!("{:064x}", 0xabc);
        assert!(matches!(target(&format!("sha256:{hex}")), Target::Known(_)));
        for foreign in ["md5:00", "blake3:Ab=_-", "a+b.c_d-2:x"] {
            assert_eq!(target(foreign), Target::Foreign, "{foreign}");
        }
        let malformed = [
            "",
            ":",
            "md5:",
            ":00",
            "md5",
            "MD5:00",
            "a..b:00",
            "-a:00",
            "md5:0 0",
            "md5:00:00",
            "sha512:00",
            &hex,
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("SHA256:{hex}"),
            &format!("sha256:{hex} "),
            &format!("sha256-{hex}"),
            &format!("sha256:{hex}0"),
        ];
        for malformed in malformed {
            assert_eq!(target(malformed), Target::Malformed, "{malformed}");
        }
    }
}
