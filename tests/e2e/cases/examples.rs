//! Every file in examples/ does what its head says.

use serde_json::Value;

use crate::harness::{Space, is_ready, shared, until};

async fn apply(space: &Space, args: &[&str]) {
    let mut all = vec!["apply", "--server-side"];
    all.extend(args);
    space.kubectl(&all).await.ok();
}

#[test]
fn every_example_is_delivered() {
    shared("examples", async |space| {
        let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        files.sort();
        assert!(files.len() >= 9, "{files:?}");
        for file in &files {
            apply(space, &["--filename", &format!("examples/{file}")]).await;
        }
        space.kubectl(&["wait", "apitoken", "--all", "--for=condition=Ready", "--timeout=90s"]).await.ok();
        let names = space.kubectl(&["get", "apitokens", "--output", "name"]).await.ok();
        assert!(names.lines().count() >= 10, "{names}");
        for name in names.lines().filter_map(|line| line.split('/').nth(1)) {
            space.holds_active(&space.ready(name).await).await;
        }

        let basic = space.secret("basic-auth").await;
        assert_eq!(basic.type_.as_deref(), Some("kubernetes.io/basic-auth"));
        assert_eq!(basic.data.unwrap()["username"].0, b"flux");
        let pull = space.secret("registry-pull").await;
        assert_eq!(pull.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
        let token = space.held("registry-pull", "token").await;
        let config: Value = serde_json::from_slice(&pull.data.unwrap()[".dockerconfigjson"].0).unwrap();
        assert_eq!(config["auths"]["registry.example.com"]["password"], token.expose());
        let netrc = space.secret("netrc").await.data.unwrap();
        let text = String::from_utf8(netrc[".netrc"].0.clone()).unwrap();
        assert!(
            text.starts_with("machine packages.internal\nlogin netrc\npassword twd_") && text.ends_with('\n')
        );
        let full = space.secret("full-token").await;
        let keys: Vec<_> = full.data.unwrap().into_keys().collect();
        assert_eq!(keys, ["api-key", "authorization", "orders.env", "orders.json"]);
        assert_eq!(full.metadata.labels.unwrap()["app.kubernetes.io/component"], "checkout");
        let schedule = space.get("schedule").await.status.unwrap();
        assert!(schedule.next_rotation_time.is_some());
        let contractor = space.get("contractor").await.status.unwrap();
        assert!(contractor.expires_at.is_some());
    });
}

#[test]
fn the_gitops_examples_are_delivered() {
    shared("gitops", async |space| {
        for namespace in ["argocd", "flux-system"] {
            space.kubectl(&["create", "namespace", namespace]).await.ok();
            space.owns(namespace);
        }
        for file in ["argocd/application.yaml", "argocd/argocd-cm.yaml", "flux/kustomization.yaml"] {
            space
                .cluster
                .kubectl(&["apply", "--filename", &format!("examples/gitops/{file}")], "")
                .await
                .ok();
        }
        for overlay in ["staging", "production"] {
            let namespace = format!("checkout-{overlay}");
            let path = format!("examples/gitops/kustomize/overlays/{overlay}");
            space.cluster.kubectl(&["apply", "--kustomize", &path], "").await.ok();
            space.owns(&namespace);
            let inside = space.within(&namespace);
            // The Namespace with its label comes on another watch than the token, and maybe later.
            let token = inside
                .until("orders-client", "Ready and owned", |token| {
                    is_ready(token) && token.status.as_ref().is_some_and(|status| status.owner.is_some())
                })
                .await;
            inside.holds_active(&token).await;
            let owner = token.status.unwrap().owner.unwrap();
            assert_eq!((owner.name.as_str(), owner.source.as_str()), ("payments", "Namespace label team"));

            // Applied again, nothing is to be done: the operator writes nothing that Git declares.
            let diff = space.cluster.kubectl(&["diff", "--kustomize", &path], "").await;
            assert_eq!(diff.code, 0, "{}", diff.stdout);
        }
        until("the workload's Secret is there", async || {
            space.within("checkout-production").secrets().get_opt("orders-client-token").await.unwrap()
        })
        .await;
    });
}
