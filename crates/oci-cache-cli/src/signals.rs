//! SIGINT and SIGTERM: the first one asks the work to stop, the second ends the process. SIGXFSZ
//! does nothing: the write that it comes with fails, and is reported like any other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::exit::Exit;

/// From now on, a write beyond the limit on file sizes (`RLIMIT_FSIZE`, `setrlimit(2)`) fails with `EFBIG`.
pub fn outlive_size_limit() {
    // A handler that sets a flag nobody reads: unlike an ignored signal, it does not pass on to the programs
    // that this one starts. Should it be refused, the signal ends the process as it would without it.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Watches for the signals.
#[derive(Debug)]
pub struct Signals {
    /// The signal that came, or 0.
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on, a signal sets `stop`.
    ///
    /// # Errors
    ///
    /// If the signals cannot be watched for.
    pub fn watch(stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15)] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
            flag::register(signal, Arc::clone(stop))?;
            flag::register_usize(signal, Arc::clone(&received), number)?;
        }
        Ok(Self { received })
    }

    /// The exit for the signal that came, if one did.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match u8::try_from(self.received.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => None,
            Ok(signal) => Some(Exit::Signalled(signal)),
        }
    }
}
