//! OCI image layouts for tests. Blobs are named by numbers, not by their content.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Cache, KIB, hex, nested, set_age};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A descriptor for the blob.
pub fn descriptor(number: u8, media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", hex(number)), "size": KIB})
}

/// A named index entry.
pub fn entry(number: u8, media_type: &str, name: &str) -> Value {
    let mut entry = descriptor(number, media_type);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    entry
}

impl Cache {
    /// An empty layout.
    pub fn layout() -> Self {
        let cache = Self::new();
        cache.write_content("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        cache.write_index(&[]);
        cache
    }

    /// Two images, 10 and 20, which share layer 2; an index, 30, with a third image, 40; and an unreferenced
    /// blob, 99. Every blob has 1 KiB, except manifests and indexes, which are as large as their content.
    pub fn typical_layout() -> Self {
        let cache = Self::layout();
        cache.write_manifest(10, 11, &[1, 2]);
        cache.write_manifest(20, 21, &[2, 3]);
        cache.write_manifest(40, 41, &[4]);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [cache.sized(descriptor(40, MANIFEST), 40)]});
        cache.write_content(nested(30), format!("{index}\n").as_bytes());
        for blob in [1, 2, 3, 4, 11, 21, 41, 99] {
            cache.write(nested(blob), KIB);
        }
        cache.write_index(&[
            cache.sized(entry(10, MANIFEST, "app:1"), 10),
            cache.sized(entry(20, MANIFEST, "app:2"), 20),
            cache.sized(entry(30, INDEX, "multi"), 30),
        ]);
        cache
    }

    /// The descriptor with the size of the blob as it is.
    fn sized(&self, mut descriptor: Value, number: u8) -> Value {
        descriptor["size"] = json!(std::fs::metadata(self.path().join(nested(number))).unwrap().len());
        descriptor
    }

    pub fn write_index(&self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        self.write_content("index.json", index.to_string().as_bytes());
    }

    pub fn write_manifest(&self, number: u8, config: u8, layers: &[u8]) {
        let layers: Vec<Value> = layers.iter().map(|layer| descriptor(*layer, "layer")).collect();
        let manifest = json!({"schemaVersion": 2, "config": descriptor(config, "config"), "layers": layers});
        self.write_content(nested(number), manifest.to_string().as_bytes());
    }

    /// Sets the age of some blobs of a nested cache.
    pub fn age(&self, blobs: &[u8], age: Duration) {
        for blob in blobs {
            set_age(&self.path().join(nested(*blob)), age);
        }
    }

    /// The blobs that exist in a nested cache.
    pub fn nested_blobs(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|number| self.path().join(nested(*number)).exists()).collect()
    }

    /// The names of the images in the index.
    pub fn image_names(&self) -> Vec<String> {
        let index: Value =
            serde_json::from_slice(&std::fs::read(self.path().join("index.json")).unwrap()).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        let name = |entry: &Value| {
            entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned)
        };
        entries.map(|entry| name(entry).unwrap_or_default()).collect()
    }
}
