use std::collections::BTreeSet;

use super::*;
use crate::api::{Health, Reason, crds};

fn reference() -> String {
    api(&crds())
}

/// The cells of a line of a table; a `\|` does not end one.
fn cells(line: &str) -> Vec<String> {
    line.replace("\\|", "\u{0}").split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

#[test]
fn every_line_of_a_table_has_the_cells_of_its_head() {
    let text = reference();
    let mut width = 0;
    for line in text.lines() {
        if !line.starts_with('|') {
            width = 0;
            continue;
        }
        let count = cells(line).len();
        width = if width == 0 { count } else { width };
        assert_eq!(count, width, "{line}");
    }
}

#[test]
fn every_field_and_every_word_is_described() {
    let text = reference();
    for path in [
        "spec.suspend",
        "spec.secret.template",
        "spec.rotation.timeZone",
        "spec.expiry.at",
        "spec.idle.after",
        "status.credentials[].notAfter",
        "status.lastHandled.compromisedAt",
        "status.delivery.contentHash",
    ] {
        assert!(text.contains(&format!("| `{path}` |")), "{path}");
    }
    let undescribed: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    assert!(undescribed.is_empty(), "{undescribed:#?}");
    let words: BTreeSet<String> = text
        .lines()
        .filter_map(|line| cells(line).get(1)?.strip_prefix('`')?.strip_suffix('`').map(str::to_owned))
        .collect();
    let known = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .chain(Health::ALL.iter().map(|health| health.as_str()));
    for word in known {
        assert!(words.contains(word), "{word}");
    }
}

#[test]
fn every_rule_is_named_with_its_message() {
    let text = reference();
    let json = serde_json::to_value(&crds()[0]).unwrap();
    let mut found = 0;
    let mut left = vec![&json];
    while let Some(value) = left.pop() {
        if let Some(rules) = value.get("x-kubernetes-validations").and_then(|rules| rules.as_array()) {
            for rule in rules {
                let message = cell(rule["message"].as_str().unwrap());
                assert!(text.contains(&message), "{message}");
                found += 1;
            }
        }
        left.extend(value.as_object().into_iter().flat_map(|object| object.values()));
        left.extend(value.as_array().into_iter().flatten());
    }
    assert!(found > 20, "{found} rules");
}

#[test]
fn constraints_are_told() {
    let text = reference();
    let line = |path: &str| {
        let start = format!("| `{path}` |");
        cells(text.lines().find(|line| line.starts_with(&start)).unwrap())
    };
    assert_eq!(line("spec.audiences")[2], "list of string");
    assert!(line("spec.audiences")[3].contains("at most 16 entries"), "{:?}", line("spec.audiences"));
    assert!(line("spec.audiences")[3].contains("each: 1 to 128 characters"));
    assert_eq!(line("spec.expiry.at")[2], "time");
    assert!(line("status.credentials[].id")[3].starts_with("required"));
    assert!(line("spec.secret.labels")[3].contains("each value: at most 63 characters"));
    assert!(line("status.credentials[].state")[3].contains("`Pending` or `Active` or `Retiring`"));
}

#[test]
fn the_order_is_always_the_same() {
    assert_eq!(reference(), reference());
}
