//! Metadata of a Secret that no client of Kubernetes can read, and that the API server takes all the same.

use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::{is_ready, shared, sole_active};

#[test]
fn a_secret_whose_metadata_nobody_can_read_hides_no_other() {
    shared("poison", async |space| {
        let tenant = space.tenant().await;
        let victims = space.namespace(&format!("{}-victim", space.name), json!({})).await;
        victims.declare("victim", json!({})).await;
        let before = sole_active(&victims.ready("victim").await).id.clone();

        for (number, time) in ["0000-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"].iter().enumerate() {
            let fields = json!({"f:data": {"f:foo": {}}});
            let body = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {
                    "name": format!("poison-{number}"), "namespace": space.name,
                    "labels": {"tokenward.dev/token": "poison"},
                    "managedFields": [{
                        "manager": "zz", "operation": "Update", "apiVersion": "v1", "time": time,
                        "fieldsType": "FieldsV1", "fieldsV1": fields,
                    }],
                },
                "stringData": {"foo": "bar"},
            });
            let path = format!("/api/v1/namespaces/{}/secrets", space.name);
            let request = http::Request::post(&path).header("Content-Type", "application/json");
            let request = request.body(body.to_string().into_bytes()).unwrap();
            // Its answer cannot be read either: that it was taken is all that counts.
            let _ = tenant.client.request_text(request).await.unwrap();
        }

        victims.secrets().delete("victim", &DeleteParams::default()).await.unwrap();
        victims
            .until("victim", "a deletion beside it is noticed", |token| {
                is_ready(token) && sole_active(token).id != before
            })
            .await;
    });
}
