//! A custom resource that both servers serve, for scenarios alone.

use serde_json::{Value, json};

use crate::testkit::apiserver::ResourceType;

/// The in-process server's registration of `widgets.scenario.tokenward.dev`.
#[must_use]
pub fn widgets() -> ResourceType {
    ResourceType::custom("scenario.tokenward.dev", "v1", "widgets", "Widget")
        .list_map("status.credentials", "id")
}

/// The same for a real server.
#[must_use]
pub fn crd() -> Value {
    let list_map = |key: &str| {
        json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
            "items": {
                "type": "object", "required": [key], "properties": {key: {"type": "string"}},
                "x-kubernetes-preserve-unknown-fields": true,
            },
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.scenario.tokenward.dev"},
        "spec": {
            "group": "scenario.tokenward.dev", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "status": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"conditions": list_map("type"), "credentials": list_map("id")},
                    },
                }}},
            }],
        },
    })
}

/// A widget of this name.
pub(super) fn widget(name: &str, rest: &Value) -> Value {
    let mut object =
        json!({"apiVersion": "scenario.tokenward.dev/v1", "kind": "Widget", "metadata": {"name": name}});
    json_patch::merge(&mut object, rest);
    object
}

/// A Secret of this name.
pub(super) fn secret(name: &str, rest: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    json_patch::merge(&mut object, rest);
    object
}
