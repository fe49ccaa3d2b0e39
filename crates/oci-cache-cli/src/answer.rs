//! Prints what a command found or did, as text or as JSON, and errors as JSON.
//!
//! Guarantees: with `--format json`, stdout has exactly one object on one line, also if the command ends with an error.
//! Each object has `schema_version` and `duration_seconds`. An error after the result, as in writing metrics, is only
//! told on stderr.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use oci_cache::escape_path;
use serde::Serialize;

use crate::cli::{CacheArguments, Format};
use crate::exit::Exit;
use crate::held_off::{HeldOff, LockTimeout};
use crate::{location, output};

/// The version of the JSON objects. It grows if a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// A result with what every object has.
#[derive(Serialize)]
struct Object<'a, T> {
    #[serde(flatten)]
    result: &'a T,
    schema_version: u32,
    /// The time since the command began, in seconds.
    duration_seconds: f64,
}

/// What a command says that ended with an error.
#[derive(Serialize)]
struct Problem {
    /// The whole message, as on stderr.
    error: String,
    exit_code: u8,
    /// Since when prunes are held off, if this one is by the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_off_since: Option<String>,
    /// The directory, absolute and escaped, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<String>,
}

/// Prints a result on stdout: `text` for people, which may be styled, or the object.
pub(crate) fn print(
    format: Format,
    started: Instant,
    result: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<Exit> {
    match format {
        Format::Human => output::print_styled(&text()),
        Format::Json => output::print(&object(started, result)?),
    }
}

/// A result as it is printed without colours: `text` for people, or the object.
pub(crate) fn as_text(
    format: Format,
    started: Instant,
    result: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<String> {
    match format {
        Format::Human => Ok(output::plain(&text())),
        Format::Json => object(started, result),
    }
}

/// Runs a command. If it ends with an error before it printed a result, prints the error as an object, where JSON is
/// wanted.
pub(crate) fn or_problem(
    arguments: &CacheArguments,
    command: impl FnOnce(Instant) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let result = command(started);
    if let Err(error) = &result
        && arguments.format == Format::Json
        && !output::has_printed()
    {
        let cache_dir = location::cache_dir(&arguments.location).ok();
        let exit_code = Exit::of_error(error).code();
        let cache_dir = cache_dir.map(|directory| absolute(&directory));
        let timeout = error.downcast_ref::<LockTimeout>();
        let held_off_since = timeout.and_then(|timeout| timeout.held_off).map(HeldOff::since);
        let problem = Problem { error: format!("{error:#}"), exit_code, held_off_since, cache_dir };
        output::print(&object(started, &problem)?)?;
    }
    result
}

/// Prints a wrong command line as an object, if its words ask for JSON.
pub(crate) fn wrong_usage(error: &clap::Error, words: impl Iterator<Item = OsString>) {
    let words: Vec<OsString> = words.collect();
    let is_json = words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    if !is_json || !error.use_stderr() {
        return;
    }
    let message = error.render().to_string();
    let error = message.trim_start_matches("error: ").trim_end().to_owned();
    let problem = Problem { error, exit_code: Exit::Refused.code(), held_off_since: None, cache_dir: None };
    // The caller ends the process with this error's code in any case.
    let _ = object(Instant::now(), &problem).and_then(|line| output::print(&line));
}

/// The object on one line, including its newline.
fn object(started: Instant, result: &impl Serialize) -> anyhow::Result<String> {
    let duration_seconds = started.elapsed().as_secs_f64();
    let object = Object { result, schema_version: SCHEMA_VERSION, duration_seconds };
    Ok(format!("{}\n", serde_json::to_string(&object)?))
}

fn absolute(directory: &Path) -> String {
    std::path::absolute(directory).map_or_else(|_| escape_path(directory), |absolute| escape_path(&absolute))
}
