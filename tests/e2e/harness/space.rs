//! A case's own namespaces, and what a case does and sees in them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType, Credential, CredentialState, keys};
use tokenward::domain::token::Token;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::command::Output;
use super::operator::Operator;
use super::release::{Launch, Release};
use super::wait::{PATIENCE, until};

/// What a case works in.
pub struct Space {
    pub cluster: &'static Cluster,
    /// Its first namespace; unique, so that it also names releases.
    pub name: String,
    namespaces: Mutex<Vec<String>>,
    /// How many operators the cluster had before this case.
    earlier: usize,
    /// This case's own operators.
    operators: Mutex<Vec<Arc<Operator>>>,
}

impl Space {
    pub async fn create(cluster: &'static Cluster, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() % 100_000;
        let name = format!("{name}-{}-{age}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let earlier = cluster.operators.lock().unwrap().len();
        let space = Self {
            cluster,
            name: name.clone(),
            namespaces: Mutex::default(),
            earlier,
            operators: Mutex::default(),
        };
        space.namespace(&name, json!({})).await;
        space
    }

    /// The same case, looked at in another of its namespaces.
    pub fn within(&self, namespace: &str) -> Space {
        Space {
            cluster: self.cluster,
            name: namespace.to_owned(),
            namespaces: Mutex::default(),
            earlier: self.earlier,
            operators: Mutex::default(),
        }
    }

    /// One more namespace; `metadata` may add labels and annotations.
    pub async fn namespace(&self, name: &str, metadata: Value) -> Space {
        let mut object = json!({"metadata": metadata});
        object["metadata"]["name"] = json!(name);
        let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        self.owns(name);
        self.within(name)
    }

    /// This namespace belongs to the case, whoever made it.
    pub fn owns(&self, name: &str) {
        self.namespaces.lock().unwrap().push(name.to_owned());
    }

    // --- Releases and operators of a case's own --------------------------------------------------------------------

    /// A release that works in `namespaces`, beside the definitions that are there already.
    pub async fn release_for(&self, namespaces: &[&str], mut values: Value) -> Release<'static> {
        values["namespaces"] = json!(namespaces);
        values["crds"] = json!({"install": false});
        values["rbac"] = json!({"aggregateTo": {"view": false, "edit": false, "admin": false}});
        let name = format!("{}-op", self.name);
        self.owns(&name);
        Release::install(self.cluster, &name, values).await
    }

    pub async fn start(&self, launch: &Launch, pod: &str) -> Arc<Operator> {
        let operator = self.cluster.start_operator(launch, pod).await;
        self.operators.lock().unwrap().push(operator.clone());
        operator
    }

    // --- ApiTokens ---------------------------------------------------------------------------------------------------

