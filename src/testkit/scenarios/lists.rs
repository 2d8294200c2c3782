//! Lists.

use http::Method;
use serde_json::{Value, json};
use tower::BoxError;

use super::run::Run;
use super::widgets::widget;

async fn five(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    for (name, labels) in [
        ("a", json!({"app": "x"})),
        ("b", json!({"app": "y", "tier": "web"})),
        ("c-1", json!({"tier": "db"})),
        ("c", json!({})),
        ("d", json!({"app": "x", "tier": "web"})),
    ] {
        let body = widget(name, &json!({"metadata": {"labels": labels}}));
        r.call(name, Method::POST, &all, "application/json", Some(&body)).await?;
    }
    Ok(())
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) async fn paging(r: &mut Run) -> Result<(), BoxError> {
    five(r).await?;
    let all = r.widgets();
    let token =
        |reply: &super::run::Reply| encoded(reply.body["metadata"]["continue"].as_str().unwrap_or_default());
    r.get("everything", &all).await?;
    let first = r.get("first page", &format!("{all}?limit=2")).await?;
    r.delete("one of the second page goes", &format!("{all}/c"), Value::Null).await?;
    r.post("one of the second page comes", &all, widget("bb", &json!({}))).await?;
    let second = r.get("second page", &format!("{all}?limit=2&continue={}", token(&first))).await?;
    r.fact("pages are of one version", first.rv() == second.rv());
    r.get("last page", &format!("{all}?limit=2&continue={}", token(&second))).await?;
    r.get("now", &all).await?;
    let selected = r.get("a page of selected", &format!("{all}?limit=1&labelSelector=app%3Dx")).await?;
    r.get("the rest", &format!("{all}?limit=5&labelSelector=app%3Dx&continue={}", token(&selected))).await?;
    r.get("exactly then", &format!("{all}?resourceVersion={}&resourceVersionMatch=Exact", first.rv()))
        .await?;
    r.get(
        "not older than then",
        &format!("{all}?resourceVersion={}&resourceVersionMatch=NotOlderThan", first.rv()),
    )
    .await?;
    r.get("a token that is none", &format!("{all}?limit=2&continue=nonsense")).await?;
    Ok(())
}

pub(super) async fn selectors(r: &mut Run) -> Result<(), BoxError> {
    five(r).await?;
    let all = r.widgets();
    for selector in [
        "app=x",
        "app==y",
        "app!=x",
        "app",
        "!app",
        "app in (x,y),tier",
        "tier notin (web)",
        "app=x,tier=web",
        "app in (x",
    ] {
        r.get(selector, &format!("{all}?labelSelector={}", encoded(selector))).await?;
    }
    for selector in ["metadata.name=a", "metadata.name!=a", "spec.x=1"] {
        r.get(selector, &format!("{all}?fieldSelector={}", encoded(selector))).await?;
    }
    Ok(())
}

pub(super) async fn metadata_only(r: &mut Run) -> Result<(), BoxError> {
    let all = r.widgets();
    r.post("create", &all, widget("a", &json!({"metadata": {"labels": {"app": "x"}}, "spec": {"x": 1}})))
        .await?;
    r.get_metadata("one", &format!("{all}/a"), false).await?;
    let list = r.get_metadata("many", &all, true).await?;
    r.fact("an item has no spec", list.body["items"][0].get("spec").is_none());
    r.fact("an item names its kind", list.body["items"][0]["kind"] == "PartialObjectMetadata");
    Ok(())
}
