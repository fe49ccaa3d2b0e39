//! The structure of the code: imports run one way.
//!
//! Guarantees: in no crate do files import each other in a circle; in `oci-cache` a stage imports only
//! stages of lower levels. Read are the paths that begin with `crate`, `self`, `super` or a module of one's
//! own, outside tests. What would hide a path is not allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

/// The stages of `oci-cache`, each level above the one before. `docs/architecture.md` draws them.
const LEVELS: [&[&str]; 8] = [
    &["os", "progress", "escape"],
    &["error"],
    &["cache"],
    &["scan"],
    &["verify", "usage"],
    &["plan"],
    &["prune"],
    &["crate", "fuzzing"],
];

/// What would hide an import from this test.
const HIDING: [&str; 6] =
    ["use crate as", "use super as", "use self as", "extern crate self", "#[path", "include!"];

/// The modules of a crate, each with the modules that it imports. The root is `crate`; that of the program
/// of a crate that also is a library is `main`.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_file_imports_in_a_circle() {
    let crates = crates();
    assert!(crates.len() >= 3, "only these were found: {:?}", crates.keys());
    for (name, sources) in crates {
        for (module, text) in &sources {
            let hiding = HIDING.iter().find(|hiding| text.contains(**hiding));
            assert_eq!(hiding, None, "in {module} of {name}");
        }
        assert_eq!(circle(&imports(&sources)), None, "in {name}");
    }
}

#[test]
fn stages_import_lower_levels_only() {
    let imports = imports(&crates()["oci-cache"]);
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 100, "few imports were found: {imports:?}");
    assert_eq!(upward(&imports), Vec::<String>::new());
}

#[test]
fn circles_and_imports_upwards_are_found() {
    let sources = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
        files.iter().map(|(module, text)| ((*module).to_owned(), (*text).to_owned())).collect()
    };
    let one_way = sources(&[
        ("crate", "mod cache; pub use cache::digest::Digest;"),
        ("cache", "//! As [`crate::prune`].\nuse super::os::{self, status::Status};"),
        ("cache::digest", "#[cfg(test)]\nmod tests { use crate::prune::apply; }"),
        ("os", ""),
        ("os::status", ""),
        ("prune", "fn f() -> crate::cache::digest::Digest { crate::os::status::now() }"),
    ]);
    let found = imports(&one_way);
    assert_eq!(found["cache"], ["os", "os::status"].map(str::to_owned).into());
    assert_eq!(found["prune"], ["cache::digest", "os::status"].map(str::to_owned).into());
    assert_eq!((circle(&found), upward(&found)), (None, vec![]));

    let by_path = sources(&[("a", "mod b; fn f() { b::g() }"), ("a::b", "pub fn g() { crate::a::f() }")]);
    assert_eq!(circle(&imports(&by_path)).unwrap(), "a -> a::b -> a");
    let after_tests =
        sources(&[("a", "#[cfg(test)]\nmod tests {\n}\nuse crate::b;"), ("b", "use $crate::a;")]);
    assert_eq!(circle(&imports(&after_tests)).unwrap(), "a -> b -> a");

    let upwards = sources(&[("scan", "use crate::{os, plan::{Fate}};"), ("os", ""), ("plan", "")]);
    assert_eq!(upward(&imports(&upwards)), ["scan -> plan"]);
    let sideways = sources(&[("usage", "use crate::verify::Finding;"), ("verify", "")]);
    assert_eq!(upward(&imports(&sideways)), ["usage -> verify"]);
    let from_the_top = sources(&[("crate", ""), ("os", "use crate::Digest;")]);
    assert_eq!(upward(&imports(&from_the_top)), ["os -> crate"]);
    let unknown = sources(&[("os", ""), ("attic", "use crate::os;")]);
    assert_eq!(upward(&imports(&unknown)), ["attic has no level"]);

    let around = sources(&[
        ("a", "use crate::b;"),
        ("b", "use crate::c::{x, y};"),
        ("c", "use super::a::z;"),
        ("d", ""),
    ]);
    assert_eq!(circle(&imports(&around)).unwrap(), "a -> b -> c -> a");
    let parent = sources(&[("a", "mod b; use b::f;\nuse self::b::g;"), ("a::b", "use super::h;")]);
    assert_eq!(circle(&imports(&parent)).unwrap(), "a -> a::b -> a");
}

/// The source files of each crate of the workspace, by crate and module.
fn crates() -> BTreeMap<String, BTreeMap<String, String>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let members = fs::read_dir(workspace.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let members = members.chain([workspace.join("xtask")]);
    let read = |member: std::path::PathBuf| {
        let name = member.file_name().unwrap().to_str().unwrap().to_owned();
        let source = member.join("src");
        let files = WalkDir::new(&source).into_iter().map(Result::unwrap);
        let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "rs"));
        let files = files.map(|file| {
            let path = file.path().strip_prefix(&source).unwrap().with_extension("");
            let module = path.to_str().unwrap().replace('/', "::");
            let is_root = module == "lib" || module == "main" && !source.join("lib.rs").exists();
            let module = if is_root { "crate".to_owned() } else { module };
            (module, fs::read_to_string(file.path()).unwrap())
        });
        (name, files.collect())
    };
    members.map(read).collect()
}

