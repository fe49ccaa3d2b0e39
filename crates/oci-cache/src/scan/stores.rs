//! Stores that look like caches and are none: they keep records of their content, and break if blobs disappear.
//!
//! Guarantees: a store is known by its marks, files and directories that no cache has. They are looked for in the
//! directory itself and in those that contain it, because the blobs lie below. Nothing is opened.
//!
//! Sources: containerd `docs/ops.md`; BuildKit `worker/runc/runc.go`; Docker `builder/builder-next/controller.go`;
//! ollama `manifest/paths.go`; Docker's model runner `pkg/distribution/internal/store`; podman
//! `pkg/libartifact/store/store.go`; zot `pkg/storage/imagestore/imagestore.go`; distribution
//! `registry/storage/paths.go`; containers/storage `store.go`.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, statat};

use crate::cache::digest::Spelling;
use crate::cache::inventory::{Directory, Tree};
use crate::error::Refusal;

const CONTAINERD: Refusal = store("containerd's content store", "crictl rmi --prune");
const BUILDKIT: Refusal = store("a builder's own store (BuildKit or Docker)", "docker buildx prune");
const MODEL_RUNNER: Refusal = store("Docker's model runner", "docker model rm");
const ARTIFACTS: Refusal = store("podman's artifact store", "podman artifact rm");
const ZOT: Refusal = store("a zot registry", "regctl tag rm");
const DISTRIBUTION: Refusal = store("a registry (distribution)", "registry garbage-collect");
const OLLAMA: Refusal = store("ollama", "ollama rm");
const STORAGE: Refusal = store("containers/storage (podman, buildah, CRI-O)", "podman image prune");

const fn store(store: &'static str, command: &'static str) -> Refusal {
    Refusal::Store { store, command }
}

/// What marks a store: one or two entries of the same directory, and how many levels up it may lie.
const MARKS: [(&[&str], usize, Refusal); 8] = [
    (&["io.containerd.metadata.v1.bolt"], 3, CONTAINERD),
    (&["containerdmeta.db"], 3, BUILDKIT),
    (&["metadata_v2.db"], 3, BUILDKIT),
    (&["layout.json", "models.json"], 2, MODEL_RUNNER),
    (&["index.json", "index.lock"], 2, ARTIFACTS),
    (&["index.json", ".uploads"], 2, ZOT),
    (&["overlay-images"], 0, STORAGE),
    (&["blobs", "repositories/"], 0, DISTRIBUTION),
];

/// The store that the directory belongs to, even if it looks like a cache.
pub(crate) fn owner(root: &Directory, tree: &Tree) -> Option<Refusal> {
    let has_all = |names: &[&str], level: usize| {
        names.iter().all(|name| exists(root, &format!("{}{name}", "../".repeat(level))))
    };
    let marked =
        MARKS.into_iter().find(|(names, levels, _)| (0..=*levels).any(|level| has_all(names, level)));
    let is_ollama =
        tree.blobs.iter().any(|blob| blob.spelling == Spelling::Dash) && exists(root, "../manifests");
    marked.map(|(_, _, store)| store).or_else(|| is_ollama.then_some(OLLAMA))
}

/// Whether a directory that looks like a cache belongs to a store.
pub(crate) fn own(path: &Path) -> bool {
    let has_all = |names: &[&str], level: usize| {
        names.iter().all(|name| {
            statat(CWD, path.join("../".repeat(level)).join(name), AtFlags::SYMLINK_NOFOLLOW).is_ok()
        })
    };
    let is_ollamas =
        path.ends_with("blobs") && has_all(&["manifests"], 1) || has_all(&["manifests", "blobs"], 0);
    is_ollamas || MARKS.into_iter().any(|(names, levels, _)| (0..=levels).any(|level| has_all(names, level)))
}

/// The store that a directory belongs to which does not look like a cache.
pub(crate) fn named(root: &Directory, tree: &Tree) -> Option<Refusal> {
    let has = |path: &str| exists(root, path);
    let is_dashed = || {
        tree.foreign.iter().any(|entry| {
            entry.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"sha256-"))
        })
    };
    if has("manifests") && has("blobs") && is_dashed() {
        return Some(OLLAMA);
    }
    let is_distribution = has("docker/registry/v2") || has("../repositories") || has("../../repositories");
    let is_zot = has("cache.db") && (has("_trivy") || has(".sync"));
    is_distribution.then_some(DISTRIBUTION).or_else(|| is_zot.then_some(ZOT))
}

fn exists(root: &Directory, path: &str) -> bool {
    statat(root.descriptor.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
