//! One client's connection: reads and writes lines.
//!
//! Guarantees: a line counts only with its newline. Nothing after a line that is too long is read as another one.
//! Reading a line, and writing one, ends by a deadline, however many bytes arrive meanwhile. When a connection ends, the
//! client can still read what was written to it.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a client may take to send a request, and to receive the response.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request, in bytes, without its newline.
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;

/// What a client sent.
pub(crate) enum Line {
    /// A line, without its newline.
    Whole(Vec<u8>),
    /// More than [`MAX_REQUEST_BYTES`] without a newline. No further line can be read.
    TooLong,
    /// Nothing more. A line that has begun is dropped: it may be the first part of another request.
    End,
}

/// A connection to a client.
pub(crate) struct Connection {
    stream: UnixStream,
    /// What was received and not yet returned.
    received: Vec<u8>,
}

impl Connection {
    pub(crate) const fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Waits for the next line.
    pub(crate) fn next_line(&mut self) -> io::Result<Line> {
        let deadline = Instant::now() + PATIENCE;
        let mut searched = 0;
        loop {
            let newline = self.received[searched..].iter().position(|byte| *byte == b'\n');
            let length = newline.map_or(self.received.len(), |newline| searched + newline);
            if length > MAX_REQUEST_BYTES {
                return Ok(Line::TooLong);
            }
            if newline.is_some() {
                let rest = self.received.split_off(length + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.truncate(length);
                return Ok(Line::Whole(line));
            }
            searched = length;
            let mut block = [0; 8192];
            self.stream.set_read_timeout(Some(time_left(deadline)?))?;
            match self.stream.read(&mut block) {
                Ok(0) => return Ok(Line::End),
                Ok(length) => self.received.extend_from_slice(&block[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a line.
    pub(crate) fn write_line(&mut self, content: &impl ToString) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut line = content.to_string().into_bytes();
        line.push(b'\n');
        let mut unsent = &line[..];
        while !unsent.is_empty() {
            self.stream.set_write_timeout(Some(time_left(deadline)?))?;
            match self.stream.write(unsent) {
                Ok(sent) => unsent = &unsent[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    /// Receives no more, and throws away what was already received: if that stayed unread, the client would see an error
    /// before the end of the last response.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }
}

/// The time until the deadline; an error once it has passed.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
