//! Sets of field paths: the `fieldsV1` of `managedFields`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Elem {
    /// A field of an object.
    Field(String),
    /// An item of a list map: its key field and the key's value, as JSON.
    Key(String, String),
    /// An item of a set, as JSON.
    Item(String),
}

impl Elem {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key, value) => format!("k:{{\"{key}\":{value}}}"),
            Self::Item(value) => format!("v:{value}"),
        }
    }
}

impl Elem {
    fn decode(text: &str) -> Option<Self> {
        match text.split_at_checked(2)? {
            ("f:", name) => Some(Self::Field(name.into())),
            ("v:", value) => Some(Self::Item(value.into())),
            ("k:", keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                keys.into_iter().next().map(|(key, value)| Self::Key(key, value.to_string()))
            }
            _ => None,
        }
    }
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path to this node is itself in the set.
    pub(super) member: bool,
    /// What lies below.
    pub(super) children: BTreeMap<Elem, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn insert(&mut self, path: &[Elem]) {
        let mut node = self;
        for elem in path {
            node = node.children.entry(elem.clone()).or_default();
        }
        node.member = true;
    }

    /// Adds every path of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        self.member |= other.member;
        for (elem, child) in &other.children {
            self.children.entry(elem.clone()).or_default().extend(child);
        }
    }

    /// Takes away every path of `other`.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (elem, child) in &other.children {
            if let Some(mine) = self.children.get_mut(elem) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(elem);
                }
            }
        }
    }

    /// The paths in both, printed as conflicts are (`.spec.replicas`).
    pub(super) fn common_paths(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        self.common_into(other, &mut String::new(), &mut out);
        out
    }

    fn common_into(&self, other: &Self, at: &mut String, out: &mut Vec<String>) {
        if self.member && other.member {
            out.push(at.clone());
        }
        for (elem, mine) in &self.children {
            let Some(theirs) = other.children.get(elem) else { continue };
            let length = at.len();
            match elem {
                Elem::Field(name) => at.push_str(&format!(".{name}")),
                Elem::Key(key, value) => at.push_str(&format!("[{key}={value}]")),
                Elem::Item(value) => at.push_str(&format!("[={value}]")),
            }
            mine.common_into(theirs, at, out);
            at.truncate(length);
        }
    }

    /// The node below `elem`.
    pub(super) fn child(&self, elem: &Elem) -> Option<&Self> {
        self.children.get(elem)
    }

    /// The set that `fieldsV1` stands for; what it does not understand is left out.
    pub(super) fn from_value(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let mut out = Self { member: map.is_empty() || map.contains_key("."), ..Self::default() };
        for (text, below) in map {
            if let Some(elem) = Elem::decode(text) {
                out.children.insert(elem, Self::from_value(below));
            }
        }
        out
    }

    /// `fieldsV1`.
    pub(super) fn to_value(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".into(), Value::Object(Map::new()));
        }
        for (elem, child) in &self.children {
            out.insert(elem.encode(), child.to_value());
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn f(name: &str) -> Elem {
        Elem::Field(name.into())
    }

    #[test]
    fn union_difference_and_encoding() {
        let ready = Elem::Key("type".into(), "\"Ready\"".into());
        let mut a = FieldSet::default();
        a.insert(&[f("spec"), f("x")]);
        a.insert(&[f("status"), f("conditions"), ready.clone()]);
        a.insert(&[f("status"), f("conditions"), ready.clone(), f("type")]);
        assert_eq!(
            a.to_value(),
            json!({"f:spec": {"f:x": {}},
                   "f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}}}}})
        );
        assert_eq!(FieldSet::from_value(&a.to_value()), a);
        let mut b = FieldSet::default();
        b.insert(&[f("status"), f("conditions"), ready.clone()]);
        assert_eq!(a.common_paths(&b), vec![".status.conditions[type=\"Ready\"]"]);
        let whole = a.clone();
        a.subtract(&b);
        assert!(a.common_paths(&b).is_empty());
        a.extend(&b);
        assert_eq!(a, whole);
        a.subtract(&whole);
        assert!(a.is_empty());
    }
}
