//! Makes the socket.
//!
//! Guarantees: from its first moment, only the server's own user can connect. A socket that an earlier run left is
//! replaced. A socket on which somebody listens, and anything else at its path, stays, and the server does not start.
//! Two servers that start at once do not replace each other's socket: each must hold the lock beside it, `<socket>.lock`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::umask;

/// Makes the socket. It is in use as long as the lock is held.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, File)> {
    let lock = lock(path)?;
    if is_stale(path)? {
        rustix::fs::unlink(path)?;
    }
    // No other thread runs yet, so none makes a file meanwhile.
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    umask(before);
    Ok((listener?, lock))
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = File::from(rustix::fs::open(name, flags, Mode::RUSR | Mode::WUSR)?);
    lock.try_lock().map_err(|_| in_use("another server holds the socket's lock"))?;
    Ok(lock)
}

/// Whether there is a socket on which nobody listens.
fn is_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
            _ => Err(in_use("another server listens on the socket")),
        },
        Ok(_) => Err(in_use("what is at the socket's path is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}
