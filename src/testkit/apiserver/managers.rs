//! Who owns which field: `metadata.managedFields`, ownership by update, and server-side apply.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::fieldset::{Elem, FieldSet};
use super::resource::ResourceType;
use super::shape;
use super::status::ApiError;

/// The two ways to own a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By server-side apply: fields left out of the next apply are removed.
    Apply,
    /// By any other write.
    Update,
}

/// Whose entry a write goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManagerId {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) subresource: Option<String>,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    id: ManagerId,
    time: String,
    fields: FieldSet,
}

/// The entries of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(Vec<Manager>);

/// Fields that the server keeps: nobody owns them.
fn is_system(path: &[&str]) -> bool {
    matches!(path, ["apiVersion" | "kind"])
        || matches!(
            path,
            [
                "metadata",
                "name"
                    | "namespace"
                    | "creationTimestamp"
                    | "selfLink"
                    | "uid"
                    | "generation"
                    | "managedFields"
                    | "resourceVersion"
            ]
        )
}

fn strip(set: &mut FieldSet) {
    let field = |name: &str| Elem::Field(name.into());
    set.children.retain(|elem, _| !matches!(elem, Elem::Field(name) if is_system(&[name])));
    if let Some(metadata) = set.children.get_mut(&field("metadata")) {
        metadata.member = false;
        metadata
            .children
            .retain(|elem, _| !matches!(elem, Elem::Field(name) if is_system(&["metadata", name])));
        if metadata.is_empty() {
            set.children.remove(&field("metadata"));
        }
    }
}

/// Who owned the fields of an object that nobody had tracked before its first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

impl Managers {
    /// The entries in `managedFields` of an object that a client sends: a PUT may carry its own.
    pub(super) fn from_value(entries: &Value) -> Self {
        let entry = |entry: &Value| {
            let operation = match entry["operation"].as_str()? {
                "Apply" => Operation::Apply,
                _ => Operation::Update,
            };
            let id = ManagerId {
                name: entry["manager"].as_str()?.into(),
                operation,
                subresource: entry["subresource"].as_str().map(Into::into),
            };
            let time = entry["time"].as_str().unwrap_or_default().into();
            Some(Manager { id, time, fields: FieldSet::from_value(&entry["fieldsV1"]) })
        };
        Self(entries.as_array().into_iter().flatten().filter_map(entry).collect())
    }

    /// Takes over for `me` what an update changed, from everybody.
    pub(super) fn update(
        &mut self,
        res: &ResourceType,
        old: Option<&Value>,
        new: &Value,
        me: &ManagerId,
        now: &str,
    ) {
        let mut change = shape::compare(res, old, Some(new));
        for manager in &mut self.0 {
            manager.fields.subtract(&change.changed);
            manager.fields.subtract(&change.removed);
        }
        strip(&mut change.changed);
        if !change.changed.is_empty() {
            match self.0.iter_mut().find(|m| m.id == *me) {
                Some(mine) => {
                    mine.fields.extend(&change.changed);
                    mine.time = now.into();
                }
                None => self.0.push(Manager { id: me.clone(), time: now.into(), fields: change.changed }),
            }
        }
        self.tidy();
    }

