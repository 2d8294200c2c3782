//! What users, GitOps tools and careless hands do to ApiTokens, their Secrets and their namespaces.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::NAMESPACES;
use super::chance::Chance;
use crate::api::{ApiToken, keys};
use crate::domain::token::{Prefix, Token};
use crate::testkit::apiserver::ApiServer;

/// Most ApiTokens at once.
const MAX_TOKENS: usize = 8;

/// A client of the server that is no controller.
#[derive(Clone)]
pub struct People {
    client: Client,
}

/// A request of theirs, refused or not: people make mistakes.
pub type Answer = kube::Result<DynamicObject>;

impl People {
    pub(super) fn new(server: &ApiServer) -> Self {
        Self::named(server, "people")
    }

    /// Whom the server knows by this name.
    pub(super) fn named(server: &ApiServer, client: &str) -> Self {
        Self { client: server.client(client) }
    }

    fn api(&self, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn tokens(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("tokenward.dev", "v1alpha1", "ApiToken", namespace)
    }

    pub(super) fn secrets(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("", "v1", "Secret", namespace)
    }

    /// Creates an ApiToken.
    pub async fn declare(&self, namespace: &str, name: &str, spec: Value) -> Answer {
        let object = json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
            "metadata": {"name": name, "labels": {"team": "payments"}}, "spec": spec,
        });
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.tokens(namespace).create(&PostParams::default(), &object).await
    }

    /// Merges a change into an ApiToken.
    pub async fn edit(&self, namespace: &str, name: &str, change: Value) -> Answer {
        self.tokens(namespace).patch(name, &PatchParams::default(), &Patch::Merge(change)).await
    }

    /// Sets an annotation of an ApiToken.
    pub async fn annotate(&self, namespace: &str, name: &str, key: &str, value: &str) -> Answer {
        self.edit(namespace, name, json!({"metadata": {"annotations": {key: value}}})).await
    }

    /// Merges a change into the status of an ApiToken, as no user should be allowed to.
    pub async fn edit_status(&self, namespace: &str, name: &str, status: Value) -> Answer {
        let change = Patch::Merge(json!({"status": status}));
        self.tokens(namespace).patch_status(name, &PatchParams::default(), &change).await
    }

    /// Deletes an ApiToken.
    pub async fn delete(&self, namespace: &str, name: &str) -> kube::Result<()> {
        self.tokens(namespace).delete(name, &DeleteParams::background()).await.map(|_| ())
    }

    /// Merges a change into a Secret.
    pub async fn edit_secret(&self, namespace: &str, name: &str, change: Value) -> Answer {
        self.secrets(namespace).patch(name, &PatchParams::default(), &Patch::Merge(change)).await
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, namespace: &str, name: &str) -> kube::Result<()> {
        self.secrets(namespace).delete(name, &DeleteParams::default()).await.map(|_| ())
    }

    /// Creates a Secret of their own.
    pub async fn make_secret(&self, namespace: &str, name: &str) -> Answer {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"app": "theirs"}},
            "data": {"token": "dGhlaXJz"},
        });
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.secrets(namespace).create(&PostParams::default(), &object).await
    }

    /// Labels a Namespace.
    pub async fn label_namespace(&self, namespace: &str, labels: Value) -> Answer {
        let change = Patch::Merge(json!({"metadata": {"labels": labels}}));
        self.api("", "v1", "Namespace", "").patch(namespace, &PatchParams::default(), &change).await
    }

    /// Deletes a Namespace.
    pub async fn delete_namespace(&self, namespace: &str) -> kube::Result<()> {
        self.api("", "v1", "Namespace", "").delete(namespace, &DeleteParams::default()).await.map(|_| ())
    }

    /// Takes foreign Secrets out of the way of ApiTokens.
    pub async fn make_way(&self, tokens: &[ApiToken], server: &ApiServer) {
        for token in tokens {
            let (namespace, name) = (token.namespace(), token.secret_name());
            let foreign = server
                .get("secrets", namespace, name)
                .is_some_and(|secret| secret["metadata"]["labels"]["app"] == "theirs");
            if foreign {
                let _ = self.delete_secret(namespace, name).await;
            }
        }
    }

    /// Does one thing that people do; says what. `now` is unique for each call.
    pub async fn act(&self, chance: &mut Chance, tokens: &[ApiToken], now: &str) -> String {
        let few = tokens.len() < MAX_TOKENS / 2;
        if tokens.is_empty() || (tokens.len() < MAX_TOKENS && chance.percent(if few { 50 } else { 8 })) {
            let namespace = *chance.pick(&NAMESPACES);
            let name = format!("token-{}", chance.below(MAX_TOKENS));
            let spec = spec(chance);
            let line = format!("{namespace}/{name} is declared: {spec}");
            return said(line, self.declare(namespace, &name, spec).await.map(|_| ()));
        }
        let token = chance.pick(tokens);
        let key = format!("{}/{}", token.namespace(), token.name());
        let (what, answer) = self.act_on(chance, token, now).await;
        said(format!("{key}: {what}"), answer)
    }

    async fn act_on(&self, chance: &mut Chance, token: &ApiToken, now: &str) -> (String, kube::Result<()>) {
        let (ns, name, secret) = (token.namespace(), token.name(), token.secret_name());
        let annotate = async |key: &str| (key.to_owned(), self.annotate(ns, name, key, now).await.map(drop));
        let edit = async |spec: Value| {
            (format!("spec {spec}"), self.edit(ns, name, json!({"spec": spec})).await.map(drop))
        };
        match chance.below(18) {
            0 | 1 => annotate(keys::ROTATE_REQUESTED_AT).await,
            2 => annotate(keys::COMPROMISED_AT).await,
            3 => annotate(keys::RETIRE_NOW_AT).await,
            4 => edit(json!({"suspend": !token.spec.suspend})).await,
            5 => edit(json!({"rotation": rotation(chance)})).await,
            6 => edit(json!({"expiry": expiry(chance)})).await,
            7 => {
                let template =
                    *chance.pick(&["a {{ token }}", "b {{ id }} {{ owner }}", "{{ name }}", "{{ nobody }}"]);
                edit(json!({"secret": {"template": {"extra": template}}})).await
            }
            8 => edit(json!({"secret": {"key": chance.pick(&["token", "value"])}})).await,
            9 => edit(json!({"scopes": [format!("s{}:read", chance.below(9))]})).await,
            10 => {
                let team = *chance.pick(&["payments", "orders", "search"]);
                let owner = if chance.percent(30) { json!({"name": "ada"}) } else { Value::Null };
                let change = json!({"metadata": {"labels": {"team": team}}, "spec": {"owner": owner}});
                (format!("team {team}, owner {owner}"), self.edit(ns, name, change).await.map(drop))
            }
            11 => {
                let labels = json!({"team": chance.pick(&["platform", "web"])});
                (format!("its namespace: {labels}"), self.label_namespace(ns, labels).await.map(drop))
            }
            12 => {
                let change = tampering(chance);
                (format!("Secret {change}"), self.edit_secret(ns, secret, change).await.map(drop))
            }
            13 => ("Secret deleted".to_owned(), self.delete_secret(ns, secret).await),
            14 => {
                let _ = self.delete_secret(ns, secret).await;
                ("Secret replaced by a foreign one".to_owned(), self.make_secret(ns, secret).await.map(drop))
            }
            15 => ("deleted".to_owned(), self.delete(ns, name).await),
            16 => {
                let status = json!({"credentials": null, "conditions": null, "delivery": null, "ended": null,
                    "lastHandled": null, "health": null, "nextRotationTime": null});
                ("status wiped".to_owned(), self.edit_status(ns, name, status).await.map(drop))
            }
            _ => {
                let status = forgery(chance, token, now);
                (format!("status forged: {status}"), self.edit_status(ns, name, status).await.map(drop))
            }
        }
    }
}

