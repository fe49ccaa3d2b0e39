//! Embeds the library: a JSON-RPC 2.0 server on a Unix socket with the method `image.cache.prune`.
//!
//! ```console
//! $ cargo run --example json_rpc_server -- /run/oci-cache.sock /var/cache/banger/oci
//! $ echo '{"jsonrpc":"2.0","id":1,"method":"image.cache.prune","params":{"dry_run":true,"older_than_seconds":604800}}' |
//!       socat -t 60 - /run/oci-cache.sock
//! ```
//!
//! Guarantees: only the server's own user can connect. Each request is one line, and so is each response. A line that is
//! too long, or has no end, is not carried out and ends the connection. A client that is slow or silent holds up nobody
//! but, once there are [`MAX_CONNECTIONS`] connections, those that wait for their turn; it is cut off after
//! [`connection::PATIENCE`].

mod connection;
mod request;
mod socket;

use std::error::Error;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::connection::{Connection, Line, MAX_REQUEST_BYTES};

/// How many connections are served at a time. Further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 16;
/// How long to wait if no connection can be accepted, because descriptors or memory are used up.
const UNTIL_SOME_ARE_FREE: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(cache_dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: json_rpc_server SOCKET CACHE_DIR".into());
    };
    let (listener, _lock) = socket::bind(Path::new(&socket))?;
    thread::scope(|scope| {
        let work = || serve_one_after_another(&listener, Path::new(&cache_dir));
        for _ in 1..MAX_CONNECTIONS {
            // If no more threads can be started, fewer connections are served at a time.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    Ok(())
}

/// What each thread does.
fn serve_one_after_another(listener: &UnixListener, cache_dir: &Path) {
    loop {
        match listener.accept() {
            // A client that disconnects, or is cut off, is no reason to end.
            Ok((stream, _)) => drop(serve(Connection::new(stream), cache_dir)),
            Err(_) => thread::sleep(UNTIL_SOME_ARE_FREE),
        }
    }
}

fn serve(mut connection: Connection, cache_dir: &Path) -> std::io::Result<()> {
    loop {
        match connection.next_line()? {
            Line::Whole(line) => {
                if let Some(response) = request::respond(&line, cache_dir) {
                    connection.write_line(&response)?;
                }
            }
            Line::TooLong => {
                let why = format!("a line of more than {MAX_REQUEST_BYTES} bytes");
                return connection.write_line(&request::invalid(&why));
            }
            Line::End => return Ok(()),
        }
    }
}
