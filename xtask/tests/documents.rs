//! The documents: their commands work, their scripts parse, their links and names exist.
//!
//! Guarantees: every pruner command in a code block of a document, in a unit or in a manifest is run by bash,
//! as written except for its paths, on a cache made for its block. Commands that build, test or take long are
//! run with `--help` added instead. A call that is not recognised as a command counts as wrong, so none is
//! skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use oci_cache_cli::exit::CODES;
use support::Cache;

const PROGRAM: &str = env!("CARGO_BIN_EXE_xtask");
/// Commands that are only run with `--help`.
const LONG: [&str; 7] = ["ci", "dist", "smoke", "bench", "torture", "fuzz", "cli-docs"];
/// The documents that are not in `docs`.
const TOP: [&str; 6] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "crates/banger-fmt/README.md",
    "crates/oci-cache/README.md",
];
/// How documents call the program: in the workspace, and installed.
const CALLS: [&str; 2] = ["cargo xtask", "oci-cache"];
/// A replacement for cargo: it runs the programs that are already built.
const CARGO: &str = r#"#!/bin/sh
shift
case $1 in
    dist) shift; exec oci-cache-dist "$@" ;;
    smoke | torture | fuzz | bench) exec oci-cache-proof --program /nonexistent "$@" ;;
    *) exec xtask "$@" ;;
esac
"#;

/// A text that contains commands: a fenced block of a document, or a file.
#[derive(Debug)]
struct Block {
    /// The document, and the line where the block begins.
    place: String,
    language: String,
    text: String,
}

#[test]
fn every_command_works() {
    let blocks: Vec<Block> =
        documents().iter().flat_map(|path| blocks_of(path)).chain(fleet_files()).collect();
    let commands: usize = blocks.iter().map(|block| commands(&block.text).len()).sum();
    assert!(commands > 20, "only {commands} commands were found");
    expect_none(blocks.iter().flat_map(wrong_commands));
}

#[test]
fn every_script_parses() {
    let blocks: Vec<Block> =
        documents().iter().flat_map(|path| blocks_of(path)).chain(fleet_files()).collect();
    expect_none(blocks.iter().flat_map(wrong_scripts));
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    expect_none(documents().iter().flat_map(|path| dead_links(path, &read(path))));
}

#[test]
fn the_changelog_has_this_version_and_its_date() {
    let changelog = read(&workspace().join("CHANGELOG.md"));
    let headings: Vec<&str> = changelog.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(headings[0], "## [Unreleased]");
    assert!(headings[1].starts_with(concat!("## [", env!("CARGO_PKG_VERSION"), "] - 20")), "{}", headings[1]);
}

#[test]
fn every_metric_and_alert_exists() {
    let cache = Cache::typical_layout();
    let metrics: BTreeSet<String> = ["cache-usage --check", "cache-verify", "cache-prune"]
        .into_iter()
        .flat_map(|command| {
            let file = cache.base.path().join("prom");
            let mut arguments: Vec<&str> = command.split(' ').collect();
            if command != "cache-verify" {
                arguments.extend(["--max-used-space", "1KiB"]);
            }
            cache.run(arguments[0], &[&arguments[1..], &["--metrics-file", file.to_str().unwrap()]].concat());
            words(&read(&file), "oci_cache_")
        })
        .collect();
    let alerts = words(&read(&docs().join("fleet/alerts.yml")), "OciCache");
    assert!(metrics.len() > 5 && alerts.len() >= 4, "{metrics:?} {alerts:?}");
    let files = documents().into_iter().chain(files_of(&docs().join("fleet")));
    for path in files {
        let text = read(&path);
        let unknown: Vec<String> = words(&text, "oci_cache_").difference(&metrics).cloned().collect();
        assert!(unknown.is_empty(), "{}: no such metrics: {unknown:?}", path.display());
        let unknown: Vec<String> = words(&text, "OciCache").difference(&alerts).cloned().collect();
        assert!(unknown.is_empty(), "{}: no such alerts: {unknown:?}", path.display());
    }
    let described = words(&read(&docs().join("fleet.md")), "oci_cache_");
    assert_eq!(described, metrics, "docs/fleet.md describes each metric");
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let (ci, cli) = (read(&docs().join("ci.md")), read(&docs().join("cli.md")));
    let rows_of = |text: &str| {
        let (_, table) = text.split_once("\n|---").expect("a table");
        table.lines().skip(1).take_while(|line| line.starts_with('|')).map(str::to_owned).collect::<Vec<_>>()
    };
    let (_, section) = cli.split_once("\n## Exit codes\n").expect("a section");
    for rows in [rows_of(&ci), rows_of(section)] {
        let cells = rows.iter().map(|row| row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).take(2));
        let cells: Vec<Vec<&str>> = cells.map(Iterator::collect).collect();
        let codes: Vec<Vec<&str>> = CODES.iter().map(|(codes, meaning)| vec![*codes, *meaning]).collect();
        assert_eq!(cells, codes);
    }
}

