use super::*;
use crate::domain::token::Token;
use crate::gate::callers::Caller;
use crate::gate::fixtures::{at, ended, gate, living, metadata, minted, object, settings, with_secret_of};
use crate::gate::index::Writer;
use crate::gate::metrics::Dialect;
use crate::gate::record::Record;
use crate::gate::{Gate, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::Duration;

const NOW: &str = "2026-06-01T00:00:00Z";

/// Asks a gate that knows one ApiToken with `credential`, as `change` leaves it.
fn ask(credential: &Token, presented: &str, query: &str, change: impl FnOnce(&mut Value)) -> Outcome {
    let mut object = object(&[living(credential)], &[]);
    change(&mut object);
    let gate = gate(vec![Record::from_json(&metadata("shop", "web", 1), &object)]);
    outcome_of(&gate, presented, query)
}

fn outcome_of(gate: &Gate, presented: &str, query: &str) -> Outcome {
    let demand = Demand::from_query(query).unwrap();
    gate.judge(Ok(presented), &demand, at(NOW)).outcome()
}

#[test]
fn every_outcome_of_a_token() {
    let token = minted("twd", 1);
    let text = token.expose();
    let same = |_: &mut Value| ();
    let set = |pointer: &'static str, value: Value| {
        move |object: &mut Value| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key] = value;
        }
    };
    let mut last = text.to_owned();
    let digit = if last.pop() == Some('a') { 'b' } else { 'a' };
    last.push(digit);

    assert_eq!(ask(&token, text, "", same), Outcome::Accepted);
    assert_eq!(ask(&token, text, "audience=orders&scope=orders:read", same), Outcome::Accepted);
    assert_eq!(ask(&token, "twd_x", "", same), Outcome::Malformed);
    assert_eq!(ask(&token, &last, "", same), Outcome::BadChecksum);
    assert_eq!(ask(&token, minted("acme_live", 1).expose(), "", same), Outcome::ForeignPrefix);
    assert_eq!(ask(&token, minted("twd", 2).expose(), "", same), Outcome::UnknownCredential);
    assert_eq!(ask(&token, &with_secret_of(&token, &minted("twd", 2)), "", same), Outcome::WrongSecret);
    let end = ended(&token);
    assert_eq!(ask(&token, text, "", set("/status/ended", json!([end]))), Outcome::Ended);
    let mut overdue = living(&token);
    for (deadline, expected) in [
        ("2026-05-31T23:59:59Z", Outcome::Overdue),
        ("2026-06-01T00:00:00Z", Outcome::Overdue),
        ("2026-06-01T00:00:01Z", Outcome::Accepted),
    ] {
        overdue["notAfter"] = json!(deadline);
        assert_eq!(ask(&token, text, "", set("/status/credentials", json!([overdue]))), expected);
    }
    assert_eq!(ask(&token, text, "", set("/spec/suspend", json!(true))), Outcome::Suspended);
    assert_eq!(ask(&token, text, "", set("/spec/expiry", json!({"at": NOW}))), Outcome::Expired);
    let later = json!({"at": "2026-06-01T00:00:01Z"});
    assert_eq!(ask(&token, text, "", set("/spec/expiry", later)), Outcome::Accepted);
    assert_eq!(ask(&token, text, "", set("/spec/suspend", json!("maybe"))), Outcome::Unreadable);
    assert_eq!(ask(&token, text, "audience=billing", same), Outcome::WrongAudience);
    assert_eq!(ask(&token, text, "audience=orders&audience=billing", same), Outcome::WrongAudience);
    assert_eq!(ask(&token, text, "scope=orders:delete", same), Outcome::MissingScope);
    assert_eq!(ask(&token, text, "scope=orders:read&scope=orders:delete", same), Outcome::MissingScope);
}

