//! The gate that inputs are shown to, and the tokens that they can name.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::reference;
use crate::api::Outcome;
use crate::domain::ports::{Clock, Entropy, EntropyError};
use crate::domain::token::{Prefix, Presented, Token};
use crate::gate::callers::Addresses;
use crate::gate::dialect::Desk;
use crate::gate::dialect::http::HttpGate;
use crate::gate::dialect::introspect::Introspection;
use crate::gate::index::Writer;
use crate::gate::record::Record;
use crate::gate::{Gate, Settings};

/// Noon of the first of March 2026.
pub(super) const NOW: Timestamp = Timestamp::constant(1_772_366_400, 0);
/// What `{long}` stands for: more than a header that holds a credential, and more than a form, may have.
const LONG: usize = 8_300;
/// Beyond this, nothing is expanded any more: inputs stay small.
const MOST: usize = 64 * 1024;
/// Longest placeholder without its braces.
const LONGEST_NAME: usize = 20;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// The same tokens in every run: the id depends on one number, the secret on another.
struct Fixed {
    id: u64,
    secret: u64,
    drawn: Mutex<bool>,
}

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let first = !std::mem::replace(&mut *self.drawn.lock(), true);
        let mut state = if first { self.id } else { self.secret };
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 57) as u8;
        }
        Ok(())
    }
}

fn mint(prefix: &str, id: u64, secret: u64) -> Token {
    Token::mint(&Prefix::new(prefix).unwrap(), &Fixed { id, secret, drawn: Mutex::new(false) }).unwrap()
}

/// Who an accepted token is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub token: &'static str,
    pub owner: &'static str,
    pub scopes: &'static str,
    pub audiences: &'static str,
}

impl Identity {
    fn has(words: &str, word: &str) -> bool {
        words.split(' ').any(|own| own == word) && !word.is_empty()
    }

    /// Whether it may do what these pairs of key and value demand.
    pub fn may<'a>(&self, demanded: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        demanded.into_iter().all(|(key, value)| match key {
            "audience" => self.audiences == "*" || Self::has(self.audiences, value),
            "scope" if value.starts_with("tokenward:") => Self::has(self.scopes, value),
            "scope" => self.scopes == "*" || Self::has(self.scopes, value),
            "header" | "query" | "cookie" => true,
            "source" => ["authorization", "header", "query", "cookie", "websocket"].contains(&value),
            "challenge" => value == "basic",
            _ => false,
        })
    }
}

/// A token that inputs can name.
pub(super) struct Known {
    pub name: &'static str,
    pub token: Token,
    /// The ApiToken that lists its id, if there is one.
    pub of: Option<&'static str>,
    /// Set if it is accepted.
    pub living: Option<Identity>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The gate and all who may ask it.
pub(super) struct Scene {
    pub gate: Arc<Gate>,
    pub desk: Desk,
    pub http: HttpGate,
    pub known: Vec<Known>,
}

const ORDERS: Identity = Identity {
    token: "shop/orders",
    owner: "payments",
    scopes: "orders:read orders:write",
    audiences: "orders billing",
};
const PLAIN: Identity = Identity { token: "shop/plain", owner: "", scopes: "", audiences: "" };
const EVERY: Identity = Identity { token: "shop/every", owner: "", scopes: "*", audiences: "*" };
const ASKER: Identity =
    Identity { token: "shop/asker", owner: "", scopes: "tokenward:introspect", audiences: "" };

fn known() -> Vec<Known> {
    let with = |name, token, of, living| Known { name, token, of, living };
    vec![
        with("orders", mint("twd", 1, 101), Some("shop/orders"), Some(ORDERS)),
        with("plain", mint("twd", 2, 102), Some("shop/plain"), Some(PLAIN)),
        with("asker", mint("twd", 3, 103), Some("shop/asker"), Some(ASKER)),
        with("every", mint("twd", 13, 113), Some("shop/every"), Some(EVERY)),
        with("ended", mint("twd", 4, 104), Some("shop/orders"), None),
        with("overdue", mint("twd", 5, 105), Some("shop/orders"), None),
        with("suspended", mint("twd", 6, 106), Some("shop/suspended"), None),
        with("compromised", mint("twd", 7, 107), Some("shop/compromised"), None),
        with("expired", mint("twd", 8, 108), Some("shop/expired"), None),
        with("unreadable", mint("twd", 9, 109), Some("shop/unreadable"), None),
        // The id of `orders`, which is no secret, with another secret.
        with("forged", mint("twd", 1, 110), Some("shop/orders"), None),
        with("stranger", mint("twd", 11, 111), None, None),
        with("foreign", mint("acme_live", 12, 112), None, None),
    ]
}

fn records(known: &[Known]) -> Vec<Record> {
    let token = |name: &str| &known.iter().find(|known| known.name == name).unwrap().token;
    let living = |name: &str| json!({"id": token(name).id(), "digest": token(name).digest(), "state": "Active", "issuedAt": "2026-02-01T00:00:00Z"});
    let mut overdue = living("overdue");
    overdue["notAfter"] = json!("2026-03-01T11:59:59Z");
    let mut ended = living("ended");
    ended["state"] = json!("Retired");
    ended["endedAt"] = json!("2026-02-20T00:00:00Z");
    let bare = |name: &str, spec: Value| {
        (format!("shop/{name}"), json!({"spec": spec, "status": {"credentials": [living(name)]}}))
    };
    let orders = json!({
        "spec": {"audiences": ["orders", "billing"], "scopes": ["orders:read", "orders:write"]},
        "status": {
            "owner": {"name": "payments", "source": "default"},
            "credentials": [living("orders"), overdue],
            "ended": [ended],
        },
    });
    let objects = [
        ("shop/orders".to_owned(), orders),
        bare("plain", json!({})),
        bare("every", json!({"audiences": ["*"], "scopes": ["*"]})),
        bare("asker", json!({"scopes": ["tokenward:introspect"]})),
        bare("suspended", json!({"suspend": true})),
        bare("compromised", json!({})),
        bare("expired", json!({"expiry": {"at": "2026-02-28T00:00:00Z"}})),
        bare("unreadable", json!({"scopes": "not a list"})),
    ];
    let record = |(full, object): &(String, Value)| {
        let mut metadata = metadata(full);
        if full == "shop/compromised" {
            let asked = (crate::api::keys::COMPROMISED_AT.to_owned(), "now".to_owned());
            metadata.annotations = Some([asked].into());
        }
        Record::from_json(&metadata, object)
    };
    objects.iter().map(record).collect()
}

/// Of the ApiToken of this full name.
pub(super) fn metadata(full: &str) -> ObjectMeta {
    let (namespace, name) = full.split_once('/').unwrap();
    ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("1".into()),
        creation_timestamp: Some(Time(Timestamp::constant(1_767_225_600, 0))),
        ..ObjectMeta::default()
    }
}

