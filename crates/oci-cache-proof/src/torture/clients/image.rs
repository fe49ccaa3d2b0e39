//! A pull into an OCI image layout that takes seconds between layers.
//!
//! Guarantees: each image is new. Each blob is written to a temporary file and renamed into place, as skopeo does.
//! Between blobs nothing of the layout is open. The index gets the image last; the pulls of a process take turns to
//! change it. Just before, every blob must still be there. This is asked without opening one, which a prune could see.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};

use crate::kit::pulls::broken::{Broken, at};
use crate::kit::random::random;
use crate::torture::clients::layer::Layer;

/// The step at which a pulled image lacks a blob.
const INCOMPLETE: &str = "image is incomplete";
const LAYERS: u64 = 3;

/// Held by whoever changes the index.
static INDEX: Mutex<()> = Mutex::new(());

/// Makes an empty layout, as umoci and crane do before the first pull.
pub(crate) fn begin(layout: &Path) -> io::Result<()> {
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(layout.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)
}

/// An image that is in no cache yet.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub(crate) number: u64,
}

impl Image {
    /// Pulls it.
    pub(crate) fn pull(self, layout: &Path) -> Result<(), Broken> {
        fs::create_dir_all(layout.join("blobs/sha256")).map_err(at("mkdir"))?;
        let mut blobs: Vec<(String, Vec<u8>)> = (0..=LAYERS).map(|position| self.blob(position)).collect();
        let descriptor = |(hex, content): &(String, Vec<u8>)| json!({"digest": format!("sha256:{hex}"), "size": content.len()});
        let layers: Vec<Value> = blobs.iter().skip(1).map(descriptor).collect();
        let manifest = json!({"schemaVersion": 2, "config": descriptor(&blobs[0]), "layers": layers});
        blobs.push((self.hex(LAYERS + 1), manifest.to_string().into_bytes()));
        for (hex, content) in &blobs {
            thread::sleep(pause());
            self.write(layout, &format!("blobs/sha256/{hex}"), content).map_err(at("write a blob"))?;
        }
        thread::sleep(pause());
        for (hex, _) in &blobs {
            fs::symlink_metadata(layout.join(format!("blobs/sha256/{hex}"))).map_err(at(INCOMPLETE))?;
        }
        self.add_to_index(layout, &descriptor(&blobs[blobs.len() - 1])).map_err(at("change the index"))
    }

    fn hex(self, position: u64) -> String {
        format!("{:016x}{position:048x}", self.number)
    }

    fn blob(self, position: u64) -> (String, Vec<u8>) {
        (self.hex(position), Layer { number: self.number + position }.content())
    }

    fn write(self, layout: &Path, name: &str, content: &[u8]) -> io::Result<()> {
        // A file that Go names has a number of 32 bits.
        let temporary = layout.join(format!("oci-put-blob{}", self.number % (1 << 32)));
        File::create(&temporary)?.write_all(content)?;
        fs::rename(temporary, layout.join(name))
    }

    fn add_to_index(self, layout: &Path, manifest: &Value) -> io::Result<()> {
        let _turn = INDEX.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index: Value = match fs::read(layout.join("index.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => json!({"schemaVersion": 2, "manifests": []}),
            content => serde_json::from_slice(&content?)?,
        };
        if let Some(manifests) = index["manifests"].as_array_mut() {
            manifests.push(manifest.clone());
        }
        self.write(layout, "index.json", index.to_string().as_bytes())
    }
}

/// Up to 5 s, mostly short.
fn pause() -> Duration {
    Duration::from_secs_f64(5.0 * random().random_range(0.0f64..1.0).powi(6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::layout;

    #[test]
    fn a_pulled_image_is_complete_and_a_gap_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        Image { number: 1 << 20 }.pull(directory.path()).unwrap();
        assert_eq!(layout::problems(directory.path()), Vec::<String>::new());
        assert_eq!(layout::tags(directory.path()).unwrap().len(), 1);
    }
}
