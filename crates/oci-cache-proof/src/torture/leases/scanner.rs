//! A scanner. It is a role of this program.
//!
//! Guarantees: as every virus scanner does, it gets a descriptor of each file of a mount that anybody opens, looks at
//! the file, allows the open, and only then closes its descriptor.
//!
//! Source: `fanotify(7)`, `FAN_OPEN_PERM`.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};

/// Between the answer and the close.
const DELAY: Duration = Duration::from_micros(200);

/// Scans until it is killed. The arguments are the mount, and the file that gets a byte for each open.
pub(crate) fn scan(words: &[&str]) -> anyhow::Result<()> {
    let [mount, events] = words else { bail!("a scanner takes two words: {words:?}") };
    let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
    let scanner = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE)
        .context("start to scan (`fanotify_init`)")?;
    let here = File::open(mount).with_context(|| format!("open {mount}"))?;
    let mark = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT;
    scanner.mark(mark, MaskFlags::FAN_OPEN_PERM, here.as_fd(), Some("."))?;
    let mut seen = File::create(events).with_context(|| format!("create {events}"))?;
    loop {
        for event in scanner.read_events().context("read the events")? {
            if let Some(file) = event.fd() {
                scanner.write_response(FanotifyResponse::new(file, Response::FAN_ALLOW))?;
                thread::sleep(DELAY);
                seen.write_all(b".").context("count an open")?;
            }
        }
    }
}
