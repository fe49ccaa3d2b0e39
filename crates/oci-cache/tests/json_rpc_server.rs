//! Talks to the example server over its socket, and compares its methods with the documentation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const DRY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"image.cache.prune","params":{"dry_run":true}}"#;
const PRUNE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"image.cache.prune"}"#;
/// The longest request, in bytes.
const MAX_BYTES: usize = 1 << 20;

fn command(words: &[&str], base: &Path) -> Command {
    let mut command = Command::new("env");
    command
        .args(words)
        .arg(support::example("json_rpc_server"))
        .arg(base.join("socket"))
        .arg(base.join("oci"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

struct Server {
    process: Child,
    base: TempDir,
}

impl Server {
    /// Starts the server with a cache of one blob of 4 bytes.
    fn start() -> Self {
        Self::start_by(&[])
    }

    /// Starts the server by another program.
    fn start_by(words: &[&str]) -> Self {
        let base = tempfile::tempdir().unwrap();
        let cache = base.path().join("oci");
        fs::create_dir(&cache).unwrap();
        fs::write(cache.join(format!("sha256:{}", "0".repeat(64))), "blob").unwrap();
        Self { process: command(words, base.path()).spawn().unwrap(), base }
    }

    /// Kills the server, and starts it again. Its socket is still there.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = command(&[], self.base.path()).spawn().unwrap();
        // The old socket is there until it is replaced.
        std::thread::sleep(Duration::from_millis(300));
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

    /// Sends what may be more or less than a line, and returns everything that the server sends until it ends the
    /// connection.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let mut sender = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The server may end the connection before it has everything.
                let _ = sender.write_all(bytes);
                let _ = sender.shutdown(Shutdown::Write);
            });
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    }

    /// Whether another client is answered without a wait.
    fn answers_at_once(&self) -> bool {
        let started = Instant::now();
        self.ask(DRY)["result"]["blobs_freed"] == 1 && started.elapsed() < Duration::from_secs(3)
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
        json!([]),
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

#[test]
fn a_line_too_long_ends_the_connection_and_its_rest_is_no_request() {
    let server = Server::start();
    for rest in [format!("{PRUNE}\n"), format!("\n{PRUNE}\n"), format!("{}{PRUNE}\n", "A".repeat(MAX_BYTES))]
    {
        let answer = server.send(format!("\"{}{rest}", "A".repeat(MAX_BYTES)).as_bytes());
        let response: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&response["error"]["code"], &response["id"]), (&json!(-32600), &Value::Null), "{answer}");
        assert_eq!((answer.lines().count(), server.blobs()), (1, 1), "{answer}");
    }
    let padded = |length: usize| format!("{DRY}{}\n{DRY}\n", " ".repeat(length - DRY.len()));
    let longest = server.send(padded(MAX_BYTES).as_bytes());
    assert_eq!(longest.matches("\"blobs_freed\":1").count(), 2, "{longest}");
    assert_eq!(server.send(padded(MAX_BYTES + 1).as_bytes()).matches("\"error\"").count(), 1);
}

#[test]
fn a_line_without_an_end_is_not_carried_out() {
    let server = Server::start();
    assert_eq!(server.send(PRUNE.as_bytes()), "");
    let answer = server.send(format!("{DRY}\n{PRUNE}").as_bytes());
    assert_eq!((answer.lines().count(), server.blobs()), (1, 1), "{answer}");
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_cut_off_at_the_deadline() {
    let server = Server::start();
    let mut slow = server.connect();
    let started = Instant::now();
    slow.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while slow.read(&mut [0]).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "it is still connected");
        let _ = slow.write_all(b" ");
        assert!(server.answers_at_once());
    }
    assert!(started.elapsed() >= Duration::from_secs(4));
}

#[test]
fn a_client_that_never_reads_blocks_nobody_and_is_cut_off() {
    let server = Server::start();
    let mut deaf = server.connect();
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let started = Instant::now();
    let end = loop {
        assert!(started.elapsed() < Duration::from_secs(60), "it is still connected");
        match deaf.write(&b"x\n".repeat(1000)) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break error,
            Err(_) => assert!(server.answers_at_once()),
            Ok(_) => {}
        }
    };
    let is_cut = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset].contains(&end.kind());
    assert!(is_cut && server.answers_at_once(), "{end}");
}

