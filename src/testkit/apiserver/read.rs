//! Get and list, and what a watch starts from.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::request::Call;
use super::selector::Selector;
use super::status::ApiError;
use super::store::{State, partial};
use super::write::{Answer, Target};

/// Where the next page starts: `rv` 0 asks for the newest state.
struct Continue {
    rv: u64,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": self.rv, "start": self.after}).to_string())
    }

    fn decode(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        Some(Self { rv: value["rv"].as_u64()?, after: value["start"].as_str()?.into() })
    }
}

/// The version that a read or watch asks for; none for the newest.
pub(super) fn asked_version(call: &Call) -> Result<Option<u64>, ApiError> {
    let Some(text) = &call.params.resource_version else { return Ok(None) };
    let version =
        text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))?;
    Ok(Some(version))
}

/// The prefix of the keys that a collection request is about.
pub(super) fn prefix(call: &Call) -> String {
    call.info.namespace.as_ref().map(|ns| format!("{ns}/")).unwrap_or_default()
}

impl State {
    /// GET of one object.
    pub(super) fn get(&self, target: &Target<'_>) -> Result<Answer, ApiError> {
        self.not_from_the_future(target.call)?;
        self.tables[target.table]
            .objects
            .get(&target.key())
            .map(|stored| Answer::ok(stored.value.clone()))
            .ok_or_else(|| ApiError::not_found(&target.res, target.name()))
    }

    fn not_from_the_future(&self, call: &Call) -> Result<Option<u64>, ApiError> {
        let asked = asked_version(call)?;
        match asked {
            Some(asked) if asked > self.rv => Err(ApiError::too_large(asked, self.rv)),
            _ => Ok(asked),
        }
    }

    /// The objects under `prefix` as they were at `rv`, by undoing what happened since.
    fn snapshot(&self, table: usize, prefix: &str, rv: u64) -> Option<BTreeMap<String, Arc<Value>>> {
        let table = &self.tables[table];
        if rv < table.floor {
            return None;
        }
        let mut objects: BTreeMap<String, Arc<Value>> =
            table.range(prefix).map(|(key, stored)| (key.clone(), stored.value.clone())).collect();
        for event in table.history.iter().rev().take_while(|event| event.rv > rv) {
            if !event.key.starts_with(prefix) {
                continue;
            }
            match &event.before {
                Some(before) => objects.insert(event.key.to_string(), before.clone()),
                None => objects.remove(&*event.key),
            };
        }
        Some(objects)
    }

    /// GET of a collection.
    pub(super) fn list(&self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let (call, params) = (target.call, &target.call.params);
        let selector = Selector::parse(params.label_selector.as_deref(), params.field_selector.as_deref())?;
        let asked = self.not_from_the_future(call)?;
        let prefix = prefix(call);
        let mut rv = match (asked, params.version_match.as_deref()) {
            (Some(asked), Some("Exact")) if asked > 0 => asked,
            _ => self.rv,
        };
        let mut after = None;
        if let Some(token) = &params.continue_token {
            let token = Continue::decode(token)
                .ok_or_else(|| ApiError::bad_request(format!("continue key is not valid: {token}")))?;
            if token.rv > 0 {
                rv = token.rv;
            }
            after = Some(token.after);
        }
        let Some(objects) = self.snapshot(target.table, &prefix, rv) else {
            let fresh = after.map(|after| Continue { rv: 0, after }.encode());
            return Err(ApiError::expired_list(fresh));
        };
        let limit = params.limit.unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let (mut last, mut more) = (String::new(), 0);
        for (key, object) in &objects {
            if after.as_ref().is_some_and(|after| key <= after) || !selector.matches(object) {
                continue;
            }
            if items.len() == limit {
                more += 1;
                continue;
            }
            items.push(if call.metadata_only { partial(object) } else { (**object).clone() });
            last.clone_from(key);
        }
        let mut metadata = json!({"resourceVersion": rv.to_string()});
        if more > 0 {
            metadata["continue"] = Continue { rv, after: last }.encode().into();
            if selector.is_everything() {
                metadata["remainingItemCount"] = more.into();
            }
        }
        let (kind, version) = if call.metadata_only {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (format!("{}List", target.res.kind), target.res.api_version())
        };
        Ok(Answer::ok(Arc::new(json!({
            "kind": kind, "apiVersion": version, "metadata": metadata, "items": items,
        }))))
    }
}
