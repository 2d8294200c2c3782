//! The objects, their history, and the one place where a change becomes visible.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use hyper::body::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::admission::Hooks;
use super::config::Config;
use super::gc::Agenda;
use super::managers::Managers;
use super::observe::Commit;
use super::resource::ResourceType;
use crate::domain::ports::Clock;

/// An object at rest. `value` carries `managedFields`; `managers` is what they say.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) value: Arc<Value>,
    pub(super) managers: Arc<Managers>,
}

impl Stored {
    pub(super) fn meta(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    /// The object without `managedFields`, to work on.
    pub(super) fn bare(&self) -> Value {
        let mut value = (*self.value).clone();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        value
    }
}

/// One committed change, kept for watches. Its JSON is made at most once for all of them.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) rv: u64,
    pub(super) key: Arc<str>,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
    texts: [OnceLock<Bytes>; 4],
}

impl Event {
    /// The object as an event carries it: the new one, or for a departure the last one under the event's version.
    pub(super) fn text(&self, gone: bool, metadata_only: bool) -> Bytes {
        let slot = usize::from(gone) * 2 + usize::from(metadata_only);
        self.texts[slot]
            .get_or_init(|| match (gone, &self.after, &self.before) {
                (false, Some(after), _) => render(after, metadata_only),
                (_, _, Some(before)) => {
                    let mut last = (**before).clone();
                    last["metadata"]["resourceVersion"] = self.rv.to_string().into();
                    render(&last, metadata_only)
                }
                _ => Bytes::new(),
            })
            .clone()
    }
}

/// JSON of an object, whole or as `PartialObjectMetadata`.
pub(super) fn render(object: &Value, metadata_only: bool) -> Bytes {
    let text = if metadata_only { serde_json::to_vec(&partial(object)) } else { serde_json::to_vec(object) };
    text.unwrap_or_default().into()
}

/// `PartialObjectMetadata` of an object.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// One resource: objects by `namespace/name`, which is also the order of lists.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) res: Arc<ResourceType>,
    pub(super) served: bool,
    pub(super) objects: BTreeMap<String, Stored>,
    pub(super) history: VecDeque<Arc<Event>>,
    /// The oldest version that a new watch or a snapshot may start from.
    pub(super) floor: u64,
    /// The newest change that history has lost: an open watch that has not seen it cannot go on.
    pub(super) lost: u64,
    pub(super) wakers: BTreeMap<u64, Waker>,
}

impl Table {
    /// Objects whose key starts with `prefix`.
    pub(super) fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Stored)> {
        self.objects.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

/// Everything the server knows. Guarded by one lock that is never held across an await.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tables: Vec<Table>,
    pub(super) rv: u64,
    pub(super) hooks: Hooks,
    pub(super) agenda: Agenda,
    /// Dependents by the uid of their owner.
    pub(super) dependents: HashMap<String, BTreeSet<(usize, String)>>,
    /// The uids of all objects.
    pub(super) live: HashSet<String>,
    /// Changes not yet told to observers, in order.
    pub(super) unseen: VecDeque<Commit>,
    /// Watches to wake once the lock is free.
    pub(super) wakes: Vec<Waker>,
    minted: u64,
}

/// The key of an object.
pub(super) fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(ns) => format!("{ns}/{name}"),
        None => name.into(),
    }
}

impl State {
    pub(super) fn new(config: Config, clock: Arc<dyn Clock>, resources: Vec<ResourceType>) -> Self {
        let table = |res| Table {
            res: Arc::new(res),
            served: true,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            floor: config.first_resource_version,
            lost: 0,
            wakers: BTreeMap::new(),
        };
        let tables = resources.into_iter().map(table).collect();
        Self {
            rv: config.first_resource_version,
            config,
            clock,
            tables,
            hooks: Hooks::default(),
            agenda: Agenda::default(),
            dependents: HashMap::new(),
            live: HashSet::new(),
            unseen: VecDeque::new(),
            wakes: Vec::new(),
            minted: 0,
        }
    }

