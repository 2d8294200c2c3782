//! ApiTokens as the metrics show them, read from the stores at scrape time.

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;

use super::metrics::tokens::{TokenRow, TokenSource};
use crate::api::{ApiToken, Health};

/// The stores of all scopes.
pub(super) struct Rows {
    stores: Vec<Store<ApiToken>>,
    label_keys: Vec<String>,
}

impl Rows {
    pub(super) fn new(stores: Vec<Store<ApiToken>>, label_keys: &[String]) -> Self {
        Self { stores, label_keys: label_keys.to_vec() }
    }
}

impl TokenSource for Rows {
    fn for_each(&self, visit: &mut dyn FnMut(TokenRow<'_>)) {
        for token in self.stores.iter().flat_map(Store::state) {
            let status = token.status.as_ref();
            let health = status.and_then(|status| status.health.as_deref()).and_then(Health::parse);
            let labels: Vec<&str> = self
                .label_keys
                .iter()
                .map(|key| token.labels().get(key).map(String::as_str).unwrap_or_default())
                .collect();
            visit(TokenRow {
                namespace: token.namespace(),
                name: token.name(),
                owner: status
                    .and_then(|status| status.owner.as_ref())
                    .map_or("", |owner| owner.name.as_str()),
                health: health.unwrap_or(Health::Issuing).as_str(),
                expires_at: status.and_then(|status| status.expires_at.as_ref()).map(|at| at.0.as_second()),
                next_rotation: status
                    .and_then(|status| status.next_rotation_time.as_ref())
                    .map(|at| at.0.as_second()),
                labels: &labels,
            });
        }
    }
}