/// What each module imports, itself apart.
fn imports(sources: &BTreeMap<String, String>) -> Imports {
    let imports_of = |(module, text): (&String, &String)| {
        let code = without_tests(text);
        let mut paths = Vec::new();
        for start in ["crate", "self", "super"] {
            for (position, _) in code.match_indices(&format!("{start}::")) {
                if !code[..position].ends_with(is_in_path) {
                    collect_paths(&code[position..], &[], &mut paths);
                }
            }
        }
        // A module of one's own, without `self`.
        let prefix = if module == "crate" { String::new() } else { format!("{module}::") };
        let own = sources.keys().filter_map(|other| other.strip_prefix(&prefix));
        for child in own.filter(|child| !child.contains("::")) {
            for start in [format!("{child}::"), format!("use {child};")] {
                for (position, _) in code.match_indices(&start) {
                    if !code[..position].ends_with(is_in_path) {
                        let path = &code[position + start.find(child).unwrap()..];
                        collect_paths(&format!("self::{path}"), &[], &mut paths);
                    }
                }
            }
        }
        let resolved = paths.iter().filter_map(|path| resolve(module, path, sources));
        (module.clone(), resolved.filter(|found| found != module).collect())
    };
    sources.iter().map(imports_of).collect()
}

/// Whether a path goes on before this letter. `$crate`, of a macro, is read like `crate`.
const fn is_in_path(before: char) -> bool {
    before.is_ascii_alphanumeric() || matches!(before, '_' | ':')
}

/// The code without comments and without the module of its tests.
fn without_tests(text: &str) -> String {
    let mut is_test = false;
    let mut code = String::new();
    for line in text.replace("#[cfg(test)]\nmod tests {", "mod tests {").lines() {
        is_test |= line.starts_with("mod tests {");
        if !is_test && !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push(' ');
        }
        let is_end = line.starts_with('}') || line.starts_with("mod tests {") && line.ends_with('}');
        is_test &= !is_end;
    }
    code
}

/// The paths at the beginning of the code: one, or several of a group.
fn collect_paths(code: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    let mut position = 0;
    loop {
        let rest = &code[position..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut at = 1;
            loop {
                at += group[at - 1..].len() - group[at - 1..].trim_start_matches([' ', ',']).len();
                if at > group.len() || group[at - 1..].starts_with('}') {
                    return position + at + 1;
                }
                let length = collect_paths(&group[at - 1..], &path, paths);
                if length == 0 {
                    return position + at;
                }
                at += length;
            }
        }
        let length =
            rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        position += length;
        if code[position..].starts_with("::") && length > 0 {
            position += 2;
            continue;
        }
        paths.push(path);
        return position;
    }
}

/// The module to which a path leads from `module`: the longest part of it that is one.
fn resolve(module: &str, path: &[String], sources: &BTreeMap<String, String>) -> Option<String> {
    let mut base: Vec<&str> = if module == "crate" { Vec::new() } else { module.split("::").collect() };
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = after;
    }
    let full: Vec<&str> = base.into_iter().chain(rest.iter().map(String::as_str)).collect();
    let found = (1..=full.len()).rev().map(|length| full[..length].join("::"));
    found.into_iter().find(|name| sources.contains_key(name)).or_else(|| Some("crate".to_owned()))
}

/// Imports of a stage that is not on a lower level.
fn upward(imports: &Imports) -> Vec<String> {
    let stage = |module: &str| module.split("::").next().unwrap().to_owned();
    let level = |stage: &str| LEVELS.iter().position(|stages| stages.contains(&stage));
    let mut wrong = Vec::new();
    for (module, imported) in imports {
        let Some(own) = level(&stage(module)) else {
            wrong.push(format!("{module} has no level"));
            continue;
        };
        let others = imported.iter().filter(|other| stage(other) != stage(module));
        let not_lower = others.filter(|other| level(&stage(other)).is_none_or(|level| level >= own));
        wrong.extend(not_lower.map(|other| format!("{module} -> {other}")));
    }
    wrong
}

/// A circle of imports, if there is one.
fn circle(imports: &Imports) -> Option<String> {
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| circle_from(module, imports, &mut Vec::new(), &mut done))
}

fn circle_from<'a>(
    module: &'a str,
    imports: &'a Imports,
    above: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if let Some(position) = above.iter().position(|name| *name == module) {
        return Some(format!("{} -> {module}", above[position..].join(" -> ")));
    }
    if done.contains(module) {
        return None;
    }
    above.push(module);
    let found = imports.get(module)?.iter().find_map(|next| circle_from(next, imports, above, done));
    above.pop();
    done.insert(module);
    found
}