fn said(what: String, answer: kube::Result<()>) -> String {
    match answer {
        Ok(()) => what,
        Err(error) => format!("{what} (refused: {error})"),
    }
}

fn rotation(chance: &mut Chance) -> Value {
    match chance.below(8) {
        0 => Value::Null,
        6 => json!({"schedule": "99 3 * * *", "timeZone": null, "every": null, "overlap": null}),
        7 => json!({"schedule": "@daily", "timeZone": "Mars/Olympus", "every": null, "overlap": null}),
        1 => json!({"every": "6h", "overlap": "1h", "schedule": null, "timeZone": null}),
        2 => json!({"every": "48h", "overlap": "12h", "schedule": null, "timeZone": null}),
        3 => json!({"every": "240h", "overlap": null, "schedule": null, "timeZone": null}),
        4 => json!({"schedule": "0 3 * * SUN", "timeZone": "Europe/Berlin", "every": null, "overlap": "0s"}),
        _ => json!({"schedule": "30 4 * * *", "timeZone": null, "every": null, "overlap": "2h"}),
    }
}

fn expiry(chance: &mut Chance) -> Value {
    match chance.below(4) {
        0 => Value::Null,
        1 => json!({"after": "100h", "at": null}),
        2 => json!({"after": "2000h", "at": null}),
        _ => json!({"at": format!("2026-01-{:02}T12:00:00Z", 1 + chance.below(31)), "after": null}),
    }
}

