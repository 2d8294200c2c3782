//! Server-side apply.

use serde_json::json;
use tower::BoxError;

use super::run::Run;
use super::widgets::{secret, widget};

pub(super) async fn apply_create_update_noop(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.secrets());
    let body = |value: &str| {
        let labels = json!({"app": "x", "example.com/tier": "db"});
        secret("a", &json!({"metadata": {"labels": labels}, "type": "Opaque", "data": {"k": value}}))
    };
    let first = r.apply("create", &one, "m", body("djE=")).await?;
    let second = r.apply("same again", &one, "m", body("djE=")).await?;
    r.fact("the same again keeps the version", first.rv() == second.rv());
    let third = r.apply("changed", &one, "m", body("djI=")).await?;
    r.fact("a change makes a new version", second.rv() != third.rv());
    let shared =
        r.apply("shared by another", &one, "n", secret("a", &json!({"data": {"k": "djI="}}))).await?;
    r.fact("sharing alone makes a new version", shared.rv() != third.rv());
    let nothing = r.apply("nothing by a third", &one, "o", secret("a", &json!({}))).await?;
    r.fact("applying nothing keeps the version", shared.rv() == nothing.rv());
    let one = format!("{}/a", r.widgets());
    let body = json!({"spec": {"x": 1, "y": {"z": [1, 2], "w": {}}}, "status": {"phase": "ignored"}});
    r.apply("create a widget", &one, "m", widget("a", &body)).await?;
    r.apply("same again", &one, "m", widget("a", &body)).await?;
    Ok(())
}

pub(super) async fn apply_removes_what_it_drops(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.secrets());
    let both = json!({"metadata": {"labels": {"a": "1", "b": "1"}, "annotations": {"c": "1"}}, "data": {"x": "eA==", "y": "eQ=="}});
    r.apply("both", &one, "m", secret("a", &both)).await?;
    r.apply("x is shared", &one, "n", secret("a", &json!({"data": {"x": "eA=="}}))).await?;
    r.merge("somebody adds a label", &one, json!({"metadata": {"labels": {"z": "1"}}})).await?;
    r.apply("all dropped", &one, "m", secret("a", &json!({}))).await?;
    r.apply("x dropped too", &one, "n", secret("a", &json!({}))).await?;
    let one = format!("{}/a", r.widgets());
    let deep = json!({"spec": {"x": 1, "y": {"z": 1, "w": {"v": 1}}}});
    r.apply("deep", &one, "m", widget("a", &deep)).await?;
    r.apply("deep shared", &one, "n", widget("a", &json!({"spec": {"y": {"z": 1}}}))).await?;
    r.apply("deep dropped", &one, "m", widget("a", &json!({"spec": {"x": 1}}))).await?;
    r.apply("deep dropped by both", &one, "n", widget("a", &json!({}))).await?;
    r.apply("everything dropped", &one, "m", widget("a", &json!({}))).await?;
    Ok(())
}

pub(super) async fn apply_conflict_and_force(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.widgets());
    r.apply("create", &one, "m", widget("a", &json!({"spec": {"x": 1, "y": 1}}))).await?;
    r.apply("conflict", &one, "n", widget("a", &json!({"spec": {"x": 2}}))).await?;
    r.apply("two conflicts", &one, "n", widget("a", &json!({"spec": {"x": 2, "y": 2, "z": 2}}))).await?;
    r.get("unchanged", &one).await?;
    r.apply("forced", &one, "n!", widget("a", &json!({"spec": {"x": 2}}))).await?;
    r.apply("the first meets a conflict", &one, "m", widget("a", &json!({"spec": {"x": 1, "y": 1}}))).await?;
    r.apply("the first lets go", &one, "m", widget("a", &json!({"spec": {"y": 1}}))).await?;
    r.apply("a list is one value", &one, "m", widget("a", &json!({"spec": {"y": 1, "l": [1, 2]}}))).await?;
    r.apply("conflict in the list", &one, "n", widget("a", &json!({"spec": {"x": 2, "l": [1, 3]}}))).await?;
    Ok(())
}

pub(super) async fn apply_after_update(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.secrets());
    let body = |value: &str| secret("a", &json!({"data": {"k": value}}));
    r.apply("create", &one, "m", body("djE=")).await?;
    r.merge("edited by hand", &one, json!({"data": {"k": "djI=", "extra": "eA=="}})).await?;
    r.apply("conflict with the edit", &one, "m", body("djE=")).await?;
    r.apply("forced", &one, "m!", body("djE=")).await?;
    r.merge("edited, then removed by hand", &one, json!({"data": {"k": null}})).await?;
    r.apply("put back", &one, "m", body("djE=")).await?;
    let made =
        r.post("a secret made by create", &r.secrets(), secret("b", &json!({"data": {"k": "djE="}}))).await?;
    let two = format!("{}/b", r.secrets());
    r.apply("same value is shared", &two, "m", secret("b", &json!({"data": {"k": "djE="}}))).await?;
    r.apply("other value conflicts", &two, "m", secret("b", &json!({"data": {"k": "djI="}}))).await?;
    let now = r.get("get", &two).await?;
    r.fact("it is still the same object", made.uid() == now.uid());
    Ok(())
}