#[test]
fn more_silent_clients_than_are_served_make_the_next_one_wait_no_longer_than_the_deadline() {
    let server = Server::start();
    let silent: Vec<UnixStream> = (0..15).map(|_| server.connect()).collect();
    assert!(server.answers_at_once(), "one connection is free");
    let more: Vec<UnixStream> = (0..4).map(|_| server.connect()).collect();
    let started = Instant::now();
    assert_eq!(server.ask(DRY)["result"]["blobs_freed"], 1);
    assert!(started.elapsed() < Duration::from_secs(15));
    drop((silent, more));
}

#[test]
fn only_its_own_user_can_connect() {
    let server = Server::start_by(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""]);
    drop(server.connect());
    let mode = fs::metadata(server.base.path().join("socket")).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
}

#[test]
fn it_goes_on_when_descriptors_are_used_up() {
    let mut server = Server::start_by(&["prlimit", "--nofile=12", "--"]);
    let clients: Vec<UnixStream> = (0..30).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.process.try_wait().unwrap(), None);
    drop(clients);
    let response = server.ask(r#"{"jsonrpc":"2.0","id":1,"method":"none"}"#);
    assert_eq!(response["error"]["code"], -32601);
}

#[test]
fn a_socket_that_was_left_is_replaced_and_nothing_else() {
    let mut server = Server::start();
    assert!(server.answers_at_once());
    let ends = |base: &Path| command(&["timeout", "20"], base).status().unwrap().code();
    assert_eq!(ends(server.base.path()), Some(1), "a second server");
    assert!(server.answers_at_once());
    server.restart();
    assert!(server.answers_at_once());
    // Somebody else listens there, or it is no socket.
    let base = tempfile::tempdir().unwrap();
    let other = std::os::unix::net::UnixListener::bind(base.path().join("socket")).unwrap();
    assert_eq!(ends(base.path()), Some(1));
    UnixStream::connect(base.path().join("socket")).unwrap();
    drop(other);
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("socket"), "a file").unwrap();
    assert_eq!(ends(base.path()), Some(1));
    assert_eq!(fs::read_to_string(base.path().join("socket")).unwrap(), "a file");
    // Another server starts at the same moment.
    let base = tempfile::tempdir().unwrap();
    let lock = fs::File::create(base.path().join("socket.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(ends(base.path()), Some(1));
    assert!(!base.path().join("socket").exists());
}

#[test]
fn odd_requests_are_answered_by_the_specification() {
    let server = Server::start();
    for (request, code) in [
        ("[".repeat(100_000), -32700),
        (String::new(), -32700),
        ("[]".to_owned(), -32600),
        ("1".to_owned(), -32600),
        (format!("[{}]", vec!["1"; 17].join(",")), -32600),
        (DRY.replace(r#""id":1"#, r#""id":{"a":1}"#), -32600),
        (DRY.replace(r#""id":1"#, r#""id":[1]"#), -32600),
        (DRY.replace(r#""id":1"#, r#""id":true"#), -32600),
        (DRY.replace(r#""id":1"#, r#""id":1.5"#), -32600),
        (DRY.replace(r#""id":1"#, r#""id":123456789012345678901234567890"#), -32600),
    ] {
        let response = server.ask(&request);
        let start: String = request.chars().take(100).collect();
        assert_eq!((&response["error"]["code"], &response["id"]), (&json!(code), &Value::Null), "{start}");
    }
    for id in [json!(null), json!(""), json!("a"), json!(-1), json!(u64::MAX)] {
        let response = server.ask(&DRY.replace(r#""id":1"#, &format!(r#""id":{id}"#)));
        assert_eq!((&response["id"], &response["result"]["blobs_freed"]), (&id, &json!(1)));
    }
    let response = server.ask(&DRY.replace(r#"{"dry_run":true}"#, "null"));
    assert_eq!((&response["error"]["code"], &response["id"]), (&json!(-32602), &json!(1)));
}

#[test]
fn a_batch_has_a_response_for_each_request_and_none_for_notifications() {
    let server = Server::start();
    let other = DRY.replace(r#""id":1"#, r#""id":2"#);
    let notification = r#"{"jsonrpc":"2.0","method":"none"}"#;
    let responses = server.ask(&format!("[{DRY},1,{notification},{other}]"));
    let found: Vec<_> =
        responses.as_array().unwrap().iter().map(|one| (&one["id"], &one["error"]["code"])).collect();
    let (none, null) = (&Value::Null, &json!(-32600));
    assert_eq!(found, [(&json!(1), none), (none, null), (&json!(2), none)]);
    assert_eq!((server.send(format!("[{notification}]\n").as_bytes()), server.blobs()), (String::new(), 1));
    let prune = PRUNE.replace(r#""id":1,"#, "");
    assert_eq!((server.send(format!("{prune}\n").as_bytes()), server.blobs()), (String::new(), 0));
}
