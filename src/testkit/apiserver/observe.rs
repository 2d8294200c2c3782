//! What oracles see: every request and every committed change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::request::{RequestInfo, Verb};
use super::resource::ResourceType;

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The resourceVersion it made.
    pub rv: u64,
    /// Of which resource.
    pub resource: Arc<ResourceType>,
    /// `namespace/name`, or the name of a cluster-scoped object.
    pub key: Arc<str>,
    /// The object before; absent for a creation.
    pub before: Option<Arc<Value>>,
    /// The object after; absent for a deletion.
    pub after: Option<Arc<Value>>,
    /// The client handle that caused it; the server's own controllers have names in angle brackets.
    pub client: Arc<str>,
    /// When, by the server's clock.
    pub at: Timestamp,
}

/// One request and how it was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was asked.
    pub info: RequestInfo,
    /// When it was answered, by the server's clock.
    pub at: Timestamp,
    /// The HTTP code; 0 if the client got no answer.
    pub code: u16,
}

/// Counters by client, verb, resource and code.
pub type Counts = BTreeMap<(Arc<str>, Verb, String, u16), u64>;

type Watcher = Box<dyn FnMut(&Request) + Send>;

/// The request log.
#[derive(Default)]
pub(super) struct Log {
    limit: usize,
    recent: VecDeque<Request>,
    counts: Counts,
    watchers: Vec<Watcher>,
}

impl Log {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn push(&mut self, request: Request) {
        let info = &request.info;
        let key = (info.client.clone(), info.verb, info.resource.clone(), request.code);
        *self.counts.entry(key).or_default() += 1;
        for watcher in &mut self.watchers {
            watcher(&request);
        }
        if self.recent.len() >= self.limit {
            self.recent.pop_front();
        }
        if self.limit > 0 {
            self.recent.push_back(request);
        }
    }

    pub(super) fn watch(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    pub(super) fn recent(&self) -> Vec<Request> {
        self.recent.iter().cloned().collect()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }
}
