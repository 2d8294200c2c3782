//! What the watches take of an object that others write: the part of its metadata that is used here, and nothing else.
//!
//! Whoever may write a Secret may put times into `metadata.managedFields` that the API server takes and that are no RFC 3339 when it
//! serves them, such as a year of five digits. An object that cannot be read would break the watch for all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// The metadata of a `K`: name, namespace, uid, resourceVersion, labels, annotations and owner references. A list or watch of
/// it asks the API server for metadata only.
#[derive(Clone, Debug)]
pub struct Glimpse<K> {
    metadata: ObjectMeta,
    of: PhantomData<K>,
}

impl<K> Glimpse<K> {
    /// What was taken.
    pub fn into_meta(self) -> ObjectMeta {
        self.metadata
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    metadata: Taken,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Taken {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl<'de, K> Deserialize<'de> for Glimpse<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Taken { name, namespace, uid, resource_version, labels, annotations, owner_references } =
            Raw::deserialize(deserializer)?.metadata;
        let metadata = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            labels,
            annotations,
            owner_references,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, of: PhantomData })
    }
}

impl<K: Resource> Resource for Glimpse<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn times_that_nobody_can_read_hide_nothing() {
        for time in ["-0001-12-31T10:00:00Z", "10000-01-01T13:59:59Z", "soon"] {
            let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
                "name": "s", "namespace": "evil", "uid": "u", "resourceVersion": "7",
                "labels": {"tokenward.dev/token": "s"},
                "managedFields": [{"manager": "zz", "operation": "Update", "time": time}],
            }});
            let meta = serde_json::from_value::<Glimpse<Secret>>(object).unwrap().into_meta();
            assert_eq!((meta.name.as_deref(), meta.resource_version.as_deref()), (Some("s"), Some("7")));
            assert_eq!(meta.labels.unwrap()["tokenward.dev/token"], "s");
        }
        assert!(Glimpse::<Secret>::metadata_api());
    }
}
