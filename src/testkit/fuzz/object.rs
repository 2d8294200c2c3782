//! An ApiToken as the API server may send it: of another version of the definition, or altered by hand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::{Arc, LazyLock};

use super::scene::{NOW, Scene, empty_gate, metadata};
use crate::api::{ApiToken, keys};
use crate::domain::token::CredentialId;
use crate::gate::Gate;
use crate::gate::demand::Demand;
use crate::gate::index::Writer;
use crate::gate::record::{Record, Standing};

/// Ids of one object that are kept at most.
const MOST_IDS: usize = 64;

/// A gate that knows the one ApiToken that it is shown, and forgets it again.
static TRIAL: LazyLock<Mutex<Arc<Gate>>> = LazyLock::new(|| Mutex::new(empty_gate()));

/// JSON of an ApiToken. Accepted: the token `{orders}` is, by a gate that knows this object alone.
pub fn object(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let expanded = scene.expand(input);
    let Ok(object) = serde_json::from_slice::<Value>(&expanded) else { return false };
    let record = Record::from_json(&named(&object), &object);
    assert_eq!(record.token(), "shop/fuzzed");
    if record.is_tombstone() {
        is_a_tombstone(&record, &object)
    } else {
        says_what_it_says(&record, &object)
    }
    if let Ok(typed) = serde_json::from_value::<ApiToken>(object.clone()) {
        // Both readers come to the same: the feed's, and that of a client that knows the type.
        let typed = ApiToken { metadata: named(&object), ..typed };
        assert_eq!(outline(&Record::new(&typed)), outline(&record));
    }

    let orders = &scene.known[0].token;
    let gate = TRIAL.lock();
    let mut writer = Writer::new(gate.index(), None);
    writer.apply(record);
    let accepted = gate.judge(Ok(orders.expose()), &Demand::none(), NOW).is_accepted();
    let refused = scene.known[1..].iter().all(|known| {
        // Another token may be of this object as well; one whose secret is not known to it never is.
        known.token.id() != orders.id()
            || !gate.judge(Ok(known.token.expose()), &Demand::none(), NOW).is_accepted()
    });
    writer.delete(&named(&object));
    assert_eq!(gate.index().stats(), Default::default(), "something is left of it");
    assert!(refused, "accepted without its secret");
    assert!(
        !accepted || is_due(&object, orders.id(), &orders.digest()),
        "accepted against what the object says"
    );
    accepted
}

/// Its metadata as far as they can be read, under a name of our own.
fn named(object: &Value) -> ObjectMeta {
    let own = object.get("metadata");
    let time = own.and_then(|own| serde_json::from_value(own.get("creationTimestamp")?.clone()).ok());
    let annotations = own.and_then(|own| serde_json::from_value(own.get("annotations")?.clone()).ok());
    // Without a version, whatever comes counts.
    ObjectMeta { creation_timestamp: time, annotations, resource_version: None, ..metadata("shop/fuzzed") }
}

fn entries<'a>(object: &'a Value, list: &str) -> Vec<&'a Value> {
    object["status"][list].as_array().into_iter().flatten().collect()
}

fn ids(object: &Value, list: &str) -> Vec<CredentialId> {
    entries(object, list).iter().filter_map(|entry| CredentialId::parse(entry["id"].as_str()?)).collect()
}

/// All that a verdict and an answer can see.
fn outline(record: &Record) -> String {
    let mut text = format!(
        "{} {:?} {:?} {:?} {:?} {} {} {}",
        record.is_tombstone(),
        record.owner(),
        record.scopes(),
        record.audiences(),
        record.expires(),
        record.is_suspended(),
        record.is_compromised(),
        record.created(),
    );
    for held in record.held() {
        text += &format!(" {held:?} {:?} {:?} {}", held.digest(), held.not_after(), held.issued_at());
    }
    text
}

/// It denies every id that can be found in the object, and says nothing else but the digests that stand there.
fn is_a_tombstone(record: &Record, object: &Value) {
    let found = ids(object, "credentials").into_iter().chain(ids(object, "ended"));
    for id in found.take(MOST_IDS) {
        let held = record.credential(id).expect("every id that can be found is denied");
        assert_eq!(held.standing(), Standing::Unreadable);
    }
    let text = object.to_string();
    for held in record.held() {
        assert_eq!(held.standing(), Standing::Unreadable);
        let digest: String = held.digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(held.digest() == &[0; 32] || text.contains(&digest), "a digest out of nowhere");
    }
    assert!(record.scopes().is_empty() && record.audiences().is_empty() && record.owner().is_empty());
}

/// Every id is in it, an ended one as ended; the words are those of the object, and the owner may stand in a header.
fn says_what_it_says(record: &Record, object: &Value) {
    for id in ids(object, "credentials") {
        assert!(record.credential(id).is_some(), "a credential was lost");
    }
    for held in record.held() {
        let (ended, living) = (ids(object, "ended"), ids(object, "credentials"));
        match held.standing() {
            Standing::Living => assert!(living.contains(&held.id())),
            Standing::Ended(_) => assert!(ended.contains(&held.id())),
            Standing::Unreadable => panic!("an unreadable credential of a readable object"),
        }
    }
    let words = |list: &str| -> Vec<String> {
        let all = object["spec"][list].as_array().into_iter().flatten();
        all.map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let own = |words: &str| -> Vec<String> {
        words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(own(record.scopes()), words("scopes"));
    assert_eq!(own(record.audiences()), words("audiences"));
    for text in [record.owner(), record.scopes(), record.audiences()] {
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "no value of a header");
    }
    assert_eq!(record.is_suspended(), object["spec"]["suspend"] == true);
}

/// Whether the object says, to a reader who takes nothing for granted, that this credential is to be accepted.
fn is_due(object: &Value, id: &str, digest: &str) -> bool {
    let now = NOW.as_second();
    let passed = |time: &Value| match time {
        Value::Null => false,
        other => other
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .is_none_or(|at| at.as_second() <= now),
    };
    let asked = object["metadata"]["annotations"][keys::COMPROMISED_AT].as_str().unwrap_or_default();
    let handled = object["status"]["lastHandled"]["compromisedAt"].as_str().unwrap_or_default();
    let listed = entries(object, "credentials");
    let own: Vec<_> = listed.iter().filter(|entry| entry["id"] == *id).collect();
    let readable_ended = |entry: &&&Value| {
        let text = entry["digest"].as_str().unwrap_or_default();
        entry["id"] == *id && crate::domain::token::digest_bytes(text).is_some()
    };
    own.iter().any(|entry| entry["digest"] == *digest && !passed(&entry["notAfter"]))
        && entries(object, "ended").iter().find(readable_ended).is_none()
        && object["spec"]["suspend"] != true
        && (asked.is_empty() || asked.starts_with(handled) && !handled.is_empty())
        && !passed(&object["spec"]["expiry"]["at"])
}
