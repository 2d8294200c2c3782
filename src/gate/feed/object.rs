//! ApiTokens as the API server sends them, read as far as a gate needs them, whatever they hold.
//!
//! At the start of a gate there may be 100,000: what is not needed is skipped, not read. That is most of an object: managed
//! fields, conditions, templates.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeSeed};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::keys;
use crate::gate::record::Record;

/// Fields of `spec` that mean nothing to a gate.
const SPEC: &[&str] = &["description", "secret", "rotation", "idle"];
/// Fields of `status` that mean nothing to a gate.
const STATUS: &[&str] = &["conditions", "health", "secretName", "delivery", "usage"];

/// One ApiToken.
#[derive(Debug, PartialEq)]
pub(super) struct Object {
    metadata: ObjectMeta,
    /// With `spec` and `status`.
    body: Value,
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    resource_version: String,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    /// [`keys::COMPROMISED_AT`]
    #[serde(rename = "tokenward.dev/compromised-at")]
    compromised_at: Option<String>,
}

impl Object {
    /// From JSON; `None` if it cannot even be named.
    pub(super) fn parse(raw: &RawValue) -> Option<Self> {
        let Ok(parts) = serde_json::from_str::<Parts<'_>>(raw.get()) else { return Self::salvage(raw) };
        let Ok(metadata) = serde_json::from_str(parts.metadata.get()) else { return Self::salvage(raw) };
        let mut body = Map::new();
        for (key, raw, skip) in [("spec", parts.spec, SPEC), ("status", parts.status, STATUS)] {
            if let Some(raw) = raw {
                body.insert(key.to_owned(), without(raw, skip));
            }
        }
        Some(Self { metadata: metadata_of(metadata), body: Value::Object(body) })
    }

    /// What can be had of an object of another shape. It becomes a tombstone.
    fn salvage(raw: &RawValue) -> Option<Self> {
        let object: Value = serde_json::from_str(raw.get()).ok()?;
        let text = |key: &str| {
            let field = object.get("metadata")?.get(key)?;
            Some(field.as_str()?.to_owned())
        };
        let metadata = ObjectMeta {
            uid: Some(text("uid").filter(|uid| !uid.is_empty())?),
            // Even nameless it has to be found by its uid.
            name: Some(text("name").unwrap_or_default()),
            namespace: Some(text("namespace").unwrap_or_default()),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        // Fails closed: no record can be made of this `spec`.
        let mut body = Map::new();
        body.insert("spec".to_owned(), Value::Bool(false));
        if let Some(status) = object.get("status") {
            body.insert("status".to_owned(), status.clone());
        }
        Some(Self { metadata, body: Value::Object(body) })
    }

    /// Its metadata, as far as a gate needs it.
    pub(super) fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Its resourceVersion.
    pub(super) fn version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// As the index keeps it.
    pub(super) fn record(&self) -> Record {
        Record::from_json(&self.metadata, &self.body)
    }
}

fn metadata_of(metadata: Metadata) -> ObjectMeta {
    let compromised_at = metadata.annotations.and_then(|annotations| annotations.compromised_at);
    ObjectMeta {
        name: Some(metadata.name),
        namespace: Some(metadata.namespace),
        uid: Some(metadata.uid),
        resource_version: Some(metadata.resource_version),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        annotations: compromised_at.map(|at| [(keys::COMPROMISED_AT.to_owned(), at)].into()),
        ..ObjectMeta::default()
    }
}

/// A value without some of its fields, if it has fields. What cannot be built becomes `false`: nothing is understood by that.
fn without(raw: &RawValue, skip: &'static [&'static str]) -> Value {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let fields = Without(skip).deserialize(&mut deserializer);
    fields.map(Value::Object).or_else(|_| serde_json::from_str(raw.get())).unwrap_or(Value::Bool(false))
}

struct Without(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Without {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Without {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = fields.next_key::<std::borrow::Cow<'de, str>>()? {
            if self.0.contains(&&*key) {
                fields.next_value::<IgnoredAny>()?;
            } else {
                kept.insert(key.into_owned(), fields.next_value()?);
            }
        }
        Ok(kept)
    }
}

/// One page of a list.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    /// Of the whole list.
    pub(super) version: String,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
    /// What is in it and can be named.
    pub(super) objects: Vec<Object>,
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMetadata,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

impl Page {
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let List { metadata, items } = serde_json::from_str(text)?;
        Ok(Self {
            version: metadata.resource_version,
            next: Some(metadata.next).filter(|next| !next.is_empty()),
            objects: items.into_iter().filter_map(Object::parse).collect(),
        })
    }
}
