//! The index against a model that is too simple to be wrong, over arbitrary orders of what two watches may report.

use std::collections::BTreeMap;

use super::*;
use crate::domain::directory::{Claimant, Directory};
use crate::gate::fixtures::{at, ended, living, metadata, minted};
use proptest::prelude::*;
use serde_json::{Value, json};

const IDS: u64 = 5;

/// An ApiToken: even uids live in one namespace, odd ones in the other.
#[derive(Clone, Debug)]
struct Thing {
    uid: usize,
    version: u64,
    living: Vec<u64>,
    ended: Vec<u64>,
    broken: Option<bool>,
}

#[derive(Clone, Debug)]
enum Event {
    Begin(usize),
    Item(Thing),
    End(usize),
    Apply(Thing),
    Delete(usize, u64),
}

fn thing() -> impl Strategy<Value = Thing> {
    let ids = || prop::collection::vec(0..IDS, 0..3);
    let broken = prop_oneof![4 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    (0..4_usize, 0..12_u64, ids(), ids(), broken).prop_map(|(uid, version, living, ended, broken)| Thing {
        uid,
        version,
        living,
        ended,
        broken,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..2_usize).prop_map(Event::Begin),
        3 => thing().prop_map(Event::Item),
        1 => (0..2_usize).prop_map(Event::End),
        4 => thing().prop_map(Event::Apply),
        2 => (0..4_usize, 0..12_u64).prop_map(|(uid, version)| Event::Delete(uid, version)),
    ]
}

fn meta(uid: usize, version: u64) -> ObjectMeta {
    let mut metadata = metadata(["even", "odd"][uid % 2], &uid.to_string(), version);
    // Two pairs of the same age, so that the uid decides as well.
    metadata.creation_timestamp.as_mut().unwrap().0 =
        at(["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"][uid / 2]);
    metadata
}

impl Thing {
    fn record(&self) -> Record {
        let living: Vec<Value> = self.living.iter().map(|n| living(&minted("twd", *n))).collect();
        let ended: Vec<Value> = self.ended.iter().map(|n| ended(&minted("twd", *n))).collect();
        let object = match self.broken {
            None => json!({"spec": {}, "status": {"credentials": living, "ended": ended}}),
            Some(true) => json!({"spec": 1, "status": {"credentials": living, "ended": ended}}),
            Some(false) => json!({"spec": {}, "status": {"credentials": living, "ended": 1}}),
        };
        Record::from_json(&meta(self.uid, self.version), &object)
    }

    /// How each of its ids stands: `None` is unreadable, else whether it lives.
    fn claims(&self) -> BTreeMap<u64, Option<bool>> {
        let standing = |lives: bool| if self.broken.is_some() { None } else { Some(lives) };
        let ended = if self.broken == Some(false) { &[][..] } else { &self.ended[..] };
        let living = self.living.iter().map(|n| (*n, standing(true)));
        living.chain(ended.iter().map(|n| (*n, standing(false)))).collect()
    }
}

/// What is known of one ApiToken.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    claims: BTreeMap<u64, Option<bool>>,
    broken: bool,
    listed: bool,
}

#[derive(Debug, Default)]
struct Model {
    known: BTreeMap<usize, Known>,
    listing: [bool; 2],
    highest: [u64; 2],
}