pub(super) async fn apply_create_only(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.secrets());
    let body = |rv: &str, value: &str| {
        secret("a", &json!({"metadata": {"resourceVersion": rv}, "data": {"k": value}}))
    };
    let made = r.apply("version 1 creates", &one, "m!", body("1", "djE=")).await?;
    r.apply("version 1 does not update", &one, "m!", body("1", "djI=")).await?;
    r.apply("version 1 does not even agree", &one, "m!", body("1", "djE=")).await?;
    r.apply("version 0", &one, "m!", body("0", "djI=")).await?;
    r.apply("an old version", &one, "m!", body(&made.rv(), "djM=")).await?;
    let now = r.get("get", &one).await?;
    r.apply("the right version", &one, "m!", body(&now.rv(), "djQ=")).await?;
    Ok(())
}

pub(super) async fn apply_uid_preconditions(r: &mut Run) -> Result<(), BoxError> {
    let one = format!("{}/a", r.secrets());
    let body = |uid: &str| secret("a", &json!({"metadata": {"uid": uid}, "data": {"k": "djE="}}));
    let foreign = "11111111-1111-1111-1111-111111111111";
    r.apply("uid of nothing", &one, "m!", body(foreign)).await?;
    r.get("still nothing", &one).await?;
    let made = r.apply("create", &one, "m!", secret("a", &json!({}))).await?;
    r.apply("another uid", &one, "m!", body(foreign)).await?;
    r.apply("the right uid", &one, "m!", body(&made.uid())).await?;
    Ok(())
}

pub(super) async fn apply_list_maps(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let status = format!("{all}/a/status");
    r.post("create", &all, widget("a", &json!({"spec": {"x": 1}}))).await?;
    let conditions = |list: serde_json::Value| widget("a", &json!({"status": {"conditions": list}}));
    let ready = json!({"type": "Ready", "status": "True", "reason": "Fine"});
    let idle = json!({"type": "Idle", "status": "False"});
    r.apply("one's conditions", &status, "m", conditions(json!([ready, idle]))).await?;
    r.apply("another's condition", &status, "n", conditions(json!([{"type": "Stalled", "status": "False"}])))
        .await?;
    r.apply("other order", &status, "m", conditions(json!([idle, ready]))).await?;
    r.apply(
        "one dropped, one new",
        &status,
        "m",
        conditions(json!([{"type": "Fresh", "status": "True"}, ready])),
    )
    .await?;
    r.apply("conflict in an item", &status, "n", conditions(json!([{"type": "Ready", "status": "False"}])))
        .await?;
    r.apply("a field dropped", &status, "m", conditions(json!([{"type": "Ready", "status": "True"}])))
        .await?;
    let credentials =
        json!({"status": {"credentials": [{"id": "1", "state": "Pending"}, {"id": "2", "state": "Active"}]}});
    r.apply("credentials", &status, "c", widget("a", &credentials)).await?;
    r.apply("all of one's dropped", &status, "m", widget("a", &json!({}))).await?;
    let twice = conditions(json!([ready, ready]));
    r.apply("the same key twice", &status, "m", twice).await?;
    Ok(())
}

pub(super) async fn apply_owner_references(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let owner = r.post("owner", &all, widget("owner", &json!({}))).await?;
    let second = r.post("second owner", &all, widget("second", &json!({}))).await?;
    let reference = |name: &str, uid: &str, controller: bool| json!({"apiVersion": "scenario.tokenward.dev/v1", "kind": "Widget", "name": name, "uid": uid, "controller": controller});
    let one = format!("{}/a", r.secrets());
    let body = |refs: serde_json::Value| secret("a", &json!({"metadata": {"ownerReferences": refs}}));
    r.apply("owned", &one, "m", body(json!([reference("owner", &owner.uid(), true)]))).await?;
    r.apply("owned by another too", &one, "n", body(json!([reference("second", &second.uid(), false)])))
        .await?;
    r.apply("two controllers", &one, "n", body(json!([reference("second", &second.uid(), true)]))).await?;
    r.apply("an item is one value", &one, "n", body(json!([reference("owner", &owner.uid(), false)])))
        .await?;
    r.apply("let go", &one, "m", secret("a", &json!({}))).await?;
    r.merge("finalizers by hand", &one, json!({"metadata": {"finalizers": ["tokenward.dev/a"]}})).await?;
    let more = json!({"metadata": {"finalizers": ["tokenward.dev/b"]}});
    r.apply("finalizers are a set", &one, "m", secret("a", &more)).await?;
    r.merge("finalizers go", &one, json!({"metadata": {"finalizers": null}})).await?;
    Ok(())
}

pub(super) async fn apply_in_missing_namespace(r: &mut Run) -> Result<(), BoxError> {
    let uri = format!("/api/v1/namespaces/{}-missing/secrets", r.namespace);
    r.apply("apply", &format!("{uri}/a"), "m", secret("a", &json!({}))).await?;
    r.post("create", &uri, secret("a", &json!({}))).await?;
    r.get("list", &uri).await?;
    r.get("get", &format!("{uri}/a")).await?;
    let uri = format!("/apis/scenario.tokenward.dev/v1/namespaces/{}-missing/widgets", r.namespace);
    r.apply("apply a widget", &format!("{uri}/a"), "m", widget("a", &json!({}))).await?;
    r.apply("apply a status", &format!("{uri}/a/status"), "m", widget("a", &json!({"status": {"x": 1}})))
        .await?;
    Ok(())
}
