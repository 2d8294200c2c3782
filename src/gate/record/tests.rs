use super::*;
use crate::gate::fixtures::{at, ended, living, metadata, minted, object};
use proptest::prelude::*;
use serde_json::json;

fn id(number: u64) -> CredentialId {
    CredentialId::parse(minted("twd", number).id()).unwrap()
}

#[test]
fn it_is_small() {
    assert!(size_of::<Held>() <= 64, "{}", size_of::<Held>());
    assert!(size_of::<Head>() <= 144, "{}", size_of::<Head>());
    assert_eq!(size_of::<Record>(), size_of::<usize>());
}

#[test]
fn it_holds_what_a_verdict_needs() {
    let (one, two) = (minted("twd", 1), minted("twd", 2));
    let record = Record::from_json(&metadata("shop", "web", 7), &object(&[living(&one)], &[ended(&two)]));
    assert!(!record.is_tombstone() && !record.is_suspended() && !record.is_compromised());
    assert_eq!((record.uid(), record.token()), ("uid-web", "shop/web"));
    assert_eq!((record.namespace(), record.name(), record.version()), ("shop", "web", 7));
    assert_eq!((record.owner(), record.scopes()), ("payments", "orders:read orders:write"));
    assert_eq!(record.audiences(), "orders");
    assert_eq!(record.expires(), None);
    let held = record.credential(id(1)).unwrap();
    assert_eq!((held.standing(), held.not_after()), (Standing::Living, None));
    assert_eq!(held.issued_at(), at("2026-02-01T00:00:00Z").as_second());
    assert_eq!(Some(*held.digest()), digest_bytes(&one.digest()));
    assert_eq!(record.credential(id(2)).unwrap().standing(), Standing::Ended(EndState::Retired));
    assert_eq!(record.credential(id(3)), None);
}

#[test]
fn scopes_and_audiences_are_compared_whole() {
    let record = Record::from_json(&metadata("shop", "web", 7), &object(&[], &[]));
    assert!(record.has_scope("orders:read") && record.has_scope("orders:write"));
    for not in ["", "orders", "orders:rea", "read", "orders:read orders:write", " "] {
        assert!(!record.has_scope(not), "{not:?}");
    }
    assert!(record.is_for("orders") && !record.is_for("order") && !record.is_for(""));
}

#[test]
fn what_is_not_said_gives_nothing_and_a_star_gives_everything_but_our_own() {
    let of = |spec: Value| Record::from_json(&metadata("shop", "web", 7), &json!({"spec": spec}));
    for silent in [json!({}), json!({"audiences": [], "scopes": []})] {
        let record = of(silent);
        assert!(!record.is_tombstone());
        for word in ["anything", "*", "", " "] {
            assert!(!record.is_for(word) && !record.has_scope(word), "{word:?}");
        }
    }
    let every = of(json!({"audiences": ["*"], "scopes": ["*"]}));
    assert!(every.is_for("anything") && every.has_scope("anything"));
    assert!(!every.has_scope(keys::INTROSPECT_SCOPE), "a right on the gate has to be named");
    // Beside others it is a word, as it is inside of one.
    for words in [json!(["*", "orders"]), json!(["orders", "*"]), json!(["orders/*"]), json!(["**"])] {
        let record = of(json!({"audiences": words, "scopes": words}));
        assert!(!record.is_for("billing") && !record.has_scope("billing"), "{words}");
    }
    // One does not stand for the other.
    let only_audiences = of(json!({"audiences": ["*"]}));
    assert!(only_audiences.is_for("orders") && !only_audiences.has_scope("orders"));
}

#[test]
fn the_newest_living_credential_comes_first() {
    let tokens = [1, 2, 3, 4].map(|number| minted("twd", number));
    let mut newer = living(&tokens[1]);
    newer["issuedAt"] = json!("2026-03-01T00:00:00Z");
    let object = object(&[living(&tokens[0]), newer, living(&tokens[2])], &[ended(&tokens[3])]);
    let record = Record::from_json(&metadata("s", "w", 1), &object);
    assert_eq!((record.at(0).id(), record.held().count()), (id(2), 4));
}

