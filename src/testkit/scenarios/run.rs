//! One run of a scenario: plain HTTP through a client, and a trace that two servers can agree on.

use std::fmt::Write as _;
use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tower::BoxError;

/// How long a watch may take to say something, and a controller to act: the garbage collector of a real cluster learns of
/// a new resource at its next look round, every 30 s, and a busy machine makes that longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a scenario saw, a line for each step.
pub type Trace = Vec<String>;

/// An answer, as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP code.
    pub code: u16,
    /// The JSON body, or its text.
    pub body: Value,
}

impl Reply {
    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn rv(&self) -> String {
        self.body["metadata"]["resourceVersion"].as_str().unwrap_or_default().into()
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> String {
        self.body["metadata"]["uid"].as_str().unwrap_or_default().into()
    }
}

/// A scenario at work.
pub struct Run {
    client: Client,
    /// The namespace it has to itself.
    pub namespace: String,
    trace: Trace,
    uids: Vec<String>,
    versions: Vec<u64>,
}

impl Run {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace, trace: Vec::new(), uids: Vec::new(), versions: Vec::new() }
    }

    pub(super) fn finish(self) -> Trace {
        self.trace
    }

    pub(super) fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    pub(super) fn leases(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    pub(super) fn widgets(&self) -> String {
        format!("/apis/scenario.tokenward.dev/v1/namespaces/{}/widgets", self.namespace)
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        kind: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<Reply, BoxError> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, accept)
            .body(Body::from(bytes))?;
        let response = self.client.send(request).await?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).trim().into()));
        Ok(Reply { code, body })
    }

    /// Sends a request and writes down the answer.
    pub(super) async fn call(
        &mut self,
        label: &str,
        method: Method,
        uri: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Reply, BoxError> {
        let reply = self.send(method, uri, kind, "application/json", body).await?;
        self.note(label, &reply);
        Ok(reply)
    }

    pub(super) async fn get(&mut self, label: &str, uri: &str) -> Result<Reply, BoxError> {
        self.call(label, Method::GET, uri, "application/json", None).await
    }

    /// Asks for metadata alone.
    pub(super) async fn get_metadata(
        &mut self,
        label: &str,
        uri: &str,
        list: bool,
    ) -> Result<Reply, BoxError> {
        let accept = format!(
            "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1",
            if list { "List" } else { "" }
        );
        let reply = self.send(Method::GET, uri, "application/json", &accept, None).await?;
        self.note(label, &reply);
        Ok(reply)
    }

    pub(super) async fn post(&mut self, label: &str, uri: &str, body: Value) -> Result<Reply, BoxError> {
        let uri = format!("{uri}?fieldManager=poster");
        self.call(label, Method::POST, &uri, "application/json", Some(&body)).await
    }

    pub(super) async fn put(&mut self, label: &str, uri: &str, body: Value) -> Result<Reply, BoxError> {
        let uri = format!("{uri}?fieldManager=putter");
        self.call(label, Method::PUT, &uri, "application/json", Some(&body)).await
    }

    pub(super) async fn merge(&mut self, label: &str, uri: &str, body: Value) -> Result<Reply, BoxError> {
        let uri = format!("{uri}?fieldManager=merger");
        self.call(label, Method::PATCH, &uri, "application/merge-patch+json", Some(&body)).await
    }

    pub(super) async fn delete(&mut self, label: &str, uri: &str, options: Value) -> Result<Reply, BoxError> {
        let body = Some(&options).filter(|options| !options.is_null());
        self.call(label, Method::DELETE, uri, "application/json", body).await
    }

    /// Deletes and writes down the code alone: what is left of the object for the moment is the server's affair.
    pub(super) async fn delete_quietly(&mut self, uri: &str, options: &Value) -> Result<(), BoxError> {
        let reply =
            self.send(Method::DELETE, uri, "application/json", "application/json", Some(options)).await?;
        self.trace.push(format!("delete: {}", reply.code));
        Ok(())
    }

    /// Server-side apply by `manager`; a `!` behind its name forces.
    pub(super) async fn apply(
        &mut self,
        label: &str,
        uri: &str,
        manager: &str,
        body: Value,
    ) -> Result<Reply, BoxError> {
        let force = if manager.ends_with('!') { "&force=true" } else { "" };
        let uri = format!("{uri}?fieldManager={}{force}", manager.trim_end_matches('!'));
        self.call(label, Method::PATCH, &uri, "application/apply-patch+yaml", Some(&body)).await
    }

    /// Waits until a GET is answered with `code`, and writes that down once.
    pub(super) async fn eventually(&mut self, label: &str, uri: &str, code: u16) -> Result<Reply, BoxError> {
        self.eventually_that(label, uri, |reply| reply.code == code).await
    }

    /// Waits until a GET is answered so that `done` holds, and writes that down once.
    pub(super) async fn eventually_that(
        &mut self,
        label: &str,
        uri: &str,
        done: impl Fn(&Reply) -> bool,
    ) -> Result<Reply, BoxError> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = self.send(Method::GET, uri, "application/json", "application/json", None).await?;
            if done(&reply) || tokio::time::Instant::now() >= end {
                self.note(label, &reply);
                return Ok(reply);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Opens a watch.
    pub(super) async fn watch(
        &mut self,
        label: &str,
        uri: &str,
        metadata_only: bool,
    ) -> Result<Watch, BoxError> {
        let accept = if metadata_only {
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .header(header::ACCEPT, accept)
            .body(Body::empty())?;
        let response = self.client.send(request).await?;
        self.trace.push(format!("{label}: {}", response.status().as_u16()));
        Ok(Watch { label: label.into(), body: response.into_body(), buffer: Vec::new() })
    }

    /// Reads `count` events, without bookmarks that come whenever the server likes, and writes them down.
    pub(super) async fn read(&mut self, watch: &mut Watch, count: usize) -> Result<(), BoxError> {
        let mut seen = 0;
        while seen < count {
            let Some(event) = watch.next().await? else {
                self.trace.push(format!("{}: no further event", watch.label));
                return Ok(());
            };
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            let end = !event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"].is_null();
            if kind == "BOOKMARK" && !end {
                continue;
            }
            seen += 1;
            let what = if end { "initial events end".into() } else { self.describe(&event["object"]) };
            self.trace.push(format!("{}: {kind} {what}", watch.label));
        }
        Ok(())
    }

    /// Writes down a fact that the answers do not show by themselves.
    pub(super) fn fact(&mut self, text: &str, holds: bool) {
        self.trace.push(format!("{text}: {holds}"));
    }

    fn note(&mut self, label: &str, reply: &Reply) {
        let what = self.describe(&reply.body);
        self.trace.push(format!("{label}: {} {what}", reply.code));
    }

    fn describe(&mut self, body: &Value) -> String {
        let text = match body["kind"].as_str() {
            Some("Status") => {
                let details = &body["details"];
                // The real server validates some things twice and says so twice.
                let mut causes: Vec<Value> = details["causes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|cause| json!([cause["reason"], cause["field"]]))
                    .collect();
                causes.dedup();
                let mut out = format!("{} {}", body["status"].as_str().unwrap_or_default(), body["reason"]);
                for field in ["group", "kind", "name"] {
                    if let Some(value) = details[field].as_str() {
                        let _ = write!(out, " {field}={value}");
                    }
                }
                if !causes.is_empty() {
                    let _ = write!(out, " causes={}", Value::Array(causes));
                }
                out
            }
            Some(kind) if kind.ends_with("List") => {
                let names: Vec<&str> = body["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|item| item["metadata"]["name"].as_str())
                    .collect();
                let metadata = &body["metadata"];
                format!(
                    "{kind} {names:?} more={} remaining={}",
                    metadata["continue"].as_str().is_some_and(|c| !c.is_empty()),
                    metadata["remainingItemCount"]
                )
            }
            Some(_) => self.canonical(body).to_string(),
            None => body.to_string(),
        };
        let mut text = text.replace(&self.namespace, "NS");
        for (i, uid) in self.uids.iter().enumerate() {
            text = text.replace(uid.as_str(), &format!("uid{i}"));
        }
        // Keys that hold a uid are in order again only now.
        match serde_json::from_str::<Value>(&text) {
            Ok(sorted) => sorted.to_string(),
            Err(_) => text,
        }
    }

    /// The object without what differs from run to run.
    fn canonical(&mut self, object: &Value) -> Value {
        let mut object = object.clone();
        let Some(metadata) = object["metadata"].as_object_mut() else { return object };
        if let Some(uid) = metadata.get("uid").and_then(Value::as_str)
            && !self.uids.iter().any(|known| known == uid)
        {
            self.uids.push(uid.into());
        }
        if let Some(rv) = metadata.get("resourceVersion").and_then(Value::as_str) {
            let version = self.version(rv);
            metadata.insert("resourceVersion".into(), version.into());
        }
        for field in ["creationTimestamp", "deletionTimestamp"] {
            if metadata.get(field).is_some_and(Value::is_string) {
                metadata.insert(field.into(), "T".into());
            }
        }
        if let Some(Value::Array(entries)) = metadata.remove("managedFields") {
            let mut owners: Vec<(String, Value)> = entries
                .iter()
                .map(|entry| {
                    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
                    let subresource = text("subresource");
                    let slash = if subresource.is_empty() { "" } else { "/" };
                    (
                        format!(
                            "{} {} {}{slash}{subresource}",
                            text("manager"),
                            text("operation"),
                            text("apiVersion")
                        ),
                        entry["fieldsV1"].clone(),
                    )
                })
                .collect();
            owners.sort_by(|a, b| a.0.cmp(&b.0));
            metadata.insert("managedFields".into(), owners.into_iter().collect::<Map<_, _>>().into());
        }
        object
    }

    /// Versions are told apart by the order in which they were first seen, and by whether they grow.
    fn version(&mut self, rv: &str) -> String {
        let number: u64 = rv.parse().unwrap_or_default();
        if let Some(at) = self.versions.iter().position(|known| *known == number) {
            return format!("rv{at}");
        }
        let newest = self.versions.iter().all(|known| *known < number);
        self.versions.push(number);
        format!("rv{}{}", self.versions.len() - 1, if newest { "" } else { " (not the newest)" })
    }
}

/// An open watch.
pub(super) struct Watch {
    label: String,
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Value>, BoxError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match tokio::time::timeout(PATIENCE, self.body.frame()).await {
                Ok(Some(frame)) => {
                    if let Some(data) = frame?.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}
