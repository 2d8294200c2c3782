//! Holds the house together: api ← domain ← platform ← {controller, gate, ledger} ← runtime ← bin, and nothing else.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with the layers it may name.
const LAYERS: [(&str, &[&str]); 9] = [
    ("api", &["api"]),
    ("domain", &["api", "domain"]),
    ("platform", &["api", "domain", "platform"]),
    ("controller", &["api", "domain", "platform", "controller"]),
    ("gate", &["api", "domain", "platform", "gate"]),
    ("ledger", &["api", "domain", "platform", "ledger"]),
    ("runtime", &["api", "domain", "platform", "controller", "gate", "ledger", "runtime"]),
    ("bin", &["runtime"]),
    ("testkit", &["api", "domain", "platform", "controller", "gate", "ledger", "testkit"]),
];

/// What a pure decision must not reach for: it is all an argument.
const IMPURE: [&str; 10] = [
    "tokio::",
    "tracing::",
    "rand::",
    "Client",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Utc::now",
    "Zoned::now",
    "std::env",
];

const LONGEST_FILE: usize = 500;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The code of a file without its comments, and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().contains("tests"))
        || path.ends_with("properties.rs")
}

/// The layers that `code` names, as `crate::LAYER` or `tokenward::LAYER`.
fn named_layers(code: &str) -> Vec<&'static str> {
    let names =
        |layer: &str| ["crate::", "tokenward::"].iter().any(|root| code.contains(&format!("{root}{layer}")));
    LAYERS.iter().map(|(layer, _)| *layer).filter(|layer| names(layer)).collect()
}

#[test]
fn no_layer_names_one_above_it() {
    for (layer, allowed) in LAYERS {
        // Tests may stand on the testkit.
        for path in sources(&Path::new("src").join(layer)).into_iter().filter(|path| !is_test(path)) {
            for named in named_layers(&code(&path)) {
                assert!(allowed.contains(&named), "{}: {layer} must not name {named}", path.display());
            }
        }
    }
}

#[test]
fn decisions_reach_for_nothing() {
    for path in sources(Path::new("src/domain")).into_iter().chain(sources(Path::new("src/api"))) {
        if is_test(&path) {
            continue;
        }
        let code = code(&path);
        for word in IMPURE {
            assert!(!code.contains(word), "{} holds {word}: pass it in", path.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for path in sources(Path::new("src")).into_iter().chain(sources(Path::new("tests"))) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines: split it", path.display());
    }
}

#[test]
fn the_rules_can_fail() {
    assert_eq!(named_layers("use crate::controller::x; use tokenward::runtime;"), ["controller", "runtime"]);
    assert!(named_layers("use super::other;").is_empty());
}
