//! What manifests need, and what of it is not there.
//!
//! Guarantees: pure. What a descriptor embeds, or says is elsewhere, is not needed.

use std::collections::{BTreeMap, HashMap};

use crate::cache::digest::Digest;
use crate::cache::references::Image;
use crate::scan::descriptor::{Descriptor, Kind, Target};
use crate::scan::document::Document;

/// What a manifest needs.
pub(crate) struct Needs {
    config: Sorted,
    layers: Sorted,
}

/// What is there and what is not.
#[derive(Default)]
struct Sorted {
    are_here: bool,
    absent: Vec<Digest>,
}

impl Needs {
    /// What a manifest needs, or an index that lists layers.
    pub(crate) fn of(manifest: &Document, is_here: impl Fn(&Digest) -> bool) -> Self {
        let sort = |needed: &mut dyn Iterator<Item = &Descriptor>| {
            let mut sorted = Sorted::default();
            for descriptor in needed.filter(|descriptor| descriptor.is_needed()) {
                if let Target::Known(digest) = descriptor.target() {
                    if is_here(&digest) { sorted.are_here = true } else { sorted.absent.push(digest) }
                }
            }
            sorted
        };
        let listed = manifest.manifests().filter(|one| one.kind() == Kind::Leaf);
        let layers = sort(&mut listed.chain(manifest.layers()));
        Self { config: sort(&mut manifest.config.iter()), layers }
    }

    const fn are_here(&self) -> bool {
        self.config.are_here || self.layers.are_here
    }
}

/// For each manifest, what it needs and is not there, where that is a hole: some of what the manifest needs is there, and
/// it belongs to an image with a name. Without a name, only what the layout keeps of most images counts: ORAS's cache
/// has no configs, and ko's no layers.
pub(crate) fn absent(needs: &HashMap<Digest, Needs>, images: &[Image]) -> BTreeMap<Digest, Vec<Digest>> {
    let keeps = |sorted: fn(&Needs) -> &Sorted| {
        let (with, without): (Vec<&Needs>, Vec<&Needs>) =
            needs.values().filter(|needs| needs.are_here()).partition(|needs| sorted(needs).are_here);
        with.len() > without.len()
    };
    let (keeps_configs, keeps_layers) = (keeps(|needs| &needs.config), keeps(|needs| &needs.layers));
    let mut absent = BTreeMap::new();
    for image in images {
        let is_named = image.names().next().is_some();
        for manifest in &image.documents {
            let Some(needs) = needs.get(manifest).filter(|needs| needs.are_here()) else { continue };
            let mut holes = Vec::new();
            for (sorted, is_kept) in [(&needs.config, keeps_configs), (&needs.layers, keeps_layers)] {
                if is_named || is_kept {
                    holes.extend(sorted.absent.iter().cloned());
                }
            }
            holes.sort_unstable();
            holes.dedup();
            if !holes.is_empty() {
                absent.insert(manifest.clone(), holes);
            }
        }
    }
    absent
}
