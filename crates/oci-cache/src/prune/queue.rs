//! What the threads of a removal have still to take.
//!
//! Guarantees: each blob is taken once. All names of one file fall to one thread: a second descriptor of the file,
//! on another thread, would look like somebody using it. A large file is a batch of its own, so that no other
//! waits for its close.

use std::sync::{Mutex, PoisonError};

use crate::cache::inventory::Tree;

/// How many blobs a thread takes at a time, at most, but for further names of the last.
pub(crate) const BATCH: usize = 32;
/// From this size on disk on, the kernel may free a file for longer than a thread takes to start.
const LARGE_BYTES: u64 = 1 << 20;

/// The blobs of a tree that are to go.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    tree: &'a Tree,
    doomed: Vec<usize>,
    /// How many of them are taken.
    taken: Mutex<usize>,
}

impl<'a> Queue<'a> {
    /// All blobs of `tree` at the indexes `doomed`.
    pub(crate) fn new(tree: &'a Tree, mut doomed: Vec<usize>) -> Self {
        // Directory blocks and inodes are then touched in the order of the disk, each once.
        doomed.sort_unstable_by_key(|index| tree.blobs[*index].inode);
        Self { tree, doomed, taken: Mutex::new(0) }
    }

    /// How many threads are worth their start: none, where one that is there already is as fast.
    pub(crate) fn worthwhile_threads(&self) -> usize {
        let large = self.doomed.iter().filter(|index| self.is_large(**index)).count();
        match large + (self.doomed.len() - large) / (2 * BATCH) {
            1 => 0,
            parts => parts,
        }
    }

    /// The next blobs, about `count`; none if none are left.
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

    /// The blobs, taken apart by the file that they are names of.
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
