//! Stores of Debian's tools: what buildah, umoci and podman write, is pruned as they would.
//!
//! Guarantees: the stores are real, and the tools read them again after each prune. Nothing else touches them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use xshell::{Cmd, Shell, cmd};

use crate::kit::shell::{output_of, shell};
use crate::kit::tree::Tree;
use crate::smoke::images::Images;
use crate::smoke::prune::Prune;
use crate::smoke::registry::Way;
use crate::smoke::table::Row;
use crate::smoke::tally::Tally;

/// Longer than the age by which unreferenced blobs go.
const A_MOMENT: Duration = Duration::from_millis(1100);
const UNREFERENCED: [&str; 5] = ["--unreferenced", "--older-than", "1s", "--grace", "0s"];

/// The tools, and where they keep what they need.
struct Tools<'a> {
    prune: &'a Prune,
    shell: Shell,
    directory: PathBuf,
}

/// Runs the exercise with stores in `directory`.
///
/// # Errors
///
/// If a tool fails where no prune is to blame.
pub(crate) fn row(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Row> {
    let directory = directory.join("stores");
    fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let shell = shell()?;
    shell.change_dir(&directory);
    let tools = Tools { prune, shell, directory };
    let mut tally = Tally::default();
    tools.blob_cache(images, &mut tally)?;
    tools.rebuilt_image(&mut tally)?;
    tools.garbage(images, &mut tally)?;
    Ok(Row { exercise: "stores of tools", may_fail: false, tally })
}

impl Tools<'_> {
    /// buildah pulls through its cache of blobs. The cache is intact, goes whole, and fills again.
    fn blob_cache(&self, images: &Images<'_>, tally: &mut Tally) -> anyhow::Result<()> {
        let cache = self.directory.join("blob-cache");
        fs::create_dir(&cache).context("make a cache of blobs")?;
        for _ in 0..2 {
            let pull = self.buildah().args(["pull", "--quiet", "--tls-verify=false", "--blob-cache"]);
            output_of(pull.arg(&cache).arg(images.reference("layered")))?;
            output_of(self.buildah().args(["rmi", "--all", "--force"]))?;
            tally.pulls += 1;
            self.verify(&cache, tally);
            let kinds = [".compressed", ".decompressed", ".config"];
            let names = Tree::of(&cache)?.entries.into_keys().map(|path| path.display().to_string());
            let names: Vec<String> = names.collect();
            let has = |ending: &&str| names.iter().any(|name| name.ends_with(*ending));
            tally.check(kinds.iter().all(has), || format!("buildah wrote {names:?}, not all of {kinds:?}"));
            tally.add_prune(self.prune.run(&cache, &[]));
            let left = fs::read_dir(&cache).context("list a cache of blobs")?.count();
            tally.check(left == 0, || format!("{left} files are left in the cache of blobs"));
            tally.add_prune(self.prune.run(&cache, &[]));
        }
        Ok(())
    }

    /// buildah builds an image in layers and pushes it into a layout, twice by the same name. It leaves the first one
    /// there without a name, and only that goes. podman reads the layout, and what podman lists is kept.
    fn rebuilt_image(&self, tally: &mut Tally) -> anyhow::Result<()> {
        let (layout, context) = (self.directory.join("layout"), self.directory.join("context"));
        fs::create_dir(&context).context("make a build context")?;
        fs::write(context.join("Containerfile"), "FROM scratch\nCOPY one /one\nCOPY two /two\n")
            .context("write a Containerfile")?;
        fs::write(context.join("one"), vec![1; 100 << 10]).context("write a file to copy")?;
        // By a relative path: podman names the image after it, and names have no capitals.
        let image = "oci:layout:app:1";
        for content in ["first", "second"] {
            fs::write(context.join("two"), content).context("write a file to copy")?;
            let build = self.buildah().args(["bud", "--quiet", "--isolation", "chroot", "--layers"]);
            output_of(build.args(["--tag", "app:1"]).arg(&context))?;
            output_of(self.buildah().args(["push", "--quiet", "app:1", image]))?;
        }
        let untagged = self.prune.run(&layout, &["--untagged", "--grace", "0s"]);
        let freed = untagged.as_ref().map_or(0, |report| report.blobs_freed);
        // The manifest, the config and the layer with the other content.
        tally.check(freed == 3, || format!("{freed} blobs of the first build went"));
        tally.add_prune(untagged);
        self.verify(&layout, tally);
        output_of(self.podman().args(["pull", "--quiet", image]))?;
        let listed = output_of(self.podman().args(["images", "--format", "json"]))?;
        let list = self.directory.join("podman.json");
        fs::write(&list, listed).with_context(|| format!("write {}", list.display()))?;
        let list = list.display().to_string();
        let kept = self.prune.run(&layout, &["--keep-from", &list, "--grace", "0s"]);
        let freed = kept.as_ref().map_or(1, |report| report.blobs_freed);
        tally.check(freed == 0, || format!("{freed} blobs went of an image that podman lists"));
        tally.add_prune(kept);
        output_of(self.podman().args(["pull", "--quiet", image]))?;
        Ok(())
    }

    /// What `umoci gc` removes, and what goes as unreferenced, is the same.
    fn garbage(&self, images: &Images<'_>, tally: &mut Tally) -> anyhow::Result<()> {
        let (ours, theirs) = (self.directory.join("ours"), self.directory.join("theirs"));
        for layout in [&ours, &theirs] {
            for name in ["small", "mixed"] {
                images.pull(name, layout, Way::Near)?;
                tally.pulls += 1;
            }
            let shell = &self.shell;
            output_of(cmd!(shell, "umoci rm --image {layout}:mixed"))?;
        }
        output_of(self.shell.cmd("umoci").args(["gc", "--layout"]).arg(&theirs))?;
        thread::sleep(A_MOMENT);
        tally.add_prune(self.prune.run(&ours, &UNREFERENCED));
        let names = |layout: &Path| -> anyhow::Result<Vec<PathBuf>> {
            Ok(Tree::of(layout)?.entries.into_keys().collect())
        };
        let (ours_left, theirs_left) = (names(&ours)?, names(&theirs)?);
        tally.check(ours_left == theirs_left, || {
            format!("a prune leaves {ours_left:?}, but `umoci gc` {theirs_left:?}")
        });
        self.verify(&ours, tally);
        Ok(())
    }

    /// Verifies a store, in which nothing must be corrupt or missing.
    fn verify(&self, store: &Path, tally: &mut Tally) {
        let verified =
            output_of(self.shell.cmd(self.prune.program()).args(["verify", "--cache-dir"]).arg(store));
        let problem = verified.as_ref().err().map(|error| format!("{error:#}"));
        tally.check(problem.is_none(), || problem.unwrap_or_default());
    }

    fn buildah(&self) -> Cmd<'_> {
        self.with_storage(self.shell.cmd("buildah"))
    }

    fn podman(&self) -> Cmd<'_> {
        self.with_storage(self.shell.cmd("podman"))
    }

    /// Lets a tool keep its own store in the directory.
    fn with_storage<'b>(&'b self, command: Cmd<'b>) -> Cmd<'b> {
        let storage = |name: &str| self.directory.join(name);
        let command = command.arg("--root").arg(storage("storage")).arg("--runroot").arg(storage("run"));
        command.args(["--storage-driver", "vfs"])
    }
}
