//! Embeds the library: a JSON-RPC 2.0 server on a Unix socket with the method `image.cache.prune`.
//!
//! ```console
//! $ cargo run --example json_rpc_server -- /tmp/oci.sock /var/cache/banger/oci
//! $ echo '{"jsonrpc":"2.0","id":1,"method":"image.cache.prune","params":{"dry_run":true,"older_than_seconds":604800}}' |
//!       socat - /tmp/oci.sock
//! ```
//!
//! Each request and each response is one line (JSON-RPC 2.0 specification; no batches). The server
//! handles one connection at a time.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use oci_cache::{Policy, Progress, PruneParams, PruneReport};
use serde_json::{Value, json};

/// The methods, as `docs/oci-import.md` lists them.
const METHODS: [&str; 1] = ["image.cache.prune"];
/// Maximum length of a request, in bytes.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// How long the server waits for data from a client.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(cache_dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: json_rpc_server SOCKET CACHE_DIR".into());
    };
    for stream in UnixListener::bind(socket)?.incoming() {
        let stream = stream?;
        // An idle client must not block the others, and a client that disconnects must not end the
        // server.
        stream.set_read_timeout(Some(PATIENCE))?;
        let _ = serve(&stream, Path::new(&cache_dir));
    }
    Ok(())
}

fn serve(stream: &UnixStream, cache_dir: &Path) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream);
    let mut line = Vec::new();
    while requests.by_ref().take(MAX_REQUEST_BYTES).read_until(b'\n', &mut line)? > 0 {
        if let Some(response) = respond(&line, cache_dir) {
            (&*stream).write_all(format!("{response}\n").as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// The response to a request; `None` for a notification.
fn respond(line: &[u8], cache_dir: &Path) -> Option<Value> {
    let error = |id: &Value, code: i32, message: &str| {
        Some(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
    };
    let Ok(request) = serde_json::from_slice::<Value>(line) else {
        return error(&Value::Null, -32700, "parse error");
    };
    let (id, method) = (request.get("id").cloned(), request["method"].as_str());
    let (Some(method), true) = (method, request["jsonrpc"] == "2.0") else {
        return error(&id.unwrap_or_default(), -32600, "invalid request");
    };
    let params = request.get("params").cloned().unwrap_or_else(|| json!({}));
    let (is_notification, id) = (id.is_none(), id.unwrap_or_default());
    let response = if !METHODS.contains(&method) {
        error(&id, -32601, &format!("method not found; methods: {}", METHODS.join(", ")))
    } else {
        match policy(params).map(|(policy, dry_run)| prune(cache_dir, &policy, dry_run)) {
            Err(why) => error(&id, -32602, &format!("invalid params: {why}")),
            Ok(Err(why)) => error(&id, -32000, &with_causes(&*why)),
            Ok(Ok(report)) => Some(json!({"jsonrpc": "2.0", "id": id, "result": report})),
        }
    };
    response.filter(|_| !is_notification)
}

fn with_causes(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", with_causes(cause)))
}

/// The policy, and whether this is a dry run.
fn policy(params: Value) -> Result<(Policy, bool), Box<dyn Error>> {
    let params: PruneParams = serde_json::from_value(params)?;
    Ok((params.policy()?, params.dry_run))
}

fn prune(cache_dir: &Path, policy: &Policy, dry_run: bool) -> Result<PruneReport, Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "the server's one clock")]
    let now = SystemTime::now().into();
    let protected: Vec<_> = std::env::home_dir().into_iter().collect();
    let act = if dry_run { oci_cache::preview } else { oci_cache::prune };
    Ok(act(cache_dir, &protected, policy, now, &Progress::default())?)
}
