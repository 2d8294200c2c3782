//! The documentation speaks of things that exist: files, headings, make targets, flags, reasons, messages, tests.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test, and says where")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use tokenward::api::{ConditionType, CredentialState, EndState, Health, Outcome, Reason};
use tokenward::runtime::args::Cli;

/// Words in code that look like reasons and are something else.
const OTHER_WORDS: [&str; 20] = [
    "Basic",
    "Bearer",
    "Denied",
    "AtDeadline",
    "WhenUnused",
    "TokenUsage",
    "ServiceAccount",
    "ApiToken",
    "Secret",
    "Namespace",
    "Opaque",
    "True",
    "False",
    "Unknown",
    "Normal",
    "Warning",
    "ByteString",
    "Token",
    "Conflict",
    "Api",
];

/// Every file of documentation.
fn pages() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].into_iter().map(PathBuf::from).collect();
    for folder in ["docs", "charts", "examples"] {
        walk(Path::new(folder), &mut found);
    }
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines of a page, each with whether it is code.
fn lines(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut fenced = false;
    text.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (fenced || fence || line.starts_with("    "), line)
    })
}

/// The code spans of a line of prose.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Everything written as code: spans, and lines of blocks.
fn code(text: &str) -> Vec<&str> {
    lines(text)
        .flat_map(|(code, line)| if code { vec![line.trim()] } else { spans(line).collect() })
        .collect()
}

