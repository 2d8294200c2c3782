//! That a tenant really has few rights: everything else here would prove nothing otherwise.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::harness::shared;

#[test]
fn a_tenant_writes_tokens_and_secrets_of_one_namespace_only() {
    shared("tenant", async |space| {
        let tenant = space.tenant().await;
        tenant.declare("theirs", json!({}), json!({})).await.unwrap();
        space.ready("theirs").await;
        tenant.secrets().get("theirs").await.unwrap();
        refused(tenant.tokens().patch_status("theirs", &PatchParams::default(), &wiped()).await);
        let other = space.namespace(&format!("{}-other", space.name), json!({})).await;
        let elsewhere = &other;
        elsewhere.declare("not-theirs", json!({})).await;
        let tokens =
            kube::Api::<tokenward::api::ApiToken>::namespaced(tenant.client.clone(), &elsewhere.name);
        refused(tokens.get("not-theirs").await);
    });
}

fn wiped() -> Patch<serde_json::Value> {
    Patch::Merge(json!({"status": null}))
}

fn refused<T>(result: kube::Result<T>) {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}
