//! The benchmarks: which cache, on which file system, with which contenders.
//!
//! Guarantees: names are unique. A quick benchmark differs from the full one only in sizes, and in the number of rounds.

use crate::bench::caches::{Layout, Naming, Recipe, Sizes};
use crate::bench::contenders::{self, Contender};
use crate::bench::places::FileSystem;

/// One benchmark.
#[derive(Clone, Debug)]
pub(crate) struct Benchmark {
    /// Its name on the command line and in the document.
    pub(crate) name: &'static str,
    /// What it shows, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) recipe: Recipe,
    pub(crate) file_system: FileSystem,
    pub(crate) kind: Kind,
    /// The maximum number of rounds.
    most_rounds: u16,
    /// How many rounds there are for each that was asked for.
    rounds_for_one: u16,
    /// Whether everything is dropped from the kernel's caches before each run.
    pub(crate) is_cold: bool,
    /// What the pruner is to reach.
    pub(crate) aims: &'static [Aim],
}

/// A ratio of wall times that the pruner is to reach, or stay below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Aim {
    /// The contender that it is compared with.
    pub(crate) beside: &'static str,
    pub(crate) ratio: f64,
}

const fn aim(beside: &'static str, ratio: f64) -> Aim {
    Aim { beside, ratio }
}

/// What the contenders do with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They remove it. The wall time counts.
    Prune,
    /// They remove it: the pruner and the baseline.
    PruneBesideBaseline,
    /// The pruner alone removes it.
    Alone,
    /// They only count it.
    DryRun,
    /// They summarise it, and only count it.
    Usage,
    /// They hash every blob, or only read it.
    Verify,
    /// They remove it. The time between the first and the last removed name counts.
    HalfGone,
    /// The pruner and loops of bare system calls remove it.
    UnlinkLimit,
}