    pub fn tokens(&self) -> Api<ApiToken> {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    pub async fn declare(&self, name: &str, spec: Value) -> ApiToken {
        self.declare_with(name, json!({}), spec).await
    }

    pub async fn declare_with(&self, name: &str, metadata: Value, spec: Value) -> ApiToken {
        let mut object = json!({"metadata": metadata, "spec": spec});
        object["metadata"]["name"] = json!(name);
        object["apiVersion"] = json!("tokenward.dev/v1alpha1");
        object["kind"] = json!("ApiToken");
        let token = serde_json::from_value(object).unwrap();
        self.tokens().create(&PostParams::default(), &token).await.unwrap()
    }

    pub async fn get(&self, name: &str) -> ApiToken {
        self.tokens().get(name).await.unwrap()
    }

    /// A merge patch of the ApiToken, as a user's.
    pub async fn patch(&self, name: &str, patch: Value) -> ApiToken {
        self.tokens().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    /// A merge patch of its status, as by somebody who may write that.
    pub async fn patch_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.tokens().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Makes a request by annotation with a value that was never used.
    pub async fn request(&self, name: &str, key: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let value = format!("2026-01-01T00:00:00Z#{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.patch(name, json!({"metadata": {"annotations": {key: value}}})).await;
        value
    }

    /// Requests a rotation and waits until it has happened.
    pub async fn rotate(&self, name: &str) -> ApiToken {
        let before = sole_active(&self.get(name).await).id.clone();
        let value = self.request(name, keys::ROTATE_REQUESTED_AT).await;
        self.until(name, "the rotation was done", |token| {
            let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
            handled.and_then(|handled| handled.rotate_requested_at.as_ref()) == Some(&value)
                && is_ready(token)
                && sole_active(token).id != before
        })
        .await
    }

    /// Watches the ApiToken until it is so.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(&ApiToken) -> bool) -> ApiToken {
        let mut last = None;
        let watch = async {
            let objects = watcher::watch_object(self.tokens(), name).default_backoff();
            let mut objects = std::pin::pin!(objects);
            loop {
                if let Some(Ok(Some(token))) = objects.next().await {
                    if so(&token) {
                        return token;
                    }
                    last = Some(token);
                }
            }
        };
        match timeout(PATIENCE, watch).await {
            Ok(token) => token,
            Err(_) => {
                panic!("{}/{name}: not so: {what}; last seen: {:#?}", self.name, last.and_then(|t| t.status))
            }
        }
    }

    /// Waits until the operator is done with the object as it is now.
    pub async fn ready(&self, name: &str) -> ApiToken {
        self.until(name, "Ready", is_ready).await
    }

    /// Waits for a reason of `Ready`.
    pub async fn until_reason(&self, name: &str, wanted: &str) -> ApiToken {
        let what = format!("Ready for the reason {wanted}");
        self.until(name, &what, |token| reason(token, ConditionType::Ready).as_deref() == Some(wanted)).await
    }

    /// Waits until it is stalled for this reason; the message.
    pub async fn until_stalled(&self, name: &str, wanted: &str) -> String {
        let what = format!("Stalled for the reason {wanted}");
        let token = self
            .until(name, &what, |token| reason(token, ConditionType::Stalled).as_deref() == Some(wanted))
            .await;
        token.status.unwrap().condition(ConditionType::Stalled).unwrap().message.clone()
    }

    // --- Secrets -----------------------------------------------------------------------------------------------------

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    pub async fn secret(&self, name: &str) -> Secret {
        self.secrets().get(name).await.unwrap()
    }

    /// The token under a key of a Secret.
    pub async fn held(&self, secret: &str, key: &str) -> Token {
        let secret = self.secret(secret).await;
        self.cluster.seen.note(&secret);
        let value = secret.data.unwrap().remove(key).unwrap_or_else(|| panic!("no key {key}"));
        Token::parse(std::str::from_utf8(&value.0).unwrap()).unwrap()
    }

    /// Asserts that the Secret holds the one active credential; returns the token.
    pub async fn holds_active(&self, token: &ApiToken) -> Token {
        let key = token.spec.secret.as_ref().map_or("token", |secret| secret.key());
        let held = self.held(token.secret_name(), key).await;
        assert_eq!(sole_active(token).digest, held.digest(), "the Secret holds the active credential");
        assert_eq!(sole_active(token).id, held.id());
        held
    }

    // --- What a user sees --------------------------------------------------------------------------------------------

    /// `kubectl` in this namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "").await
    }

    pub async fn kubectl_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(args);
        self.cluster.kubectl(&all, stdin).await
    }

    async fn events(&self) -> Vec<Event> {
        let events = Api::<Event>::namespaced(self.cluster.client.clone(), &self.name);
        events.list(&ListParams::default()).await.unwrap().items
    }

    /// Waits for an event about `token`; its note.
    pub async fn event(&self, token: &str, wanted: &str) -> String {
        until(&format!("an event {wanted} about {token}"), async || {
            self.events().await.into_iter().find_map(|event| {
                let about = event.regarding.as_ref()?.name.as_deref() == Some(token);
                (about && event.reason.as_deref() == Some(wanted)).then(|| event.note.unwrap_or_default())
            })
        })
        .await
    }

