//! One thread of a verification: hashes two blobs at once.
//!
//! Guarantees: each blob of the queue is told of once. After a request to stop, blobs are told of as not reached.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::verify::block::BLOCK_BYTES;
use crate::verify::checker::{Candidate, Checker, Next, Verdict};
use crate::verify::hasher::Hasher;

/// Size of one read, in bytes: small enough to stay in the second-level cache between copying and hashing, for both blobs.
const BUFFER_BYTES: usize = 128 << 10;
/// The smallest read, in bytes. Each is a multiple of it, and so of whole blocks.
const LEAST_BYTES: usize = 4 << 10;
/// The maximum memory for reading, of all threads together, in bytes.
const ALL_BUFFERS_BYTES: usize = 32 << 20;

/// The blobs to check, in order.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    order: &'a [usize],
    next: AtomicUsize,
    cores: usize,
}

impl<'a> Queue<'a> {
    pub(crate) const fn new(order: &'a [usize], cores: usize) -> Self {
        Self { order, next: AtomicUsize::new(0), cores }
    }

    fn take(&self) -> Option<usize> {
        self.order.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }

    /// Takes a blob for a thread that has one already, but leaves one for each other core.
    fn take_another(&self) -> Option<usize> {
        let left = self.order.len().saturating_sub(self.next.load(Ordering::Relaxed));
        if left < self.cores { None } else { self.take() }
    }
}

/// A blob that is being hashed.
struct Work {
    candidate: Candidate,
    hasher: Hasher,
}

/// One of the two places for blobs of a thread.
struct Lane {
    work: Option<Work>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Lane {
    fn new(buffer_bytes: usize) -> Self {
        Self { work: None, buffer: vec![0; buffer_bytes], filled: 0 }
    }

    /// What was read, as whole blocks, and what is left after them: nothing but at the end.
    fn content(&self) -> (&[u8], &[u8]) {
        self.buffer[..self.filled].split_at(self.filled / BLOCK_BYTES * BLOCK_BYTES)
    }
}

/// A thread of the verification.
pub(crate) struct Worker<'a, Tell: Fn(usize, Verdict)> {
    checker: Checker<'a>,
    /// Is told of the file that was judged: the blob, or the manifest beside an archive.
    tell: Tell,
    buffer_bytes: usize,
}

impl<'a, Tell: Fn(usize, Verdict)> Worker<'a, Tell> {
    /// One of so many threads.
    pub(crate) fn new(checker: Checker<'a>, threads: usize, tell: Tell) -> Self {
        let share = ALL_BUFFERS_BYTES / 2 / threads.max(1);
        let buffer_bytes = (share / LEAST_BYTES * LEAST_BYTES).clamp(LEAST_BYTES, BUFFER_BYTES);
        Self { checker, tell, buffer_bytes }
    }

    /// Checks blobs until none is left.
    pub(crate) fn run(&self, queue: &Queue<'_>) {
        let (mut first, mut second) = (Lane::new(self.buffer_bytes), Lane::new(self.buffer_bytes));
        loop {
            self.fill(&mut first, || queue.take());
            self.fill(&mut second, || queue.take_another());
            if first.work.is_none() && second.work.is_none() {
                return;
            }
            hash(&mut first, &mut second);
            for lane in [&mut first, &mut second] {
                if let Some(work) = lane.work.take() {
                    let index = work.candidate.index;
                    lane.work = self.told(index, self.end(work, lane));
                }
            }
        }
    }

    /// Reads on, or begins with the next blob.
    fn fill(&self, lane: &mut Lane, next: impl Fn() -> Option<usize>) {
        loop {
            let index = match &lane.work {
                Some(work) => work.candidate.index,
                None => {
                    let Some(index) = next() else { return };
                    lane.work = self.begin(index);
                    index
                }
            };
            if let Some(work) = lane.work.take() {
                lane.work = self.told(index, self.read(work, lane));
                if lane.work.is_some() {
                    return;
                }
            }
        }
    }

    /// Begins with a blob. Of an archive whose manifest is beside it, that manifest is checked instead.
    fn begin(&self, index: usize) -> Option<Work> {
        let manifest = self.checker.manifest_of(index);
        if let Some(manifest) =
            manifest.filter(|&manifest| matches!(self.check_alone(manifest), Verdict::Intact))
        {
            let archive = &self.checker.inventory.tree.blobs[index];
            self.checker.progress.add(0, archive.size_bytes);
            return self.told(manifest, ControlFlow::Break(Verdict::Intact));
        }
        self.told(index, self.open(index))
    }

    /// What goes on; a verdict is told.
    fn told(&self, index: usize, flow: ControlFlow<Verdict, Work>) -> Option<Work> {
        match flow {
            ControlFlow::Continue(work) => Some(work),
            ControlFlow::Break(verdict) => {
                if !matches!(verdict, Verdict::NotReached) {
                    self.checker.progress.add(1, 0);
                }
                (self.tell)(index, verdict);
                None
            }
        }
    }

    /// Checks one file, with nothing beside it.
    fn check_alone(&self, index: usize) -> Verdict {
        let mut lane = Lane::new(LEAST_BYTES);
        let mut flow = self.open(index);
        loop {
            flow = match flow {
                ControlFlow::Break(verdict) => return verdict,
                ControlFlow::Continue(work) => self.read(work, &mut lane),
            };
            if let ControlFlow::Continue(mut work) = flow {
                work.hasher.update(lane.content().0);
                flow = self.end(work, &lane);
            }
        }
    }

    fn open(&self, index: usize) -> ControlFlow<Verdict, Work> {
        if self.checker.progress.is_stopped() {
            return ControlFlow::Break(Verdict::NotReached);
        }
        self.begun(self.checker.open(index))
    }

    fn begun(&self, next: Next) -> ControlFlow<Verdict, Work> {
        match next {
            Next::Judged(verdict) => ControlFlow::Break(verdict),
            Next::Hash(candidate) => {
                let algorithm = self.checker.inventory.tree.blobs[candidate.index].digest.algorithm();
                ControlFlow::Continue(Work { candidate, hasher: Hasher::new(algorithm) })
            }
        }
    }

    fn read(&self, mut work: Work, lane: &mut Lane) -> ControlFlow<Verdict, Work> {
        let read = work.candidate.reading.read(&mut lane.buffer);
        if self.checker.progress.is_stopped() {
            return ControlFlow::Break(Verdict::NotReached);
        }
        match read {
            Err(error) => ControlFlow::Break(error.into()),
            Ok(read) => {
                lane.filled = read;
                self.checker.progress.add(0, read as u64);
                ControlFlow::Continue(work)
            }
        }
    }

    /// Judges a blob of which everything is read.
    fn end(&self, work: Work, lane: &Lane) -> ControlFlow<Verdict, Work> {
        if !work.candidate.reading.is_at_end() {
            return ControlFlow::Continue(work);
        }
        let actual = work.hasher.finish(lane.content().1);
        self.begun(self.checker.judge(work.candidate, actual))
    }
}

/// Hashes the whole blocks in both lanes.
fn hash(first: &mut Lane, second: &mut Lane) {
    let (mut one, mut other) = (first.work.take(), second.work.take());
    let (left, right) = (first.content().0, second.content().0);
    match (&mut one, &mut other) {
        (Some(one), Some(other)) => Hasher::update_both([&mut one.hasher, &mut other.hasher], [left, right]),
        (Some(one), None) => one.hasher.update(left),
        (None, Some(other)) => other.hasher.update(right),
        (None, None) => {}
    }
    (first.work, second.work) = (one, other);
}