impl Kind {
    /// The contenders. The others are compared with the first.
    pub(crate) const fn contenders(self) -> &'static [Contender] {
        match self {
            Self::Prune => contenders::PRUNE,
            Self::PruneBesideBaseline => contenders::BESIDE_BASELINE,
            Self::Alone => contenders::ALONE,
            Self::DryRun => contenders::DRY_RUN,
            Self::Usage => contenders::USAGE,
            Self::Verify => contenders::VERIFY,
            Self::HalfGone => contenders::HALF_GONE,
            Self::UnlinkLimit => contenders::UNLINK_LIMIT,
        }
    }

    /// Whether each run needs a cache of its own.
    pub(crate) const fn removes(self) -> bool {
        !matches!(self, Self::DryRun | Self::Usage | Self::Verify)
    }

    /// Whether memory and system calls are measured too.
    pub(crate) const fn is_observed(self) -> bool {
        !matches!(self, Self::HalfGone | Self::UnlinkLimit)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// 1.2 GiB, rounded up.
const TYPICAL_BYTES: u64 = 1_288_490_189;

const fn recipe(blobs: usize, sizes: Sizes) -> Recipe {
    Recipe { blobs, sizes, layout: Layout::Flat, naming: Naming::Random, last_is_fresh: false }
}

const SMALL_10K: Recipe = recipe(10_000, Sizes::Each(4 * KIB));
const SMALL_100K: Recipe = recipe(100_000, Sizes::Each(4 * KIB));
const MILLION: Recipe = recipe(1_000_000, Sizes::UpTo(4 * KIB));
const LARGE: Recipe = recipe(48, Sizes::Each(64 * MIB));

const fn benchmark(
    name: &'static str,
    about: &'static str,
    recipe: Recipe,
    file_system: FileSystem,
    kind: Kind,
) -> Benchmark {
    Benchmark {
        name,
        about,
        recipe,
        file_system,
        kind,
        most_rounds: u16::MAX,
        rounds_for_one: 1,
        is_cold: false,
        aims: &[],
    }
}

const ALL: &[Benchmark] = &[
    benchmark(
        "typical",
        "The cache of one machine: few layers, most of them small, some large.",
        recipe(47, Sizes::Together(TYPICAL_BYTES)),
        FileSystem::Disk,
        Kind::Prune,
    )
    .short()
    .aiming_at(&[aim(contenders::BASELINE, 0.8)]),
    benchmark(
        "typical-one-fresh",
        "The same with one fresh blob, so that the pruner looks for pulls, for half a second at least.",
        Recipe { last_is_fresh: true, ..recipe(47, Sizes::Together(TYPICAL_BYTES)) },
        FileSystem::Disk,
        Kind::Prune,
    ),
    benchmark(
        "small-10k",
        "Many small blobs: the disk sets the pace.",
        SMALL_10K,
        FileSystem::Disk,
        Kind::Prune,
    )
    .short()
    .aiming_at(&[aim(contenders::BASELINE, 0.4)]),
    benchmark(
        "small-10k-cold",
        "The same, with nothing of it in memory.",
        SMALL_10K,
        FileSystem::Disk,
        Kind::Prune,
    )
    .cold(),
    benchmark("small-100k", "Ten times as many.", SMALL_100K, FileSystem::Disk, Kind::Prune)
        .aiming_at(&[aim(contenders::BASELINE, 0.35)]),
    benchmark(
        "small-100k-one-fresh",
        "The same with one fresh blob.",
        Recipe { last_is_fresh: true, ..SMALL_100K },
        FileSystem::Disk,
        Kind::PruneBesideBaseline,
    ),
    benchmark(
        "small-100k-nested",
        "The same in the nested layout, idle.",
        Recipe { layout: Layout::Nested, ..SMALL_100K },
        FileSystem::Disk,
        Kind::PruneBesideBaseline,
    )
    .aiming_at(&[aim(contenders::BASELINE, 0.35)]),
    benchmark(
        "million",
        "Growth: time and memory with a million blobs.",
        MILLION,
        FileSystem::Disk,
        Kind::Alone,
    )
    .at_most(2),
    benchmark(
        "million-one-fresh",
        "The same with one fresh blob.",
        Recipe { last_is_fresh: true, ..MILLION },
        FileSystem::Disk,
        Kind::Alone,
    )
    .at_most(2),
    benchmark(
        "large",
        "Few large blobs: freeing the extents is the work.",
        LARGE,
        FileSystem::Disk,
        Kind::Prune,
    ),
    benchmark(
        "large-image",
        "The same where no disk is told of what is free: the processor sets the pace.",
        LARGE,
        FileSystem::Image,
        Kind::Prune,
    ),
    benchmark(
        "small-10k-image",
        "No disk behind the journal: the processor sets the pace.",
        SMALL_10K,
        FileSystem::Image,
        Kind::Prune,
    )
    .short()
    .aiming_at(&[aim(contenders::BASELINE, 0.8), aim(contenders::ORIGINAL, 0.65)]),
    benchmark("small-100k-image", "Ten times as many.", SMALL_100K, FileSystem::Image, Kind::Prune)
        .aiming_at(&[aim(contenders::BASELINE, 0.8), aim(contenders::ORIGINAL, 0.65)]),
    benchmark("small-10k-tmpfs", "No journal at all.", SMALL_10K, FileSystem::Tmpfs, Kind::Prune)
        .short()
        .aiming_at(&[aim(contenders::BASELINE, 1.1), aim(contenders::ORIGINAL, 0.65)]),
    benchmark("small-100k-tmpfs", "Ten times as many.", SMALL_100K, FileSystem::Tmpfs, Kind::Prune)
        .aiming_at(&[aim(contenders::BASELINE, 1.1), aim(contenders::ORIGINAL, 0.65)]),
    benchmark(
        "dry-run-100k",
        "Only counting: the dry run beside tools that report disk usage, metadata in memory.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::DryRun,
    )
    .short()
    .aiming_at(&[aim("diskus", 0.6), aim("du -sb", 0.5)]),
    benchmark(
        "dry-run-100k-cold",
        "The same, with nothing of it in memory.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::DryRun,
    )
    .cold(),
    benchmark(
        "usage-100k",
        "What is in the cache, and what common policies would free, beside the dry run of one.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::Usage,
    )
    .short()
    .aiming_at(&[aim(contenders::DRY_RUN_NAME, 1.3)]),
    benchmark(
        "usage-100k-cold",
        "The same, with nothing of it in memory.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::Usage,
    )
    .cold(),
    benchmark(
        "verify",
        "Hashing every blob, contents in the page cache.",
        Recipe { naming: Naming::Content, ..LARGE },
        FileSystem::Disk,
        Kind::Verify,
    )
    .aiming_at(&[aim(contenders::OPENSSL, 0.75)]),
    benchmark(
        "verify-cold",
        "The same from the disk; `cat` only reads.",
        Recipe { naming: Naming::Content, ..LARGE },
        FileSystem::Disk,
        Kind::Verify,
    )
    .cold()
    .aiming_at(&[aim(contenders::CAT, 1.1)]),
    benchmark(
        "half-gone",
        "How long a cache is visible with some names gone and others still there.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::HalfGone,
    ),
    benchmark(
        "unlink-limit",
        "Bare loops of `unlinkat`, names already in memory, beside the whole command. Where removals wait for a disk, more threads are faster, so these are no limit.",
        SMALL_100K,
        FileSystem::Disk,
        Kind::UnlinkLimit,
    ),
    benchmark(
        "unlink-limit-image",
        "The same where the processor sets the pace: here they are the floor.",
        SMALL_100K,
        FileSystem::Image,
        Kind::UnlinkLimit,
    ),
    benchmark(
        "unlink-limit-tmpfs",
        "The floor without a journal.",
        SMALL_100K,
        FileSystem::Tmpfs,
        Kind::UnlinkLimit,
    ),
];

impl Benchmark {
    /// With everything dropped from the kernel's caches before each run.
    const fn cold(self) -> Self {
        Self { is_cold: true, ..self }
    }

    /// With at most so many rounds.
    const fn at_most(self, most_rounds: u16) -> Self {
        Self { most_rounds, ..self }
    }

    /// With three times as many rounds: a run is so short that the machine's own work disturbs it more.
    const fn short(self) -> Self {
        Self { rounds_for_one: 3, ..self }
    }

    /// With aims.
    const fn aiming_at(self, aims: &'static [Aim]) -> Self {
        Self { aims, ..self }
    }
}

/// All benchmarks, in the order of the document.
pub(crate) const fn benchmarks() -> &'static [Benchmark] {
    ALL
}

