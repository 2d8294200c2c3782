//! ApiTokens as the metrics show them, read from the stores at scrape time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::reflector::Store;
use serde::Deserialize;

use super::kept::Kept;
use super::metrics::tokens::{TokenRow, TokenSource};
use crate::api::{ConditionType, Health};

/// The stores of all scopes.
pub(super) struct Rows {
    stores: Vec<Store<Kept>>,
    label_keys: Vec<String>,
}

impl Rows {
    pub(super) fn new(stores: Vec<Store<Kept>>, label_keys: &[String]) -> Self {
        Self { stores, label_keys: label_keys.to_vec() }
    }
}

/// As much of an ApiToken as a row shows: the rest is skipped, not parsed.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

/// The API server lets nothing into labels that JSON would have to escape.
#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    health: Cow<'a, str>,
    #[serde(borrow)]
    owner: Owner<'a>,
    #[serde(borrow)]
    conditions: Vec<Said<'a>>,
    expires_at: Option<Time>,
    next_rotation_time: Option<Time>,
}

/// A condition, without what it says to people.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct Owner<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl TokenSource for Rows {
    fn for_each(&self, visit: &mut dyn FnMut(TokenRow<'_>)) {
        for token in self.stores.iter().flat_map(Store::state) {
            let Ok(Shown { metadata, status }) = token.read() else { continue };
            let labels: Vec<&str> = self
                .label_keys
                .iter()
                .map(|key| metadata.labels.get(&**key).copied().unwrap_or(""))
                .collect();
            let is = |kind: ConditionType| {
                status.conditions.iter().any(|said| said.kind == kind.as_str() && said.status == "True")
            };
            visit(TokenRow {
                namespace: token.namespace(),
                name: token.name(),
                owner: &status.owner.name,
                health: Health::parse(&status.health).unwrap_or(Health::Issuing).as_str(),
                ready: is(ConditionType::Ready),
                delivered: is(ConditionType::Delivered),
                expires_at: status.expires_at.map(|at| at.0.as_second()),
                next_rotation: status.next_rotation_time.map(|at| at.0.as_second()),
                labels: &labels,
            });
        }
    }
}
