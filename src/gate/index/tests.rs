use super::*;
use crate::gate::fixtures::{ended, living, metadata, minted, object};
use serde_json::json;

fn id(number: u64) -> CredentialId {
    CredentialId::parse(minted("twd", number).id()).unwrap()
}

/// An ApiToken with one credential.
fn record(namespace: &str, name: &str, version: u64, credential: u64) -> Record {
    let object = object(&[living(&minted("twd", credential))], &[]);
    Record::from_json(&metadata(namespace, name, version), &object)
}

fn holder(index: &Index, credential: u64) -> Option<String> {
    index.find(id(credential)).map(|found| found.record().token().to_owned())
}

fn writer() -> (Arc<Index>, Writer) {
    let index = Arc::new(Index::default());
    let writer = Writer::new(&index, None);
    (index, writer)
}

#[test]
fn what_is_listed_is_found() {
    let (index, mut writer) = writer();
    writer.begin_list();
    assert_eq!(writer.list_item(record("shop", "web", 1, 1)), Applied::Changed);
    assert_eq!(holder(&index, 1).as_deref(), Some("shop/web"), "before the list is complete");
    assert_eq!(writer.list_item(record("shop", "api", 2, 2)), Applied::Changed);
    assert_eq!(writer.end_list(), 0);
    assert_eq!(holder(&index, 2).as_deref(), Some("shop/api"));
    assert_eq!(holder(&index, 3), None);
    assert_eq!(index.stats(), Stats { tokens: 2, credentials: 2, unreadable: 0, clashes: 0 });
    let mut seen = 0;
    index.for_each(|_| seen += 1);
    assert_eq!(seen, 2);
}

#[test]
fn an_interrupted_list_neither_loses_nor_brings_back() {
    let (index, mut writer) = writer();
    writer.begin_list();
    for n in 1..=4 {
        writer.list_item(record("shop", &format!("t{n}"), n, n));
    }
    writer.end_list();
    // This list breaks off after an item; meanwhile that item is deleted.
    writer.begin_list();
    writer.list_item(record("shop", "t1", 1, 1));
    (1..=4).for_each(|n| assert!(index.find(id(n)).is_some(), "lost {n}"));
    writer.begin_list();
    (1..=4).for_each(|n| assert!(index.find(id(n)).is_some(), "lost {n}"));
    for n in 2..=3 {
        writer.list_item(record("shop", &format!("t{n}"), n, n));
    }
    assert_eq!(writer.end_list(), 2);
    assert_eq!([1, 2, 3, 4].map(|n| index.find(id(n)).is_some()), [false, true, true, false]);
    assert_eq!(writer.end_list(), 0, "a list ends once");
    assert_eq!(index.stats().tokens, 2);
}

#[test]
fn lists_of_one_namespace_leave_the_others_alone() {
    let (index, _) = writer();
    let (mut shop, mut bank) = (Writer::new(&index, Some("shop")), Writer::new(&index, Some("bank")));
    shop.begin_list();
    bank.begin_list();
    shop.list_item(record("shop", "web", 1, 1));
    bank.list_item(record("bank", "web2", 1, 2));
    assert_eq!((shop.end_list(), bank.end_list()), (0, 0));
    shop.begin_list();
    assert_eq!(shop.end_list(), 1);
    assert_eq!((holder(&index, 1), holder(&index, 2).as_deref()), (None, Some("bank/web2")));
}

