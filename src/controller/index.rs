//! What the metadata-only watches know: which Secrets of ours exist, at which version, and who owns a Namespace.
//!
//! A Secret's content is never held here. Uid and resourceVersion are enough to know whether it must be read.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;

use crate::domain::ownership::OwnershipRules;

/// Namespace and name.
pub type Key = (String, String);

/// A Secret as its watch last reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    /// The Secret's uid.
    pub uid: Box<str>,
    /// The Secret's resourceVersion.
    pub resource_version: Box<str>,
    /// Name of the ApiToken that controls it.
    pub owner: Option<Box<str>>,
}

/// How far the Secret watch has come: lets a lagging watch be told from a deleted Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Grows with each list that the watch started.
    pub lists: u64,
    /// The highest resourceVersion seen in an event.
    pub highest: u64,
}

/// A keyed mirror of a watch, swapped whole when a list is complete.
#[derive(Debug)]
struct Mirror<K, V> {
    current: HashMap<K, V>,
    listing: Option<HashMap<K, V>>,
}

impl<K: Eq + Hash + Clone, V: PartialEq> Mirror<K, V> {
    fn new() -> Self {
        Self { current: HashMap::new(), listing: None }
    }

    /// Applies an event and returns the keys whose value is now another, each with the value that was.
    fn apply(&mut self, event: Event<(K, V)>) -> Vec<(K, Option<V>)> {
        match event {
            Event::Apply((key, value)) => {
                let was = self.current.insert(key.clone(), value);
                let changed = was.as_ref() != self.current.get(&key);
                if changed { vec![(key, was)] } else { Vec::new() }
            }
            Event::Delete((key, _)) => {
                self.current.remove(&key).map(|was| (key, Some(was))).into_iter().collect()
            }
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply((key, value)) => {
                self.listing.get_or_insert_default().insert(key, value);
                Vec::new()
            }
            Event::InitDone => {
                let mut was = std::mem::replace(&mut self.current, self.listing.take().unwrap_or_default());
                let keys: HashSet<K> = was.keys().chain(self.current.keys()).cloned().collect();
                keys.into_iter()
                    .map(|key| (was.remove(&key), key))
                    .filter(|(was, key)| was.as_ref() != self.current.get(key))
                    .map(|(was, key)| (key, was))
                    .collect()
            }
        }
    }
}

/// The Secrets that carry our label: of each namespace served, or of all. A list of one says nothing of another.
#[derive(Debug)]
pub struct SecretIndex(HashMap<String, Part>);

type Part = RwLock<(Mirror<Key, SecretEntry>, Progress)>;

/// Where those of all namespaces are: no namespace is called so.
const ALL: &str = "";

impl SecretIndex {
    /// For these namespaces; none: for all.
    pub fn new(namespaces: &[String]) -> Self {
        let part = |namespace: String| (namespace, RwLock::new((Mirror::new(), Progress::default())));
        match namespaces {
            [] => Self([part(ALL.to_owned())].into()),
            some => Self(some.iter().cloned().map(part).collect()),
        }
    }

    fn part(&self, namespace: &str) -> Option<&Part> {
        self.0.get(namespace).or_else(|| self.0.get(ALL))
    }

    /// Applies an event of the watch of `namespace`, or of all. Returns the ApiTokens (namespace and name) that it concerns.
    pub fn apply(&self, namespace: Option<&str>, event: Event<ObjectMeta>) -> Vec<Key> {
        let Some(part) = self.part(namespace.unwrap_or(ALL)) else { return Vec::new() };
        let mut inner = part.write();
        let (mirror, progress) = &mut *inner;
        let event = map_event(event, |meta| {
            let version = meta.resource_version.unwrap_or_default();
            progress.highest = progress.highest.max(version.parse().unwrap_or(0));
            let owner = meta.owner_references.and_then(controlling_token);
            let entry = SecretEntry {
                uid: meta.uid.unwrap_or_default().into(),
                resource_version: version.into(),
                owner: owner.map(Into::into),
            };
            ((meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()), entry)
        });
        if matches!(event, Event::Init) {
            progress.lists += 1;
        }
        let changed = mirror.apply(event);
        let owners = changed.into_iter().flat_map(|(key, was)| {
            let is = mirror.current.get(&key).and_then(|entry| entry.owner.clone());
            let was = was.and_then(|entry| entry.owner).filter(|was| Some(was) != is.as_ref());
            is.into_iter().chain(was).map(move |owner| (key.0.clone(), owner.into_string()))
        });
        owners.collect()
    }

    /// The Secret of this name, if it is one of ours.
    pub fn get(&self, key: &Key) -> Option<SecretEntry> {
        self.part(&key.0)?.read().0.current.get(key).cloned()
    }

    /// How far the watch of this namespace has come.
    pub fn progress(&self, namespace: &str) -> Progress {
        self.part(namespace).map(|part| part.read().1).unwrap_or_default()
    }
}