/// Who declares nothing about a right has none; a route that demands none asks for none.
#[test]
fn silence_gives_no_right() {
    let token = minted("twd", 1);
    let of = |spec: Value| move |object: &mut Value| object["spec"] = spec;
    for (spec, query, expected) in [
        (json!({}), "audience=billing-api", Outcome::WrongAudience),
        (json!({"audiences": []}), "audience=billing-api", Outcome::WrongAudience),
        (json!({"scopes": ["*"]}), "audience=billing-api", Outcome::WrongAudience),
        (json!({}), "scope=orders:read", Outcome::MissingScope),
        (json!({"scopes": []}), "scope=orders:read", Outcome::MissingScope),
        (json!({"audiences": ["*"]}), "scope=orders:read", Outcome::MissingScope),
        (json!({"audiences": ["*"], "scopes": ["*"]}), "scope=tokenward:introspect", Outcome::MissingScope),
        (json!({}), "", Outcome::Accepted),
        (json!({"audiences": ["*"]}), "audience=billing-api", Outcome::Accepted),
        (
            json!({"audiences": ["*"], "scopes": ["*"]}),
            "audience=a&audience=b&scope=c&scope=d",
            Outcome::Accepted,
        ),
    ] {
        assert_eq!(ask(&token, token.expose(), query, of(spec.clone())), expected, "{spec} {query}");
    }
}

#[test]
fn a_compromise_is_honoured_from_the_object_alone() {
    let token = minted("twd", 1);
    let mut metadata = metadata("shop", "web", 1);
    metadata.annotations = Some([("tokenward.dev/compromised-at".to_owned(), "now".to_owned())].into());
    let gate = gate(vec![Record::from_json(&metadata, &object(&[living(&token)], &[]))]);
    assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::Compromised);
}

#[test]
fn a_deleted_apitoken_is_refused_however_long_finalizers_keep_it() {
    let token = minted("twd", 1);
    let mut metadata = metadata("shop", "web", 1);
    metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW)));
    let gate = gate(vec![Record::from_json(&metadata, &object(&[living(&token)], &[]))]);
    assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::Ended);
}

#[test]
fn what_is_nearer_to_the_credential_is_said_first() {
    let (token, other) = (minted("twd", 1), minted("twd", 2));
    // Everything is wrong at once; each line mends what the one before it said.
    let steps: [(&str, Value, Outcome); 6] = [
        ("/status/ended", json!([]), Outcome::Ended),
        ("/status/credentials/0/notAfter", json!(null), Outcome::Overdue),
        ("/spec/suspend", json!(false), Outcome::Suspended),
        ("/spec/expiry", json!(null), Outcome::Expired),
        ("/spec/audiences", json!(["stock"]), Outcome::WrongAudience),
        ("/spec/scopes", json!(["all"]), Outcome::MissingScope),
    ];
    let mut object = object(&[living(&token)], &[ended(&token)]);
    object["status"]["credentials"][0]["notAfter"] = json!("2026-01-01T00:00:00Z");
    object["spec"]["suspend"] = json!(true);
    object["spec"]["expiry"] = json!({"at": "2026-01-01T00:00:00Z"});
    let ask = |object: &Value, text: &str| {
        let gate = gate(vec![Record::from_json(&metadata("shop", "web", 1), object)]);
        outcome_of(&gate, text, "audience=stock&scope=all")
    };
    for (pointer, mended, expected) in steps {
        assert_eq!(ask(&object, token.expose()), expected);
        // Who cannot prove to be the bearer learns none of it, and nor does the log.
        assert_eq!(ask(&object, &with_secret_of(&token, &other)), Outcome::WrongSecret);
        *object.pointer_mut(pointer).unwrap() = mended;
    }
    assert_eq!(ask(&object, token.expose()), Outcome::Accepted);
}

#[test]
fn a_gate_without_a_full_list_denies_everything() {
    let gate = Gate::new(settings());
    let token = minted("twd", 1);
    let mut writer = Writer::new(gate.index(), None);
    writer.begin_list();
    writer.list_item(Record::from_json(&metadata("shop", "web", 1), &object(&[living(&token)], &[])));
    assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::NotReady);
    assert_eq!(gate.judge(Err(Outcome::Missing), &Demand::none(), at(NOW)).outcome(), Outcome::NotReady);
    writer.end_list();
    gate.open();
    assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::Accepted);
}