#[test]
fn each_readme_names_the_oldest_rust() {
    let needed = concat!("Rust ", env!("CARGO_PKG_RUST_VERSION"), " or later");
    for name in TOP.iter().filter(|name| name.ends_with("README.md")) {
        assert!(read(&workspace().join(name)).contains(needed), "{name} does not say \"{needed}\"");
    }
}

#[test]
fn what_is_wrong_is_found() {
    let block = |language: &str, text: &str| Block {
        place: "test".to_owned(),
        language: language.to_owned(),
        text: text.to_owned(),
    };
    for wrong in [
        "cargo xtask cache-prune --bogus",
        "cargo xtask cache-prune --older-than soon",
        "cargo xtask cache-melt",
        "cargo xtask prune",
        "oci-cache cache-prune",
        "oci-cache melt",
        "oci-cache smoke --jobs 2",
        "sudo oci-cache prune --bogus",
        "/opt/oci-cache prune",
        "cargo xtask smoke --bogus",
        "cargo xtask dist --bogus",
        "cargo xtask torture --only nothing",
        "cargo xtask bench --jobs 2",
        "cargo xtask ci --jobs 2",
        "cargo xtask cache-prune --dry-run &&\n    sudo oci-cache usage --check",
        "if cargo xtask cache-prune | cargo xtask cache-prune --bogus; then",
        "time cargo xtask cache-prune",
    ] {
        assert_eq!(wrong_commands(&block("sh", wrong)).len(), 1, "{wrong}");
    }
    for right in [
        "cargo xtask smoke --jobs 4",
        "cargo xtask dist --target x86_64-unknown-linux-gnu",
        "cargo xtask torture --quick --only kills",
        "cargo xtask bench --quick",
        "cargo xtask",
        "install target/release/oci-cache /usr/local/bin/oci-cache",
        "- run: cargo xtask cache-prune \\\n    --max-used-space \"1 GiB\" > report",
        "# cargo xtask cache-melt",
        "SIZE=1GiB; sudo oci-cache prune --max-used-space $SIZE || exit",
    ] {
        let right = right.replace("$SIZE", "1GiB");
        assert_eq!(wrong_commands(&block("sh", &right)), Vec::<String>::new(), "{right}");
    }
    assert_eq!(wrong_scripts(&block("sh", "if true; then")).len(), 1);
    assert_eq!(wrong_scripts(&block("yaml", "a:\n  - run: |\n      case x in\n  - run: ls\n")).len(), 1);
    let readme = workspace().join("README.md");
    for link in ["[a](docs/nowhere.md)", "[a](README.md#no-such-heading)"] {
        assert_eq!(dead_links(&readme, link).len(), 1, "{link}");
    }
    assert_eq!(dead_links(&readme, "[a](README.md#checks) [b](https://example.org/)"), Vec::<String>::new());
}