fn controlling_token(references: Vec<OwnerReference>) -> Option<String> {
    references
        .into_iter()
        .find(|reference| reference.controller == Some(true) && reference.kind == "ApiToken")
        .map(|reference| reference.name)
}

/// The ownership labels and annotations of Namespaces; all else is dropped on the way in.
#[derive(Debug)]
pub struct NamespaceIndex {
    relevant: HashSet<String>,
    mirror: RwLock<Mirror<String, ObjectMeta>>,
}

impl NamespaceIndex {
    /// Keeps the keys that `rules` look up.
    pub fn new(rules: &OwnershipRules) -> Self {
        let relevant = rules.owner_keys.iter().chain(&rules.contact_keys).cloned().collect();
        Self { relevant, mirror: RwLock::new(Mirror::new()) }
    }

    /// Applies a watch event. Returns the Namespaces whose ownership may now be another.
    pub fn apply(&self, event: Event<ObjectMeta>) -> Vec<String> {
        let event = map_event(event, |meta| {
            let keep = |map: Option<std::collections::BTreeMap<String, String>>| {
                map.map(|map| map.into_iter().filter(|(key, _)| self.relevant.contains(key)).collect())
            };
            let (labels, annotations) = (keep(meta.labels), keep(meta.annotations));
            (meta.name.unwrap_or_default(), ObjectMeta { labels, annotations, ..Default::default() })
        });
        self.mirror.write().apply(event).into_iter().map(|(name, _)| name).collect()
    }

    /// The ownership labels and annotations of a Namespace; `None` while it has not been seen.
    pub fn get(&self, name: &str) -> Option<ObjectMeta> {
        self.mirror.read().current.get(name).cloned()
    }
}

fn map_event<A, B>(event: Event<A>, map: impl FnOnce(A) -> B) -> Event<B> {
    match event {
        Event::Apply(object) => Event::Apply(map(object)),
        Event::Delete(object) => Event::Delete(map(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(map(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, version: &str, owner: &str) -> ObjectMeta {
        let reference = OwnerReference {
            kind: "ApiToken".into(),
            name: owner.into(),
            controller: Some(true),
            ..Default::default()
        };
        ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.into()),
            owner_references: Some(vec![reference]),
            ..Default::default()
        }
    }

    fn key(name: &str) -> Key {
        ("ns".into(), name.into())
    }

    #[test]
    fn a_list_replaces_what_was_known_and_names_who_is_concerned() {
        let index = SecretIndex::new(&[]);
        assert_eq!(index.apply(None, Event::Apply(secret("a", "5", "token-a"))), [key("token-a")]);
        assert_eq!(index.apply(None, Event::Apply(secret("a", "5", "token-a"))), Vec::<Key>::new());
        assert!(index.apply(None, Event::Init).is_empty());
        assert!(index.apply(None, Event::InitApply(secret("b", "7", "token-b"))).is_empty());
        assert!(index.get(&key("a")).is_some(), "the old view serves until the list is complete");
        let mut concerned = index.apply(None, Event::InitDone);
        concerned.sort();
        assert_eq!(concerned, [key("token-a"), key("token-b")]);
        assert!(index.get(&key("a")).is_none());
        assert_eq!(index.progress("ns"), Progress { lists: 1, highest: 7 });
    }

    #[test]
    fn a_list_of_one_namespace_says_nothing_of_another() {
        let index = SecretIndex::new(&["ns".into(), "other".into()]);
        index.apply(Some("ns"), Event::Apply(secret("a", "5", "token-a")));
        index.apply(Some("other"), Event::Init);
        assert!(index.apply(Some("other"), Event::InitDone).is_empty());
        assert!(index.get(&key("a")).is_some());
        assert_eq!((index.progress("ns").lists, index.progress("other").lists), (0, 1));
    }

    #[test]
    fn a_change_of_owner_concerns_both() {
        let index = SecretIndex::new(&[]);
        index.apply(None, Event::Apply(secret("a", "5", "old")));
        let mut concerned = index.apply(None, Event::Apply(secret("a", "6", "new")));
        concerned.sort();
        assert_eq!(concerned, [key("new"), key("old")]);
    }

    #[test]
    fn a_namespace_is_kept_to_its_ownership_keys() {
        let index = NamespaceIndex::new(&OwnershipRules::default());
        let namespace = |labels: &[(&str, &str)]| ObjectMeta {
            name: Some("shop".into()),
            labels: Some(labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()),
            ..Default::default()
        };
        assert_eq!(index.apply(Event::Apply(namespace(&[("team", "a"), ("noise", "1")]))), ["shop"]);
        assert!(index.apply(Event::Apply(namespace(&[("team", "a"), ("noise", "2")]))).is_empty());
        assert_eq!(index.apply(Event::Apply(namespace(&[("team", "b")]))), ["shop"]);
    }
}
