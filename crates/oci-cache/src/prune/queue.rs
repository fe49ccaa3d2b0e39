//! The queue of blobs to be removed, shared by the threads of a removal.
//!
//! Guarantees: each blob is taken once. One thread takes all hard links of a file: a second descriptor
//! on another thread would look like a user of the file. A large file is a batch of its own, so that no
//! other file waits for its close.

use std::sync::{Mutex, PoisonError};

use crate::cache::inventory::Tree;

/// Maximum number of blobs that a thread takes at a time; further hard links of the last file may exceed
/// it.
pub(crate) const BATCH: usize = 32;
/// The kernel may take longer to free a file of this size on disk than a thread takes to start.
const LARGE_BYTES: u64 = 1 << 20;

/// The blobs of a tree that are to be removed.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    tree: &'a Tree,
    doomed: Vec<usize>,
    /// The number of blobs taken so far.
    taken: Mutex<usize>,
}

impl<'a> Queue<'a> {
    /// A queue of the blobs of `tree` at the indexes `doomed`.
    pub(crate) fn new(tree: &'a Tree, mut doomed: Vec<usize>) -> Self {
        // In this order, directory blocks and inodes are accessed in disk order, each of them once.
        doomed.sort_unstable_by_key(|index| tree.blobs[*index].inode);
        Self { tree, doomed, taken: Mutex::new(0) }
    }

    /// How many worker threads pay off; 0 if the caller alone is as fast.
    pub(crate) fn worthwhile_threads(&self) -> usize {
        let large = self.large();
        match large + (self.doomed.len() - large) / (2 * BATCH) {
            1 => 0,
            parts => parts,
        }
    }

    /// How many of the blobs are large.
    pub(crate) fn large(&self) -> usize {
        self.doomed.iter().filter(|index| self.is_large(**index)).count()
    }

    /// Takes the next blobs, about `count`; returns none if the queue is empty.
    pub(crate) fn take(&self, count: usize) -> &[usize] {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = &self.doomed[*taken..];
        let mut end = 0;
        for names in self.files(left) {
            let is_large = self.is_large(names[0]);
            if end > 0 && is_large {
                break;
            }
            end += names.len();
            if is_large || end >= count {
                break;
            }
        }
        *taken += end;
        &left[..end]
    }

    /// Groups the blobs by the file that they are names of.
    pub(crate) fn files<'b>(&self, blobs: &'b [usize]) -> impl Iterator<Item = &'b [usize]> {
        let inode = |index: &usize| self.tree.blobs[*index].inode;
        blobs.chunk_by(move |left, right| inode(left) == inode(right))
    }

    fn is_large(&self, index: usize) -> bool {
        self.tree.blobs[index].disk_bytes >= LARGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::digest::{Algorithm, Digest, Spelling};
    use crate::cache::inventory::Blob;
    use crate::os::status::Timestamp;

    fn blob(inode: u64, disk_bytes: u64) -> Blob {
        Blob {
            digest: Digest::from_hex(Algorithm::Sha256, &[b'0'; 64]).unwrap(),
            size_bytes: disk_bytes,
            disk_bytes,
            modified: Timestamp(0),
            accessed: Timestamp(0),
            changed: Timestamp(0),
            inode,
            links: 1,
            directory: 0,
            spelling: Spelling::Nested,
            is_lower: false,
        }
    }

    #[test]
    fn a_file_is_not_divided_and_a_large_one_stands_alone() {
        let sizes = [(5, 1), (3, LARGE_BYTES), (4, 1), (1, 1), (2, 1), (2, 1), (9, LARGE_BYTES - 1)];
        let tree = Tree { blobs: sizes.map(|(inode, size)| blob(inode, size)).into(), ..Tree::default() };
        let queue = Queue::new(&tree, (0..tree.blobs.len()).collect());
        let take = || {
            let inodes = queue.take(2).iter().map(|index| tree.blobs[*index].inode);
            inodes.collect::<Vec<_>>()
        };
        let batches: Vec<_> = (0..5).map(|_| take()).collect();
        assert_eq!(batches, [vec![1, 2, 2], vec![3], vec![4, 5], vec![9], vec![]]);
    }

    #[test]
    fn threads_start_for_large_files_or_many() {
        let threads = |small: usize, large: usize| {
            let small = (0..small).map(|_| blob(1, 1));
            let blobs = small.chain((0..large).map(|_| blob(2, LARGE_BYTES))).collect();
            let tree = Tree { blobs, ..Tree::default() };
            Queue::new(&tree, (0..tree.blobs.len()).collect()).worthwhile_threads()
        };
        assert_eq!([threads(0, 0), threads(4 * BATCH - 1, 0), threads(0, 1)], [0, 0, 0]);
        assert_eq!([threads(4 * BATCH, 0), threads(5, 3)], [2, 3]);
    }
}
