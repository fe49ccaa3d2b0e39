//! A proxy that delays requests, as if the registry were far away.
//!
//! Guarantees: all bytes arrive unchanged and in order. Each piece of a request is delayed by the response
//! time of a distant registry, or of one that is slow. Without a delay there is almost no time between two
//! steps of a pull, so prunes would hardly ever run between them.
//!
//! What it does not guarantee: limited bandwidth. Responses are not delayed.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::RngExt as _;

use crate::kit::random::random;

const MIN_MILLISECONDS: u64 = 20;
/// Longer than a prune looks for pulls, so that pulls are silent for longer than that.
const MAX_MILLISECONDS: u64 = 700;

/// The end that clients connect to.
#[derive(Debug)]
pub(crate) struct Distance {
    address: SocketAddr,
    is_closed: Arc<AtomicBool>,
    doorkeeper: Option<JoinHandle<()>>,
}

impl Distance {
    /// Starts a proxy to the loopback port `registry_port`.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    pub(crate) fn to(registry_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&is_closed);
        let doorkeeper = thread::spawn(move || {
            for near in listener.incoming() {
                if closed.load(Ordering::Relaxed) {
                    break;
                }
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, registry_port));
                // The client sees a broken connection, and its pull fails.
                let _ = near.and_then(|near| join(near, far?));
            }
        });
        Ok(Self { address, is_closed, doorkeeper: Some(doorkeeper) })
    }

    /// The port that clients connect to.
    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // The thread checks the flag at the next connection.
        if TcpStream::connect(self.address).is_ok()
            && let Some(doorkeeper) = self.doorkeeper.take()
        {
            let _ = doorkeeper.join();
        }
    }
}

/// Connects both ends. When one closes, so does the other.
fn join(near: TcpStream, far: TcpStream) -> io::Result<()> {
    let (near_too, far_too) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || carry(near, far, || random().random_range(MIN_MILLISECONDS..=MAX_MILLISECONDS)));
    thread::spawn(move || carry(far_too, near_too, || 0));
    Ok(())
}

/// Copies `from` one end `to` the other, and delays each piece.
fn carry(mut from: TcpStream, mut to: TcpStream, milliseconds: impl Fn() -> u64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        thread::sleep(Duration::from_millis(milliseconds()));
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_is_sent_arrives_later() {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let distance = Distance::to(far.local_addr().unwrap().port()).unwrap();
        let start = Instant::now();
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, distance.port())).unwrap();
        near.write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (mut connection, _) = far.accept().unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        assert!(start.elapsed() >= Duration::from_millis(MIN_MILLISECONDS));
        connection.write_all(b"answer").unwrap();
        drop(connection);
        text.clear();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        drop(distance);
    }
}
