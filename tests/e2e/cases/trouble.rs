//! The cluster says no: quotas, missing rights, namespaces that are not ours.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokenward::api::ConditionType;

use crate::harness::{is_ready, reason, shared, until};

#[test]
fn a_used_up_quota_is_reported_and_waited_for() {
    shared("quota", async |space| {
        space.kubectl(&["create", "quota", "none", "--hard=secrets=0"]).await.ok();
        let quotas = Api::<ResourceQuota>::namespaced(space.cluster.client.clone(), &space.name);
        until("the quota counts", async || {
            quotas.get("none").await.unwrap().status.and_then(|status| status.used)
        })
        .await;
        space.declare("waiting", json!({})).await;
        let token = space.until_reason("waiting", "QuotaExceeded").await;
        let status = token.status.as_ref().unwrap();
        assert!(status.is_true(ConditionType::Reconciling) && !status.is_true(ConditionType::Stalled));
        let message = &status.condition(ConditionType::Ready).unwrap().message;
        assert!(message.contains("quota leaves no room"), "{message}");
        assert!(
            status.credentials.len() <= 2,
            "not one credential for each attempt: {:?}",
            status.credentials
        );

        let more = Patch::Merge(json!({"spec": {"hard": {"secrets": "5"}}}));
        quotas.patch("none", &PatchParams::default(), &more).await.unwrap();
        let token = space.until("waiting", "delivered", is_ready).await;
        space.holds_active(&token).await;
        assert_eq!(reason(&token, ConditionType::Reconciling), None);
    });
}
