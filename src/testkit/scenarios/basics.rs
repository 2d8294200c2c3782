//! Creating, replacing, patching and deleting.

use http::Method;
use serde_json::{Value, json};
use tower::BoxError;

use super::run::Run;
use super::widgets::{secret, widget};

pub(super) async fn create_get_replace(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    let one = format!("{all}/a");
    r.get("get before", &one).await?;
    r.put("replace before", &one, secret("a", &json!({}))).await?;
    r.post("create with a version", &all, secret("a", &json!({"metadata": {"resourceVersion": "5"}})))
        .await?;
    let made = r.post("create", &all, secret("a", &json!({"data": {"k": "djE="}}))).await?;
    r.post("create again", &all, secret("a", &json!({"data": {"k": "djI="}}))).await?;
    r.post("create without a name", &all, json!({"apiVersion": "v1", "kind": "Secret"})).await?;
    r.post("create with a bad name", &all, secret("A_b", &json!({}))).await?;
    r.get("get", &one).await?;
    let mut next = made.body.clone();
    next["data"]["k"] = "djI=".into();
    r.put("replace", &one, next.clone()).await?;
    r.put("replace with the old version", &one, next.clone()).await?;
    next["metadata"]["resourceVersion"] = Value::Null;
    r.put("replace without a version", &one, next.clone()).await?;
    next["data"]["k"] = "djM=".into();
    r.put("replace without a version, changed", &one, next.clone()).await?;
    next["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
    r.put("replace with another uid", &one, next).await?;
    let all = r.widgets();
    let one = format!("{all}/a");
    r.put("replace a missing widget", &one, widget("a", &json!({"spec": {"x": 1}}))).await?;
    let made = r.post("create a widget", &all, widget("a", &json!({"spec": {"x": 1}}))).await?;
    r.put("replace a widget without a version", &one, widget("a", &json!({"spec": {"x": 2}}))).await?;
    let version = json!({"metadata": {"resourceVersion": made.rv()}, "spec": {"x": 2}});
    r.put("replace a widget", &one, widget("a", &version)).await?;
    Ok(())
}

pub(super) async fn merge_and_json_patch(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let one = format!("{all}/a");
    r.merge("patch before", &one, json!({"spec": {"x": 1}})).await?;
    let made = r.post("create", &all, widget("a", &json!({"spec": {"x": 1, "y": {"z": 1}}}))).await?;
    r.merge("patch", &one, json!({"spec": {"x": 2, "y": null}})).await?;
    r.merge("patch that changes nothing", &one, json!({"spec": {"x": 2}})).await?;
    let stale = json!({"metadata": {"resourceVersion": made.rv()}, "spec": {"x": 3}});
    r.merge("patch with the old version", &one, stale).await?;
    let now = r.get("get", &one).await?;
    let fresh = json!({"metadata": {"resourceVersion": now.rv()}, "spec": {"x": 4}});
    r.merge("patch with the right version", &one, fresh).await?;
    let uid = json!({"metadata": {"uid": "11111111-1111-1111-1111-111111111111"}, "spec": {"x": 5}});
    r.merge("patch with another uid", &one, uid).await?;
    r.merge("labels come", &one, json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}))
        .await?;
    r.merge("labels go", &one, json!({"metadata": {"labels": null, "annotations": {"c": null}}})).await?;
    let steps = json!([{"op": "test", "path": "/spec/x", "value": 4}, {"op": "replace", "path": "/spec/x", "value": 6}]);
    let uri = format!("{one}?fieldManager=jsoner");
    r.call("json patch", Method::PATCH, &uri, "application/json-patch+json", Some(&steps)).await?;
    r.call("json patch whose test fails", Method::PATCH, &uri, "application/json-patch+json", Some(&steps))
        .await?;
    let uri = format!("{one}?fieldManager=dry&dryRun=All");
    let body = json!({"spec": {"x": 7}});
    let dry = r.call("dry run", Method::PATCH, &uri, "application/merge-patch+json", Some(&body)).await?;
    let now = r.get("after the dry run", &one).await?;
    r.fact("dry run keeps the version", dry.rv() == now.rv());
    Ok(())
}

