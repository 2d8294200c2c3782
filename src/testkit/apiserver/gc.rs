//! The server's own controllers, with delays in virtual time: owner references and emptying namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::managers::{ManagerId, Operation};
use super::store::{State, owner_references, uid_of};

/// One thing to do later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Look whether the object still has an owner.
    CheckOwners(usize, String),
    /// Delete the dependents of an object that waits for them.
    Foreground(usize, String),
    /// Delete what is in the namespace, then the namespace.
    Empty(String),
}

/// What is to be done when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    jobs: BTreeMap<(Instant, u64), Job>,
    counter: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Instant, job: Job) {
        if self.jobs.values().any(|known| *known == job) {
            return;
        }
        self.counter += 1;
        self.jobs.insert((at, self.counter), job);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.jobs.keys().next().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Instant) -> Option<Job> {
        self.next().filter(|at| *at <= now)?;
        self.jobs.pop_first().map(|(_, job)| job)
    }
}

const COLLECTOR: &str = "<garbage-collector>";
const NAMESPACES: &str = "<namespace-controller>";

/// The finalizer under which an object waits for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

impl State {
    /// Does what is due.
    pub(super) fn run_due(&mut self) {
        let now = Instant::now();
        while let Some(job) = self.agenda.due(now) {
            match job {
                Job::CheckOwners(table, key) => self.collect(table, &key),
                Job::Foreground(table, key) => self.foreground(table, &key),
                Job::Empty(namespace) => self.empty(&namespace),
            }
        }
    }

    /// An owner vanished: its dependents are looked at after the collector's delay.
    pub(super) fn owner_gone(&mut self, uid: &str) {
        let at = Instant::now() + self.config.gc_delay;
        for (table, key) in self.dependents.get(uid).cloned().unwrap_or_default() {
            self.agenda.add(at, Job::CheckOwners(table, key));
        }
    }

    /// An object that names an owner which does not exist is looked at as well.
    pub(super) fn check_owners(&mut self, table: usize, key: &str) {
        if self.owners(table, key).is_some_and(|(_, gone)| gone > 0) {
            let at = Instant::now() + self.config.gc_delay;
            self.agenda.add(at, Job::CheckOwners(table, key.into()));
        }
    }

    /// How many owners live and how many are gone. Owners of kinds that are not served count as living: the real
    /// collector cannot look them up and leaves their dependents alone.
    fn owners(&self, table: usize, key: &str) -> Option<(usize, usize)> {
        let object = self.tables[table].objects.get(key)?;
        let (mut alive, mut gone) = (0, 0);
        for owner in owner_references(&object.value) {
            if self.is_gone(owner) { gone += 1 } else { alive += 1 }
        }
        Some((alive, gone))
    }

    fn is_gone(&self, owner: &Value) -> bool {
        let known = self.tables.iter().any(|t| {
            owner["kind"] == *t.res.kind && owner["apiVersion"].as_str() == Some(t.res.api_version().as_str())
        });
        known && !self.live.contains(owner["uid"].as_str().unwrap_or_default())
    }

    fn collect(&mut self, table: usize, key: &str) {
        match self.owners(table, key) {
            Some((0, gone)) if gone > 0 => self.discard(table, key, COLLECTOR),
            Some((_, gone)) if gone > 0 => {
                self.drop_owner_references(table, key, |s, owner| s.is_gone(owner))
            }
            _ => {}
        }
    }

    fn drop_owner_references(&mut self, table: usize, key: &str, gone: impl Fn(&Self, &Value) -> bool) {
        let Some(stored) = self.tables[table].objects.get(key).cloned() else { return };
        let kept: Vec<Value> =
            owner_references(&stored.value).iter().filter(|owner| !gone(self, owner)).cloned().collect();
        let mut value = stored.bare();
        if kept.is_empty() {
            value["metadata"].as_object_mut().map(|m| m.remove("ownerReferences"));
        } else {
            value["metadata"]["ownerReferences"] = kept.into();
        }
        let mut managers = (*stored.managers).clone();
        let me = ManagerId {
            name: "kube-controller-manager".into(),
            operation: Operation::Update,
            subresource: None,
        };
        let (res, now) = (self.tables[table].res.clone(), self.now());
        managers.update(&res, Some(&stored.bare()), &value, &me, &now);
        self.put(table, key, value, managers, &COLLECTOR.into());
    }

