//! Deleting: the Secret goes with its ApiToken, and nothing holds a namespace back.

use std::time::Instant;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use crate::harness::{shared, until};

#[test]
fn the_secret_goes_with_its_token() {
    shared("deletion", async |space| {
        space.declare("ends", json!({})).await;
        space.declare("stays", json!({})).await;
        space.ready("ends").await;
        let stays = space.ready("stays").await;
        let held = space.holds_active(&stays).await;
        space.kubectl(&["delete", "apitoken", "ends", "--timeout=120s"]).await.ok();
        until("the Secret was collected", async || {
            space.secrets().get_opt("ends").await.unwrap().is_none().then_some(())
        })
        .await;
        assert_eq!(space.holds_active(&space.get("stays").await).await.expose(), held.expose());

        // Declared again it is another token.
        space.declare("ends", json!({})).await;
        space.holds_active(&space.ready("ends").await).await;
    });
}

#[test]
fn deleted_without_its_secret_and_declared_again_it_conflicts() {
    shared("orphan", async |space| {
        space.declare("orphan", json!({})).await;
        space.ready("orphan").await;
        // It is the garbage collector that lets the Secret go, and it looks for new kinds every 30 s only.
        space.kubectl(&["delete", "apitoken", "orphan", "--cascade=orphan", "--timeout=120s"]).await.ok();
        let left = space.secret("orphan").await;
        space.declare("orphan", json!({})).await;
        space.until_stalled("orphan", "SecretConflict").await;
        let now = space.secret("orphan").await;
        assert_eq!(now.data, left.data, "a Secret that is no longer ours is not touched");
        space.secrets().delete("orphan", &DeleteParams::default()).await.unwrap();
        space.holds_active(&space.ready("orphan").await).await;
    });
}

#[test]
fn a_namespace_with_tokens_ends_promptly() {
    shared("ending", async |space| {
        let ending = space.namespace(&format!("{}-x", space.name), json!({})).await;
        for number in 0..8 {
            ending
                .declare(&format!("t{number}"), json!({"rotation": {"every": "1m", "overlap": "0s"}}))
                .await;
        }
        for number in 0..8 {
            ending.ready(&format!("t{number}")).await;
        }
        let namespaces = Api::<Namespace>::all(space.cluster.client.clone());
        let started = Instant::now();
        namespaces.delete(&ending.name, &DeleteParams::default()).await.unwrap();
        until("the namespace is gone", async || {
            namespaces.get_opt(&ending.name).await.unwrap().is_none().then_some(())
        })
        .await;
        println!("a namespace with 8 tokens was gone after {:.1} s", started.elapsed().as_secs_f64());
        assert!(ending.secrets().list(&ListParams::default()).await.unwrap().items.is_empty());
    });
}