#[test]
fn an_id_in_both_lists_has_ended() {
    let token = minted("twd", 1);
    let record = Record::from_json(&metadata("s", "w", 1), &object(&[living(&token)], &[ended(&token)]));
    let standings: Vec<_> = record.held().map(Held::standing).collect();
    assert_eq!(standings, [Standing::Ended(EndState::Retired)]);
}

#[test]
fn an_expiry_that_cannot_be_read_falls_back_on_the_status() {
    let status = |expires: Value| json!({"expiresAt": expires});
    let day = at("2026-01-02T00:00:00Z").as_second();
    let cases = [
        (json!({"after": "24h"}), json!({}), Some(Some(day))),
        (json!({"at": "2026-01-02T00:00:00Z"}), json!({}), Some(Some(day))),
        (json!(null), json!({}), Some(None)),
        // Understood by nobody now, by the controller once.
        (json!({"after": "soon"}), status(json!("2026-01-02T00:00:00Z")), Some(Some(day))),
        (json!({"after": 24}), status(json!("2026-01-02T00:00:00Z")), Some(Some(day))),
        (json!({}), status(json!("2026-01-02T00:00:00Z")), Some(Some(day))),
        // Understood by nobody ever: not "never".
        (json!({"after": "soon"}), json!({}), None),
        (json!({"after": "24h", "at": "2026-01-02T00:00:00Z"}), json!({}), None),
        (json!("never"), json!({}), None),
    ];
    for (expiry, status, expected) in cases {
        let object = json!({"spec": {"expiry": expiry}, "status": status});
        let record = Record::from_json(&metadata("s", "w", 1), &object);
        let found = (!record.is_tombstone()).then(|| record.expires());
        assert_eq!(found, expected, "{object}");
    }
}

#[test]
fn a_compromise_counts_until_the_status_says_that_it_was_handled() {
    let compromised = |asked: &str, handled: Value| {
        let mut metadata = metadata("s", "w", 1);
        metadata.annotations = Some([(keys::COMPROMISED_AT.to_owned(), asked.to_owned())].into());
        let object = json!({"spec": {}, "status": {"lastHandled": {"compromisedAt": handled}}});
        Record::from_json(&metadata, &object).is_compromised()
    };
    assert!(compromised("now", json!(null)));
    assert!(compromised("now", json!("before")));
    assert!(!compromised("now", json!("now")));
    assert!(!compromised("", json!(null)));
    let long = "é".repeat(100);
    assert!(!compromised(&long, json!(long[..128])), "compared as the controller remembers it");
}

#[test]
fn what_cannot_be_understood_is_a_tombstone() {
    let (one, two) = (minted("twd", 1), minted("twd", 2));
    let good = object(&[living(&one)], &[ended(&two)]);
    let changed = |pointer: &str, value: Value| {
        let mut object = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        object
    };
    let many: Vec<_> = (0..65).map(|number| living(&minted("twd", number))).collect();
    let cases = [
        changed("/spec/suspend", json!("yes")),
        changed("/spec/scopes", json!("orders:read")),
        changed("/spec/scopes", json!(["orders:read orders:admin"])),
        changed("/spec/scopes", json!([""])),
        changed("/spec/audiences", json!(["orders\r\nx: y"])),
        changed("/spec/audiences", json!([7])),
        changed("/spec/scopes", json!(vec!["x".repeat(128); 600])),
        changed("/spec", json!([])),
        changed("/spec", json!(null)),
        changed("/status/lastHandled", json!(1)),
        changed("/status/owner", json!("payments")),
        // A state of a later version may mean anything.
        changed(
            "/status/credentials",
            json!([{"id": one.id(), "digest": one.digest(), "state": "Frozen",
                                               "issuedAt": "2026-01-01T00:00:00Z"}]),
        ),
        changed(
            "/status/credentials",
            json!([{"id": one.id(), "digest": "md5:00", "state": "Active",
                                               "issuedAt": "2026-01-01T00:00:00Z"}]),
        ),
        changed(
            "/status/credentials",
            json!([{"id": one.id(), "digest": one.digest(), "state": "Active",
                                               "issuedAt": "2026-01-01T00:00:00Z", "notAfter": "later"}]),
        ),
        changed("/status/credentials", json!(many)),
    ];
    assert!(!Record::from_json(&metadata("shop", "web", 7), &good).is_tombstone());
    for object in cases {
        let record = Record::from_json(&metadata("shop", "web", 7), &object);
        assert!(record.is_tombstone(), "{object}");
        assert_eq!((record.uid(), record.token(), record.version()), ("uid-web", "shop/web", 7));
        assert_eq!(record.credential(id(1)).map(Held::standing), Some(Standing::Unreadable), "{object}");
    }
}