    /// Deletion by policy `Orphan`: dependents lose the reference and stay.
    pub(super) fn orphan(&mut self, owner: &str) {
        for (table, key) in self.dependents.get(owner).cloned().unwrap_or_default() {
            self.drop_owner_references(table, &key, |_, reference| reference["uid"] == owner);
        }
    }

    fn foreground(&mut self, table: usize, key: &str) {
        let Some(stored) = self.tables[table].objects.get(key).cloned() else { return };
        for (table, key) in self.dependents.get(uid_of(&stored.value)).cloned().unwrap_or_default() {
            self.discard(table, &key, COLLECTOR);
        }
        if self.dependents.contains_key(uid_of(&stored.value)) {
            let at = Instant::now() + self.config.gc_delay;
            self.agenda.add(at, Job::Foreground(table, key.into()));
            return;
        }
        let mut value = stored.bare();
        if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|f| f != FOREGROUND);
            if finalizers.is_empty() {
                self.remove(table, key, &COLLECTOR.into());
            } else {
                self.put(table, key, value, (*stored.managers).clone(), &COLLECTOR.into());
            }
        }
    }

    /// Deletes on behalf of the server; an object with finalizers is only marked.
    fn discard(&mut self, table: usize, key: &str, by: &str) {
        let Some(stored) = self.tables[table].objects.get(key).cloned() else { return };
        let by: Arc<str> = by.into();
        let waits = stored.value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if !waits {
            self.remove(table, key, &by);
        } else if stored.value["metadata"].get("deletionTimestamp").is_none() {
            self.mark(table, key, stored.bare(), &by);
        }
    }

    /// Sets `deletionTimestamp`.
    pub(super) fn mark(&mut self, table: usize, key: &str, mut value: Value, by: &Arc<str>) -> Arc<Value> {
        let managers = self.tables[table].objects[key].managers.clone();
        let now = self.now();
        let metadata = &mut value["metadata"];
        metadata["deletionTimestamp"] = now.into();
        metadata["deletionGracePeriodSeconds"] = json!(0);
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata["generation"] = json!(generation + 1);
        }
        self.put(table, key, value, (*managers).clone(), by)
    }

    /// Starts the deletion of a namespace.
    pub(super) fn terminate_namespace(
        &mut self,
        table: usize,
        name: &str,
        by: &Arc<str>,
    ) -> Option<Arc<Value>> {
        let stored = self.tables[table].objects.get(name)?.clone();
        if stored.value["metadata"].get("deletionTimestamp").is_some() {
            return Some(stored.value);
        }
        let mut value = stored.bare();
        value["metadata"]["deletionTimestamp"] = self.now().into();
        value["status"]["phase"] = "Terminating".into();
        let at = Instant::now() + self.config.namespace_delay;
        self.agenda.add(at, Job::Empty(name.into()));
        Some(self.put(table, name, value, (*stored.managers).clone(), by))
    }

    fn empty(&mut self, namespace: &str) {
        let prefix = format!("{namespace}/");
        let mut left = false;
        for table in 0..self.tables.len() {
            if !self.tables[table].res.namespaced {
                continue;
            }
            let keys: Vec<String> = self.tables[table].range(&prefix).map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.discard(table, &key, NAMESPACES);
                left |= self.tables[table].objects.contains_key(&key);
            }
        }
        let Some(table) = self.table_named("namespaces") else { return };
        if left {
            let at = Instant::now() + self.config.namespace_delay;
            self.agenda.add(at, Job::Empty(namespace.into()));
        } else {
            self.remove(table, namespace, &NAMESPACES.into());
        }
    }
}
