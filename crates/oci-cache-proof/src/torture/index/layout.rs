//! A layout whose index is updated as real tools do it.
//!
//! Guarantees: an update reads the index, adds an image, and writes the index. Either it renames a new file into place,
//! from a locked directory of its own, as umoci does; or it truncates the index and writes it anew, as
//! go-containerregistry (crane) and containers/image (skopeo) do. The updates take turns, by a lock that no prune
//! knows: without it, two pulls lose each other's updates, and that says nothing about prunes. What an update added must
//! be there in the end, with all its blobs.
//!
//! Source: umoci `oci/cas/dir/dir.go` (`PutIndex`); go-containerregistry `pkg/v1/layout/write.go` (`AppendDescriptor`);
//! containers/image `oci/layout/oci_dest.go` (`Commit`).

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rand::RngExt as _;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::kit::random::random;
use crate::torture::index::observer::Observer;
use crate::torture::mounts::FileSystem;
use crate::torture::sandbox::age;

/// How a client writes the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Rename,
    InPlace,
}

/// An image whose blobs are there. The index does not have it yet.
#[derive(Debug)]
pub(super) struct Image {
    number: u64,
    descriptor: Value,
    is_old: bool,
}

/// What the updates of a layout have in common.
#[derive(Debug, Default)]
struct Turn {
    /// The images that must be there.
    added: Vec<u64>,
    updates: u64,
}

/// A layout, and its clients' lock.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
    manner: Manner,
    file_system: FileSystem,
    turn: Mutex<Turn>,
}

impl Layout {
    /// Makes an empty layout.
    pub(super) fn begin(path: PathBuf, manner: Manner, file_system: FileSystem) -> anyhow::Result<Self> {
        let begin = || -> io::Result<()> {
            fs::create_dir_all(path.join("blobs/sha256"))?;
            fs::create_dir(path.join(".umoci-7"))?;
            fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
            fs::write(path.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)
        };
        begin().with_context(|| format!("begin a layout in {}", path.display()))?;
        Ok(Self { path, manner, file_system, turn: Mutex::default() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the blobs of an image, as of now or as of two days ago.
    pub(super) fn write_blobs(&self, number: u64, is_old: bool) -> anyhow::Result<Image> {
        let [config, layer, manifest] = blobs_of(number);
        let descriptor = |name: &str, size: usize| json!({"mediaType": "application/octet-stream", "digest": format!("sha256:{name}"), "size": size});
        let text =
            json!({"schemaVersion": 2, "config": descriptor(&config, 2), "layers": [descriptor(&layer, 5)]});
        let text = text.to_string();
        for (name, content) in [(&config, "{}"), (&layer, "layer"), (&manifest, &text)] {
            let path = self.path.join("blobs/sha256").join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            if is_old {
                age(&path)?;
            }
        }
        let mut descriptor = descriptor(&manifest, text.len());
        descriptor["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
        Ok(Image { number, descriptor, is_old })
    }

    /// Adds an image to the index, after `pause`. Half of the clients read the index before that, the others after it.
    pub(super) fn update(
        &self,
        image: &Image,
        observer: &Observer,
        pause: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let mut turn = self.lock();
        let early = if random().random_ratio(1, 2) { Some(self.read()?) } else { None };
        pause();
        let mut index = early.map_or_else(|| self.read(), Ok)?;
        index["manifests"].as_array_mut().context("no manifests")?.push(image.descriptor.clone());
        turn.updates += 1;
        match self.manner {
            Manner::Rename => self.rename(&index, turn.updates),
            Manner::InPlace => {
                let text = index.to_string();
                observer.mark(turn.updates).and_then(|()| self.open_twice(|| fs::write(self.index(), &text)))
            }
        }
        .context("update the index")?;
        if !image.is_old {
            turn.added.push(image.number);
        }
        Ok(())
    }

    /// Reads the index as a client does: it must be there, and valid.
    pub(super) fn look(&self) -> anyhow::Result<()> {
        // A client that writes in place makes it invalid for a moment.
        let _turn = (self.manner == Manner::InPlace).then(|| self.lock());
        self.read().map(drop)
    }

    /// How often images were added that must stay.
    pub(super) fn updates(&self) -> u64 {
        self.lock().added.len() as u64
    }

    /// The updates that are lost: images that were added and are not in the index, or lack a blob.
    pub(super) fn lost(&self) -> anyhow::Result<Vec<String>> {
        let index = self.read()?;
        let manifests = index["manifests"].as_array().context("no manifests")?;
        let listed: HashSet<&str> = manifests.iter().filter_map(|entry| entry["digest"].as_str()).collect();
        let problem = |number: &u64| {
            let blobs = blobs_of(*number);
            let missing = blobs.iter().find(|name| !self.path.join("blobs/sha256").join(name).exists());
            let is_listed = listed.contains(format!("sha256:{}", blobs[2]).as_str());
            match (is_listed, missing) {
                (true, None) => None,
                (true, Some(name)) => Some(format!("image {number} lacks {name}")),
                (false, _) => Some(format!("image {number} is not in the index")),
            }
        };
        Ok(self.lock().added.iter().filter_map(problem).collect())
    }

    pub(super) fn index(&self) -> PathBuf {
        self.path.join("index.json")
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> anyhow::Result<Value> {
        let content = self.open_twice(|| fs::read(self.index())).context("read the index")?;
        serde_json::from_slice(&content)
            .with_context(|| format!("an index of {} bytes is invalid", content.len()))
    }

    /// Tries once more on FUSE, which looks a name up before it opens it: whoever renames over a file there, others may miss
    /// it.
    fn open_twice<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if self.file_system == FileSystem::Bindfs && error.kind() == ErrorKind::NotFound => {
                open()
            }
            opened => opened,
        }
    }

    fn rename(&self, index: &Value, update: u64) -> io::Result<()> {
        let directory = self.path.join(".umoci-7");
        let locked = File::open(&directory)?;
        flock(locked.as_fd(), FlockOperation::LockExclusive)?;
        let temporary = directory.join(format!("index-{update}"));
        File::create(&temporary)?.write_all(index.to_string().as_bytes())?;
        fs::rename(temporary, self.index())
    }
}

/// The names of an image's config, layer and manifest.
fn blobs_of(number: u64) -> [String; 3] {
    [1, 2, 3].map(|position| format!("{number:032x}{position:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_is_lost_is_noticed() {
        for manner in [Manner::Rename, Manner::InPlace] {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::begin(directory.path().join("layout"), manner, FileSystem::Tmpfs).unwrap();
            let observer = Observer::start(layout.path(), directory.path().join("marks")).unwrap();
            let before = fs::read(layout.index()).unwrap();
            let (new, old) = (layout.write_blobs(1, false).unwrap(), layout.write_blobs(2, true).unwrap());
            layout.update(&new, &observer, || ()).unwrap();
            layout.update(&old, &observer, || ()).unwrap();
            assert_eq!((layout.updates(), layout.lost().unwrap()), (1, vec![]));
            let after = fs::read(layout.index()).unwrap();
            fs::write(layout.index(), before).unwrap();
            assert_eq!(layout.lost().unwrap(), ["image 1 is not in the index"]);
            fs::write(layout.index(), after).unwrap();
            let blobs = layout.path().join("blobs/sha256");
            fs::rename(blobs.join(&blobs_of(1)[1]), blobs.join("elsewhere")).unwrap();
            assert_eq!(layout.lost().unwrap().len(), 1);
        }
    }
}