#[test]
fn what_comes_late_does_not_count() {
    let (index, mut writer) = writer();
    assert_eq!(writer.apply(record("shop", "web", 5, 1)), Applied::Changed);
    assert_eq!(writer.apply(record("shop", "web", 4, 2)), Applied::Late);
    assert_eq!(writer.apply(record("shop", "web", 5, 1)), Applied::Same);
    assert_eq!(writer.apply(record("shop", "web", 6, 1)), Applied::Same, "only its usage was written");
    assert_eq!(writer.apply(record("shop", "web", 5, 2)), Applied::Late);
    assert_eq!(holder(&index, 1).as_deref(), Some("shop/web"));
    assert_eq!(writer.delete(&metadata("shop", "web", 7)), Applied::Changed);
    assert_eq!(writer.delete(&metadata("shop", "web", 7)), Applied::Same);
    assert_eq!(writer.apply(record("shop", "web", 6, 1)), Applied::Late, "brought back");
    assert!(index.find(id(1)).is_none());
    assert_eq!(writer.apply(record("shop", "new", 8, 1)), Applied::Changed);
    // After a restore from a backup, versions begin anew: a list counts whatever they are.
    writer.begin_list();
    assert_eq!(writer.list_item(record("shop", "new", 2, 3)), Applied::Changed);
    writer.end_list();
    assert_eq!(writer.apply(record("shop", "other", 3, 4)), Applied::Changed);
    assert_eq!((holder(&index, 3).as_deref(), holder(&index, 1)), (Some("shop/new"), None));
}

#[test]
fn a_tombstone_denies_the_ids_that_were_known() {
    let (index, mut writer) = writer();
    writer.apply(record("shop", "web", 1, 1));
    let broken = Record::from_json(&metadata("shop", "web", 2), &json!({"spec": {}, "status": 1}));
    assert_eq!(writer.apply(broken), Applied::Changed);
    assert_eq!(index.find(id(1)).unwrap().held().standing(), Standing::Unreadable);
    assert_eq!(index.stats(), Stats { tokens: 1, credentials: 0, unreadable: 1, clashes: 0 });
    let broken = Record::from_json(&metadata("shop", "web", 3), &json!({"spec": {}, "status": 2}));
    assert_eq!(writer.apply(broken), Applied::Same, "still broken, still known");
    assert_eq!(writer.apply(record("shop", "web", 4, 2)), Applied::Changed);
    assert_eq!((holder(&index, 1), holder(&index, 2).as_deref()), (None, Some("shop/web")));
}

#[test]
fn the_older_one_wins_an_id() {
    let older = |version| {
        let mut metadata = metadata("bank", "old", version);
        metadata.creation_timestamp.as_mut().unwrap().0 = "2025-01-01T00:00:00Z".parse().unwrap();
        Record::from_json(&metadata, &object(&[], &[ended(&minted("twd", 1))]))
    };
    for older_first in [true, false] {
        let (index, mut writer) = writer();
        if older_first {
            writer.apply(older(1));
            writer.apply(record("shop", "new", 2, 1));
        } else {
            writer.apply(record("shop", "new", 1, 1));
            writer.apply(older(2));
        }
        assert_eq!(holder(&index, 1).as_deref(), Some("bank/old"));
        assert_eq!(index.stats().clashes, 1);
        writer.delete(&metadata("bank", "old", 3));
        assert_eq!((holder(&index, 1).as_deref(), index.stats().clashes), (Some("shop/new"), 0));
    }
}

#[test]
fn a_reader_keeps_the_version_that_it_found() {
    let (index, mut writer) = writer();
    writer.apply(record("shop", "web", 1, 1));
    let found = index.find(id(1)).unwrap();
    writer.apply(record("shop", "web", 2, 2));
    assert_eq!(found.record().version(), 1);
    assert!(index.find(id(1)).is_none());
}

#[test]
fn many_are_spread_evenly() {
    let (index, mut writer) = writer();
    let pad = |n: u64| format!("{n:010}");
    for n in 0..5_000 {
        let object = json!({"spec": {}, "status": {"ended": [{"id": pad(n), "state": "Retired",
            "digest": format!("sha256:{}", "0".repeat(64)), "endedAt": "2026-01-01T00:00:00Z"}]}});
        writer.apply(Record::from_json(&metadata("s", &pad(n), n + 1), &object));
    }
    let longest = index.shards.iter().map(|shard| shard.load().slice.len()).max().unwrap();
    assert!(longest <= 8, "{longest} of 5,000 ids in a row in one of {} shards", index.shards.len());
    (0..5_000).for_each(|n| assert!(index.find(CredentialId::parse(&pad(n)).unwrap()).is_some()));
}
