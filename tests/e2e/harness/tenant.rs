//! A user with few rights: the author of every hostile input.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokenward::api::ApiToken;

use super::space::Space;
use super::wait::until;

/// Who may write ApiTokens and Secrets of one namespace, and nothing else: no status, no TokenUsage, no other namespace.
pub struct Tenant {
    /// With exactly these rights.
    pub client: Client,
    namespace: String,
}

impl Tenant {
    /// Their ApiTokens.
    pub fn tokens(&self) -> Api<ApiToken> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Their Secrets.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Declares an ApiToken; the API server may refuse it.
    pub async fn declare(&self, name: &str, metadata: Value, spec: Value) -> kube::Result<ApiToken> {
        let mut object = json!({"apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "spec": spec});
        object["metadata"] = metadata;
        object["metadata"]["name"] = json!(name);
        let token = serde_json::from_value(object).unwrap();
        self.tokens().create(&PostParams::default(), &token).await
    }
}

impl Space {
    /// A tenant of this case's namespace.
    pub async fn tenant(&self) -> Tenant {
        let (client, name) = (&self.cluster.client, "tenant");
        let meta = json!({"name": name});
        let create = PostParams::default();
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": meta})).unwrap();
        let role: Role = serde_json::from_value(json!({"metadata": meta, "rules": [
            {"apiGroups": ["tokenward.dev"], "resources": ["apitokens"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
        ]}))
        .unwrap();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.name}],
        }))
        .unwrap();
        Api::namespaced(client.clone(), &self.name).create(&create, &account).await.unwrap();
        Api::namespaced(client.clone(), &self.name).create(&create, &role).await.unwrap();
        Api::namespaced(client.clone(), &self.name).create(&create, &binding).await.unwrap();
        let token = self.kubectl(&["create", "token", name, "--duration", "2h"]).await.ok();
        let file = Kubeconfig::from_yaml(&self.cluster.kubeconfig_with(token.trim())).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let tenant = Tenant { client: Client::try_from(config).unwrap(), namespace: self.name.clone() };
        // The API server learns of a binding from a watch.
        until("the tenant may read", async || tenant.tokens().get_opt("none").await.ok()).await;
        tenant
    }
}