    /// Lays `config` over `live` for `me`: what `me` applied before and leaves out now is removed unless somebody
    /// else owns it; foreign fields that change are a conflict unless `force`.
    pub(super) fn apply(
        &mut self,
        res: &ResourceType,
        live: &Value,
        config: &Value,
        me: &ManagerId,
        force: bool,
        now: &str,
    ) -> Result<Value, ApiError> {
        if self.0.is_empty() && live["metadata"].get("uid").is_some() {
            let before = ManagerId {
                name: BEFORE_FIRST_APPLY.into(),
                operation: Operation::Update,
                subresource: None,
            };
            self.update(res, None, live, &before, now);
        }
        let mut mine = shape::field_set(res, config);
        strip(&mut mine);
        let mut new = shape::merge(res, live, config);
        let at = self.0.iter().position(|m| m.id == *me);
        if let Some(at) = at {
            let last = std::mem::take(&mut self.0[at].fields);
            let mut owned = mine.clone();
            for manager in &self.0 {
                owned.extend(&manager.fields);
            }
            shape::prune(res, &mut new, &last, &owned);
            self.0[at].fields = last;
        }
        let change = shape::compare(res, Some(live), Some(&new));
        let others = || self.0.iter().filter(|m| m.id != *me);
        let mut conflicts = Vec::new();
        if !force {
            for manager in others() {
                let printed = manager.printed(res);
                for path in manager.fields.common_paths(&change.changed) {
                    conflicts.push((printed.clone(), path));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(ApiError::apply_conflict(&conflicts));
        }
        for manager in self.0.iter_mut().filter(|m| m.id != *me) {
            manager.fields.subtract(&change.changed);
            manager.fields.subtract(&change.removed);
        }
        match at {
            Some(at) => {
                if self.0[at].fields != mine || new != *live {
                    self.0[at].time = now.into();
                }
                self.0[at].fields = mine;
            }
            None => self.0.push(Manager { id: me.clone(), time: now.into(), fields: mine }),
        }
        self.tidy();
        Ok(new)
    }

    fn tidy(&mut self) {
        self.0.retain(|m| !m.fields.is_empty());
        self.0.sort_by(|a, b| {
            (a.id.operation, &a.time, &a.id.name, &a.id.subresource).cmp(&(
                b.id.operation,
                &b.time,
                &b.id.name,
                &b.id.subresource,
            ))
        });
    }

    /// Whether the entries are the same but for their times.
    pub(super) fn same_owners(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|m| other.0.iter().any(|o| m.id == o.id && m.fields == o.fields))
    }

    /// `metadata.managedFields`.
    pub(super) fn to_value(&self, res: &ResourceType) -> Value {
        self.0
            .iter()
            .map(|m| {
                let mut entry = json!({
                    "manager": m.id.name,
                    "operation": if m.id.operation == Operation::Apply { "Apply" } else { "Update" },
                    "apiVersion": res.api_version(),
                    "time": m.time,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": m.fields.to_value(),
                });
                if let Some(subresource) = &m.id.subresource {
                    entry["subresource"] = subresource.as_str().into();
                }
                entry
            })
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Manager {
    fn printed(&self, res: &ResourceType) -> String {
        let mut text = format!("\"{}\"", self.id.name);
        if let Some(subresource) = &self.id.subresource {
            let _ = write!(text, " with subresource \"{subresource}\"");
        }
        if self.id.operation == Operation::Update {
            let _ = write!(text, " using {} at {}", res.api_version(), self.time);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::secrets;
    use super::*;

    fn applier(name: &str) -> ManagerId {
        ManagerId { name: name.into(), operation: Operation::Apply, subresource: None }
    }

    #[test]
    fn removal_conflict_and_takeover() {
        let res = secrets();
        let mut managers = Managers::default();
        let empty = json!({"metadata": {"name": "s"}});
        let v1 = managers
            .apply(&res, &empty, &json!({"data": {"a": "1", "b": "2"}}), &applier("one"), false, "t1")
            .unwrap();
        let err =
            managers.clone().apply(&res, &v1, &json!({"data": {"a": "9"}}), &applier("two"), false, "t2");
        assert_eq!(err.unwrap_err().message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
        let v2 =
            managers.apply(&res, &v1, &json!({"data": {"a": "9"}}), &applier("two"), true, "t2").unwrap();
        assert_eq!(v2["data"], json!({"a": "9", "b": "2"}));
        // `one` lost `a` and lets go of `b`: only `b` disappears.
        let v3 = managers
            .apply(&res, &v2, &json!({"metadata": {"labels": {"x": "y"}}}), &applier("one"), false, "t3")
            .unwrap();
        assert_eq!(v3["data"], json!({"a": "9"}));
        let before = managers.clone();
        let v4 = managers
            .apply(&res, &v3, &json!({"metadata": {"labels": {"x": "y"}}}), &applier("one"), false, "t4")
            .unwrap();
        assert_eq!((v4, managers), (v3, before));
    }

    #[test]
    fn an_update_takes_ownership_of_what_it_changes() {
        let res = secrets();
        let mut managers = Managers::default();
        let old = managers
            .apply(&res, &json!({}), &json!({"data": {"a": "1"}}), &applier("one"), false, "t1")
            .unwrap();
        let other = ManagerId { operation: Operation::Update, ..applier("kubectl-edit") };
        let new = json!({"data": {"a": "2"}});
        managers.update(&res, Some(&old), &new, &other, "t2");
        let err = managers
            .apply(&res, &new, &json!({"data": {"a": "1"}}), &applier("one"), false, "t3")
            .unwrap_err();
        assert!(
            err.message.contains("conflict with \"kubectl-edit\" using v1 at t2: .data.a"),
            "{}",
            err.message
        );
    }
}
