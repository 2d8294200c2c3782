//! The controllers that every cluster runs: garbage collection and namespaces.

use serde_json::{Value, json};
use tower::BoxError;

use super::run::{Reply, Run};
use super::widgets::{secret, widget};

async fn owned(r: &mut Run, name: &str, owners: &[(&str, &Reply)]) -> Result<String, BoxError> {
    let references: Vec<Value> = owners
        .iter()
        .map(|(name, owner)| {
            json!({"apiVersion": "scenario.tokenward.dev/v1", "kind": "Widget", "name": name, "uid": owner.uid()})
        })
        .collect();
    let all = r.secrets();
    r.post(name, &all, secret(name, &json!({"metadata": {"ownerReferences": references}}))).await?;
    Ok(format!("{all}/{name}"))
}

pub(super) async fn owner_references_are_collected(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let first = r.post("first owner", &all, widget("first", &json!({}))).await?;
    let second = r.post("second owner", &all, widget("second", &json!({}))).await?;
    let one = owned(r, "of-one", &[("first", &first)]).await?;
    let both = owned(r, "of-both", &[("first", &first), ("second", &second)]).await?;
    r.delete("the first goes", &format!("{all}/first"), json!({"propagationPolicy": "Background"})).await?;
    r.eventually("its own goes too", &one, 404).await?;
    let left = r
        .eventually_that("the shared one stays", &both, |reply| {
            reply.body["metadata"]["ownerReferences"].as_array().map(Vec::len) == Some(1)
        })
        .await?;
    r.fact("the other owner is left", left.body["metadata"]["ownerReferences"][0]["name"] == "second");
    let waiting = owned(r, "waited-for", &[("second", &second)]).await?;
    r.delete(
        "the second goes after its own",
        &format!("{all}/second"),
        json!({"propagationPolicy": "Foreground"}),
    )
    .await?;
    r.eventually("its own goes", &waiting, 404).await?;
    r.eventually("it goes", &format!("{all}/second"), 404).await?;
    let dangling = owned(r, "dangling", &[("second", &second)]).await?;
    r.eventually("born without an owner", &dangling, 404).await?;
    Ok(())
}

pub(super) async fn orphans_stay(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let owner = r.post("owner", &all, widget("owner", &json!({}))).await?;
    let one = owned(r, "owned", &[("owner", &owner)]).await?;
    let uri = format!("{all}/owner");
    r.delete_quietly(&uri, &json!({"propagationPolicy": "Orphan"})).await?;
    r.eventually("the owner goes", &uri, 404).await?;
    let left = r
        .eventually_that("the owned stays", &one, |reply| {
            reply.body["metadata"].get("ownerReferences").is_none()
        })
        .await?;
    r.fact("it is not being deleted", left.body["metadata"].get("deletionTimestamp").is_none());
    Ok(())
}

pub(super) async fn terminating_namespace(r: &mut Run) -> Result<(), BoxError> {
    let name = format!("{}-ending", r.namespace);
    let ns = format!("/api/v1/namespaces/{name}");
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    r.post("create", "/api/v1/namespaces", body.clone()).await?;
    r.post("create again", "/api/v1/namespaces", body).await?;
    let widgets = format!("/apis/scenario.tokenward.dev/v1/namespaces/{name}/widgets");
    let secrets = format!("{ns}/secrets");
    let held = widget("held", &json!({"metadata": {"finalizers": ["tokenward.dev/hold"]}}));
    r.post("an object that holds on", &widgets, held).await?;
    r.post("an object that does not", &secrets, secret("a", &json!({}))).await?;
    let gone = r.delete("delete", &ns, Value::Null).await?;
    r.fact("it is marked", gone.body["metadata"].get("deletionTimestamp").is_some());
    r.post("create within", &secrets, secret("b", &json!({}))).await?;
    r.apply("apply within", &format!("{widgets}/b"), "m", widget("b", &json!({}))).await?;
    let held = format!("{widgets}/held");
    let marked = |reply: &Reply| reply.body["metadata"].get("deletionTimestamp").is_some();
    r.eventually_that("what holds on is marked", &held, marked).await?;
    r.merge("patch within", &held, json!({"spec": {"x": 1}})).await?;
    r.eventually("content goes", &format!("{secrets}/a"), 404).await?;
    r.merge("release", &held, json!({"metadata": {"finalizers": null}})).await?;
    r.eventually("the namespace goes", &ns, 404).await?;
    r.post("create within nothing", &secrets, secret("c", &json!({}))).await?;
    Ok(())
}
