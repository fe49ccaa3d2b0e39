//! System calls that no safe crate offers.
//!
//! Guarantees: each function passes only integers, descriptors and names to the kernel. No system call touches the memory
//! of the process, except that [`file_handle`], [`cached_pages`] and [`times_waited`] lend the kernel a buffer. What
//! [`cached_pages`] maps is never read, and unmapped before it returns.

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, IntoRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::os::errno_of;

/// Selects the signal by which the kernel reports a lease break: `F_SETSIG` in Linux's
/// `include/uapi/asm-generic/fcntl.h`, the same on every architecture.
const F_SETSIG: libc::c_int = 10;

/// A lease on an open file (`fcntl(2)`, "Leases").
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lease {
    /// Refused while the file is open through any other descriptor.
    Write,
    /// Refused while the file is open for writing. The descriptor must be open for reading only.
    Read,
    /// No lease.
    Released,
}

/// Takes or releases a lease.
pub(crate) fn set_lease(descriptor: BorrowedFd<'_>, lease: Lease) -> Result<(), Errno> {
    let argument = match lease {
        Lease::Write => libc::F_WRLCK,
        Lease::Read => libc::F_RDLCK,
        Lease::Released => return fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK),
    };
    // Opening the file breaks the lease, and the kernel signals the holder. The default signal, SIGIO,
    // would end the process; SIGURG is ignored by default.
    fcntl(descriptor, F_SETSIG, libc::SIGURG)?;
    fcntl(descriptor, libc::F_SETLEASE, argument)
}

#[expect(unsafe_code, reason = "F_SETSIG and F_SETLEASE are in no safe crate")]
fn fcntl(descriptor: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor stays open while it is borrowed; both commands take an int and touch no
    // memory of this process.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), command, argument) };
    if result == -1 { Err(errno_of(&io::Error::last_os_error())) } else { Ok(()) }
}

/// A file's handle (`name_to_handle_at(2)`, `AT_HANDLE_FID`): only what identifies the file, without the header.
///
/// # Errors
///
/// `EOPNOTSUPP` or `EINVAL` where there are no such handles.
#[expect(unsafe_code, reason = "name_to_handle_at is in no safe crate")]
pub(crate) fn file_handle(directory: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    /// `AT_HANDLE_FID` in Linux's `include/uapi/linux/fcntl.h`.
    const IDENTIFIES_ONLY: libc::c_int = 0x200;
    /// `MAX_HANDLE_SZ` in Linux's `include/uapi/linux/fcntl.h`.
    const MOST: u8 = 128;
    /// `struct file_handle`, with room for the handle.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        content: [u8; MOST as usize],
    }
    let mut handle = Handle { bytes: u32::from(MOST), kind: 0, content: [0; MOST as usize] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the descriptor and the name are valid during the call, and the kernel writes at most `bytes` bytes after
    // the two numbers, for which there is room.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            IDENTIFIES_ONLY,
        )
    };
    if result == -1 {
        return Err(errno_of(&io::Error::last_os_error()));
    }
    let length = usize::try_from(handle.bytes).unwrap_or(0).min(handle.content.len());
    Ok(handle.content[..length].to_vec())
}

/// For each page of a file that begins in the range, whether it is in the page cache (`mincore(2)`). To a user who neither
/// owns the file nor may write to it, the kernel calls every page cached.
///
/// # Errors
///
/// The error of the system call: of `mmap(2)` where a file system does not map files.
#[expect(unsafe_code, reason = "mincore is in no safe crate")]
pub(crate) fn cached_pages(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<Vec<bool>, Errno> {
    let (Ok(offset), Ok(bytes)) =
        (libc::off_t::try_from(range.start), usize::try_from(range.end.saturating_sub(range.start)))
    else {
        return Err(Errno::OVERFLOW);
    };
    let mut pages = vec![0; bytes.div_ceil(rustix::param::page_size())];
    let descriptor = file.as_raw_fd();
    // SAFETY: the kernel chooses an address where nothing is mapped. Nobody may read or write there.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, libc::MAP_PRIVATE, descriptor, offset)
    };
    if address == libc::MAP_FAILED {
        return Err(errno_of(&io::Error::last_os_error()));
    }
    // SAFETY: the kernel writes a byte for each page of the mapping, and there is room for as many.
    let result = unsafe { libc::mincore(address, bytes, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: this is the whole mapping from above, and nothing refers to it.
    unsafe { libc::munmap(address, bytes) };
    if result == -1 { Err(errno_of(&error)) } else { Ok(pages.iter().map(|page| page & 1 != 0).collect()) }
}

/// Closes all descriptors, with one system call for each run of consecutive numbers (`close_range(2)`,
/// Linux 5.9).
#[expect(unsafe_code, reason = "close_range is in no safe crate")]
pub(crate) fn close_all(descriptors: &mut Vec<OwnedFd>) {
    let mut numbers: Vec<RawFd> = descriptors.drain(..).map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|left, right| left + 1 == *right) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        // SAFETY: every descriptor in that range was an `OwnedFd` that this function owned.
        if unsafe { close_range(*first, *last, 0) }.is_err() {
            // SAFETY: each was an `OwnedFd`, and none is closed yet: the call fails before it closes the
            // first.
            run.iter().for_each(|number| drop(unsafe { OwnedFd::from_raw_fd(*number) }));
        }
    }
}