#[test]
fn a_stale_gate_denies_where_that_is_asked_for() {
    let token = minted("twd", 1);
    for (limit, expected) in [(None, Outcome::Accepted), (Some(Duration::from_secs(90)), Outcome::Stale)] {
        let gate = Gate::new(Settings { deny_when_stale_for: limit, ..settings() });
        let record = Record::from_json(&metadata("shop", "web", 1), &object(&[living(&token)], &[]));
        Writer::new(gate.index(), None).apply(record);
        gate.open();
        assert_eq!(outcome_of(&gate, token.expose(), ""), expected, "never heard");
        gate.heard(at("2026-05-31T23:58:30Z"));
        assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::Accepted, "90 s ago");
        let late = at("2026-06-01T00:00:01Z");
        assert_eq!(gate.judge(Ok(token.expose()), &Demand::none(), late).outcome(), expected, "91 s ago");
        gate.heard(at("2026-06-01T01:00:00Z"));
        assert_eq!(outcome_of(&gate, token.expose(), ""), expected, "the clock was set back since");
        gate.heard(at(NOW));
        assert_eq!(outcome_of(&gate, token.expose(), ""), Outcome::Accepted, "heard by the new time");
    }
}

#[test]
fn what_could_not_be_extracted_is_denied_as_it_is() {
    let gate = gate(vec![]);
    for outcome in [Outcome::Missing, Outcome::Conflicting, Outcome::Malformed] {
        let verdict = gate.judge(Err(outcome), &Demand::none(), at(NOW));
        assert_eq!((verdict.outcome(), verdict.found().is_none()), (outcome, true));
    }
    assert_eq!(gate.refuse(Dialect::Nginx, Outcome::Misrouted, at(NOW)).outcome(), Outcome::Misrouted);
    assert!(!gate.refuse(Dialect::Nginx, Outcome::Accepted, at(NOW)).is_accepted());
    let caller = Caller::default();
    let verdict = gate.check(Dialect::Nginx, Err(Outcome::Accepted), &Demand::none(), &caller, at(NOW));
    assert!(!verdict.is_accepted(), "an error is never an acceptance");
}

/// A gate that knows one token.
static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let object = object(&[living(&minted("twd", 1))], &[]);
    gate(vec![Record::from_json(&metadata("shop", "web", 1), &object)])
});

proptest! {
    /// No fewer words in a declaration ever give more: whatever a token with some of the audiences and scopes may do, it may
    /// also do with all of them.
    #[test]
    fn leaving_words_out_never_widens(
        audiences in proptest::sample::subsequence(&["a", "b", "c"][..], 0..=3),
        scopes in proptest::sample::subsequence(&["r", "s", "tokenward:introspect"][..], 0..=3),
        fewer in (0..8_usize, 0..8_usize),
        asked in proptest::sample::subsequence(&["audience=a", "audience=d", "scope=r", "scope=t"][..], 0..=4),
    ) {
        let token = minted("twd", 1);
        let kept = |words: &[&str], mask: usize| -> Vec<String> {
            let kept = words.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
            kept.map(|(_, word)| (*word).to_owned()).collect()
        };
        let of = |audiences: Vec<String>, scopes: Vec<String>| {
            let query = asked.join("&");
            ask(&token, token.expose(), &query, |object| {
                object["spec"] = json!({"audiences": audiences, "scopes": scopes});
            })
        };
        let less = of(kept(&audiences, fewer.0), kept(&scopes, fewer.1));
        if less == Outcome::Accepted {
            prop_assert_eq!(of(kept(&audiences, 7), kept(&scopes, 7)), Outcome::Accepted);
        }
    }

    /// Whatever is presented, and however an ApiToken is broken: only the right token is ever accepted.
    #[test]
    fn garbage_is_never_accepted(presented in ".{0,120}", scope in "[a-z:]{1,12}") {
        let demand = Demand::scope(&scope);
        prop_assert!(!GATE.judge(Ok(&presented), &demand, at(NOW)).is_accepted());
    }

    #[test]
    fn one_changed_character_is_never_accepted(position in 0..66_usize, by in 1..62_u8) {
        let token = minted("twd", 1);
        let mut bytes = token.expose().as_bytes().to_vec();
        let position = position % bytes.len();
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let was = digits.iter().position(|digit| *digit == bytes[position]).unwrap_or(0);
        bytes[position] = digits[(was + usize::from(by)) % 62];
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_ne!(changed.as_str(), token.expose());
        prop_assert!(!GATE.judge(Ok(&changed), &Demand::none(), at(NOW)).is_accepted());
    }
}
