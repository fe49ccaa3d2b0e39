//! Reads a file from its beginning to its end, and leaves the page cache as it was.
//!
//! Guarantees: pages that were cached before stay cached. Other pages are dropped again: in pieces while the file is read,
//! and once more at the end, also at an early one. So a file larger than the memory pushes nothing else out of it.
//!
//! What it does not guarantee: exactness where `mincore(2)` tells nothing, as to a user who neither owns the file nor may write to
//! it, or under a filter of system calls. Then a window of 256 KiB stays cached if its first or its last page was. After an
//! early end, what the kernel was still reading stays. A page that the kernel moves within the memory just when it is asked for
//! seems not to be cached, and is dropped.
//!
//! How it is fast: the kernel reads ahead of the reader, and is left to it. What is cached is asked for much at a time, and
//! dropped much at a time. Of a small file, one probe by a read that does not wait is cheaper.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};

use crate::os::quiet_read::{drop_pages, is_cached};
use crate::os::sys::cached_pages;

/// What is asked for at a time, in bytes.
const SPAN_BYTES: u64 = 32 << 20;
/// How far ahead of the reader it is asked for: further than the kernel reads ahead.
const AHEAD_BYTES: u64 = 2 * SPAN_BYTES;
/// What is probed at a time, in bytes, where the kernel does not tell.
const WINDOW_BYTES: u64 = 256 << 10;
/// Maximum number of ranges to remember of a file of which parts are cached.
const MOST_RANGES: usize = 1 << 16;
/// What is dropped at a time, in bytes. The kernel keeps parts of a large folio, so a piece begins where the largest would.
const PIECE_BYTES: u64 = 4 << 20;

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct ReadThrough {
    file: File,
    end: u64,
    position: u64,
    /// Up to where it is known what was cached.
    known_to: u64,
    /// Whole pages that were not cached, in order.
    uncached: Vec<Range<u64>>,
    /// Up to where they were dropped again.
    dropped_to: u64,
}

impl ReadThrough {
    /// Begins to read the first `size_bytes` of a file.
    pub(crate) const fn new(file: File, size_bytes: u64) -> Self {
        Self { file, end: size_bytes, position: 0, known_to: 0, uncached: Vec::new(), dropped_to: 0 }
    }

    /// Begins again from the beginning.
    pub(crate) const fn restart(&mut self, size_bytes: u64) {
        self.end = size_bytes;
        self.position = 0;
        self.dropped_to = 0;
    }

    /// The file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Fills the buffer, and returns how many bytes were read. There are fewer only at the end.
    ///
    /// # Errors
    ///
    /// The error of the system call.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.look_ahead();
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let mut filled = 0;
        while filled < wanted {
            let rest = &mut buffer[filled..wanted];
            let read =
                rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut *rest, self.position))?;
            if read == 0 {
                self.end = self.position;
                break;
            }
            filled += read;
            self.position += read as u64;
        }
        self.drop_read();
        Ok(filled)
    }

    /// Whether everything was read.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.position == self.end
    }

    fn look_ahead(&mut self) {
        let page_bytes = rustix::param::page_size() as u64;
        // A range begins where a page does, also after a new beginning with another size.
        let end = self.end.next_multiple_of(page_bytes);
        while self.known_to < end.min(self.position.saturating_add(AHEAD_BYTES)) {
            let span = self.known_to..end.min(self.known_to.saturating_add(SPAN_BYTES));
            self.known_to = span.end;
            match self.cached_pages(&span) {
                Some(pages) => self.note(span.start, &pages, page_bytes),
                None => self.probe(&span),
            }
        }
    }

    /// For each page, whether it is cached; `None` if the kernel does not tell, or if a probe is cheaper.
    fn cached_pages(&self, span: &Range<u64>) -> Option<Vec<bool>> {
        if self.end <= WINDOW_BYTES {
            return None;
        }
        let pages = cached_pages(self.file.as_fd(), span).ok()?;
        // So it answers users whom it does not tell.
        let is_doubtful = pages.iter().all(|is_cached| *is_cached);
        (!is_doubtful || is_cached(&self.file, span.start)).then_some(pages)
    }

    fn note(&mut self, mut start: u64, pages: &[bool], page_bytes: u64) {
        for run in pages.chunk_by(|page, next| page == next) {
            let end = start + run.len() as u64 * page_bytes;
            if run.first() == Some(&false) {
                self.uncached.push(start..end);
            }
            start = end;
        }
    }

    fn probe(&mut self, span: &Range<u64>) {
        let mut start = span.start;
        while start < span.end {
            let end = span.end.min(start.saturating_add(WINDOW_BYTES));
            if !is_cached(&self.file, start) && !is_cached(&self.file, self.end.min(end).saturating_sub(1)) {
                self.uncached.push(start..end);
            }
            start = end;
        }
    }

    fn drop_read(&mut self) {
        let is_over = self.is_at_end();
        let to = if is_over { u64::MAX } else { self.position / PIECE_BYTES * PIECE_BYTES };
        if to > self.dropped_to {
            self.drop_between(self.dropped_to, to);
            self.dropped_to = to;
            if self.uncached.len() > MOST_RANGES {
                self.uncached.retain(|range| range.end > to);
            }
        }
    }

    fn drop_between(&self, from: u64, to: u64) {
        let first = self.uncached.partition_point(|range| range.end <= from);
        for range in self.uncached[first..].iter().take_while(|range| range.start < to) {
            drop_pages(&self.file, range.start.max(from), range.end.min(to));
        }
    }
}

