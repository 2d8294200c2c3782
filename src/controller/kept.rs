//! ApiTokens as the store keeps them.
//!
//! There is one for each token of the cluster, whether anything happens to it or not, so that what it takes is what the
//! process takes: parsed it is 3.4 kB in some forty allocations, as JSON 1.3 kB in one. It is parsed, in some four
//! microseconds, by who looks at it.

use std::borrow::Cow;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::execute::LAST_APPLIED;
use crate::api::ApiToken;

/// Bytes of an ApiToken that nobody looks at twice.
const LARGE: usize = 32 << 10;
/// Bytes of a value of which more counts as too long, whatever it is for: of a request 128, of an owner 253 characters.
const MAX_VALUE: usize = 1_024;
/// Keys of which only that they are there is of use: they are counted in a message.
const MAX_PRESENT: usize = 64;

/// What is of use of a label or annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfUse {
    /// Nobody reads it.
    Nothing,
    /// That it is there, and whether it is empty.
    Presence,
    /// Its value.
    Value,
}

/// An ApiToken, folded up.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Namespace, name and uid, and for the watch, which follows it, the resourceVersion; nothing else.
    metadata: ObjectMeta,
    json: Box<[u8]>,
}

impl Kept {
    /// One of which no more is known than that it was there.
    #[cfg(test)]
    pub fn gone(metadata: &ObjectMeta) -> Self {
        let metadata = ObjectMeta {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            ..ObjectMeta::default()
        };
        Self { metadata, json: Box::default() }
    }

    /// For the store, which has no use for the resourceVersion.
    pub fn without_version(mut self) -> Self {
        self.metadata.resource_version = None;
        self
    }

    /// Without what nobody reads, if it is large: a megabyte of labels would be kept for as long as the object is there. `of_use`
    /// says what is read: nothing of a label or annotation, its presence, or its value.
    pub fn slim(mut self, of_use: impl Fn(&str) -> OfUse) -> Self {
        if self.json.len() <= LARGE {
            return self;
        }
        let Ok(mut object) = self.read::<Value>() else { return self };
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return self };
        for kind in ["finalizers", "ownerReferences"] {
            metadata.remove(kind);
        }
        for kind in ["labels", "annotations"] {
            let Some(Value::Object(pairs)) = metadata.get_mut(kind) else { continue };
            let mut present = 0;
            pairs.retain(|key, value| {
                let most = match of_use(key) {
                    OfUse::Nothing => return false,
                    OfUse::Value => MAX_VALUE,
                    OfUse::Presence => {
                        present += 1;
                        1
                    }
                };
                if let Value::String(value) = value {
                    value.truncate(value.floor_char_boundary(most));
                }
                present <= MAX_PRESENT
            });
        }
        if let Ok(json) = serde_json::to_vec(&object) {
            self.json = json.into_boxed_slice();
        }
        self
    }

    /// Unfolds it: to an [`ApiToken`], or to as much of one as `T` asks for.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.json)
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// An ApiToken as the watch takes it in.
///
/// Its author may have written what no client can read, where the definition does not forbid it: a time of the year 0 in another
/// zone, which the API server serves as one of the year -1. Of such a one it is still known which ApiToken it is and what it has
/// published, and it breaks the watch of no other. `metadata.managedFields` is used by nobody here and dropped unread.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// It.
    pub kept: Kept,
    /// Why it cannot be acted on, if so.
    pub flaw: Option<String>,
}

/// What says which one it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut object = Value::deserialize(deserializer)?;
        let metadata = object.get_mut("metadata").ok_or_else(|| D::Error::missing_field("metadata"))?;
        if let Value::Object(metadata) = metadata {
            metadata.remove("managedFields");
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                annotations.remove(LAST_APPLIED);
            }
        }
        let Named { namespace, name, uid, resource_version } =
            Named::deserialize(&*metadata).map_err(D::Error::custom)?;
        let flaw = ApiToken::deserialize(&object).err().map(|error| error.to_string());
        let metadata = ObjectMeta { namespace, name, uid, resource_version, ..ObjectMeta::default() };
        let json = serde_json::to_vec(&object).map_err(D::Error::custom)?.into_boxed_slice();
        Ok(Self { kept: Kept { metadata, json }, flaw })
    }
}

