//! Walks over objects that know the list types of a resource: field sets, comparison, merge and pruning.
//!
//! The rules are those of structured-merge-diff, which the real API server uses.

use serde_json::{Map, Value};

use super::fieldset::{Elem, FieldSet};
use super::resource::{ListKind, ResourceType};

/// What a change did.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Fields added or given another value.
    pub(super) changed: FieldSet,
    /// Fields removed.
    pub(super) removed: FieldSet,
}

/// The field names from the root: list items add none.
type Names<'a> = Vec<&'a str>;

fn key_of(key: &str, item: &Value) -> Elem {
    Elem::Key(key.into(), item.get(key).unwrap_or(&Value::Null).to_string())
}

/// How two (or one) values at a place are compared and merged.
enum Shape<'a> {
    Leaf,
    Object(Option<&'a Map<String, Value>>, Option<&'a Map<String, Value>>),
    List(&'a [Value], &'a [Value], &'a ListKind),
}

fn shape<'a>(res: &'a ResourceType, names: &[&str], a: Option<&'a Value>, b: Option<&'a Value>) -> Shape<'a> {
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) if a.is_empty() && b.is_empty() => Shape::Leaf,
        (Some(Value::Object(a)), Some(Value::Object(b))) => Shape::Object(Some(a), Some(b)),
        (Some(Value::Object(a)), None) if !a.is_empty() => Shape::Object(Some(a), None),
        (None, Some(Value::Object(b))) if !b.is_empty() => Shape::Object(None, Some(b)),
        (Some(Value::Array(_)) | None, Some(Value::Array(_)) | None) => {
            let items = |v: Option<&'a Value>| v.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let (a, b) = (items(a), items(b));
            match res.list_kind(names) {
                ListKind::Atomic => Shape::Leaf,
                _ if a.is_empty() && b.is_empty() => Shape::Leaf,
                kind => Shape::List(a, b, kind),
            }
        }
        _ => Shape::Leaf,
    }
}

fn elem(kind: &ListKind, item: &Value) -> Elem {
    match kind {
        ListKind::Map { key, .. } => key_of(key, item),
        _ => Elem::Item(item.to_string()),
    }
}

fn find<'a>(items: &'a [Value], kind: &ListKind, wanted: &Elem) -> Option<&'a Value> {
    items.iter().find(|item| elem(kind, item) == *wanted)
}

const fn granular(kind: &ListKind) -> bool {
    matches!(kind, ListKind::Map { atomic_items: false, .. })
}

/// The fields that an applied configuration sets.
pub(super) fn field_set(res: &ResourceType, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    fill(res, &mut Vec::new(), value, &mut set);
    set
}

fn fill<'a>(res: &ResourceType, names: &mut Names<'a>, value: &'a Value, set: &mut FieldSet) {
    match value {
        Value::Object(map) => {
            let declared = res.is_struct(names);
            for (name, child) in map {
                let mut node = FieldSet::default();
                names.push(name);
                fill(res, names, child, &mut node);
                // Only a declared list has a type.
                let declared = declared || *res.list_kind(names) != ListKind::Atomic;
                names.pop();
                if !declared || child.is_null() || child.as_object().is_some_and(Map::is_empty) {
                    node.member = true;
                }
                if !node.is_empty() {
                    set.children.insert(Elem::Field(name.clone()), node);
                }
            }
        }
        Value::Array(items) => match res.list_kind(names) {
            ListKind::Atomic => set.member = true,
            kind => {
                for item in items {
                    let mut node = FieldSet { member: true, ..FieldSet::default() };
                    if granular(kind) {
                        fill(res, names, item, &mut node);
                    }
                    node.member = true;
                    set.children.insert(elem(kind, item), node);
                }
            }
        },
        _ => set.member = true,
    }
}

/// The first key that a list map or set of an applied configuration holds twice.
pub(super) fn duplicate(res: &ResourceType, value: &Value) -> Option<String> {
    fn look<'a>(res: &ResourceType, names: &mut Names<'a>, value: &'a Value) -> Option<String> {
        match value {
            Value::Object(map) => map.iter().find_map(|(name, child)| {
                names.push(name);
                let found = look(res, names, child);
                names.pop();
                found
            }),
            Value::Array(items) => {
                let kind = res.list_kind(names);
                let mut seen = Vec::new();
                items.iter().filter(|_| *kind != ListKind::Atomic).find_map(|item| {
                    let at = elem(kind, item);
                    let twice = seen.contains(&at);
                    seen.push(at);
                    twice.then(|| names.join("."))
                })
            }
            _ => None,
        }
    }
    look(res, &mut Vec::new(), value)
}