/// How often the calling thread has waited for anything but a core, such as a disk or a lock (`getrusage(2)`,
/// `ru_nvcsw`); `None` if the kernel does not tell.
#[expect(unsafe_code, reason = "rustix has no getrusage")]
pub(crate) fn times_waited() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage` into the buffer.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: all zeroes, as before the call, are a valid `rusage` too.
    let usage = unsafe { usage.assume_init() };
    (result == 0).then(|| u64::try_from(usage.ru_nvcsw).unwrap_or_default())
}

/// A private descriptor table of one thread.
///
/// On drop it closes all descriptors but the standard streams. Otherwise a lock on a directory could
/// outlive the thread: a thread can be joined before the kernel has closed its descriptors.
#[derive(Debug)]
pub(crate) struct OwnDescriptors(());

impl OwnDescriptors {
    /// Gives the calling thread a private descriptor table in which only the standard streams and `kept`
    /// are open.
    ///
    /// Descriptors that the thread opens then get consecutive numbers, and no other thread contends for
    /// the table's lock. Returns `None` if the kernel refuses; the thread then keeps the shared table.
    ///
    /// Call this on a newly started thread and drop the result last. The thread must own no descriptor,
    /// use only `kept` and descriptors that it opens itself, and pass none to another thread.
    #[expect(unsafe_code, reason = "close_range is in no safe crate")]
    pub(crate) fn enter(kept: &[BorrowedFd<'_>]) -> Option<Self> {
        let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).chain([0, 1, 2]).collect();
        kept.sort_unstable();
        let above = kept.last().map_or(0, |last| last + 1);
        // SAFETY: the process has another thread, which started this one, so this thread gets a copy of
        // the table. Descriptors from `above` on are not even copied.
        unsafe { close_range(above, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE) }.ok()?;
        let own = Self(());
        for pair in kept.windows(2).filter(|pair| pair[0] + 1 < pair[1]) {
            // SAFETY: these are copies that nothing in this thread knows of. If one stays open, nothing
            // uses it.
            let _ = unsafe { close_range(pair[0] + 1, pair[1] - 1, 0) };
        }
        Some(own)
    }
}

impl Drop for OwnDescriptors {
    #[expect(unsafe_code, reason = "close_range is in no safe crate")]
    fn drop(&mut self) {
        // SAFETY: the table is private to this thread, and the thread uses no descriptor after this
        // drop.
        let _ = unsafe { close_range(3, RawFd::MAX, 0) };
    }
}

/// # Safety
///
/// After the call, no thread that shares the table may use a descriptor in that range.
#[expect(unsafe_code, reason = "close_range is in no safe crate")]
unsafe fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the caller guarantees the above; the call takes three ints and touches no memory of the
    // process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == -1 { Err(errno_of(&io::Error::last_os_error())) } else { Ok(()) }
}

/// The core that the calling thread runs on; `None` if the kernel does not report it
/// (`sched_getcpu(3)`).
#[expect(unsafe_code, reason = "the safe crate's call does not tell of its failure")]
pub(crate) fn current_core() -> Option<usize> {
    // SAFETY: the call takes no arguments and touches no memory of the process.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// While it lives, the thread that began it, and threads that it starts, get access to the disk only when no other
/// process needs it (`ioprio_set(2)`, class idle). On drop, that thread gets back what it had.
#[derive(Debug)]
pub struct IdleIo {
    before: libc::c_long,
    /// A priority belongs to a thread.
    _not_send: PhantomData<*const ()>,
}

impl IdleIo {
    /// Begins with the calling thread.
    ///
    /// # Errors
    ///
    /// The error of the system call.
    pub fn begin() -> io::Result<Self> {
        const CLASS_IDLE: libc::c_long = 3 << 13;
        let before = io_priority(libc::SYS_ioprio_get, 0)?;
        io_priority(libc::SYS_ioprio_set, CLASS_IDLE)?;
        Ok(Self { before, _not_send: PhantomData })
    }
}

impl Drop for IdleIo {
    fn drop(&mut self) {
        // Going back to a priority that the thread had is always allowed, or harmless to miss: then it stays idle.
        let _ = io_priority(libc::SYS_ioprio_set, self.before);
    }
}

/// Asks for the I/O priority of the calling thread, or sets it.
#[expect(unsafe_code, reason = "ioprio_get and ioprio_set are in no safe crate")]
fn io_priority(call: libc::c_long, priority: libc::c_long) -> io::Result<libc::c_long> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the calls take at most three ints and touch no memory of this process.
    let result = unsafe { libc::syscall(call, WHO_PROCESS, 0, priority) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The lease on a file; while somebody waits for it, what it is to become (`fcntl(2)`, `F_GETLEASE`).
#[expect(unsafe_code, reason = "F_GETLEASE is in no safe crate")]
pub(crate) fn lease_target(descriptor: BorrowedFd<'_>) -> libc::c_int {
    // SAFETY: as in `fcntl`.
    unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETLEASE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::process::Command;
    use std::thread;

    use rustix::fs::{FlockOperation, flock};

    /// The descriptors of the calling thread, except the one used for listing them.
    fn open_descriptors() -> Vec<RawFd> {
        let numbers = fs::read_dir("/proc/thread-self/fd").unwrap();
        let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let mut numbers: Vec<RawFd> = numbers.collect();
        numbers.sort_unstable();
        numbers.retain(|number| fs::read_link(format!("/proc/thread-self/fd/{number}")).is_ok());
        numbers
    }

    #[test]
    fn a_thread_is_idle_only_as_long_as_it_says() {
        thread::spawn(|| {
            let now = || io_priority(libc::SYS_ioprio_get, 0).unwrap();
            let before = now();
            let idle = IdleIo::begin().unwrap();
            assert_eq!((now() >> 13, thread::scope(|scope| scope.spawn(now).join().unwrap()) >> 13), (3, 3));
            drop(idle);
            assert_eq!(now(), before);
        })
        .join()
        .unwrap();
    }

    fn open() -> OwnedFd {
        File::open("/proc/self/status").unwrap().into()
    }

    #[test]
    fn a_thread_keeps_what_it_asked_for_and_the_others_keep_all() {
        let (kept, dropped) = ([open(), open()], [open(), open()]);
        let after = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _own = OwnDescriptors::enter(&[kept[1].as_fd(), kept[0].as_fd()]).unwrap();
                open_descriptors()
            });
            thread.join().unwrap()
        });
        let mut expected = vec![0, 1, 2, kept[0].as_raw_fd(), kept[1].as_raw_fd()];
        expected.sort_unstable();
        assert_eq!(after, expected);
        for descriptor in kept.iter().chain(&dropped) {
            assert!(rustix::fs::fstat(descriptor).is_ok(), "{descriptor:?} is closed");
        }
    }

    #[test]
    fn all_are_closed_and_nothing_else() {
        let work = || {
            let _own = OwnDescriptors::enter(&[]).unwrap();
            let mut opened: Vec<_> = (0..7).map(|_| open()).collect();
            let others = [opened.remove(5), opened.remove(2)];
            close_all(&mut opened);
            assert!(opened.is_empty());
            let mut expected = vec![0, 1, 2, others[0].as_raw_fd(), others[1].as_raw_fd()];
            expected.sort_unstable();
            assert_eq!(open_descriptors(), expected);
        };
        thread::spawn(work).join().unwrap();
    }

    /// Runs in a separate process: here, a program that another test starts could hold the lock for a
    /// moment.
    #[test]
    fn a_lock_does_not_outlive_the_work() {
        const ALONE: &str = "OCI_CACHE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "os::sys::tests::a_lock_does_not_outlive_the_work"]).env(ALONE, "1");
            let output = alone.output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        for round in 0..500 {
            let locked = OwnedFd::from(File::open(directory.path()).unwrap());
            let done = flock(&locked, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(done, Ok(()), "round {round}");
            thread::scope(|scope| {
                scope.spawn(|| drop(OwnDescriptors::enter(&[locked.as_fd()]).unwrap()));
            });
        }
    }
}
