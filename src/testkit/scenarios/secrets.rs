//! What is particular to Secrets.

use serde_json::json;
use tower::BoxError;

use super::run::Run;
use super::widgets::secret;

pub(super) async fn secret_type_is_immutable(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    let one = format!("{all}/a");
    r.apply("create", &one, "m", secret("a", &json!({"type": "Opaque", "data": {"k": "djE="}}))).await?;
    r.apply("another type", &one, "m", secret("a", &json!({"type": "example.com/x", "data": {"k": "djE="}})))
        .await?;
    r.merge("another type by patch", &one, json!({"type": "example.com/x"})).await?;
    r.apply(
        "freeze",
        &one,
        "m",
        secret("a", &json!({"type": "Opaque", "immutable": true, "data": {"k": "djE="}})),
    )
    .await?;
    r.merge("frozen data", &one, json!({"data": {"k": "djI="}})).await?;
    r.merge("thaw", &one, json!({"immutable": false})).await?;
    r.merge("labels are not frozen", &one, json!({"metadata": {"labels": {"a": "b"}}})).await?;
    Ok(())
}

pub(super) async fn secret_data(r: &mut Run) -> Result<(), BoxError> {
    let all = r.secrets();
    r.post("text", &all, secret("a", &json!({"stringData": {"k": "plain"}, "data": {"l": "eA=="}}))).await?;
    r.post("not base64", &all, secret("b", &json!({"data": {"k": "not base64!"}}))).await?;
    r.post("bad key", &all, secret("c", &json!({"data": {"a/b": "eA=="}}))).await?;
    r.post("basic-auth without data", &all, secret("d", &json!({"type": "kubernetes.io/basic-auth"})))
        .await?;
    let login = json!({"type": "kubernetes.io/basic-auth", "data": {"username": "eA==", "password": "eQ=="}});
    r.post("basic-auth", &all, secret("e", &login)).await?;
    r.post("docker without data", &all, secret("f", &json!({"type": "kubernetes.io/dockerconfigjson"})))
        .await?;
    let broken = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}});
    r.post("docker with broken data", &all, secret("g", &broken)).await?;
    r.post(
        "tls without a key",
        &all,
        secret("h", &json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}})),
    )
    .await?;
    let large = "A".repeat(1_400_004);
    r.post("too large", &all, secret("i", &json!({"data": {"k": large}}))).await?;
    r.apply("data goes", &format!("{all}/j"), "m", secret("j", &json!({"data": {"k": "eA=="}}))).await?;
    r.merge("data is gone", &format!("{all}/j"), json!({"data": null})).await?;
    Ok(())
}