fn expect_none(problems: impl Iterator<Item = String>) {
    let problems: Vec<String> = problems.collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Runs the block's commands in order, on a new cache. Returns what is wrong with them.
fn wrong_commands(block: &Block) -> Vec<String> {
    let commands = commands(&block.text);
    let mut wrong = Vec::new();
    if commands.len() != calls_in(&block.text) {
        wrong.push(format!(
            "{}: of {} calls only {commands:?} were recognised",
            block.place,
            calls_in(&block.text)
        ));
    }
    if commands.is_empty() {
        return wrong;
    }
    let cache = Cache::typical_layout();
    for command in commands {
        if let Err(why) = run(&command, &cache) {
            wrong.push(format!("{}: `{command}` {why}", block.place));
        }
    }
    wrong
}

/// Runs a command with bash, in the directory that contains the cache.
fn run(command: &str, cache: &Cache) -> Result<(), String> {
    let base = cache.base.path();
    let programs = base.join("programs");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        let cargo = programs.join("cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
        for name in ["xtask", "oci-cache", "oci-cache-dist", "oci-cache-proof"] {
            symlink(built().join(name), programs.join(name)).unwrap();
        }
    }
    let is_long = command.split_whitespace().any(|word| LONG.contains(&word));
    let here = command
        .replace("/var/cache/banger/oci", cache.path().to_str().unwrap())
        .replace("/var/lib/oci-cache/metrics", base.to_str().unwrap());
    let output = Command::new("bash")
        .args(["-c", &if is_long { format!("{here} --help") } else { here }])
        .current_dir(base)
        .stdin(Stdio::null())
        .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()))
        .env("HOME", base.join("home"))
        .env("BANGER_OCI_CACHE_DIR", cache.path())
        .env("GITHUB_STEP_SUMMARY", base.join("summary"))
        .output()
        .unwrap();
    // 3: a goal that this disk cannot meet, or blobs whose content is not their digest's.
    if matches!(output.status.code(), Some(0 | 3)) {
        return Ok(());
    }
    Err(format!("ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The directory of the programs, built with the same profile as this program.
fn built() -> &'static Path {
    static BUILT: OnceLock<&Path> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = Path::new(PROGRAM).parent().unwrap();
        // `cargo xtask ci` has just built them; the user that it runs the tests as may be unable to.
        if std::env::var_os("XTASK_PROGRAMS_ARE_BUILT").is_some() {
            return directory;
        }
        let profile = directory.file_name().unwrap().to_str().unwrap();
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "oci-cache-cli",
                "--package",
                "oci-cache-dist",
                "--package",
                "oci-cache-proof",
            ])
            .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
            .arg(directory.parent().unwrap())
            .current_dir(workspace())
            .status()
            .unwrap();
        assert!(status.success(), "the build of the programs ended with {status}");
        directory
    })
}

/// How often the text calls the pruner, apart from comments.
fn calls_in(text: &str) -> usize {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let calls = |line: &str| {
        let installed = line.match_indices(CALLS[1]).filter(|(position, call)| {
            let mut rest = line[position + call.len()..].chars();
            rest.next() == Some(' ') && rest.next().is_some_and(|letter| letter.is_ascii_lowercase())
        });
        line.matches(CALLS[0]).count() + installed.count()
    };
    lines.map(calls).sum()
}

/// The pruner commands in the text, each with its arguments and redirections.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(simple_commands);
    let is_call = |command: &String| {
        CALLS.iter().any(|call| command == call || command.starts_with(&format!("{call} ")))
    };
    commands.map(|command| without_prefix(&command)).filter(is_call).collect()
}

/// The parts of a line between shell operators.
fn simple_commands(line: &str) -> Vec<String> {
    let (mut commands, mut quote, mut before) = (vec![String::new()], None, ' ');
    for letter in line.chars() {
        let is_redirection = letter == '&' && matches!(before, '>' | '<');
        if quote == Some(letter) {
            quote = None;
        } else if quote.is_none() && matches!(letter, '\'' | '"') {
            quote = Some(letter);
        } else if quote.is_none() && matches!(letter, '|' | '&' | ';' | '(' | ')') && !is_redirection {
            commands.push(String::new());
            before = letter;
            continue;
        }
        commands.last_mut().unwrap().push(letter);
        before = letter;
    }
    commands
}