    /// How often an event about `token` was told so far, repetitions in a series included.
    pub async fn told(&self, token: &str, wanted: &str) -> i32 {
        let about = |event: &Event| {
            event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(token))
                && event.reason.as_deref() == Some(wanted)
        };
        let times = |event: Event| event.series.map_or(1, |series| series.count);
        self.events().await.into_iter().filter(about).map(times).sum()
    }

    // --- The end of a case -------------------------------------------------------------------------------------------

    /// No token that ever stood in a Secret of this cluster stands in an ApiToken, an event, a log or a metric.
    pub async fn no_plaintext(&self) {
        let namespaces = self.namespaces.lock().unwrap().clone();
        let mut places = Vec::new();
        for space in namespaces.iter().map(|name| self.within(name)) {
            if let Ok(secrets) = space.secrets().list(&ListParams::default()).await {
                secrets.iter().for_each(|secret| self.cluster.seen.note(secret));
            }
            // The definition may be gone by the end of a case.
            let tokens = space.tokens().list(&ListParams::default()).await.map(|list| list.items);
            places.push((
                format!("ApiTokens in {}", space.name),
                json!(tokens.unwrap_or_default()).to_string(),
            ));
            places.push((format!("events in {}", space.name), json!(space.events().await).to_string()));
        }
        let mut operators = self.cluster.operators.lock().unwrap().clone();
        if !self.operators.lock().unwrap().is_empty() {
            operators.drain(..self.earlier);
        }
        for operator in operators {
            places.push((operator.log.display().to_string(), operator.read_log()));
            if operator.is_running()
                && let Some(scrape) = operator.try_scrape().await
            {
                places.push((format!("metrics of {}", operator.pod), scrape.text));
            }
        }
        for (place, text) in places {
            if let Some(context) = self.cluster.seen.find(&text) {
                panic!("the plaintext of a token stands in {place}, after {context}");
            }
        }
    }

    /// Prints what helps to understand a failure.
    pub async fn explain(&self) {
        let mut text = format!("--- {} ---\n", self.name);
        let namespaces = self.namespaces.lock().unwrap().clone();
        for space in namespaces.iter().map(|name| self.within(name)) {
            let namespace = &space.name;
            let get = space.kubectl(&["get", "apitokens,secrets", "--output", "wide"]).await;
            let events = space.kubectl(&["events", "--for", "apitokens"]).await;
            let _ = write!(text, "namespace {namespace}\n{}{}{}", get.stdout, get.stderr, events.stdout);
        }
        let operators = self.cluster.operators.lock().unwrap().clone();
        for operator in operators {
            let log = operator.read_log();
            let own = self.operators.lock().unwrap().iter().any(|own| Arc::ptr_eq(own, &operator));
            let lines: Vec<_> = log.lines().filter(|line| own || line.contains(&self.name)).collect();
            if !lines.is_empty() {
                let tail = lines[lines.len().saturating_sub(30)..].join("\n");
                let _ = writeln!(text, "log {} of {}\n{tail}", operator.log.display(), operator.pod);
            }
        }
        eprintln!("{text}");
    }

    /// Ends the case's operators and, if it went well, removes its namespaces.
    pub async fn close(&self, remove: bool) {
        let operators = std::mem::take(&mut *self.operators.lock().unwrap());
        for operator in operators {
            if operator.is_running() {
                operator.kill().await;
            }
        }
        if remove {
            let namespaces = Api::<Namespace>::all(self.cluster.client.clone());
            let names = std::mem::take(&mut *self.namespaces.lock().unwrap());
            for name in names {
                let _ = namespaces.delete(&name, &DeleteParams::background()).await;
            }
        }
    }
}

/// Done with the object as it is: Ready, and nothing under way.
pub fn is_ready(token: &ApiToken) -> bool {
    token.status.as_ref().is_some_and(|status| {
        status.observed_generation == token.metadata.generation
            && status.is_true(ConditionType::Ready)
            && !status.is_true(ConditionType::Reconciling)
    })
}

/// The reason of a condition, if it is there.
pub fn reason(token: &ApiToken, kind: ConditionType) -> Option<String> {
    Some(token.status.as_ref()?.condition(kind)?.reason.clone())
}

/// The credential in this state. There may be several undelivered ones after a crash; of the others, one.
pub fn credential(token: &ApiToken, state: CredentialState) -> Option<&Credential> {
    let mut found = token.status.as_ref()?.credentials.iter().filter(|credential| credential.state == state);
    let first = found.next();
    let several = found.next().is_some() && state == CredentialState::Active;
    assert!(!several, "more than one {state:?}: {:?}", token.status);
    first
}

/// The one active credential.
pub fn sole_active(token: &ApiToken) -> &Credential {
    credential(token, CredentialState::Active).expect("an active credential")
}
