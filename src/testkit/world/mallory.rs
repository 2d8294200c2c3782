//! A tenant who attacks the others: may write ApiTokens and Secrets of one namespace and nothing else, knows every word of the
//! others that is public, and some of their whole tokens, as their clients do.

use std::sync::Arc;

use kube::api::PostParams;
use serde_json::{Value, json};

use super::chance::Chance;
use super::people::People;
use crate::api::{ApiToken, keys};
use crate::domain::token::Token;
use crate::testkit::apiserver::ApiServer;
use crate::testkit::forge::forged;

/// The tenant's namespace.
pub const LAIR: &str = "billing";

/// What the API server knows this client by.
pub const CLIENT: &str = "mallory";

/// Times that stand in annotations and never were.
const TIMES: [&str; 5] = [
    "-005000-01-02T00:00:00Z",
    "2001-01-01T00:00:00Z",
    "9999-12-30T22:00:00Z",
    "yesterday",
    "0000-01-01T00:00:00+23:59",
];

/// The tenant, who works with at most as many ApiTokens as this has names.
pub struct Mallory {
    hands: People,
}

const NAMES: [&str; 4] = ["m-0", "m-1", "m-2", "m-3"];

impl Mallory {
    /// Works at this server.
    #[must_use]
    pub fn new(server: &ApiServer) -> Self {
        Self { hands: People::named(server, CLIENT) }
    }

    /// Does one thing to harm the tokens of others, of which `known` are whole; says what. `now` is unique for each call.
    pub async fn act(&self, chance: &mut Chance, server: &ApiServer, known: &[String], now: &str) -> String {
        let name = *chance.pick(&NAMES);
        let hands = &self.hands;
        let own = server.get("apitokens", LAIR, name);
        let secret = server.get("secrets", LAIR, name);
        let uid = |object: &Option<Arc<Value>>| {
            object.as_ref().and_then(|object| object["metadata"]["uid"].as_str()).unwrap_or("none").to_owned()
        };
        let merge = |value: Value| json!({"metadata": {"annotations": value}});
        let (what, answer) = match chance.below(14) {
            0 | 1 => {
                let template = if chance.percent(30) { json!({"x": "{{ nope }}"}) } else { json!({}) };
                let spec = json!({"suspend": chance.percent(50), "secret": {"template": template}, "scopes": ["all"]});
                ("declares", hands.declare(LAIR, name, spec).await.map(drop))
            }
            2 => ("deletes", hands.delete(LAIR, name).await),
            3 | 4 => {
                let suspend = json!({"spec": {"suspend": chance.percent(30), "secret": {"template": null}}});
                ("lets go", hands.edit(LAIR, name, suspend).await.map(drop))
            }
            5 | 6 => {
                let change = merge(json!({keys::ADOPT: uid(&secret)}));
                ("asks to adopt", hands.edit(LAIR, name, change).await.map(drop))
            }
            7 => {
                let key =
                    *chance.pick(&[keys::ROTATE_REQUESTED_AT, keys::COMPROMISED_AT, keys::RETIRE_NOW_AT]);
                ("requests", hands.edit(LAIR, name, merge(json!({key: now}))).await.map(drop))
            }
            8 => {
                let change = merge(json!({keys::COMPROMISED_AT: null, keys::ISSUED_AT: chance.pick(&TIMES)}));
                ("annotates", hands.edit(LAIR, name, change).await.map(drop))
            }
            9 => {
                let change =
                    json!({"metadata": {"ownerReferences": null}, "data": data(chance, server, known)});
                ("alters the Secret", hands.edit_secret(LAIR, name, change).await.map(drop))
            }
            _ => {
                let _ = hands.delete_secret(LAIR, name).await;
                let data = data(chance, server, known);
                let planted = planted(chance, name, &uid(&own), data);
                ("plants a Secret", hands.put_secret(LAIR, planted).await)
            }
        };
        let refused = answer.err().map(|error| format!(" (refused: {error})")).unwrap_or_default();
        format!("mallory {what}: {name}{refused}")
    }
}

/// A Secret that looks as if the operator had delivered it.
fn planted(chance: &mut Chance, name: &str, owner: &str, data: Value) -> Value {
    let id = data["token"].as_str().and_then(decoded).map(|token| token.id().to_owned());
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {
            "name": name,
            "labels": {keys::MANAGED_BY: keys::FIELD_MANAGER, keys::TOKEN: name},
            "annotations": {
                keys::TOKEN: name, keys::CREDENTIAL: id.unwrap_or_default(), keys::ISSUED_AT: chance.pick(&TIMES),
            },
        },
    });
    if chance.percent(50) {
        secret["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "name": name, "uid": owner, "controller": true,
        }]);
    }
    secret
}

/// A token that is somebody else's, or looks like it.
fn data(chance: &mut Chance, server: &ApiServer, known: &[String]) -> Value {
    let ids = ids_of_others(server);
    let token = if !known.is_empty() && chance.percent(50) {
        chance.pick(known).clone()
    } else {
        let id = if ids.is_empty() { "0123456789".to_owned() } else { chance.pick(&ids).clone() };
        let secret: String = (0..43).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
        forged("twd", &id, &secret).expose().to_owned()
    };
    json!({"token": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, token)})
}

fn decoded(value: &str) -> Option<Token> {
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).ok()?;
    Token::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

/// Every id in a status of another namespace, living or ended.
fn ids_of_others(server: &ApiServer) -> Vec<String> {
    let tokens = server.list("apitokens");
    let tokens = tokens.iter().filter_map(|token| super::parse::<ApiToken>(token).ok());
    let others = tokens.filter(|token| token.namespace() != LAIR).filter_map(|token| token.status);
    let ids = others.flat_map(|status| {
        let living = status.credentials.into_iter().map(|living| living.id);
        living.chain(status.ended.into_iter().map(|ended| ended.id)).collect::<Vec<_>>()
    });
    ids.collect()
}

impl People {
    async fn put_secret(&self, namespace: &str, secret: Value) -> kube::Result<()> {
        let object = serde_json::from_value(secret).map_err(kube::Error::SerdeError)?;
        self.secrets(namespace).create(&PostParams::default(), &object).await.map(drop)
    }
}