impl Drop for ReadThrough {
    /// What the kernel was still reading when its turn came is dropped now, and what it read in vain.
    fn drop(&mut self) {
        let is_dropped_at_once = self.is_at_end() && self.end <= PIECE_BYTES;
        if !is_dropped_at_once {
            self.drop_between(0, u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;
    use std::thread::sleep;
    use std::time::Duration;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    const SIZE: u64 = 3 * SPAN_BYTES + 4097;

    /// A file of which these ranges are cached: elsewhere than in /tmp, which may be a tmpfs, where all is cached always.
    fn file(cached: &[Range<u64>]) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = directory.path().join("file");
        let mut file = File::create(&path).unwrap();
        let content: Vec<u8> = (0..SIZE).map(|at| (at / 64 * 31).to_le_bytes()[0]).collect();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        let file = File::open(&path).unwrap();
        drop_pages(&file, 0, SIZE);
        // Without this, the kernel reads more than is wanted.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        for range in cached {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            file.read_exact_at(&mut bytes, range.start).unwrap();
        }
        fadvise(&file, 0, None, Advice::Normal).unwrap();
        (directory, file)
    }

    fn pages(file: &File) -> Vec<bool> {
        cached_pages(file.as_fd(), &(0..SIZE)).unwrap()
    }

    /// Checks that no page came into the page cache, and that at most one of twenty went: one that the kernel moves within the
    /// memory just when it is asked for seems not to be cached.
    fn assert_unchanged(before: &[bool], after: &[bool]) {
        let changed = |is_cached: bool| {
            let pages = before.iter().zip(after).enumerate();
            let pages = pages.filter(|(_, (then, now))| then != now && **now == is_cached);
            pages.map(|(page, _)| page).collect::<Vec<_>>()
        };
        assert_eq!(changed(true), [0; 0], "pages that came");
        let gone = changed(false);
        assert!(gone.len() <= before.len() / 20, "{} pages went, from {:?} on", gone.len(), gone.first());
    }

    /// Checks that most of what was read was dropped on the way, and not only at the end.
    fn assert_mostly_dropped(before: &[bool], now: &[bool]) {
        let came = before.iter().zip(now).filter(|(then, now)| !**then && **now).count();
        assert!(came <= before.len() / 4, "{came} pages");
    }

    /// Reads on to the end.
    fn rest_of(reading: &mut ReadThrough) -> Vec<u8> {
        let (mut content, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while !reading.is_at_end() {
            let read = reading.read(&mut buffer).unwrap();
            content.extend_from_slice(&buffer[..read]);
        }
        content
    }

    #[test]
    fn what_is_read_is_the_content_and_the_page_cache_stays() {
        let edges = [0..4096, SPAN_BYTES - 4096..SPAN_BYTES + 8192, 40_000_000..50_000_000, SIZE - 1..SIZE];
        for cached in [&[][..], &edges, std::slice::from_ref(&(0..SIZE))] {
            let (directory, file) = file(cached);
            let expected = || fs::read(directory.path().join("file")).unwrap();
            let before = pages(&file);
            let mut reading = ReadThrough::new(file.try_clone().unwrap(), SIZE);
            let content = rest_of(&mut reading);
            // It was dropped on the way, but for what the kernel was still busy with.
            let [then, now] =
                [&before, &pages(&file)].map(|pages| pages.iter().filter(|page| **page).count());
            assert!(now - then <= before.len() / 4, "{cached:?}: {then} pages, then {now}");
            drop(reading);
            assert_unchanged(&before, &pages(&file));
            assert!(content == expected());
        }
    }

    #[test]
    fn it_begins_again_and_the_page_cache_stays() {
        let (directory, file) = file(&[]);
        let before = pages(&file);
        let mut reading = ReadThrough::new(file.try_clone().unwrap(), SIZE);
        let first = rest_of(&mut reading);
        reading.restart(SIZE);
        let second = rest_of(&mut reading);
        assert_mostly_dropped(&before, &pages(&file));
        drop(reading);
        assert_unchanged(&before, &pages(&file));
        let expected = fs::read(directory.path().join("file")).unwrap();
        assert!(first == expected && second == expected);
    }

    #[test]
    fn a_file_that_has_grown_is_known_to_its_new_end() {
        let (_directory, file) = file(&[]);
        let mut reading = ReadThrough::new(file, 5000);
        assert_eq!(rest_of(&mut reading).len(), 5000);
        reading.restart(SIZE);
        assert_eq!(rest_of(&mut reading).len() as u64, SIZE);
        // All but what the kernel read ahead of the first end, where that is possible at all.
        let known: u64 = reading.uncached.iter().map(|range| range.end - range.start).sum();
        assert!(known == 0 || known > SIZE / 2, "{known} of {SIZE} bytes");
    }

    #[test]
    fn an_early_end_leaves_nothing_behind() {
        let (_directory, file) = file(&[]);
        let before = pages(&file);
        let mut reading = ReadThrough::new(file.try_clone().unwrap(), SIZE);
        assert_eq!(reading.read(&mut vec![0; 300_000]).unwrap(), 300_000);
        // Until the kernel has read ahead.
        for _ in 0..100 {
            let seen = pages(&file);
            sleep(Duration::from_millis(100));
            if pages(&file) == seen {
                break;
            }
        }
        drop(reading);
        assert_unchanged(&before, &pages(&file));
    }

    #[test]
    fn a_file_that_shrinks_ends_and_one_that_grows_does_too() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        for (size, expected) in [(20_000, 10_000), (3000, 3000), (0, 0)] {
            let mut reading = ReadThrough::new(file.try_clone().unwrap(), size);
            assert_eq!(reading.read(&mut vec![0; 30_000]).unwrap(), expected);
            assert!(reading.is_at_end());
            assert_eq!(reading.read(&mut vec![0; 30_000]).unwrap(), 0);
        }
    }
}