/// A command without the words that may precede it in a script or in YAML.
fn without_prefix(command: &str) -> String {
    let is_prefix = |word: &str| {
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && !name.is_empty()
        });
        is_assignment
            || matches!(word, "-" | "run:" | "sudo" | "if" | "then" | "else" | "do" | "while" | "!" | "{")
    };
    let mut rest = command.trim();
    while let Some((_, after)) = rest.split_once(char::is_whitespace).filter(|(word, _)| is_prefix(word)) {
        rest = after.trim_start();
    }
    rest.to_owned()
}

/// Syntax errors in the block, or in the scripts that it contains.
fn wrong_scripts(block: &Block) -> Vec<String> {
    let scripts = match block.language.as_str() {
        "sh" | "bash" => vec![block.text.clone()],
        "yaml" => scripts_in_yaml(&block.text),
        _ => Vec::new(),
    };
    let wrong = |script: &String| {
        let mut bash =
            Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = bash.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (!output.status.success()).then(|| format!("{}: {said}", block.place))
    };
    scripts.iter().filter_map(wrong).collect()
}

/// The multi-line texts in YAML, and the commands after `run:`.
fn scripts_in_yaml(text: &str) -> Vec<String> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut scripts = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_end().ends_with('|') {
            let mut script = String::new();
            while let Some(below) =
                lines.next_if(|below| below.trim().is_empty() || indentation(below) > indentation(line))
            {
                script.push_str(below);
                script.push('\n');
            }
            scripts.push(script);
        } else if let Some((_, command)) = line.split_once("run: ") {
            scripts.push(command.to_owned());
        }
    }
    scripts
}

/// The broken relative links in a document.
fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let mut dead = Vec::new();
    for link in prose_of(text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let (file, heading) =
            link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
        if link.contains("://") {
            continue;
        }
        let target = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
        let is_there = match heading {
            None => target.exists(),
            Some(heading) => target.exists() && headings_of(&read(&target)).contains(heading),
        };
        if !is_there {
            dead.push(format!("{}: a link leads nowhere: {link}", path.display()));
        }
    }
    dead
}

/// The anchors of a document's headings.
fn headings_of(text: &str) -> BTreeSet<String> {
    let prose = prose_of(text);
    let titles = prose.lines().filter_map(|line| line.strip_prefix('#'));
    let name = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept =
            title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    titles.map(name).collect()
}

/// A document without its fenced blocks.
fn prose_of(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The words in the text that start with `start`.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with(start) && word.len() > start.len()).map(str::to_owned).collect()
}

/// The fenced blocks of a document that may contain commands.
fn blocks_of(path: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut line_number = 1;
    for (index, part) in read(path).split("```").enumerate() {
        if index % 2 == 1
            && let Some((language, text)) = part.split_once('\n')
            && matches!(language, "sh" | "bash" | "yaml")
        {
            let place = format!("{}:{line_number}", path.display());
            blocks.push(Block { place, language: language.to_owned(), text: text.to_owned() });
        }
        line_number += part.matches('\n').count();
    }
    blocks
}

/// The files for fleets, with their calls rewritten as shell commands.
fn fleet_files() -> Vec<Block> {
    let block = |path: PathBuf| {
        let text = read(&path).replace("ExecStart=/usr/local/bin/", "");
        let language = path.extension().unwrap_or_default().to_str().unwrap().to_owned();
        Block { place: path.display().to_string(), language, text }
    };
    files_of(&docs().join("fleet")).into_iter().map(block).collect()
}

/// The documents.
fn documents() -> Vec<PathBuf> {
    let top = TOP.iter().map(|name| workspace().join(name));
    let in_docs =
        files_of(&docs()).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    top.chain(in_docs).collect()
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn docs() -> PathBuf {
    workspace().join("docs")
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
