//! Talks to the example server over its socket, and compares its methods with the documentation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The path of the example, which `cargo test` builds beside the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/json_rpc_server");
    assert!(path.exists(), "`{}` is not built: run `cargo build --examples` first", path.display());
    path
}

struct Server {
    process: Child,
    base: TempDir,
}

impl Server {
    /// Starts the server with a cache of one blob of 4 bytes.
    fn start() -> Self {
        let base = tempfile::tempdir().unwrap();
        let cache = base.path().join("oci");
        fs::create_dir(&cache).unwrap();
        fs::write(cache.join(format!("sha256:{}", "0".repeat(64))), "blob").unwrap();
        let mut command = Command::new(example());
        command.arg(base.path().join("socket")).arg(cache).stdout(Stdio::null());
        Self { process: command.spawn().unwrap(), base }
    }

    fn connect(&self) -> UnixStream {
        let started = Instant::now();
        loop {
            match UnixStream::connect(self.base.path().join("socket")) {
                Ok(stream) => return stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "no server: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a line and returns the response line.
    fn ask(&self, request: &str) -> Value {
        let mut stream = self.connect();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&self, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let response = self.ask(&request.to_string());
        assert_eq!((&response["jsonrpc"], &response["id"]), (&json!("2.0"), &json!(7)));
        response
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.base.path().join("oci")).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_dry_run_then_a_prune() {
    let server = Server::start();
    let result = &server.call("image.cache.prune", &json!({"dry_run": true}))["result"];
    let cache_dir = server.base.path().join("oci");
    assert_eq!(
        (&result["dry_run"], &result["blobs_freed"], &result["bytes_freed"]),
        (&json!(true), &json!(1), &json!(4))
    );
    assert_eq!((&result["cache_dir"], server.blobs()), (&json!(cache_dir), 1));
    let result = &server.call("image.cache.prune", &json!({}))["result"];
    assert_eq!((&result["dry_run"], &result["blobs_freed"], server.blobs()), (&json!(false), &json!(1), 0));
}

#[test]
fn the_policy_is_kept_to() {
    let server = Server::start();
    let pruned = |params: Value| {
        let result = server.call("image.cache.prune", &params)["result"].clone();
        assert_eq!(result["exists"], true, "{params}: {result}");
        (result["blobs_freed"].clone(), result["kept"].clone(), result["goals"].clone())
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    for (params, reason) in [
        (json!({"older_than_seconds": 3600}), "recent"),
        (json!({"keep": [digest]}), "pinned"),
        (json!({"images": ["app:1"]}), "unselected"),
        (json!({"max_used": {"bytes": 4}}), "goal_met"),
        (json!({"max_used": {"percent": 100}}), "goal_met"),
        (json!({"min_free": {"percent": 0}}), "goal_met"),
    ] {
        let (freed, kept, goals) = pruned(params.clone());
        assert_eq!((freed, &kept[reason]["blobs"]), (0.into(), &json!(1)), "{params}");
        let has_goal = params.get("max_used").or(params.get("min_free")).is_some();
        assert_eq!(goals.as_array().unwrap().len(), usize::from(has_goal), "{params}");
    }
    assert_eq!(server.blobs(), 1);
    let (freed, _, goals) = pruned(json!({"max_used": {"bytes": 3}, "grace_seconds": 0}));
    assert_eq!((freed, server.blobs()), (1.into(), 0));
    assert_eq!(goals, json!([{"goal": "max_used_space", "wanted": 3, "reached": 0, "met": true}]));
}

#[test]
fn errors_have_the_standard_codes() {
    let server = Server::start();
    let code = |response: Value| response["error"]["code"].clone();
    assert_eq!(code(server.call("image.cache.purge", &json!({}))), -32601);
    for params in [
        json!({"dry_run": "yes"}),
        json!({"dryrun": true}),
        json!({"older_than_seconds": "7d"}),
        json!({"keep": ["no name"]}),
        json!({"max_used": {"percent": 101}}),
        json!([1, 2]),
        json!(3),
    ] {
        assert_eq!(code(server.call("image.cache.prune", &params)), -32602, "{params}");
    }
    assert_eq!(code(server.ask("{")), -32700);
    assert_eq!(code(server.ask(r#"{"id":1,"method":"image.cache.prune"}"#)), -32600);
    assert_eq!(server.blobs(), 1, "an error touches nothing");
}

#[test]
fn the_methods_are_the_documented_ones() {
    let server = Server::start();
    let message = server.call("rpc.discover", &json!({}))["error"]["message"].as_str().unwrap().to_owned();
    let served: Vec<&str> = message.split_once("methods: ").unwrap().1.split(", ").collect();
    let documentation =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/oci-import.md")).unwrap();
    let documented: Vec<&str> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("| `image.")?.split_once('`'))
        .map(|(method, _)| method)
        .collect();
    let documented: Vec<String> = documented.iter().map(|method| format!("image.{method}")).collect();
    assert_eq!(served, documented);
}
