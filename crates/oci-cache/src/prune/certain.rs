//! Removes blobs that go in any case, before the prune looks for pulls.
//!
//! Guarantees: only blobs of a plan go that have certainly been idle for an hour, and for the grace if that is longer.
//! The rule lets them go while a pull is under way too, so no look can save them. Each goes under a lease, as in a
//! prune that does not look at all. One that a process has open stays, and is a sign. So is one that was used, changed
//! or removed since the scan, and whatever other processes create or rename into the cache meanwhile. So the look
//! need not open these blobs once more, and the watch need not tell this prune's opens from others'.
//!
//! What it does not guarantee: whoever opens and closes a file while these blobs go, and does not read one of them, is
//! not seen. The watch that sees that begins afterwards. Blobs of an OCI image layout never go early: there an image
//! stays as a whole.

use std::os::fd::AsFd as _;

use crate::cache::inventory::Tree;
use crate::cache::names;
use crate::os::watch::Watch;
use crate::plan::PrunePlan;
use crate::plan::fate::Keep;
use crate::progress::Progress;
use crate::prune::beside::OpenFiles;
use crate::prune::confine::confined;
use crate::prune::early::{Early, changed_directory, scanned};
use crate::prune::open::open_blob;
use crate::prune::report::Outcome;
use crate::prune::sign::Sign;
use crate::prune::spare::Idle;
use crate::prune::units::remove_blobs;

/// Removes the blobs of the plan that go in any case.
pub(crate) fn remove_certain(plan: &PrunePlan, idle: &Idle<'_>, progress: &Progress) -> Early {
    let tree = &plan.inventory.tree;
    // A strict prune must know first what cannot be probed.
    let is_settled = if tree.is_layout() || plan.strict { Vec::new() } else { go_early(plan, idle) };
    if !is_settled.contains(&true) {
        return Early::default();
    }
    let directories = tree.directories.iter().map(|directory| directory.descriptor.as_fd());
    let watch = Watch::for_additions(directories, names::is_own_temporary);
    let changed =
        if watch.is_some() { changed_directory(tree, &scanned(tree)) } else { Some(Sign::Unwatched) };
    let remove = || {
        let doomed = is_settled.iter().enumerate().filter(|(_, goes)| **goes);
        remove_blobs(tree, doomed.map(|(index, _)| index).collect(), OpenFiles::Spare(None), progress)
    };
    let (removal, _) = confined(plan, None, progress, remove);
    let sign = changed.or_else(|| sign_in(tree, &removal.exceptions));
    Early { is_settled, removal, watch, sign }
}

/// For each blob of the inventory, whether it goes in any case; its companions must too.
fn go_early(plan: &PrunePlan, idle: &Idle<'_>) -> Vec<bool> {
    let fates = plan.blob_fates.iter().enumerate();
    let mut goes: Vec<bool> = fates.map(|(index, fate)| fate.goes() && !idle.may_be_in_use(index)).collect();
    for unit in plan.inventory.tree.companions.units() {
        if unit.clone().any(|index| !goes[index]) {
            unit.for_each(|index| goes[index] = false);
        }
    }
    goes
}

