//! Layouts whose blobs hash to their names.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Cache;
use super::layout::{INDEX, MANIFEST};

/// The digest of a content.
pub fn digest_of(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The descriptor of a content.
pub fn describe(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(content), "size": content.len()})
}

/// The same descriptor with another field, or another value of it.
pub fn with(mut descriptor: Value, field: &str, value: Value) -> Value {
    descriptor[field] = value;
    descriptor
}

impl Cache {
    /// Writes a blob into a layout. Returns its descriptor.
    pub fn add(&self, media_type: &str, content: &[u8]) -> Value {
        self.write_content(path_of(&describe(media_type, content)), content);
        describe(media_type, content)
    }

    pub fn add_manifest(&self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.add(MANIFEST, manifest.to_string().as_bytes())
    }

    pub fn add_index(&self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.add(INDEX, index.to_string().as_bytes())
    }
}

/// Where a layout has what a descriptor describes.
pub fn path_of(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

/// A descriptor with a name, as an entry of the index.
pub fn named(descriptor: Value, name: &str) -> Value {
    with(descriptor, "annotations", json!({"org.opencontainers.image.ref.name": name}))
}