impl Model {
    fn put(&mut self, thing: &Thing) {
        let last = self.known.get(&thing.uid);
        let mut claims = thing.claims();
        if thing.broken == Some(false) {
            let before = last.map(|last| last.claims.keys().map(|n| (*n, None)).collect::<BTreeMap<_, _>>());
            claims.extend(before.unwrap_or_default());
        }
        let listed = self.listing[thing.uid % 2] || last.is_some_and(|last| last.listed);
        let known = Known { version: thing.version, claims, broken: thing.broken.is_some(), listed };
        self.known.insert(thing.uid, known);
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Begin(scope) => {
                (self.listing[*scope], self.highest[*scope]) = (true, 0);
                let ours = self.known.iter_mut().filter(|(uid, _)| *uid % 2 == *scope);
                ours.for_each(|(_, known)| known.listed = false);
            }
            Event::Item(thing) => {
                let highest = &mut self.highest[thing.uid % 2];
                *highest = thing.version.max(*highest);
                self.put(thing);
            }
            Event::End(scope) => {
                if std::mem::take(&mut self.listing[*scope]) {
                    self.known.retain(|uid, known| uid % 2 != *scope || known.listed);
                }
            }
            Event::Apply(thing) => {
                let highest = &mut self.highest[thing.uid % 2];
                let passed = thing.version != 0 && thing.version <= *highest;
                *highest = thing.version.max(*highest);
                let late = match self.known.get(&thing.uid) {
                    Some(known) => thing.version != 0 && thing.version < known.version,
                    None => passed,
                };
                if !late {
                    self.put(thing);
                }
            }
            Event::Delete(uid, version) => {
                self.highest[uid % 2] = self.highest[uid % 2].max(*version);
                self.known.remove(uid);
            }
        }
    }

    /// Who holds each id, as the ledger's directory rules.
    fn directory(&self) -> Directory {
        let mut directory = Directory::default();
        for (uid, known) in &self.known {
            let metadata = meta(*uid, 0);
            let claimant = Claimant {
                created: metadata.creation_timestamp.unwrap().0.as_second(),
                uid: metadata.uid.unwrap(),
                namespace: metadata.namespace.unwrap(),
                name: metadata.name.unwrap(),
            };
            let ids: Vec<_> = known.claims.keys().map(|n| credential(*n)).collect();
            directory.apply(&claimant, &ids);
        }
        directory
    }
}

fn credential(number: u64) -> CredentialId {
    CredentialId::parse(minted("twd", number).id()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_the_model(events in prop::collection::vec(event(), 1..40)) {
        // Two shards, so that several ids meet in one.
        let index = Arc::new(Index::new(1));
        let mut writers = [Writer::new(&index, Some("even")), Writer::new(&index, Some("odd"))];
        let mut model = Model::default();
        for event in &events {
            model.step(event);
            match event {
                Event::Begin(scope) => writers[*scope].begin_list(),
                Event::Item(thing) => {
 let _ = writers[thing.uid % 2].list_item(thing.record());
 }
                Event::End(scope) => {
 let _ = writers[*scope].end_list();
 }
                Event::Apply(thing) => {
 let _ = writers[thing.uid % 2].apply(thing.record());
 }
                Event::Delete(uid, version) => {
 let _ = writers[uid % 2].delete(&meta(*uid, *version));
 }
            }
            let directory = model.directory();
            for number in 0..IDS {
                let found = index.find(credential(number));
                let holder = directory.holder(credential(number)).map(|holder| holder.name.as_str());
                prop_assert_eq!(found.as_ref().map(|found| found.record().name()), holder, "{:?}", event);
                let expected = holder.map(|name| model.known[&name.parse().unwrap()].claims[&number]);
                let standing = found.map(|found| match found.held().standing() {
                    Standing::Living => Some(true),
                    Standing::Ended(_) => Some(false),
                    Standing::Unreadable => None,
                });
                prop_assert_eq!(standing, expected, "{:?}", event);
            }
            let claims = |number: u64| model.known.values().filter(|known| known.claims.contains_key(&number)).count();
            let living = |known: &Known| known.claims.values().filter(|lives| **lives == Some(true)).count();
            let expected = Stats {
                tokens: model.known.len(),
                credentials: model.known.values().map(living).sum(),
                unreadable: model.known.values().filter(|known| known.broken).count(),
                clashes: (0..IDS).filter(|number| claims(*number) > 1).count(),
            };
            prop_assert_eq!(index.stats(), expected, "{:?}", event);
        }
    }
}
