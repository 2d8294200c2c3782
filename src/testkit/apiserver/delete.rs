//! Deletion: preconditions, finalizers, propagation.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::gc::{FOREGROUND, Job};
use super::selector::Selector;
use super::status::ApiError;
use super::store::{State, Stored, uid_of};
use super::write::{Answer, Target};

impl State {
    /// DELETE of one object.
    pub(super) fn delete(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let key = target.key();
        let stored = self.tables[target.table]
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| ApiError::not_found(&target.res, target.name()))?;
        self.check_preconditions(target, &stored)?;
        if let Some(object) = self.delete_stored(target, &key, &stored) {
            return Ok(Answer::ok(object));
        }
        let mut details =
            json!({"name": target.name(), "kind": target.res.plural, "uid": uid_of(&stored.value)});
        if !target.res.group.is_empty() {
            details["group"] = target.res.group.as_str().into();
        }
        Ok(Answer::ok(Arc::new(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        }))))
    }

    fn check_preconditions(&self, target: &Target<'_>, stored: &Stored) -> Result<(), ApiError> {
        let wanted = &target.call.body["preconditions"];
        if let Some(uid) = wanted["uid"].as_str()
            && uid != stored.meta("uid")
        {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                stored.meta("uid")
            );
            return Err(ApiError::precondition(&target.res, target.name(), &why));
        }
        if let Some(version) = wanted["resourceVersion"].as_str()
            && version != stored.meta("resourceVersion")
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                stored.meta("resourceVersion")
            );
            return Err(ApiError::precondition(&target.res, target.name(), &why));
        }
        Ok(())
    }

    /// Deletes, or marks for deletion and returns what is left for now.
    fn delete_stored(&mut self, target: &Target<'_>, key: &str, stored: &Stored) -> Option<Arc<Value>> {
        let (table, client) = (target.table, &target.call.info.client);
        if target.call.params.dry_run || target.call.body.get("dryRun").is_some() {
            return None;
        }
        if target.res.group.is_empty() && target.res.kind == "Namespace" {
            return self.terminate_namespace(table, key, client);
        }
        let policy =
            target.call.body["propagationPolicy"].as_str().or(target.call.params.propagation.as_deref());
        let mut value = stored.bare();
        let mut finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        match policy {
            Some("Orphan") => self.orphan(uid_of(&stored.value)),
            Some("Foreground") => {
                if !finalizers.iter().any(|f| f == FOREGROUND) {
                    finalizers.push(FOREGROUND.into());
                }
                let at = Instant::now() + self.config.gc_delay;
                self.agenda.add(at, Job::Foreground(table, key.into()));
            }
            _ => {}
        }
        if finalizers.is_empty() {
            self.remove(table, key, client);
            return None;
        }
        if stored.value["metadata"].get("deletionTimestamp").is_some() {
            return Some(stored.value.clone());
        }
        value["metadata"]["finalizers"] = finalizers.into();
        Some(self.mark(table, key, value, client))
    }

    /// DELETE of a collection.
    pub(super) fn delete_collection(&mut self, target: &Target<'_>) -> Result<Answer, ApiError> {
        let params = &target.call.params;
        let selector = Selector::parse(params.label_selector.as_deref(), params.field_selector.as_deref())?;
        let prefix = target.call.info.namespace.as_ref().map(|ns| format!("{ns}/")).unwrap_or_default();
        let chosen: Vec<(String, Stored)> = self.tables[target.table]
            .range(&prefix)
            .filter(|(_, stored)| selector.matches(&stored.value))
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect();
        let items: Vec<Value> = chosen.iter().map(|(_, stored)| (*stored.value).clone()).collect();
        for (key, stored) in chosen {
            self.delete_stored(target, &key, &stored);
        }
        Ok(Answer::ok(Arc::new(json!({
            "kind": format!("{}List", target.res.kind), "apiVersion": target.res.api_version(),
            "metadata": {"resourceVersion": self.rv.to_string()}, "items": items,
        }))))
    }
}