/// The targets of links, without code.
fn links(text: &str) -> Vec<String> {
    let prose = lines(text).filter(|(code, _)| !code).map(|(_, line)| line);
    prose
        .flat_map(|line| {
            let bare: String = line.split('`').step_by(2).collect();
            let starts: Vec<usize> = bare.match_indices("](").map(|(at, _)| at + 2).collect();
            starts
                .into_iter()
                .filter_map(|start| Some(bare[start..].split_once(')')?.0.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    lines(text)
        .filter(|(code, line)| !code && line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for (path, text) in pages() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, at)| (file, Some(at)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if let Some(anchor) = anchor {
                let found = anchors(&fs::read_to_string(&target).unwrap());
                assert!(found.contains(anchor), "{}: {link}: no such heading in {found:?}", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed} links");
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string("Makefile").unwrap();
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ', '.', '#']))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .collect();
    let mut named = BTreeSet::new();
    for (path, text) in pages() {
        for code in code(&text) {
            let Some(rest) = code.strip_prefix("make ") else { continue };
            let target = rest.split_whitespace().next().unwrap_or_default();
            assert!(targets.contains(target), "{}: make {target} does not exist", path.display());
            named.insert(target.to_owned());
        }
    }
    for target in ["demo", "test", "lint", "e2e", "bench", "soak", "image", "generate", "tools", "cluster-up"]
    {
        assert!(named.contains(target), "make {target} is nowhere explained");
    }
}

#[test]
fn flags_exist_and_all_are_explained() {
    let cli = Cli::command();
    let role = |name: &str| cli.find_subcommand(name).unwrap();
    let roles = [role("controller"), role("gate")];
    let arguments: Vec<_> =
        cli.get_arguments().chain(roles.into_iter().flat_map(|role| role.get_arguments())).collect();
    let flags: BTreeSet<String> =
        arguments.iter().filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect();
    for (path, text) in pages() {
        for span in lines(&text).filter(|(code, _)| !code).flat_map(|(_, line)| spans(line)) {
            let flag = span.split([' ', '=']).next().unwrap_or_default();
            if flag.starts_with("--") && flag != "--help" && flag != "--version" {
                assert!(flags.contains(flag), "{}: {flag} does not exist", path.display());
            }
        }
    }
    let operations = fs::read_to_string("docs/operations.md").unwrap();
    for argument in arguments {
        let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
        let row = format!("| `--{long}` | `{}` |", variable.display());
        let mut rows = operations.lines().filter(|line| line.starts_with(&row)).peekable();
        assert!(rows.peek().is_some(), "docs/operations.md has no row {row}");
        let default = argument.get_default_values().first().map(|value| value.display().to_string());
        if let Some(default) = default.filter(|default| !default.is_empty()) {
            // Both roles have a flag of some names, with different defaults.
            assert!(
                rows.any(|line| line.contains(&format!("`{default}`"))),
                "{row}: the default is {default}"
            );
        }
    }
}

fn is_word(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[test]
fn reasons_in_tables_exist() {
    let states = [CredentialState::Pending, CredentialState::Active, CredentialState::Retiring];
    let ends = [EndState::Retired, EndState::Revoked, EndState::Expired, EndState::Abandoned];
    let results = ["Timeout", "NotLeading", "Entropy", "Blocked", "Endless"];
    let known: BTreeSet<String> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .chain(Health::ALL.iter().map(|health| health.as_str().to_owned()))
        .chain(Outcome::ALL.iter().map(|outcome| outcome.as_str().to_owned()))
        .chain(ConditionType::ALL.iter().map(|kind| kind.as_str().to_owned()))
        .chain(states.iter().map(|state| format!("{state:?}")))
        .chain(ends.iter().map(|state| format!("{state:?}")))
        .chain(OTHER_WORDS.iter().chain(&results).map(|word| (*word).to_owned()))
        .collect();
    let mut found = BTreeSet::new();
    // The chart's and the examples' tables name values, and kinds of other projects.
    let of_others = |path: &Path| path.starts_with("charts") || path.starts_with("examples");
    for (path, text) in pages().into_iter().filter(|(path, _)| !of_others(path)) {
        let rows = lines(&text).filter(|(code, line)| !code && line.starts_with('|')).map(|(_, line)| line);
        for word in rows.flat_map(spans).flat_map(|span| span.split('=')).filter(|word| is_word(word)) {
            assert!(
                known.contains(word),
                "{}: {word} is no reason, health, condition or state",
                path.display()
            );
            found.insert(word.to_owned());
        }
    }
    for reason in Reason::ALL {
        assert!(found.contains(reason.as_str()), "{reason} is nowhere explained");
    }
}

/// The source as one text, with string literals as they read.
fn source() -> String {
    fn walk(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut raw = String::new();
    walk(Path::new("src"), &mut raw);
    let mut text = String::new();
    for (number, part) in raw.split("\\\n").enumerate() {
        text.push_str(if number == 0 { part } else { part.trim_start() });
    }
    text.replace("\\\"", "\"")
}

#[test]
fn quoted_messages_are_said() {
    let source = source();
    let operations = fs::read_to_string("docs/operations.md").unwrap();
    let (_, table) = operations.split_once("## Bad input and bad days").unwrap();
    let mut checked = 0;
    for row in table.lines().filter(|line| line.starts_with('|')) {
        for quoted in row.split('"').skip(1).step_by(2) {
            for fragment in quoted.split('…').map(|part| part.trim().trim_end_matches(':')) {
                if fragment.len() >= 8 {
                    assert!(source.contains(fragment), "nowhere said: {fragment:?}, in {row}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 20, "{checked} fragments");
}

/// Where `level::module::…` stands; `None` for what is no test.
fn module(level: &str, module: &str) -> Option<PathBuf> {
    let folder = match level {
        "plan" => "src/domain/plan_tests",
        "domain" => "src/domain",
        "e2e" => "tests/e2e/cases",
        "simulation" => "tests/simulation",
        "gate" => return Some(Path::new("src/gate").join(module).join("tests.rs")),
        "ledger" if module == "service" => return Some(PathBuf::from("tests/ledger/service.rs")),
        "ledger" => return Some(Path::new("src/ledger").join(module).join("tests.rs")),
        "gate_process" => return Some(PathBuf::from("tests/gate_process.rs")),
        "serve" => return Some(PathBuf::from("src/runtime/serve/tests.rs")),
        "overseer" => return Some(PathBuf::from("src/runtime/overseer/tests.rs")),
        "looks" => return Some(PathBuf::from("src/controller/looks.rs")),
        "process" => return Some(PathBuf::from("tests/process.rs")),
        _ => return None,
    };
    Some(Path::new(folder).join(format!("{module}.rs")))
}

#[test]
fn tests_that_are_named_exist() {
    let mut named = 0;
    for (path, text) in pages() {
        for span in lines(&text).filter(|(code, _)| !code).flat_map(|(_, line)| spans(line)) {
            let parts: Vec<&str> = span.split("::").collect();
            let [level, name, test @ ..] = parts.as_slice() else { continue };
            let Some(file) = module(level, name).filter(|_| !name.is_empty()) else { continue };
            // `level::test` where a level is one file.
            let test = match *level {
                "serve" | "overseer" | "looks" | "process" | "gate_process" => &parts[1..],
                _ => test,
            };
            // `level::module::part::test` stands in a file of its own.
            let (file, test) = match test {
                [part, test @ ..] if !test.is_empty() => {
                    (file.with_extension("").join(part).with_extension("rs"), test)
                }
                test => (file, test),
            };
            let code = fs::read_to_string(&file);
            let code = code.unwrap_or_else(|_| panic!("{}: {span}: no {}", path.display(), file.display()));
            for test in test {
                assert!(code.contains(&format!("fn {test}(")), "{}: {span} does not exist", path.display());
            }
            named += 1;
        }
    }
    assert!(named > 10, "{named} tests are named");
}

#[test]
fn the_checks_see_what_they_look_for() {
    let page =
        "# Some *Title*, twice\n[a](b.md#c) `[x](y)` `make demo`\n\n    make test X=1\n```\nmake lint\n```\n";
    assert_eq!(links(page), ["b.md#c"]);
    assert_eq!(code(page).into_iter().filter(|code| code.starts_with("make")).count(), 3);
    assert!(anchors(page).contains("some-title-twice"));
    assert!(is_word("SecretLost") && is_word("Due") && !is_word("due") && !is_word("ABC"));
}