/// The first sign of a pull among the outcomes of blobs that should have gone.
fn sign_in(tree: &Tree, exceptions: &[(usize, Outcome)]) -> Option<Sign> {
    exceptions.iter().find_map(|&(index, outcome)| match outcome {
        Outcome::Kept(Keep::InUse) => Some(open_blob(tree, index)),
        Outcome::Kept(Keep::Recent | Keep::Changed) => Some(Sign::Used(tree.path_of(&tree.blobs[index]))),
        Outcome::Gone => Some(Sign::Changed(tree.directory(tree.blobs[index].directory).path.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::fs::{self, File, FileTimes};
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use crate::prune::pulls::Pulls;
    use crate::{CacheDir, Policy, Space, scan, select};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A cache that lost what goes early, after `before` and before `after`; what went, and the sign that the look found.
    #[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
    fn prune_early(
        names: &[(&str, Duration)],
        before: impl FnOnce(&Path),
        after: impl FnOnce(&Path),
    ) -> (Vec<String>, Option<Sign>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, age) in names {
            let path = path(directory.path(), name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content").unwrap();
            let times = FileTimes::new().set_accessed(now - *age).set_modified(now - *age);
            File::open(&path).unwrap().set_times(times).unwrap();
        }
        let cache = CacheDir::open(directory.path(), &[]).unwrap();
        let policy = Policy { grace: 90 * MINUTE, ..Policy::default() };
        let plan = select(scan(&cache).unwrap(), &policy, now.into(), Space::default()).unwrap();
        let (mut idle, progress) = (Idle::of(&plan), Progress::default());
        idle.read_references();
        before(directory.path());
        let early = remove_certain(&plan, &idle, &progress);
        let is_gone = |name: &&str| !path(directory.path(), name).exists();
        let gone = names.iter().map(|(name, _)| *name).filter(is_gone).map(str::to_owned).collect();
        after(directory.path());
        let sign = Pulls::look_after(&early, &plan, idle.references(), &progress).sign().cloned();
        (gone, sign, directory)
    }

    /// Digits stand for a blob whose digest begins with them.
    fn path(root: &Path, name: &str) -> PathBuf {
        let (digits, ending) = name.split_at_checked(1).unwrap();
        match digits.parse::<u8>() {
            Ok(_) => root.join(format!("sha256:{digits:0<64}{ending}")),
            Err(_) => root.join(name),
        }
    }

    const OLD_AND_FRESH: [(&str, Duration); 3] =
        [("1", MINUTE.saturating_mul(91)), ("2", MINUTE.saturating_mul(89)), ("3", Duration::ZERO)];

    #[test]
    fn what_has_certainly_been_idle_goes_and_is_no_sign() {
        let (gone, sign, _) = prune_early(&OLD_AND_FRESH, |_| (), |_| ());
        assert_eq!((gone, sign), (vec!["1".to_owned()], None));
    }

    #[test]
    fn what_others_do_before_and_meanwhile_is_a_sign() {
        type Act = fn(&Path);
        let nothing: Act = |_| ();
        let create: Act = |root| drop(File::create(root.join("new")).unwrap());
        let read: Act = |root| drop(fs::read(path(root, "1")).unwrap());
        let write: Act = |root| fs::write(path(root, "1"), "other content").unwrap();
        let remove: Act = |root| fs::rename(path(root, "1"), root.with_extension("moved")).unwrap();
        let new = |root: &Path| Sign::Used(root.join("new"));
        let used = |root: &Path| Sign::Used(path(root, "1"));
        let changed = |root: &Path| Sign::Changed(root.to_owned());
        for (before, after, expected) in [
            (create, nothing, &changed as &dyn Fn(&Path) -> Sign),
            (nothing, create, &new),
            (read, nothing, &used),
            (write, nothing, &used),
            (remove, nothing, &changed),
        ] {
            let (_, sign, directory) = prune_early(&OLD_AND_FRESH, before, after);
            assert_eq!(sign, Some(expected(directory.path())));
            let _ = fs::rename(directory.path().with_extension("moved"), path(directory.path(), "1"));
        }
    }

    #[test]
    fn no_blob_goes_early_without_its_companion_or_from_a_layout() {
        let old = 2 * 60 * MINUTE;
        let companions = [("1", old), ("1.json", MINUTE), ("2", old), ("2.json", old)];
        let (gone, sign, _) = prune_early(&companions, |_| (), |_| ());
        assert_eq!((gone, sign), (vec!["2".to_owned(), "2.json".to_owned()], None));
        let layout = [("oci-layout", old), ("1", old), ("2", MINUTE)];
        let (gone, _, _) = prune_early(&layout, |_| (), |_| ());
        assert_eq!(gone, [""; 0]);
    }

    #[test]
    fn what_was_open_when_it_was_to_go_is_a_sign_though_it_is_closed_by_now() {
        let held = RefCell::new(None);
        let hold = |root: &Path| drop(held.replace(Some(File::open(path(root, "1")).unwrap())));
        let (gone, sign, directory) = prune_early(&OLD_AND_FRESH, hold, |_| drop(held.take()));
        assert_eq!(gone, [""; 0]);
        let blob = path(directory.path(), "1");
        assert!(matches!(&sign, Some(Sign::Open { path, .. }) if *path == blob), "{sign:?}");
    }
}
