//! The metrics reference, generated from the table.

use super::TABLE;

/// `docs/metrics.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         <!-- Generated from src/controller/metrics.rs by `make generate`. Do not edit. -->\n\n\
         The controller serves these in OpenMetrics text at `/metrics` of its admin endpoint (`--admin-listen`).\n\
         Histograms have the usual `_bucket`, `_sum` and `_count` series.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in TABLE {
        let mut labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        if family.per_token && family.kind == super::Kind::Info {
            labels.push("`label_…`".to_owned());
        }
        text.push_str(&format!(
            "| `{}` | {} | {} | {}. |\n",
            family.full_name(),
            family.kind.as_str(),
            labels.join(", "),
            family.help,
        ));
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