/// Their names.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|benchmark| benchmark.name).collect()
}

impl Benchmark {
    /// The same benchmark with a small cache.
    pub(crate) fn quick(&self) -> Self {
        Self { recipe: self.recipe.quick(), rounds_for_one: 1, ..self.clone() }
    }

    /// How many rounds there are if so many are asked for.
    pub(crate) fn rounds(&self, asked: u16) -> u16 {
        asked.saturating_mul(self.rounds_for_one).min(self.most_rounds)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), ALL.len());
    }

    #[test]
    fn aims_name_contenders() {
        for benchmark in ALL {
            for aim in benchmark.aims {
                let mut contenders = benchmark.kind.contenders().iter();
                assert!(
                    contenders.any(|contender| contender.name == aim.beside),
                    "{}: {aim:?}",
                    benchmark.name
                );
            }
        }
    }

    #[test]
    fn short_runs_take_more_rounds_and_the_million_fewer() {
        let rounds = |name: &str, asked| {
            let benchmark = ALL.iter().find(|benchmark| benchmark.name == name).unwrap();
            [benchmark.rounds(asked), benchmark.quick().rounds(asked)]
        };
        assert_eq!(rounds("small-10k-tmpfs", 3), [9, 3]);
        assert_eq!(rounds("small-100k", 3), [3, 3]);
        assert_eq!(rounds("million", 3), [2, 2]);
    }

    #[test]
    fn the_pruner_comes_first_everywhere() {
        for benchmark in ALL {
            assert!(benchmark.kind.contenders()[0].name.starts_with("cache-"), "{}", benchmark.name);
        }
    }
}