/// What changed from `old` (absent: everything is new) to `new`.
pub(super) fn compare(res: &ResourceType, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut walk = Compare { res, names: Vec::new(), path: Vec::new(), out: Comparison::default() };
    walk.node(old, new);
    walk.out
}

struct Compare<'a> {
    res: &'a ResourceType,
    names: Names<'a>,
    path: Vec<Elem>,
    out: Comparison,
}

impl<'a> Compare<'a> {
    fn node(&mut self, old: Option<&'a Value>, new: Option<&'a Value>) {
        if old == new {
            return;
        }
        match shape(self.res, &self.names, old, new) {
            Shape::Leaf => {}
            Shape::Object(a, b) => {
                for (name, value) in a.into_iter().flatten() {
                    self.descend(
                        Elem::Field(name.clone()),
                        Some(name),
                        Some(value),
                        b.and_then(|b| b.get(name)),
                    );
                }
                for (name, value) in b.into_iter().flatten() {
                    if a.is_none_or(|a| !a.contains_key(name)) {
                        self.descend(Elem::Field(name.clone()), Some(name), None, Some(value));
                    }
                }
                if old.is_some() && new.is_some() {
                    return;
                }
            }
            Shape::List(a, b, kind) => {
                for item in a {
                    let at = elem(kind, item);
                    let other = find(b, kind, &at);
                    self.item(kind, at, Some(item), other);
                }
                for item in b {
                    let at = elem(kind, item);
                    if find(a, kind, &at).is_none() {
                        self.item(kind, at, None, Some(item));
                    }
                }
                if old.is_some() && new.is_some() {
                    return;
                }
            }
        }
        if !self.path.is_empty() {
            let set = if new.is_none() { &mut self.out.removed } else { &mut self.out.changed };
            set.insert(&self.path);
        }
    }

    fn descend(&mut self, at: Elem, name: Option<&'a str>, old: Option<&'a Value>, new: Option<&'a Value>) {
        self.path.push(at);
        self.names.extend(name);
        self.node(old, new);
        if name.is_some() {
            self.names.pop();
        }
        self.path.pop();
    }

    fn item(&mut self, kind: &ListKind, at: Elem, old: Option<&'a Value>, new: Option<&'a Value>) {
        if granular(kind) {
            self.descend(at, None, old, new);
        } else if old != new {
            self.path.push(at);
            let set = if new.is_none() { &mut self.out.removed } else { &mut self.out.changed };
            set.insert(&self.path);
            self.path.pop();
        }
    }
}

/// `live` with `config` laid over it.
pub(super) fn merge(res: &ResourceType, live: &Value, config: &Value) -> Value {
    merge_at(res, &mut Vec::new(), live, config)
}

