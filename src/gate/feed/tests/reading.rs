//! Lines and objects.

use futures::Stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::gate::feed::lines::{Line, Lines};
use crate::gate::feed::object::{Object, Page};
use crate::gate::record::Record;

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

type Chunk = Result<Frame<Bytes>, std::convert::Infallible>;

fn body(chunks: Vec<Vec<u8>>) -> StreamBody<impl Stream<Item = Chunk> + Unpin> {
    StreamBody::new(futures::stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk.into())))))
}

/// Lines in short, and what came after them.
async fn read(chunks: Vec<Vec<u8>>) -> (Vec<String>, kube::Result<()>) {
    let mut lines = Lines::new(body(chunks));
    let mut all = Vec::new();
    loop {
        all.push(match lines.next().await {
            Ok(Some(Line::Object(change, object))) => format!("{change:?} {}", object.version()),
            Ok(Some(Line::Unnamed(change))) => format!("{change:?} ?"),
            Ok(Some(Line::Bookmark { version, end })) => format!("Bookmark {version} {end}"),
            Ok(Some(Line::Error(status))) => format!("Error {}", status.code),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        });
    }
}

fn watch_text() -> String {
    let meta =
        |version: &str| json!({"name": "t", "namespace": "shop", "uid": "u", "resourceVersion": version});
    let lines = [
        json!({"type": "ADDED", "object": {"metadata": meta("1"), "spec": {}}}),
        // The other way round, as nobody sends it today.
        serde_json::from_str(&format!(r#"{{"object":{{"metadata":{}}},"type":"MODIFIED"}}"#, meta("2")))
            .unwrap(),
        json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "3", "creationTimestamp": null}}}),
        json!({"type": "BOOKMARK", "object": {"metadata":
            {"resourceVersion": "4", "annotations": {"k8s.io/initial-events-end": "true"}}}}),
        json!({"type": "DELETED", "object": {"metadata": meta("5"), "text": "line\nbreak and ä"}}),
        json!({"type": "ADDED", "object": {"metadata": {"name": "no uid"}}}),
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}}),
    ];
    lines.iter().map(|line| format!("{line}\n")).collect()
}

const READ: [&str; 7] =
    ["Applied 1", "Applied 2", "Bookmark 3 false", "Bookmark 4 true", "Deleted 5", "Applied ?", "Error 410"];

#[tokio::test]
async fn lines_are_found_wherever_they_are_cut() {
    let text = watch_text().into_bytes();
    for size in [1, 2, 7, 64, 300, text.len()] {
        let (lines, end) = read(text.chunks(size).map(<[u8]>::to_vec).collect()).await;
        assert_eq!((lines, end.is_ok()), (READ.map(String::from).to_vec(), true), "in pieces of {size}");
    }
}

#[tokio::test]
async fn a_line_that_breaks_off_is_dropped_and_garbage_is_an_error() {
    let text = watch_text();
    let (lines, end) = read(vec![text.as_bytes()[..text.len() - 5].to_vec()]).await;
    assert_eq!((lines.len(), end.is_ok()), (6, true));
    for garbage in [
        "<html>\n",
        "\n",
        "{}\n",
        "{\"type\":\"NEW\",\"object\":{}}\n",
        "{\"type\":\"BOOKMARK\",\"object\":{}}\n",
    ] {
        assert!(read(vec![garbage.into()]).await.1.is_err(), "{garbage}");
    }
    let endless = vec![vec![b'x'; 1 << 20]; 20];
    assert!(read(endless).await.1.unwrap_err().to_string().contains("too long"));
}

#[test]
fn what_is_skipped_means_nothing_to_a_gate() {
    let token = minted("twd", 1);
    let object = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "17",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"tokenward.dev/compromised-at": "now", "other": "x"},
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"description": "d", "scopes": ["read"], "audiences": ["orders"], "suspend": true,
            "secret": {"template": {"x": "y"}}, "rotation": {"every": "24h"}, "expiry": {"after": "48h"}},
        "status": {"credentials": [living(&token)], "conditions": [{"type": "Ready"}], "owner": {"name": "payments"},
            "usage": {"requests": 3}, "delivery": {"uid": "s"}},
    });
    let metadata = serde_json::from_value(object["metadata"].clone()).unwrap();
    let read = Object::parse(&raw(&object)).unwrap();
    assert_eq!(read.record(), Record::from_json(&metadata, &object));
    assert!(read.record().is_compromised() && read.record().is_suspended());
    assert_eq!((read.record().owner(), read.record().version()), ("payments", 17));
    assert!(!format!("{read:?}").contains("template"));
}