#[test]
fn ids_that_cannot_be_read_are_those_last_known() {
    let (one, two) = (minted("twd", 1), minted("twd", 2));
    let last = Record::from_json(&metadata("s", "w", 1), &object(&[living(&one)], &[]));
    let ids = |object: Value| {
        let record = Record::from_json(&metadata("s", "w", 2), &object);
        assert!(record.is_tombstone(), "{object}");
        let mut ids: Vec<_> = record.with_last_known(&last).held().map(Held::id).collect();
        ids.sort();
        ids
    };
    let both = {
        let mut both = [id(1), id(2)];
        both.sort();
        both
    };
    assert_eq!(ids(json!({"status": 1})), [id(1)]);
    assert_eq!(ids(json!({"spec": 1})), [id(1)], "no status at all");
    assert_eq!(ids(json!({"status": {"credentials": 1}})), [id(1)]);
    assert_eq!(ids(json!({"status": {"credentials": [{"id": two.id()}, {"id": 7}]}})), both);
    // All of them can be read: the one that was known before is gone.
    assert_eq!(ids(json!({"status": {"credentials": [{"id": two.id()}]}})), [id(2)]);
    assert_eq!(ids(json!({"spec": 1, "status": {"credentials": []}})), []);
}

#[test]
fn an_owner_may_stand_in_a_header() {
    let owner = |name: &str| {
        let object = json!({"spec": {}, "status": {"owner": {"name": name, "source": "x"}}});
        Record::from_json(&metadata("s", "w", 1), &object).owner().to_owned()
    };
    assert_eq!(owner("Team Payments <pay@x.io>"), "Team Payments <pay@x.io>");
    assert_eq!(owner("Zoë\r\nx-evil: 1"), "Zo%C3%AB%0D%0Ax-evil: 1");
    assert_eq!(owner(" \t"), "");
}

#[test]
fn an_apitoken_and_its_json_are_the_same() {
    let object = object(&[living(&minted("twd", 1))], &[ended(&minted("twd", 2))]);
    let token = ApiToken {
        metadata: metadata("shop", "web", 7),
        spec: serde_json::from_value(object["spec"].clone()).unwrap(),
        status: serde_json::from_value(object["status"].clone()).unwrap(),
    };
    assert_eq!(Record::new(&token), Record::from_json(&token.metadata, &object));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é\n]{0,20}".prop_map(Value::from),
        Just(living(&minted("twd", 1))),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            Just("spec"),
            Just("status"),
            Just("credentials"),
            Just("ended"),
            Just("id"),
            Just("expiry"),
            Just("scopes"),
            Just("owner"),
            Just("name"),
            Just("digest"),
            Just("suspend"),
            Just("after"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_a_record_or_a_tombstone(object in any_json(), last in any_json()) {
        let metadata = metadata("s", "w", 1);
        let record = Record::from_json(&metadata, &object);
        prop_assert_eq!(record.token(), "s/w");
        let record = record.with_last_known(&Record::from_json(&metadata, &last));
        for held in record.held() {
            prop_assert_eq!(held.standing() == Standing::Unreadable, record.is_tombstone());
        }
        let ids: std::collections::BTreeSet<_> = record.held().map(Held::id).collect();
        prop_assert_eq!(ids.len(), record.held().count(), "an id twice");
        for (place, held) in record.held().enumerate() {
            prop_assert_eq!(record.at(place), held);
        }
    }
}