fn merge_at<'a>(res: &'a ResourceType, names: &mut Names<'a>, live: &'a Value, config: &'a Value) -> Value {
    match shape(res, names, Some(live), Some(config)) {
        Shape::Object(Some(live), Some(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = match live.get(name) {
                    Some(old) => {
                        names.push(name);
                        let merged = merge_at(res, names, old, value);
                        names.pop();
                        merged
                    }
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        Shape::List(live, config, kind) => Value::Array(merge_lists(res, names, live, config, kind)),
        _ => config.clone(),
    }
}

/// Items of `live` keep their places around the shared ones, which take the order of `config`.
fn merge_lists<'a>(
    res: &'a ResourceType,
    names: &mut Names<'a>,
    live: &'a [Value],
    config: &'a [Value],
    kind: &ListKind,
) -> Vec<Value> {
    let left: Vec<Elem> = live.iter().map(|item| elem(kind, item)).collect();
    let right: Vec<Elem> = config.iter().map(|item| elem(kind, item)).collect();
    let mut shared = right.iter().filter(|e| left.contains(e));
    let mut next = shared.next();
    let (mut out, mut merged) = (Vec::new(), Vec::new());
    let mut both = |l: usize, r: usize| {
        if granular(kind) { merge_at(res, names, &live[l], &config[r]) } else { config[r].clone() }
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                out.push(both(l, r));
                merged.push(&right[r]);
                (l, r) = (l + 1, r + 1);
                next = shared.next();
                continue;
            }
            if right.contains(&left[l]) && next.is_some_and(|n| *n != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            if !right.contains(&left[l]) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if merged.contains(&&left[l]) {
                l += 1;
            }
        }
        if r < right.len() {
            out.push(match left.iter().position(|e| *e == right[r]) {
                Some(at) => both(at, r),
                None => config[r].clone(),
            });
            merged.push(&right[r]);
            if next == Some(&right[r]) {
                next = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// Removes from `value` what is in `last` and in no part of `owned`. What neither names is left alone.
pub(super) fn prune(res: &ResourceType, value: &mut Value, last: &FieldSet, owned: &FieldSet) {
    prune_at(res, &mut Vec::new(), value, last, Some(owned));
}

/// Returns whether nothing worth keeping is left.
fn prune_at(
    res: &ResourceType,
    names: &mut Vec<String>,
    value: &mut Value,
    last: &FieldSet,
    owned: Option<&FieldSet>,
) -> bool {
    match value {
        Value::Object(map) => {
            for (elem, below) in &last.children {
                let Elem::Field(name) = elem else { continue };
                let Some(child) = map.get_mut(name) else { continue };
                let kept = owned.and_then(|o| o.child(elem));
                names.push(name.clone());
                let gone = prune_at(res, names, child, below, kept);
                names.pop();
                if gone && kept.is_none() {
                    map.remove(name);
                }
            }
            map.is_empty()
        }
        Value::Array(items) => {
            let at: Vec<&str> = names.iter().map(String::as_str).collect();
            let kind = res.list_kind(&at).clone();
            if kind == ListKind::Atomic {
                return true;
            }
            items.retain_mut(|item| {
                let here = elem(&kind, item);
                let Some(below) = last.child(&here) else { return true };
                let kept = owned.and_then(|o| o.child(&here));
                let gone = !granular(&kind) || prune_at(res, names, item, below, kept);
                kept.is_some() || !gone
            });
            items.is_empty()
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::apitokens;
    use super::*;
    use serde_json::json;

    #[test]
    fn comparison_names_the_leaves_that_differ() {
        let res = apitokens();
        let old = json!({"spec": {"a": 1, "b": {"c": 1}}, "status": {"conditions": [{"type": "A", "status": "True"}]}});
        let new = json!({"spec": {"a": 2}, "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "B"}]}});
        let out = compare(&res, Some(&old), Some(&new));
        assert_eq!(
            out.changed.to_value(),
            json!({"f:spec": {"f:a": {}}, "f:status": {"f:conditions": {
                "k:{\"type\":\"A\"}": {"f:status": {}}, "k:{\"type\":\"B\"}": {".": {}, "f:type": {}}}}})
        );
        assert_eq!(out.removed.to_value(), json!({"f:spec": {"f:b": {".": {}, "f:c": {}}}}));
    }

    #[test]
    fn list_maps_merge_by_key_and_keep_foreign_items() {
        let res = apitokens();
        let live = json!({"status": {"conditions": [{"type": "A", "x": 1}, {"type": "B"}]}, "spec": {"audiences": ["a"]}});
        let config = json!({"status": {"conditions": [{"type": "C"}, {"type": "B", "y": 2}]}, "spec": {"audiences": ["b"]}});
        assert_eq!(
            merge(&res, &live, &config),
            json!({"status": {"conditions": [{"type": "A", "x": 1}, {"type": "C"}, {"type": "B", "y": 2}]},
                   "spec": {"audiences": ["b"]}})
        );
    }

    #[test]
    fn pruning_removes_emptied_parents_but_not_foreign_fields() {
        let res = apitokens();
        let last = field_set(&res, &json!({"spec": {"rotation": {"every": "1h"}, "secret": {"name": "a"}}}));
        let owned = field_set(&res, &json!({"spec": {"suspend": true}}));
        let mut value = json!({"spec": {"rotation": {"every": "1h"}, "secret": {"name": "a", "key": "k"}, "suspend": true}});
        prune(&res, &mut value, &last, &owned);
        assert_eq!(value, json!({"spec": {"secret": {"key": "k"}, "suspend": true}}));
    }
}
