//! A saved plan.
//!
//! The input is a plan in which `$1` to `$9` stand for what differs from cache to cache. If it starts with a zero
//! byte, it is a list of changes to a plan that is right: position, bytes to take out, byte to put in.

#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oci_cache::{CacheDir, Policy, PrunePlan, SavedPlan, save_plan, select};
use oci_cache_fuzz::fixture::{self, NOW};
use oci_cache_fuzz::memory::peak_of;
use serde_json::Value;
use tempfile::TempDir;

/// How much memory reading takes at most: for each byte of the plan, and in any case, for the buffer.
const BYTES_PER_BYTE: usize = 100;
const BYTES: usize = 1 << 17;

/// A cache, and a plan to remove all of it.
struct Scene {
    cache: TempDir,
    plan: Vec<u8>,
    /// What differs from cache to cache: the directory's device and inode, and the inodes of the entries.
    own: Vec<String>,
}

fuzz_target!(|data: &[u8]| {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    let scene = SCENE.get_or_init(Scene::new);
    let text = scene.text(data);
    let (plan, peak) = peak_of(|| SavedPlan::from_json(&text));
    assert!(peak <= BYTES + BYTES_PER_BYTE * text.len(), "{peak} bytes for {}", text.len());
    let Ok(plan) = plan else { return };
    let listed = listed(&text);
    let cache = scene.open();
    let _ = plan.check_directory(&cache);
    let mut selected = scene.select(&plan);
    let goes = fixture::what_goes(&selected);
    assert!(goes.is_subset(&listed), "{goes:?} go, and {listed:?} are listed");

    let mut again = Vec::new();
    save_plan(&mut selected, &cache, &mut again).expect("save the plan");
    let plan = SavedPlan::from_json(&again).expect("read the plan again");
    plan.check_directory(&cache).expect("the same directory");
    assert_eq!(fixture::what_goes(&scene.select(&plan)), goes, "after a way through a file");
});

/// The paths that an accepted plan lists; checks that they stay in the cache.
fn listed(text: &[u8]) -> BTreeSet<String> {
    let plan: Value = serde_json::from_slice(text).expect("an accepted plan is JSON");
    let entries = plan["entries"].as_array().expect("it has entries");
    let path = |entry: &Value| {
        // An entry may also be a list of its fields.
        let field =
            |name: &str, position: usize| entry.get(name).or(entry.get(position)).and_then(Value::as_str);
        let (kind, path) = (field("kind", 0), field("path", 1).expect("an entry has a path"));
        let below = if kind == Some("leftover") { path.strip_prefix("../").unwrap_or(path) } else { path };
        assert!(!below.starts_with('/') && below.split('/').all(|part| part != ".."), "{path} is outside");
        path.to_owned()
    };
    entries.iter().map(path).collect()
}

impl Scene {
    fn new() -> Self {
        let cache = fixture::flat(3);
        fixture::write(&cache.path().join("oci-put-blob1"), b"part");
        fs::create_dir(cache.path().join(".pruning-0123456789abcdef")).expect("make a leftover");
        let mut scene = Self { cache, plan: Vec::new(), own: Vec::new() };
        let cache = scene.open();
        let inventory = fixture::inventory(scene.cache.path());
        let space = cache.space().expect("look at the space");
        let mut all = select(inventory, &Policy::default(), NOW, space).expect("plan");
        save_plan(&mut all, &cache, &mut scene.plan).expect("save a plan");
        let plan: Value = serde_json::from_slice(&scene.plan).expect("a plan is JSON");
        let inodes = plan["entries"].as_array().into_iter().flatten().map(|entry| &entry["inode"]);
        let own = [&plan["device"], &plan["inode"]].into_iter().chain(inodes);
        scene.own = own.map(Value::to_string).collect();
        scene
    }

    fn open(&self) -> CacheDir {
        CacheDir::open(self.cache.path(), &[]).expect("open the cache")
    }

    fn select(&self, plan: &SavedPlan) -> PrunePlan {
        plan.select(fixture::inventory(self.cache.path()), NOW, &Policy::default())
    }

    fn text(&self, data: &[u8]) -> Vec<u8> {
        if let Some((0, changes)) = data.split_first() {
            return changed(self.plan.clone(), changes);
        }
        let Ok(text) = std::str::from_utf8(data) else { return data.to_vec() };
        let names = (1..).map(|number| format!("${number}"));
        names.zip(&self.own).fold(text.to_owned(), |text, (name, own)| text.replace(&name, own)).into_bytes()
    }
}

fn changed(mut plan: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(4) {
        let start = usize::from(u16::from_be_bytes([change[0], change[1]])) % plan.len().max(1);
        let end = plan.len().min(start + usize::from(change[2]));
        plan.splice(start..end, [change[3]]);
    }
    plan
}
