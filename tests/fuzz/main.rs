//! What fuzzers run, without a fuzzer: every seed, and seeds that were altered at random.
//!
//! A seed's name says what has to come of it: `accepted-…` or `denied-…`. Anything else is an input that a fuzzer once
//! found; it only has to run through.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails ends its test, and says where")]

mod seeds;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use tokenward::testkit::fuzz::{Body, TARGETS, placeholders};

/// Altered seeds for each target.
const CASES: u32 = 1_000;

/// The seeds of a target by name.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new("fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let file = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    };
    files.map(|entry| file(entry.unwrap().path())).collect()
}

/// The words of the dictionary, with their escapes undone.
fn words() -> Vec<Vec<u8>> {
    let text = fs::read_to_string("fuzz/tokenward.dict").unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let quoted = line.strip_prefix('"').and_then(|line| line.strip_suffix('"'));
            let quoted = quoted.unwrap_or_else(|| panic!("fuzz/tokenward.dict: {line}"));
            quoted.replace("\\x0a", "\n").replace("\\\"", "\"").into_bytes()
        })
        .collect()
}

#[test]
fn every_seed_comes_out_as_its_name_says() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        for (name, seed) in &seeds {
            let accepted = body(seed);
            assert!(accepted || !name.starts_with("accepted"), "{target}/{name} was denied");
            assert!(!accepted || !name.starts_with("denied"), "{target}/{name} was accepted");
        }
        // Else the target would go on being run, and see nothing of what lies behind.
        assert!(seeds.keys().any(|name| name.starts_with("accepted")), "{target}: no seed gets through");
        assert!(seeds.keys().any(|name| name.starts_with("denied")), "{target}: no seed is denied");
    }
}

#[test]
fn the_binary_seeds_are_those_of_the_code() {
    let folder = Path::new("fuzz/seeds/check_request");
    // With UPDATE_GENERATED set, the test writes what it otherwise compares.
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(folder).unwrap();
        for (name, bytes) in seeds::check_requests() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let mut committed = seeds("check_request");
    for (name, bytes) in seeds::check_requests() {
        assert!(
            committed.remove(name) == Some(bytes),
            "fuzz/seeds/check_request/{name} differs from the code: run UPDATE_GENERATED=1 cargo test --features testkit --test fuzz"
        );
    }
    let named = |name: &&String| name.starts_with("accepted") || name.starts_with("denied");
    assert_eq!(committed.keys().find(named), None, "no longer in tests/fuzz/seeds.rs");
}

#[test]
fn every_body_is_a_target() {
    let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
    // `cargo fuzz list` reads them there, and `make soak` asks it.
    let binaries: BTreeSet<_> = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|part| part.split_once("name = \"")?.1.split_once('"').map(|(name, _)| name.to_owned()))
        .collect();
    let bodies: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(binaries, bodies, "fuzz/Cargo.toml and tokenward::testkit::fuzz::TARGETS");
    for name in &bodies {
        let path = format!("fuzz/fuzz_targets/{name}.rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let wanted = format!(
            "#![no_main]\nlibfuzzer_sys::fuzz_target!(|input: &[u8]| {{\n    tokenward::testkit::fuzz::{name}(input);\n}});\n"
        );
        assert_eq!(text, wanted, "{path}");
    }
}

#[test]
fn the_dictionary_holds_every_placeholder() {
    let words = words();
    for placeholder in placeholders() {
        assert!(words.contains(&placeholder.clone().into_bytes()), "fuzz/tokenward.dict lacks {placeholder}");
    }
}

/// One alteration of an input, as libFuzzer makes them.
#[derive(Clone, Debug)]
enum Change {
    Cut(Index, usize),
    Repeat(Index, usize),
    Byte(Index, u8),
    Insert(Index, Vec<u8>),
    Overwrite(Index, Vec<u8>),
    Splice(Index, Index, Vec<u8>),
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>) {
        let place = |at: &Index, length: usize| at.index(length + 1);
        let length = input.len();
        match self {
            Self::Cut(at, count) => {
                let at = place(at, length);
                input.drain(at..length.min(at + count));
            }
            Self::Repeat(at, count) => {
                let at = place(at, length);
                let part = input[at..length.min(at + count)].to_vec();
                input.splice(at..at, part);
            }
            Self::Byte(at, byte) if length > 0 => input[at.index(length)] = *byte,
            Self::Byte(..) => {}
            Self::Insert(at, word) => {
                let at = place(at, length);
                input.splice(at..at, word.iter().copied());
            }
            Self::Overwrite(at, word) => {
                let at = place(at, length);
                input.splice(at..length.min(at + word.len()), word.iter().copied());
            }
            Self::Splice(at, begin, other) => {
                input.truncate(place(at, length));
                input.extend_from_slice(&other[place(begin, other.len())..]);
            }
        }
    }
}

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 1..30_usize).prop_map(|(at, count)| Change::Cut(at, count)),
        (index(), 1..60_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (index(), select(words())).prop_map(|(at, word)| Change::Insert(at, word)),
        (index(), select(words())).prop_map(|(at, word)| Change::Overwrite(at, word)),
        (index(), index(), select(seeds)).prop_map(|(at, begin, other)| Change::Splice(at, begin, other)),
    ]
}

fn altered_seeds_run_through(target: &str, body: Body) {
    let seeds: Vec<_> = seeds(target).into_values().collect();
    let altered = (select(seeds.clone()), prop::collection::vec(change(seeds), 1..5));
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&altered, |(mut input, changes)| {
        changes.iter().for_each(|change| change.apply(&mut input));
        body(&input);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{target}: {error}");
    }
}

#[test]
fn altered_seeds_break_nothing() {
    for (target, body) in TARGETS {
        altered_seeds_run_through(target, body);
    }
}