    /// The table of a served resource.
    pub(super) fn table(&self, group: &str, version: &str, plural: &str) -> Option<usize> {
        self.tables.iter().position(|t| {
            t.served && t.res.plural == plural && t.res.group == group && t.res.version == version
        })
    }

    /// The table of a plural name, whatever its group and whether served or not.
    pub(super) fn table_named(&self, plural: &str) -> Option<usize> {
        self.tables.iter().position(|t| t.res.plural == plural)
    }

    /// Now, as API objects write it.
    pub(super) fn now(&self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    pub(super) fn timestamp(&self) -> Timestamp {
        self.clock.now()
    }

    /// 64 bits that differ each time and depend on the seed alone.
    pub(super) fn mint(&mut self) -> u64 {
        self.minted += 1;
        let mut x = self.config.seed.wrapping_add(self.minted.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A uid in the usual form.
    pub(super) fn uid(&mut self) -> String {
        let (a, b) = (self.mint(), self.mint());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48 & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    /// Stores `value` under a new resourceVersion and tells everybody.
    pub(super) fn put(
        &mut self,
        table: usize,
        key: &str,
        mut value: Value,
        managers: Managers,
        client: &Arc<str>,
    ) -> Arc<Value> {
        self.rv += 1;
        value["metadata"]["resourceVersion"] = self.rv.to_string().into();
        if !managers.is_empty() {
            value["metadata"]["managedFields"] = managers.to_value(&self.tables[table].res);
        }
        let value = Arc::new(value);
        let stored = Stored { value: value.clone(), managers: Arc::new(managers) };
        let before = self.tables[table].objects.insert(key.to_owned(), stored).map(|s| s.value);
        if let Some(before) = &before {
            self.unlink(table, key, before);
        } else {
            self.live.insert(uid_of(&value).to_owned());
        }
        for owner in owner_uids(&value) {
            self.dependents.entry(owner.to_owned()).or_default().insert((table, key.to_owned()));
        }
        if value["metadata"].get("ownerReferences").is_some() {
            self.check_owners(table, key);
        }
        self.publish(table, key, before, Some(value.clone()), client);
        value
    }

    /// Takes the object away.
    pub(super) fn remove(&mut self, table: usize, key: &str, client: &Arc<str>) -> Option<Arc<Value>> {
        let before = self.tables[table].objects.remove(key)?.value;
        self.rv += 1;
        self.unlink(table, key, &before);
        self.live.remove(uid_of(&before));
        self.owner_gone(uid_of(&before));
        self.publish(table, key, Some(before.clone()), None, client);
        Some(before)
    }

    fn unlink(&mut self, table: usize, key: &str, object: &Value) {
        for owner in owner_uids(object) {
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(&(table, key.to_owned()));
                if set.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }

    fn publish(
        &mut self,
        table: usize,
        key: &str,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
        client: &Arc<str>,
    ) {
        let at = self.timestamp();
        let (rv, limit) = (self.rv, self.config.history);
        let table = &mut self.tables[table];
        let key: Arc<str> = key.into();
        self.unseen.push_back(Commit {
            rv,
            resource: table.res.clone(),
            key: key.clone(),
            before: before.clone(),
            after: after.clone(),
            client: client.clone(),
            at,
        });
        table.history.push_back(Arc::new(Event { rv, key, before, after, texts: Default::default() }));
        while table.history.len() > limit {
            table.lost = table.history.pop_front().map_or(table.lost, |event| event.rv);
            table.floor = table.floor.max(table.lost);
        }
        self.wakes.extend(std::mem::take(&mut table.wakers).into_values());
    }

    /// Forgets all history, as though other writes and a compaction had happened: every resourceVersion seen so far
    /// is too old to start a watch from.
    pub(super) fn compact(&mut self) {
        self.rv += 1;
        for table in &mut self.tables {
            table.lost = table.history.back().map_or(table.lost, |event| event.rv);
            table.history.clear();
            table.floor = self.rv;
        }
    }
}

/// `metadata.uid`.
pub(super) fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The uids in `metadata.ownerReferences`.
pub(super) fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    owner_references(object).iter().filter_map(|r| r["uid"].as_str())
}

/// `metadata.ownerReferences`.
pub(super) fn owner_references(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}