/// An open gate with nothing in it.
pub(super) fn empty_gate() -> Arc<Gate> {
    let prefix = Prefix::new("twd").unwrap();
    let settings = Settings { prefix, deny_when_stale_for: None, addresses: Addresses::Full };
    let gate = Arc::new(Gate::new(settings));
    gate.open();
    gate
}

static SCENE: LazyLock<Mutex<Scene>> = LazyLock::new(|| {
    let (known, gate) = (known(), empty_gate());
    let mut writer = Writer::new(gate.index(), None);
    writer.begin_list();
    for record in records(&known) {
        writer.list_item(record);
    }
    writer.end_list();
    let desk = Desk::new(gate.clone(), Arc::new(Noon), 0);
    let http = HttpGate::new(desk.clone(), Introspection::by_scope());
    Mutex::new(Scene { gate, desk, http, known })
});

/// What an input may hold instead of a token or something that depends on one, for dictionaries.
pub fn placeholders() -> Vec<String> {
    let tokens = known().into_iter().map(|known| format!("{{{}}}", known.name));
    let others = ["{id:orders}", "{digest:orders}", "{crc}", "{long}", "{{", "}}"].map(str::to_owned);
    tokens.chain(others).collect()
}

impl Scene {
    /// The scene, for one input alone: what it leaves in the recorder is looked at.
    pub fn enter() -> MutexGuard<'static, Self> {
        let scene = SCENE.lock();
        // A body that failed in another test may have left something behind.
        scene.gate.recorder().drain();
        scene
    }

    /// Replaces what stands in braces:
    ///
    /// | in the input | becomes |
    /// |---|---|
    /// | `{orders}` | the token of this name |
    /// | `{id:orders}`, `{digest:orders}` | its id, its digest |
    /// | `{crc}` | the checksum of the letters, digits and underscores before it |
    /// | `{long}` | more than fits anywhere |
    /// | `{{user:{orders}}}` | base64 of what stands between the double braces |
    pub fn expand(&self, input: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(input.len());
        let mut rest = input;
        while let Some((byte, after)) = rest.split_first() {
            let name =
                (*byte == b'{').then(|| after.iter().take(LONGEST_NAME).position(|byte| *byte == b'}'));
            let value = name.flatten().filter(|_| plain.len() < MOST).and_then(|end| {
                let name = std::str::from_utf8(&after[..end]).ok()?;
                Some((self.value(name, &plain)?, &after[end + 1..]))
            });
            match value {
                Some((value, after)) => {
                    plain.extend_from_slice(value.as_bytes());
                    rest = after;
                }
                None => {
                    plain.push(*byte);
                    rest = after;
                }
            }
        }
        encode(&plain)
    }

    fn value(&self, name: &str, before: &[u8]) -> Option<String> {
        let token = |name: &str| Some(&self.known.iter().find(|known| known.name == name)?.token);
        match (name, name.split_once(':')) {
            ("crc", _) => {
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let begin = before.iter().rposition(|byte| !word(byte)).map_or(0, |at| at + 1);
                Some(reference::checksum(&before[begin..]))
            }
            ("long", _) => Some("x".repeat(LONG)),
            (_, Some(("id", name))) => Some(token(name)?.id().to_owned()),
            (_, Some(("digest", name))) => Some(token(name)?.digest()),
            _ => Some(token(name)?.expose().to_owned()),
        }
    }

    /// Nothing that leaves the gate holds the secret part of a token that was presented, or of one that it knows.
    /// `demanded` is what the route's own configuration holds, which may be repeated to the client.
    pub fn tells_no_secret(&self, answer: &[u8], presented: Option<&str>, demanded: &[u8]) {
        let shaped = presented.filter(|text| reference::token(text) != Err(reference::Fault::Malformed));
        let tokens = self.known.iter().map(|known| known.token.expose()).chain(shaped);
        for token in tokens {
            let secret = &token.as_bytes()[token.len() - 49..token.len() - 6];
            assert!(!holds(answer, secret) || holds(demanded, secret), "an answer holds a secret");
        }
    }

    /// The recorder holds one answer for the token whose id was presented, and nothing at all for any other text.
    pub fn counted(&self, presented: Option<&str>, accepted: Option<&Known>) {
        let drained = self.gate.recorder().drain();
        let id = presented.and_then(|text| Presented::parse(text).ok()).map(|own| own.id().to_string());
        let named = self.known.iter().find(|known| Some(known.token.id()) == id.as_deref());
        for token in &drained {
            let of = named.and_then(|known| known.of);
            assert_eq!(Some(&*token.token), of, "counted for a token that was not presented");
            assert_eq!(token.credentials.len(), 1);
        }
        assert!(drained.len() <= 1, "one answer was counted for several tokens");
        let accepted_once = drained.iter().flat_map(|token| &token.credentials).any(|used| {
            used.outcomes
                .iter()
                .map(|counted| (counted.outcome, counted.count))
                .eq([(Outcome::Accepted.index(), 1)])
        });
        assert_eq!(
            accepted_once,
            accepted.is_some(),
            "what was accepted was not counted, or the other way round"
        );
    }
}