#[test]
fn of_a_damaged_object_remains_a_tombstone_with_its_ids() {
    let token = minted("twd", 1);
    let named = |extra: Value| {
        let mut metadata = json!({"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "17"});
        metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        metadata
    };
    let status = json!({"credentials": [living(&token)]});
    for object in [
        json!({"metadata": named(json!({"creationTimestamp": "yesterday"})), "spec": {}, "status": status}),
        json!({"metadata": named(json!({"annotations": 7})), "spec": {}, "status": status}),
        json!({"metadata": named(json!({"name": 7})), "spec": {}, "status": status}),
        json!({"metadata": named(json!({})), "spec": [], "status": status}),
        json!({"metadata": named(json!({})), "spec": {"scopes": "read"}, "status": status}),
        json!({"metadata": named(json!({})), "spec": {"suspend": null}, "status": status}),
    ] {
        let record = Object::parse(&raw(&object)).unwrap().record();
        assert!(record.is_tombstone(), "{object}");
        let ids: Vec<String> = record.held().map(|held| held.id().to_string()).collect();
        assert_eq!((record.uid(), ids), ("u1", vec![token.id().to_owned()]), "{object}");
    }
    for object in [json!(7), json!({}), json!({"metadata": {}}), json!({"metadata": {"uid": ""}})] {
        assert_eq!(Object::parse(&raw(&object)), None);
    }
}

#[test]
fn pages_say_where_they_go_on() {
    let item = json!({"metadata": {"name": "t", "namespace": "shop", "uid": "u", "resourceVersion": "1"}});
    let page = |metadata: Value| json!({"metadata": metadata, "items": [item, item]}).to_string();
    let last = Page::parse(&page(json!({"resourceVersion": "9", "continue": ""}))).unwrap();
    assert_eq!((&*last.version, last.next, last.objects.len()), ("9", None, 2));
    let more = Page::parse(&page(json!({"resourceVersion": "9", "continue": "c"}))).unwrap();
    assert_eq!(more.next.as_deref(), Some("c"));
    assert!(Page::parse("{}").is_err() && Page::parse(&page(json!({}))).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
        Just(living(&minted("twd", 1))),
    ];
    let key = prop_oneof![
        Just("scopes"),
        Just("suspend"),
        Just("credentials"),
        Just("ended"),
        Just("conditions"),
        Just("secret"),
        Just("owner"),
        Just("expiry"),
        Just("id"),
        Just("name"),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    /// Skipping changes no verdict, whatever the object holds.
    #[test]
    fn a_record_is_the_same_as_that_of_the_whole_object(spec in any_json(), status in any_json()) {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "17"});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        let read = Object::parse(&raw(&object)).expect("it has a uid");
        let metadata = serde_json::from_value(metadata).expect("metadata");
        prop_assert_eq!(read.record(), Record::from_json(&metadata, &object));
    }
}

/// As the API server sends it, with this text for `spec`.
fn sent(metadata: &str, spec: &str, token: &Token) -> Record {
    let status = active(token);
    let text = format!(
        r#"{{"metadata":{{"name":"t","namespace":"shop","uid":"u","resourceVersion":"1"{metadata}}},
            "spec":{spec},"status":{status}}}"#
    );
    Object::parse(&RawValue::from_string(text).unwrap()).unwrap().record()
}

#[test]
fn a_spec_that_cannot_be_built_lifts_no_restriction() {
    let token = minted("twd", 1);
    assert!(!sent("", r#"{"suspend":true}"#, &token).is_tombstone());
    let deep = format!(r#"{{"suspend":true,"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for spec in [r#"{"suspend":true,"x":1e400}"#, &deep, "null", "7"] {
        let record = sent("", spec, &token);
        assert!(
            record.is_tombstone() && record.held().any(|held| held.id().to_string() == token.id()),
            "{spec}"
        );
    }
}

#[test]
fn an_object_that_waits_for_its_finalizers_is_deleted() {
    let token = minted("twd", 1);
    assert!(!sent("", "{}", &token).is_deleted());
    assert!(sent(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, "{}", &token).is_deleted());
}
