//! The method `image.cache.prune`, by requests and responses of JSON-RPC 2.0.
//!
//! Guarantees: a request that breaks the specification is not carried out. A notification, a request without an id, is
//! carried out and gets no response. A batch has at most [`MAX_BATCH`] requests, which are carried out in their order.

use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use oci_cache::{Policy, Progress, PruneParams, PruneReport};
use serde_json::{Value, json};

/// The methods, as `docs/oci-import.md` lists them.
const METHODS: [&str; 1] = ["image.cache.prune"];
/// The most requests in a batch.
const MAX_BATCH: usize = 16;
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
/// The first code that the specification leaves to servers.
const NOT_PRUNED: i32 = -32000;

/// The response to a line; `None` if there is nothing but notifications in it.
pub(crate) fn respond(line: &[u8], cache_dir: &Path) -> Option<Value> {
    match serde_json::from_slice(line) {
        Err(_) => Some(error(&Value::Null, PARSE_ERROR, "parse error")),
        Ok(Value::Array(batch)) if batch.is_empty() => Some(invalid("an empty batch")),
        Ok(Value::Array(batch)) if batch.len() > MAX_BATCH => {
            Some(invalid(&format!("more than {MAX_BATCH} requests in a batch")))
        }
        Ok(Value::Array(batch)) => {
            let responses: Vec<Value> =
                batch.iter().filter_map(|request| respond_to_one(request, cache_dir)).collect();
            (!responses.is_empty()).then(|| responses.into())
        }
        Ok(request) => respond_to_one(&request, cache_dir),
    }
}

fn respond_to_one(request: &Value, cache_dir: &Path) -> Option<Value> {
    let id = request.get("id");
    // Large and fractional numbers lose digits, so they could not be sent back as they are.
    if id.is_some_and(|id| !(id.is_string() || id.is_null() || id.is_i64() || id.is_u64())) {
        return Some(invalid("the id is no string and no whole number of 64 bits"));
    }
    let (Some(method), true) = (request["method"].as_str(), request["jsonrpc"] == "2.0") else {
        return Some(invalid("no method, or not JSON-RPC 2.0"));
    };
    let result = call(method, request.get("params"), cache_dir);
    // A notification has no id.
    let id = id?;
    Some(match result {
        Ok(report) => json!({"jsonrpc": "2.0", "id": id, "result": report}),
        Err((code, why)) => error(id, code, &why),
    })
}

/// The response to what is no request: its id, if it has one, cannot be relied on.
pub(crate) fn invalid(why: &str) -> Value {
    error(&Value::Null, INVALID_REQUEST, &format!("invalid request: {why}"))
}

fn error(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// Calls a method. An error has a code and says why.
fn call(method: &str, params: Option<&Value>, cache_dir: &Path) -> Result<PruneReport, (i32, String)> {
    if !METHODS.contains(&method) {
        return Err((METHOD_NOT_FOUND, format!("method not found; methods: {}", METHODS.join(", "))));
    }
    let (policy, dry_run) =
        policy(params).map_err(|why| (INVALID_PARAMS, format!("invalid params: {}", with_causes(&*why))))?;
    prune(cache_dir, &policy, dry_run).map_err(|why| (NOT_PRUNED, with_causes(&*why)))
}

/// The policy, and whether this is a dry run. Absent params are as empty ones.
fn policy(params: Option<&Value>) -> Result<(Policy, bool), Box<dyn Error>> {
    let params = params.cloned().unwrap_or_else(|| json!({}));
    if !params.is_object() {
        return Err("they are no object".into());
    }
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

fn with_causes(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", with_causes(cause)))
}
