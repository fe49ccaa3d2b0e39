//! A line to the example server.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oci_cache_fuzz::fixture::{self, digest};
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../crates/oci-cache/examples/json_rpc_server/request.rs"]
#[allow(dead_code, reason = "the server uses all of it")]
mod request;

fuzz_target!(|line: &[u8]| {
    static CACHE: OnceLock<TempDir> = OnceLock::new();
    let cache = CACHE.get_or_init(|| fixture::flat(0)).path();
    let blob = cache.join(digest(1));
    if !blob.exists() {
        fixture::write(&blob, b"content");
    }
    let request: Value = serde_json::from_slice(line).unwrap_or_default();
    let Some(response) = request::respond(line, cache) else {
        assert!(request.is_array() || request.get("id").is_none(), "no response to a request");
        return;
    };
    let text = response.to_string();
    assert!(!text.contains('\n') && serde_json::from_str::<Value>(&text).is_ok());
    match response.as_array() {
        Some(all) => all.iter().for_each(|response| check(response, None)),
        None => check(&response, Some(&request)),
    }
    let frees = |response: &Value| match response["result"]["dry_run"] == false {
        true => response["result"]["blobs_freed"].as_u64().unwrap_or(0),
        false => 0,
    };
    let freed: u64 = response.as_array().map_or_else(|| frees(&response), |all| all.iter().map(frees).sum());
    // A notification in a batch removes it without a word.
    assert!(freed <= 1 && (freed == 0 || !blob.exists()), "{response}");
    assert!(freed == 1 || request.is_array() || blob.exists(), "{response}");
});

/// Checks the form of a response, and that it has the ID of its request or none.
fn check(response: &Value, request: Option<&Value>) {
    assert_eq!(response["jsonrpc"], "2.0");
    assert!(response["result"].is_object() != response["error"].is_object());
    if let Some(request) = request {
        let is_refused = response["error"]["code"] == -32600 && response["id"].is_null();
        assert!(response["id"] == request["id"] || is_refused, "{response}");
    }
}
