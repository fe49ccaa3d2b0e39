//! Handles signals. The first SIGINT or SIGTERM asks the work to stop; the second ends the process. SIGXFSZ
//! has no effect: the write that caused it fails, and is reported like any other failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
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
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15)] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
            flag::register(signal, Arc::clone(stop))?;
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