pub(super) async fn delete_preconditions(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    let one = format!("{all}/a");
    r.delete("delete before", &one, Value::Null).await?;
    let made = r.post("create", &all, secret("a", &json!({}))).await?;
    let wrong = json!({"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}});
    r.delete("wrong uid", &one, wrong).await?;
    r.delete("wrong version", &one, json!({"preconditions": {"resourceVersion": "1"}})).await?;
    r.delete("dry run", &one, json!({"dryRun": ["All"]})).await?;
    let right = json!({"preconditions": {"uid": made.uid(), "resourceVersion": made.rv()}});
    r.delete("right", &one, right).await?;
    r.get("get after", &one).await?;
    let all = r.widgets();
    r.post("create a widget", &all, widget("a", &json!({}))).await?;
    r.delete("delete it", &format!("{all}/a"), json!({"propagationPolicy": "Background"})).await?;
    Ok(())
}

pub(super) async fn identity_mismatches(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    let one = format!("{all}/a");
    r.post("another namespace", &all, secret("a", &json!({"metadata": {"namespace": "elsewhere"}}))).await?;
    r.post("another kind", &all, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}))
        .await?;
    r.post("create", &all, secret("a", &json!({}))).await?;
    r.put("another name", &one, secret("b", &json!({}))).await?;
    r.apply("apply another name", &one, "m", secret("b", &json!({}))).await?;
    r.apply("apply without a kind", &one, "m", json!({"metadata": {"name": "a"}})).await?;
    let body = secret("a", &json!({}));
    r.call("apply without a manager", Method::PATCH, &one, "application/apply-patch+yaml", Some(&body))
        .await?;
    let managed = json!({"metadata": {"managedFields": [{"manager": "x"}]}});
    r.apply("apply with managedFields", &one, "m", secret("a", &managed)).await?;
    r.call("unknown patch", Method::PATCH, &one, "application/unknown", Some(&body)).await?;
    r.get("unknown resource", &format!("/api/v1/namespaces/{}/things", r.namespace)).await?;
    r.get("unknown group", &format!("/apis/unknown.tokenward.dev/v1/namespaces/{}/things", r.namespace))
        .await?;
    Ok(())
}

pub(super) async fn lease_compare_and_swap(r: &mut Run) -> Result<(), BoxError> {
    let all = r.leases();
    let one = format!("{all}/leader");
    let lease = |holder: &str, rv: &str| {
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0},
        });
        if !rv.is_empty() {
            lease["metadata"]["resourceVersion"] = rv.into();
        }
        lease
    };
    r.get("get before", &one).await?;
    let first = r.post("create", &all, lease("a", "")).await?;
    r.post("create by another", &all, lease("b", "")).await?;
    r.put("blind overwrite", &one, lease("b", "")).await?;
    let second = r.put("renew", &one, lease("a", &first.rv())).await?;
    r.fact("renewing the same changes nothing", first.rv() == second.rv());
    let third = r.put("take over", &one, lease("b", &second.rv())).await?;
    r.put("late renewal", &one, lease("a", &second.rv())).await?;
    r.apply("apply with the old version", &one, "c!", lease("c", &second.rv())).await?;
    r.apply("apply with the right version", &one, "c!", lease("c", &third.rv())).await?;
    let other = format!("{all}/other");
    let mut body = lease("x", "");
    body["metadata"]["name"] = "other".into();
    r.put("replace creates a missing lease", &other, body).await?;
    Ok(())
}

pub(super) async fn finalizers(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let one = format!("{all}/a");
    let body = json!({"metadata": {"finalizers": ["tokenward.dev/hold"]}, "spec": {"x": 1}});
    r.post("create", &all, widget("a", &body)).await?;
    r.delete("delete", &one, Value::Null).await?;
    r.delete("delete again", &one, Value::Null).await?;
    r.merge("may still change", &one, json!({"spec": {"x": 2}})).await?;
    r.merge("release", &one, json!({"metadata": {"finalizers": null}})).await?;
    r.get("get after", &one).await?;
    Ok(())
}
