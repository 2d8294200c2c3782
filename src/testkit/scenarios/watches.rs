//! Watches.

use serde_json::{Value, json};
use tower::BoxError;

use super::run::Run;
use super::widgets::{secret, widget};

pub(super) async fn label_selected_metadata_watch(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    let one = format!("{all}/a");
    let start = r.get("list", &all).await?.rv();
    let uri = format!(
        "{all}?watch=true&labelSelector=app%3Dx&allowWatchBookmarks=true&resourceVersion={start}&timeoutSeconds=60"
    );
    let mut watch = r.watch("watch", &uri, true).await?;
    r.post("create unselected", &all, secret("a", &json!({"data": {"k": "djE="}}))).await?;
    r.merge("enters", &one, json!({"metadata": {"labels": {"app": "x"}}})).await?;
    r.merge("changes", &one, json!({"data": {"k": "djI="}})).await?;
    r.merge("changes nothing", &one, json!({"data": {"k": "djI="}})).await?;
    r.merge("leaves", &one, json!({"metadata": {"labels": {"app": "y"}}})).await?;
    r.merge("changes outside", &one, json!({"data": {"k": "djM="}})).await?;
    r.merge("returns", &one, json!({"metadata": {"labels": {"app": "x"}}})).await?;
    r.delete("goes", &one, Value::Null).await?;
    r.post("create selected", &all, secret("b", &json!({"metadata": {"labels": {"app": "x"}}}))).await?;
    r.read(&mut watch, 6).await
}

pub(super) async fn streaming_list(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    r.post("create a", &all, widget("a", &json!({"spec": {"x": 1}}))).await?;
    r.post("create b", &all, widget("b", &json!({"spec": {"x": 1}}))).await?;
    r.get("both are there", &all).await?;
    let options = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&timeoutSeconds=60";
    let mut watch =
        r.watch("watch", &format!("{all}?{options}&resourceVersionMatch=NotOlderThan"), false).await?;
    r.read(&mut watch, 3).await?;
    r.merge("change", &format!("{all}/a"), json!({"spec": {"x": 2}})).await?;
    r.delete("delete", &format!("{all}/b"), Value::Null).await?;
    r.read(&mut watch, 2).await?;
    r.get("initial events without a match", &format!("{all}?{options}")).await?;
    Ok(())
}

pub(super) async fn watch_from_a_version(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let made = r.post("create a", &all, widget("a", &json!({"spec": {"x": 1}}))).await?;
    r.merge("change", &format!("{all}/a"), json!({"spec": {"x": 2}})).await?;
    r.merge("status", &format!("{all}/a/status"), json!({"status": {"s": 1}})).await?;
    let from = |rv: &str| format!("{all}?watch=true&resourceVersion={rv}&timeoutSeconds=60");
    let mut watch = r.watch("from the creation", &from(&made.rv()), false).await?;
    r.read(&mut watch, 2).await?;
    let mut watch = r.watch("from any", &from("0"), false).await?;
    r.read(&mut watch, 1).await?;
    let mut named = r
        .watch("of one name", &format!("{}&fieldSelector=metadata.name%3Db", from(&made.rv())), false)
        .await?;
    r.post("create b", &all, widget("b", &json!({}))).await?;
    r.read(&mut named, 1).await?;
    let mut old = r.watch("from too long ago", &from("1"), false).await?;
    r.read(&mut old, 1).await
}
