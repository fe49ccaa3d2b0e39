//! The one place that reads the clock.

use std::time::SystemTime;

use oci_cache::Timestamp;

/// The time.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
