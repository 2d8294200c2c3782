//! The metrics reference, generated from the tables of all roles.

use crate::controller;
use crate::gate;
use crate::ledger;
use crate::platform::families::{Descriptor, Kind};
use crate::platform::process;

/// The sections of the reference: heading, what it says first, families.
const SECTIONS: [(&str, &str, &[Descriptor]); 4] = [
    ("Every role", "The controller and the gate serve these.", process::TABLE),
    (
        "Controller",
        "Those about leadership, tokens and writes come from the controller.",
        controller::metrics::TABLE,
    ),
    (
        "Ledger",
        "They come from the controller when `--ledger-listen` is set; those of the replica that leads are what counts.",
        ledger::metrics::TABLE,
    ),
    ("Gate", "Answers are counted per thread and summed when they are scraped.", gate::metrics::TABLE),
];

/// `docs/metrics.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         <!-- Generated from the tables in src/ by `make generate`. Do not edit. -->\n\n\
         Each process serves these in OpenMetrics text at `/metrics` of its admin endpoint (`--admin-listen`).\n\
         Histograms have the usual `_bucket`, `_sum` and `_count` series.\n",
    );
    for (heading, intro, table) in SECTIONS {
        text.push_str(&format!(
            "\n## {heading}\n\n{intro}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"
        ));
        table.iter().for_each(|family| text.push_str(&row(family)));
    }
    text.push_str(
        "\n## Per token\n\n\
         `tokenward_token_…` families have series for each ApiToken. They are computed from the controller's store at the\n\
         moment of the scrape, so a deleted token leaves no series behind. `--per-token-metrics=false` removes them;\n\
         `tokenward_tokens` stays.\n\n\
         `--metric-labels team,cost-center` adds those labels of the ApiToken to `tokenward_token_info` as `label_team` and\n\
         `label_cost_center` (every character that a label name cannot have becomes `_`). Nothing else that users write\n\
         becomes a label, apart from a token's name, namespace and owner.\n",
    );
    text
}

fn row(family: &Descriptor) -> String {
    let mut labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    if family.per_token && family.kind == Kind::Info {
        labels.push("`label_…`".to_owned());
    }
    let (name, kind) = (family.full_name(), family.kind.as_str());
    format!("| `{name}` | {kind} | {} | {}. |\n", labels.join(", "), family.help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn families() -> impl Iterator<Item = &'static Descriptor> {
        SECTIONS.iter().flat_map(|(_, _, table)| table.iter())
    }

    #[test]
    fn the_tables_are_well_formed() {
        let names: BTreeSet<_> = families().map(|family| family.name).collect();
        assert_eq!(names.len(), families().count(), "a name twice");
        for family in families() {
            assert!(!family.help.ends_with('.') && !family.help.contains('|'), "{}", family.name);
            assert!(family.name.ends_with(family.kind.suffix()), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        }
    }

    #[test]
    fn the_reference_names_every_family() {
        let text = reference();
        for family in families() {
            assert!(text.contains(&format!("| `{}` | {} |", family.full_name(), family.kind.as_str())));
        }
        // With UPDATE_GENERATED set, the test writes what it otherwise compares.
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write("docs/metrics.md", &text).expect("docs/metrics.md is writable");
        }
        let committed = std::fs::read_to_string("docs/metrics.md").expect("docs/metrics.md");
        assert!(committed == text, "docs/metrics.md differs from the code: run make generate");
    }
}
