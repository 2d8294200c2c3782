//! The status subresource and `generation`.

use serde_json::json;
use tower::BoxError;

use super::run::Run;
use super::widgets::widget;

pub(super) async fn status_isolation(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let (one, status) = (format!("{all}/a"), format!("{all}/a/status"));
    let made = r
        .post("create ignores status", &all, widget("a", &json!({"spec": {"x": 1}, "status": {"s": 0}})))
        .await?;
    let mut body = made.body.clone();
    body["spec"]["x"] = 9.into();
    body["metadata"]["labels"] = json!({"smuggled": "label"});
    body["status"] = json!({"s": 1, "deep": {"t": 1}});
    let first = r.put("replace of status changes status alone", &status, body.clone()).await?;
    r.put("replace of status with the old version", &status, body.clone()).await?;
    body["metadata"]["resourceVersion"] = first.rv().into();
    body["status"] = json!({"s": 2});
    r.put("replace of the object keeps status", &one, body.clone()).await?;
    r.merge("patch of the object keeps status", &one, json!({"status": {"s": 3}})).await?;
    r.merge(
        "patch of status",
        &status,
        json!({"spec": {"x": 8}, "metadata": {"labels": {"a": "b"}}, "status": {"s": 4}}),
    )
    .await?;
    let same = r.merge("patch of status that changes nothing", &status, json!({"status": {"s": 4}})).await?;
    let now = r.get("get", &one).await?;
    r.fact("nothing changed, same version", same.rv() == now.rv());
    let old = json!({"metadata": {"resourceVersion": first.rv()}, "status": {"s": 5}});
    r.merge("patch of status with the old version", &status, old).await?;
    let right = json!({"metadata": {"resourceVersion": same.rv()}, "status": {"s": 5}});
    r.merge("patch of status with the right version", &status, right).await?;
    r.get("get of status", &status).await?;
    r.merge("status of nothing", &format!("{all}/b/status"), json!({"status": {"s": 5}})).await?;
    Ok(())
}

pub(super) async fn status_apply(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let (one, status) = (format!("{all}/a"), format!("{all}/a/status"));
    r.apply("status of nothing", &status, "m", widget("a", &json!({"status": {"s": 1}}))).await?;
    r.apply("create", &one, "m", widget("a", &json!({"spec": {"x": 1}, "status": {"s": 1}}))).await?;
    let smuggle =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 2}, "status": {"s": 1, "deep": {"t": 1}}});
    let first = r.apply("status", &status, "m", widget("a", &smuggle)).await?;
    let second = r.apply("status again", &status, "m", widget("a", &smuggle)).await?;
    r.fact("same again, same version", first.rv() == second.rv());
    r.apply("deep dropped", &status, "m", widget("a", &json!({"status": {"s": 1}}))).await?;
    r.apply("conflict", &status, "n", widget("a", &json!({"status": {"s": 2}}))).await?;
    r.apply("forced", &status, "n!", widget("a", &json!({"status": {"s": 2}}))).await?;
    let old = json!({"metadata": {"resourceVersion": first.rv()}, "status": {"s": 3}});
    r.apply("with the old version", &status, "n!", widget("a", &old)).await?;
    r.apply("the object again", &one, "m", widget("a", &json!({"spec": {"x": 1}}))).await?;
    r.apply("all dropped", &status, "n", widget("a", &json!({}))).await?;
    Ok(())
}

pub(super) async fn generation(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    let one = format!("{all}/a");
    let mut seen = Vec::new();
    seen.push(r.post("create", &all, widget("a", &json!({"spec": {"x": 1}}))).await?);
    seen.push(r.merge("spec", &one, json!({"spec": {"x": 2}})).await?);
    seen.push(r.merge("spec, same", &one, json!({"spec": {"x": 2}})).await?);
    seen.push(r.merge("labels", &one, json!({"metadata": {"labels": {"a": "b"}}})).await?);
    seen.push(r.merge("status", &format!("{one}/status"), json!({"status": {"s": 1}})).await?);
    seen.push(r.merge("generation itself", &one, json!({"metadata": {"generation": 77}})).await?);
    seen.push(r.apply("apply", &one, "m!", widget("a", &json!({"spec": {"x": 3}}))).await?);
    let generations: Vec<String> =
        seen.iter().map(|reply| reply.body["metadata"]["generation"].to_string()).collect();
    r.fact(&format!("generations {}", generations.join(" ")), true);
    Ok(())
}
