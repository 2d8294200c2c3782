use super::*;
use crate::domain::token::digest_bytes;
use crate::gate::fixtures::{ended, living, metadata, minted, object};
use serde_json::{Value, json};

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
    assert_eq!(index.stats(), Stats { tokens: 2, credentials: 2, unreadable: 0 });
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
    assert_eq!(index.stats(), Stats { tokens: 1, credentials: 0, unreadable: 1 });
    let broken = Record::from_json(&metadata("shop", "web", 3), &json!({"spec": {}, "status": 2}));
    assert_eq!(writer.apply(broken), Applied::Same, "still broken, still known");
    assert_eq!(writer.apply(record("shop", "web", 4, 2)), Applied::Changed);
    assert_eq!((holder(&index, 1), holder(&index, 2).as_deref()), (None, Some("shop/web")));
}

/// Who is meant by a token that only shares its id with others: any of those, each by its own digest.
#[test]
fn of_those_who_share_an_id_the_digest_decides() {
    let (index, mut writer) = writer();
    let genuine = minted("twd", 1);
    let forged: Vec<_> = (0..200).map(|n| forged(&genuine, n)).collect();
    let names: Vec<_> = (0..200).map(|n| format!("forged-{n}")).collect();
    let adopted = |token: &Value| json!({"spec": {}, "status": {"credentials": [token]}});
    let meant = |digest: &str| {
        let found = index.find(id(1))?.or_other(&digest_bytes(digest).unwrap());
        (*found.held().digest() == digest_bytes(digest).unwrap()).then(|| found.record().name().to_owned())
    };
    for (n, (token, name)) in forged.iter().zip(&names).enumerate() {
        // The genuine one is neither the first nor the last to be heard of, and the youngest.
        if n == 100 {
            let mut young = metadata("shop", "genuine", 0);
            young.creation_timestamp.as_mut().unwrap().0 = "2026-03-01T00:00:00Z".parse().unwrap();
            writer.apply(Record::from_json(&young, &object(&[living(&genuine)], &[])));
        }
        writer.apply(Record::from_json(&metadata("lair", name, 0), &adopted(token)));
        assert_eq!(meant(token["digest"].as_str().unwrap()), Some(name.clone()), "{n}");
        assert_eq!(meant(&genuine.digest()), (n >= 100).then(|| "genuine".to_owned()), "{n}");
    }
    assert_eq!(holder(&index, 1).as_deref(), Some("shop/genuine"), "what was minted is found first");
    assert_eq!(meant(&minted("twd", 2).digest()), None);
    // Other ids are found as ever, wherever they fall.
    for n in 1_000..1_500 {
        writer.apply(record("shop", &format!("t{n}"), 0, n));
    }
    (1_000..1_500).for_each(|n| assert_eq!(holder(&index, n), Some(format!("shop/t{n}"))));
    for (n, (token, name)) in forged.iter().zip(&names).enumerate() {
        writer.delete(&metadata("lair", name, 0));
        assert_eq!(meant(token["digest"].as_str().unwrap()), None, "{n}");
        assert_eq!(meant(&genuine.digest()).as_deref(), Some("genuine"), "{n}");
    }
    writer.delete(&metadata("shop", "genuine", 0));
    assert!(index.find(id(1)).is_none());
}

/// A token with somebody else's id, as its ApiToken's status names it once the operator found it in a Secret.
fn forged(genuine: &crate::domain::token::Token, n: u64) -> Value {
    let digest = crate::domain::token::digest_of(&n.to_be_bytes());
    json!({"id": genuine.id(), "digest": digest, "state": "Active", "reason": "Adopted",
        "issuedAt": "2026-02-01T00:00:00Z"})
}

/// Two ApiTokens name one digest: only somebody who may write status brings that about, or two adoptions at one moment.
#[test]
fn of_those_who_name_one_digest_all_gates_choose_the_same() {
    let token = minted("twd", 1);
    let mut adopted = living(&token);
    adopted["reason"] = json!("Adopted");
    let state = |what: &str| match what {
        "minted" => object(&[living(&token)], &[]),
        "ended" => object(&[], &[ended(&token)]),
        "adopted" => object(&[adopted.clone()], &[]),
        _ => json!({"spec": 1, "status": {"credentials": [living(&token)]}}),
    };
    let old = |name: &str| {
        let mut metadata = metadata("bank", name, 0);
        metadata.creation_timestamp.as_mut().unwrap().0 = "2025-01-01T00:00:00Z".parse().unwrap();
        metadata
    };
    let digest = digest_bytes(&token.digest()).unwrap();
    for (old_one, young_one, wanted) in [
        // What was found in a Secret never takes anything from whom it was issued to, however old its ApiToken.
        ("adopted", "minted", "young"),
        ("minted", "adopted", "old"),
        // Nor does it bring back what has ended there.
        ("adopted", "ended", "young"),
        ("ended", "adopted", "old"),
        ("ended", "minted", "young"),
        ("adopted", "unreadable", "young"),
        // Else the older ApiToken.
        ("minted", "minted", "old"),
        ("adopted", "adopted", "old"),
        ("ended", "ended", "old"),
    ] {
        let old = Record::from_json(&old("old"), &state(old_one));
        let young = Record::from_json(&metadata("shop", "young", 0), &state(young_one));
        for order in [[&old, &young], [&young, &old]] {
            let (index, mut writer) = writer();
            for record in order {
                writer.apply(record.clone());
            }
            let found = index.find(id(1)).unwrap();
            assert_eq!(found.record().name(), wanted, "{old_one} and {young_one}");
            assert_eq!(found.or_other(&digest).record().name(), wanted, "{old_one} and {young_one}");
            writer.delete(&metadata("bank", "old", 0));
            assert_eq!(holder(&index, 1).as_deref(), Some("shop/young"));
        }
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