/// A spec as somebody would write it: without the nulls of a merge.
fn spec(chance: &mut Chance) -> Value {
    let mut spec = json!({"scopes": ["orders:read"], "audiences": ["orders"]});
    for (field, value) in [("rotation", rotation(chance)), ("expiry", expiry(chance))] {
        let mut value = value;
        if let Some(value) = value.as_object_mut() {
            value.retain(|_, value| !value.is_null());
        }
        if !value.is_null() && chance.percent(70) {
            spec[field] = value;
        }
    }
    spec
}

fn tampering(chance: &mut Chance) -> Value {
    let foreign = *chance.pick(&["Zm9yZWlnbg==", ""]);
    match chance.below(5) {
        0 => json!({"data": {"token": foreign, "value": foreign}}),
        1 => json!({"data": null}),
        2 => json!({"metadata": {"labels": {keys::MANAGED_BY: null, keys::TOKEN: null}}}),
        3 => json!({"metadata": {"annotations": {keys::OWNER: "mallory"}}, "data": {"extra": foreign}}),
        _ => json!({"metadata": {"labels": {"theirs": "too"}, "annotations": {"note": "also theirs"}}}),
    }
}

/// A credential that nobody here minted, in a state that would make gates accept it.
fn forgery(chance: &mut Chance, token: &ApiToken, now: &str) -> Value {
    let entropy = super::chance::SeededEntropy::new(chance.below(usize::MAX) as u64, 0);
    let forged = Prefix::new("twd").ok().and_then(|prefix| Token::mint(&prefix, &entropy).ok());
    let (id, digest) = forged.map(|forged| (forged.id().to_owned(), forged.digest())).unwrap_or_default();
    let state = *chance.pick(&["Active", "Pending", "Retiring"]);
    let mut entry = json!({"id": id, "digest": digest, "state": state, "issuedAt": now});
    if chance.percent(50) {
        entry["notAfter"] = "2030-01-01T00:00:00Z".into();
    }
    let kept = token.status.as_ref().map(|status| json!(status.credentials));
    let mut all: Vec<Value> = kept.and_then(|kept| kept.as_array().cloned()).unwrap_or_default();
    if chance.percent(50) {
        all.clear();
    }
    all.push(entry);
    json!({"credentials": all})
}
