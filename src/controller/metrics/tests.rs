//! What is scraped is what the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::tokens::{BusinessLabelError, BusinessLabels, TokenRow, TokenSource, register};
use super::*;
use crate::platform::families::{Descriptor, Kind};
use crate::platform::process;

/// What a controller serves.
fn served() -> impl Iterator<Item = &'static Descriptor> {
    TABLE.iter().chain(process::TABLE)
}

struct Two;

impl TokenSource for Two {
    fn for_each(&self, visit: &mut dyn FnMut(TokenRow<'_>)) {
        visit(TokenRow {
            namespace: "shop",
            name: "orders",
            owner: "payments \"quoted\"\n",
            health: "Healthy",
            ready: true,
            delivered: true,
            expires_at: Some(1_800_000_000),
            next_rotation: Some(1_700_000_000),
            labels: &["payments", "42"],
        });
        visit(TokenRow {
            namespace: "shop",
            name: "never",
            owner: "",
            health: "Stalled",
            ready: false,
            delivered: true,
            expires_at: None,
            next_rotation: None,
            labels: &[],
        });
    }
}

fn business() -> BusinessLabels {
    BusinessLabels::new(&["team".to_owned(), "cost-center".to_owned()]).expect("valid")
}

/// A scrape in which every family has at least one series.
fn scrape(per_token: bool) -> String {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let second = Duration::from_secs(1);
    metrics.reconciles.inc(["ok"]);
    metrics.reconcile_duration.observe(1.0);
    metrics.rotations.inc(["Due"]);
    metrics.secret_writes.inc(["ok"]);
    metrics.status_writes.inc(["ok"]);
    metrics.events_published.inc(["published"]);
    metrics.process.api_requests.inc(["get", "200"]);
    metrics.process.api_request_duration.observe(["get"], second);
    metrics.process.watch_errors.inc(["apitokens"]);
    metrics.process.watch_restarts.inc(["apitokens"]);
    register(&mut registry, Arc::new(Two), &["Healthy", "Stalled", "Expired"], per_token, &business());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
    text
}

/// Name → (type, labels), read back from the text as a scraper would.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("name and type");
            current = (name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix).filter(|_| current.1 == "histogram"))
                .unwrap_or(name);
            let labels =
                line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').expect("closed").0);
            let labels = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
            let entry: &mut (String, BTreeSet<String>) =
                families.entry(name.to_owned()).or_insert_with(|| (current.1.clone(), BTreeSet::new()));
            entry.1.extend(labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
        }
    }
    families
}

#[test]
fn what_is_scraped_is_what_the_table_says() {
    let scraped = families(&scrape(true));
    let expected: BTreeMap<_, _> = served()
        .map(|family| {
            let mut labels: BTreeSet<String> =
                family.labels.iter().map(|label| (*label).to_owned()).collect();
            if family.kind == Kind::Info && family.per_token {
                labels.extend(["label_team".to_owned(), "label_cost_center".to_owned()]);
            }
            (family.full_name(), (family.kind.as_str().to_owned(), labels))
        })
        .collect();
    assert_eq!(scraped, expected);
}

#[test]
fn per_token_series_can_be_switched_off() {
    let scraped = families(&scrape(false));
    for family in served() {
        assert_eq!(scraped.contains_key(&family.full_name()), !family.per_token, "{}", family.name);
    }
}

#[test]
fn tokens_are_counted_and_described_at_scrape() {
    let text = scrape(true);
    for line in [
        r#"tokenward_tokens{health="Expired"} 0"#,
        r#"tokenward_tokens{health="Healthy"} 1"#,
        r#"tokenward_token_info{namespace="shop",name="orders",owner="payments \"quoted\"\n",health="Healthy",ready="True",delivered="True",label_team="payments",label_cost_center="42"} 1"#,
        r#"tokenward_token_info{namespace="shop",name="never",owner="",health="Stalled",ready="False",delivered="True",label_team="",label_cost_center=""} 1"#,
        r#"tokenward_token_expiry_timestamp_seconds{namespace="shop",name="orders"} 1800000000"#,
        r#"tokenward_token_next_rotation_timestamp_seconds{namespace="shop",name="orders"} 1700000000"#,
        r#"tokenward_reconciles_total{result="ok"} 1"#,
        r#"tokenward_leader 0"#,
        "# HELP tokenward_tokens ApiTokens by health.",
        "# HELP tokenward_leader 1 while this replica leads, else 0; the sum over all replicas must not exceed 1.",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n--- not in ---\n{text}");
    }
    assert!(!text.contains(r#"expiry_timestamp_seconds{namespace="shop",name="never"}"#));
    assert!(text.contains(&format!(r#"tokenward_build_info{{version="{}""#, crate::VERSION)));
}

#[test]
fn business_labels_become_valid_label_names() {
    let keys = ["cost-center".to_owned(), "example.com/team".to_owned()];
    let labels = BusinessLabels::new(&keys).expect("valid");
    assert_eq!(labels.keys(), keys);
    let clash = BusinessLabels::new(&["a-b".to_owned(), "a.b".to_owned()]).expect_err("clash").to_string();
    assert_eq!(clash, r#"--metric-labels: "a-b" and "a.b" both become label_a_b: keep one of them"#);
    let many: Vec<String> = (0..17).map(|n| format!("k{n}")).collect();
    assert_eq!(BusinessLabels::new(&many), Err(BusinessLabelError::TooMany(17)));
}