/// Whether `part` stands in `whole`.
pub(super) fn holds(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Puts what stands between double braces into base64.
fn encode(plain: &[u8]) -> Vec<u8> {
    let find = |bytes: &[u8], pair: &[u8]| bytes.windows(2).position(|window| window == pair);
    let (mut encoded, mut rest) = (Vec::with_capacity(plain.len()), plain);
    while let Some(begin) = find(rest, b"{{") {
        let Some(length) = find(&rest[begin + 2..], b"}}") else { break };
        encoded.extend_from_slice(&rest[..begin]);
        encoded.extend_from_slice(STANDARD.encode(&rest[begin + 2..begin + 2 + length]).as_bytes());
        rest = &rest[begin + length + 4..];
    }
    encoded.extend_from_slice(rest);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_and_nothing_else() {
        let scene = Scene::enter();
        let orders = scene.known[0].token.expose();
        let expanded = |text: &str| String::from_utf8(scene.expand(text.as_bytes())).unwrap();
        assert_eq!(expanded("a {orders}, {nobody} {{"), format!("a {orders}, {{nobody}} {{{{"));
        assert_eq!(expanded("{{u:{orders}}}"), STANDARD.encode(format!("u:{orders}")));
        assert_eq!(
            expanded("{id:orders}{digest:orders}"),
            format!("{}{}", &orders[4..14], scene.known[0].token.digest())
        );
        assert_eq!(expanded(&format!("-{}{{crc}}", &orders[..orders.len() - 6])), format!("-{orders}"));
        assert!(expanded("{long}{long}").len() == 2 * LONG);
        assert!(expanded(&"{long}".repeat(100)).len() < MOST + LONG + 600);
    }

    #[test]
    fn every_known_token_is_answered_as_it_says() {
        let scene = Scene::enter();
        for known in &scene.known {
            let verdict =
                scene.gate.judge(Ok(known.token.expose()), &crate::gate::demand::Demand::none(), NOW);
            assert_eq!(verdict.is_accepted(), known.living.is_some(), "{known:?}");
            assert_eq!(verdict.found().map(|found| found.record().token()), known.of, "{known:?}");
        }
    }
}