/// To the watch, the store and the queue these are ApiTokens.
macro_rules! an_api_token {
    ($type:ty, $($metadata:ident).+) => {
        impl Resource for $type {
            type DynamicType = ();
            type Scope = <ApiToken as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                ApiToken::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                ApiToken::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                ApiToken::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                ApiToken::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.$($metadata).+
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$($metadata).+
            }
        }
    };
}

an_api_token!(Kept, metadata);
an_api_token!(Guarded, kept.metadata);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{ApiTokenSpec, ApiTokenStatus};

    /// As the watch takes it in.
    fn taken(token: &Value) -> Guarded {
        serde_json::from_value(token.clone()).expect("whatever is in it")
    }

    #[test]
    fn what_was_folded_up_unfolds_to_the_same() {
        let spec = ApiTokenSpec { description: Some("a \"quoted\"\nline".into()), ..Default::default() };
        let mut token = ApiToken::new("orders", spec);
        token.metadata.namespace = Some("shop".into());
        token.metadata.uid = Some("u-1".into());
        token.metadata.resource_version = Some("7".into());
        token.metadata.labels = Some([("team".to_owned(), "payments".to_owned())].into());
        token.status = Some(ApiTokenStatus { health: Some("Healthy".into()), ..Default::default() });
        let Guarded { kept, flaw } = taken(&serde_json::to_value(&token).unwrap());
        assert_eq!((kept.namespace(), kept.name(), kept.uid()), ("shop", "orders", "u-1"));
        assert_eq!((kept.read::<ApiToken>().expect("unfolded"), flaw), (token, None));
    }

    #[test]
    fn a_large_one_is_kept_without_what_nobody_reads() {
        let domain = "d".repeat(200);
        let mut token = json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "spec": {"description": "kept"},
            "metadata": {"namespace": "shop", "name": "t", "uid": "u", "finalizers": ["example.com/hold"],
                "labels": {"team": "payments"}, "annotations": {"told": "x".repeat(5_000), "owner": "é".repeat(5_000)}},
        });
        let of_use = |key: &str| match key {
            "team" | "owner" => OfUse::Value,
            key if key.starts_with("told") => OfUse::Presence,
            _ => OfUse::Nothing,
        };
        let small = taken(&token).kept.slim(of_use).read::<Value>().unwrap();
        assert_eq!(
            small["metadata"]["finalizers"],
            json!(["example.com/hold"]),
            "a small one is kept as it is"
        );
        for number in 0..1_300 {
            token["metadata"]["labels"][format!("{domain}/{number}")] = json!("x".repeat(63));
            token["metadata"]["annotations"][format!("told-{number}")] = json!("x");
        }
        let kept = taken(&token).kept.slim(of_use);
        assert!(kept.json.len() < 8 << 10, "{}", kept.json.len());
        let read = kept.read::<ApiToken>().expect("still an ApiToken");
        assert_eq!(read.spec.description.as_deref(), Some("kept"));
        assert_eq!(read.metadata.labels.unwrap(), [("team".to_owned(), "payments".to_owned())].into());
        let annotations = read.metadata.annotations.unwrap();
        assert_eq!((annotations["owner"].len(), annotations["told"].as_str()), (1_024, "x"));
        assert_eq!(annotations.len(), 1 + MAX_PRESENT);
    }

    #[test]
    fn what_nobody_can_read_is_still_known_by_name() {
        for time in ["-0001-12-31T10:00:00Z", "10000-01-01T13:59:59Z", "soon"] {
            let mut token = json!({
                "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "spec": {},
                "metadata": {"namespace": "shop", "name": "t", "uid": "u", "resourceVersion": "7", "managedFields": [{"time": time}],
                    "annotations": {LAST_APPLIED: "{}"}},
            });
            let Guarded { kept, flaw } = taken(&token);
            assert_eq!((kept.uid(), flaw), ("u", None), "{time}");
            assert_eq!(kept.meta().resource_version.as_deref(), Some("7"), "the watch goes on from there");
            let read = kept.read::<ApiToken>().unwrap().metadata;
            assert!(read.managed_fields.is_none() && read.annotations.unwrap().is_empty());
            token["metadata"]["deletionTimestamp"] = json!(time);
            let Guarded { kept, flaw } = taken(&token);
            assert_eq!((kept.name(), flaw.is_some()), ("t", true), "{time}");
        }
    }
}
