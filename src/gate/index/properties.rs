//! The index against a model that is too simple to be wrong, over arbitrary orders of what two watches may report.

use std::collections::BTreeMap;

use super::*;
use crate::domain::token::{digest_bytes, digest_of};
use crate::gate::fixtures::{at, ended, living, metadata, minted};
use proptest::prelude::*;
use serde_json::{Value, json};

const IDS: u64 = 5;

/// An ApiToken: even uids live in one namespace, odd ones in the other.
#[derive(Clone, Debug)]
struct Thing {
    uid: usize,
    version: u64,
    living: Vec<Name>,
    ended: Vec<Name>,
    /// What lives was found in a Secret.
    adopted: bool,
    broken: Option<bool>,
}

/// An id, and which of two digests.
type Name = (u64, bool);

#[derive(Clone, Debug)]
enum Event {
    Begin(usize),
    Item(Thing),
    End(usize),
    Apply(Thing),
    Delete(usize, u64),
}

fn thing() -> impl Strategy<Value = Thing> {
    let ids = || prop::collection::vec((0..IDS, any::<bool>()), 0..3);
    let broken = prop_oneof![4 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let parts = (0..4_usize, 0..12_u64, ids(), ids(), any::<bool>(), broken);
    parts.prop_map(|(uid, version, living, ended, adopted, broken)| Thing {
        uid,
        version,
        living,
        ended,
        adopted,
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
        let named = |mut entry: Value, name: Name| {
            entry["digest"] = digest(name).into();
            if self.adopted {
                entry["reason"] = "Adopted".into();
            }
            entry
        };
        let living: Vec<_> = self.living.iter().map(|n| named(living(&minted("twd", n.0)), *n)).collect();
        let ended: Vec<_> = self.ended.iter().map(|n| named(ended(&minted("twd", n.0)), *n)).collect();
        let object = match self.broken {
            None => json!({"spec": {}, "status": {"credentials": living, "ended": ended}}),
            Some(true) => json!({"spec": 1, "status": {"credentials": living, "ended": ended}}),
            Some(false) => json!({"spec": {}, "status": {"credentials": living, "ended": 1}}),
        };
        Record::from_json(&meta(self.uid, self.version), &object)
    }

    /// How each of its ids stands, and with which digest: `None` is unreadable, else whether it lives.
    fn claims(&self) -> BTreeMap<u64, Claimed> {
        let all = match self.broken {
            // What has ended goes ahead.
            None => [(&self.ended, Some(false)), (&self.living, Some(true))],
            Some(true) => [(&self.living, None), (&self.ended, None)],
            Some(false) => [(&self.living, None), (&self.living, None)],
        };
        let mut claims = BTreeMap::new();
        for (names, lives) in all {
            for (id, digest) in names {
                claims.entry(*id).or_insert((lives, *digest));
            }
        }
        claims
    }
}

/// Whether it lives, if that can be read, and which digest it has.
type Claimed = (Option<bool>, bool);

/// What is known of one ApiToken.
#[derive(Clone, Debug)]
struct Known {
    version: u64,
    claims: BTreeMap<u64, Claimed>,
    adopted: bool,
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
            for (id, (_, digest)) in last.iter().flat_map(|last| &last.claims) {
                claims.entry(*id).or_insert((None, *digest));
            }
        }
        let listed = self.listing[thing.uid % 2] || last.is_some_and(|last| last.listed);
        let Thing { version, adopted, .. } = *thing;
        let known = Known { version, claims, adopted, broken: thing.broken.is_some(), listed };
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

    /// Who is found for an id, of those who name it with this digest, or of all: the one of the best claim.
    fn holder(&self, number: u64, digest: Option<bool>) -> Option<(String, Option<bool>)> {
        let named = self.known.iter().filter_map(|(uid, known)| {
            let (lives, of) = *known.claims.get(&number)?;
            let rank = match lives {
                Some(true) if known.adopted => 2,
                Some(false) => 1,
                _ => 0,
            };
            let created = meta(*uid, 0).creation_timestamp;
            digest.is_none_or(|digest| of == digest).then(|| ((rank, created, uid.to_string()), lives))
        });
        named.min_by(|a, b| a.0.cmp(&b.0)).map(|((_, _, name), lives)| (name, lives))
    }
}

fn digest((number, other): Name) -> String {
    if other { digest_of(&number.to_be_bytes()) } else { minted("twd", number).digest() }
}

/// Who was found, and how the credential stands there.
fn seen(found: &Found) -> (String, Option<bool>) {
    let lives = match found.held().standing() {
        Standing::Living => Some(true),
        Standing::Ended(_) => Some(false),
        Standing::Unreadable => None,
    };
    (found.record().name().to_owned(), lives)
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
            for number in 0..IDS {
                let first = index.find(credential(number)).as_ref().map(seen);
                prop_assert_eq!(first, model.holder(number, None), "{:?}", event);
                for other in [false, true] {
                    let wanted = digest_bytes(&digest((number, other))).unwrap();
                    let found = index.find(credential(number)).map(|found| found.or_other(&wanted));
                    let found = found.filter(|found| *found.held().digest() == wanted);
                    prop_assert_eq!(found.as_ref().map(seen), model.holder(number, Some(other)), "{:?}", event);
                }
            }
            let living = |known: &Known| known.claims.values().filter(|claimed| claimed.0 == Some(true)).count();
            let expected = Stats {
                tokens: model.known.len(),
                credentials: model.known.values().map(living).sum(),
                unreadable: model.known.values().filter(|known| known.broken).count(),
            };
            prop_assert_eq!(index.stats(), expected, "{:?}", event);
        }
    }
}
