//! The images: built with umoci, pushed and pulled with skopeo.
//!
//! Guarantees: layers are random data, so no tool can compress them. Their sizes range from 48 KiB to 12 MiB.
//! All images share the layers of the base, so pulls of different images want the same blobs.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rand::{Rng as _, RngExt as _};
use xshell::{Shell, cmd};

use crate::kit::random::random;
use crate::kit::shell::{output_of, shell};
use crate::smoke::registry::{Registry, Way};

const KIB: usize = 1 << 10;
/// The layers that all images share.
const BASE: [usize; 2] = [700 * KIB, 2048 * KIB];
/// The images, and the sizes of their layers on top of the base.
const IMAGES: [(&str, &[usize]); 6] = [
    ("tiny", &[48 * KIB]),
    ("small", &[300 * KIB, 100 * KIB]),
    ("layered", &[64 * KIB, 80 * KIB, 96 * KIB, 112 * KIB, 128 * KIB]),
    ("medium", &[4096 * KIB]),
    ("mixed", &[72 * KIB, 6144 * KIB, 500 * KIB]),
    ("large", &[12_288 * KIB, 1024 * KIB]),
];

/// The images in the registry.
#[derive(Debug)]
pub(crate) struct Images<'a> {
    registry: &'a Registry,
}

impl<'a> Images<'a> {
    /// Builds the images in `directory` and pushes them.
    ///
    /// # Errors
    ///
    /// If umoci or skopeo fails.
    pub(crate) fn build_and_push(registry: &'a Registry, directory: &Path) -> anyhow::Result<Self> {
        let shell = shell()?;
        let layout = directory.join("built");
        let content = directory.join("content");
        output_of(cmd!(shell, "umoci init --layout {layout}"))?;
        output_of(cmd!(shell, "umoci new --image {layout}:base"))?;
        add_layers(&shell, &layout, "base", &content, &BASE)?;
        for (name, layers) in IMAGES {
            output_of(cmd!(shell, "umoci tag --image {layout}:base {name}"))?;
            add_layers(&shell, &layout, name, &content, layers)?;
            let reference = registry.reference(name, Way::Near);
            let copy = cmd!(shell, "skopeo --insecure-policy copy --quiet --dest-tls-verify=false");
            output_of(copy.arg(format!("oci:{}:{name}", layout.display())).arg(reference))?;
        }
        Ok(Self { registry })
    }

    /// The names of the images.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        IMAGES.into_iter().map(|(name, _)| name)
    }

    /// How skopeo names an image in the registry.
    pub(crate) fn reference(&self, name: &str) -> String {
        self.registry.reference(name, Way::Near)
    }

    /// The URL of an image's blobs.
    pub(crate) fn blobs_url(&self, name: &str) -> String {
        self.registry.blobs_url(name)
    }

    /// The name of a random image.
    pub(crate) fn any_name() -> &'static str {
        IMAGES[random().random_range(0..IMAGES.len())].0
    }

    /// Pulls the image `name` into the OCI layout at `layout`. The tag is the name.
    ///
    /// # Errors
    ///
    /// If skopeo fails. The error includes its message.
    pub(crate) fn pull(&self, name: &str, layout: &Path, way: Way) -> anyhow::Result<()> {
        let shell = shell()?;
        let reference = self.registry.reference(name, way);
        let copy = cmd!(shell, "skopeo --insecure-policy copy --quiet --src-tls-verify=false {reference}");
        output_of(copy.arg(format!("oci:{}:{name}", layout.display()))).map(drop)
    }
}

fn add_layers(
    shell: &Shell,
    layout: &Path,
    tag: &str,
    content: &Path,
    sizes: &[usize],
) -> anyhow::Result<()> {
    for (number, size_bytes) in sizes.iter().enumerate() {
        let mut bytes = vec![0; *size_bytes];
        random().fill_bytes(&mut bytes);
        fs::write(content, bytes).with_context(|| format!("write {}", content.display()))?;
        let target = format!("/data/{tag}-{number}");
        output_of(cmd!(shell, "umoci insert --rootless --image {layout}:{tag} {content} {target}"))?;
    }
    Ok(())
}
