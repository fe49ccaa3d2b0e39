//! Handles signals. The first SIGINT, SIGTERM, SIGHUP or SIGXCPU asks the work to stop. After that, SIGINT and SIGTERM
//! end the process; the other two do not, because both come again by themselves: from the shell as well as the terminal,
//! and with every second of processor time. A SIGHUP that is ignored at the start, as under `nohup`, stays ignored.
//! SIGXFSZ has no effect: the write that caused it fails, and is reported like any other failure.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU, SIGXFSZ};
use signal_hook::flag;

use crate::exit::Exit;

/// Makes writes beyond the file size limit (`RLIMIT_FSIZE`, `setrlimit(2)`) fail with `EFBIG` from now on.
pub fn outlive_size_limit() {
    // The handler sets a flag that nobody reads. Unlike an ignored signal, a handler is not inherited by
    // child processes. If it cannot be registered, the signal ends the process as usual.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Watches for the signals.
#[derive(Debug)]
pub struct Signals {
    /// The signal that was received, or 0.
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Makes a signal set `stop` from now on.
    ///
    /// # Errors
    ///
    /// If the handlers cannot be registered.
    pub fn watch(stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        }
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM, SIGXCPU].into_iter().chain(hangup) {
            flag::register(signal, Arc::clone(stop))?;
            let number = usize::try_from(signal).map_err(io::Error::other)?;
            flag::register_usize(signal, Arc::clone(&received), number)?;
        }
        Ok(Self { received })
    }

    /// The exit for the signal that was received, if any.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match u8::try_from(self.received.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => None,
            Ok(signal) => Some(Exit::Signalled(signal)),
        }
    }
}

/// Whether this process ignores the signal, or if that cannot be known.
fn is_ignored(signal: c_int) -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| has_ignored(&status, signal))
        .unwrap_or(true)
}

/// Whether the signal is in the mask of ignored ones in a `/proc/self/status`; see `proc_pid_status(5)`.
fn has_ignored(status: &str, signal: c_int) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals() {
        let status = "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n";
        let ignored = [SIGHUP, SIGINT, 13, SIGXCPU].map(|signal| has_ignored(status, signal));
        assert_eq!(ignored, [true, false, true, false].map(Some));
        assert_eq!(has_ignored("", SIGHUP), None);
    }
}
