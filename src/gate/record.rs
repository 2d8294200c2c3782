//! One ApiToken as the gate keeps it: what a verdict needs, packed into two allocations.
//!
//! An ApiToken that cannot be understood becomes a *tombstone*: its credential ids are denied as `Unreadable`. It is never
//! served from the last version that could be understood, because what changed since may have been a revocation.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{ApiToken, Credential, EndState, EndedCredential, ExpirySpec, LastHandled, keys};
use crate::domain::requests;
use crate::domain::schedule::Expiry;
use crate::domain::token::{CredentialId, digest_bytes};

/// A time that never comes.
const NEVER: i64 = i64::MAX;
/// Most bytes of all texts of one ApiToken together; the definition allows a sixth of it.
const MAX_TEXT: usize = 60_000;
/// Most credentials of one ApiToken, living and ended; the definition allows 26.
const MAX_HELD: usize = 64;

/// How a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Accepted until its deadline.
    Living,
    /// Refused for good.
    Ended(EndState),
    /// Of an ApiToken that cannot be understood.
    Unreadable,
}

/// One credential of a [`Record`]. A cache line.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    id: CredentialId,
    digest: [u8; 32],
    issued_at: i64,
    not_after: i64,
    standing: Standing,
}

impl Held {
    /// The credential id.
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// SHA-256 of the whole token. All zeros on a tombstone.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When it was issued, Unix seconds; 0 if unknown.
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// Its deadline, Unix seconds.
    pub fn not_after(&self) -> Option<i64> {
        (self.not_after != NEVER).then_some(self.not_after)
    }

    /// Whether its deadline has passed.
    pub fn is_overdue(&self, now: i64) -> bool {
        now >= self.not_after
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.id, self.standing)
    }
}

/// What of an ApiToken a verdict, an answer and the recorder need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    uid_hash: u64,
    created: i64,
    version: u64,
    expires: i64,
    held: Box<[Held]>,
    /// uid, `namespace/name`, owner, scopes and audiences, one after the other; `ends` says where each ends.
    text: Box<str>,
    ends: [u16; 5],
    suspended: bool,
    compromised: bool,
    tombstone: Option<Tombstone>,
}

/// How much of a tombstone could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tombstone {
    /// All its credential ids.
    AllIds,
    /// Perhaps not all: those last known count as well.
    SomeIds,
}

/// What a verdict needs of `spec`. Fields that only the controller reads may be of any shape.
#[derive(Deserialize, Default)]
struct Spec {
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    suspend: bool,
    expiry: Option<Value>,
}

/// What a verdict needs of `status`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status {
    owner: Option<OwnerName>,
    #[serde(default)]
    credentials: Vec<Credential>,
    #[serde(default)]
    ended: Vec<EndedCredential>,
    expires_at: Option<Time>,
    last_handled: Option<LastHandled>,
}

#[derive(Deserialize)]
struct OwnerName {
    name: String,
}

impl Record {
    /// From an ApiToken that was parsed.
    pub fn new(token: &ApiToken) -> Self {
        let object = serde_json::json!({"spec": token.spec, "status": token.status});
        Self::from_json(&token.metadata, &object)
    }

    /// From an object as the API server sent it: its metadata, and the JSON that holds `spec` and `status`.
    pub fn from_json(metadata: &ObjectMeta, object: &Value) -> Self {
        understand(metadata, object).unwrap_or_else(|| tombstone(metadata, object))
    }

    fn part(&self, index: usize) -> &str {
        let begin = index.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        self.text.get(begin..usize::from(self.ends[index])).unwrap_or_default()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.part(0)
    }

    /// A hash of the uid: to count by, not to find by.
    pub(super) fn uid_hash(&self) -> u64 {
        self.uid_hash
    }

    /// `namespace/name`.
    pub fn token(&self) -> &str {
        self.part(1)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.token().split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.token().split_once('/').map_or("", |(_, name)| name)
    }

    /// The owner in printable ASCII (anything else percent-encoded), as it may stand in a header; empty if there is none.
    pub fn owner(&self) -> &str {
        self.part(2)
    }

    /// All scopes, separated by single spaces.
    pub fn scopes(&self) -> &str {
        self.part(3)
    }

    /// All audiences, separated by single spaces; empty if the token is for every audience.
    pub fn audiences(&self) -> &str {
        self.part(4)
    }

    /// `metadata.creationTimestamp`, Unix seconds.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// `metadata.resourceVersion` as a number; 0 if it is none.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the token ends for good, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        (self.expires != NEVER).then_some(self.expires)
    }

    /// Whether the token has ended for good.
    pub fn is_expired(&self, now: i64) -> bool {
        now >= self.expires
    }

    /// `spec.suspend`.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Whether it was declared compromised and nobody has honoured that yet.
    pub fn is_compromised(&self) -> bool {
        self.compromised
    }

    /// Whether it could not be understood.
    pub fn is_tombstone(&self) -> bool {
        self.tombstone.is_some()
    }

    /// Its credentials, living and ended, in the order of their ids.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The credential of this id.
    pub fn credential(&self, id: CredentialId) -> Option<&Held> {
        self.held.iter().find(|held| held.id == id)
    }

    /// Whether the token is for this audience. One without audiences is for every audience.
    pub fn is_for(&self, audience: &str) -> bool {
        self.audiences().is_empty() || holds(self.audiences(), audience)
    }

    /// Whether the token has this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        holds(self.scopes(), scope)
    }

    /// Whether nothing but the version differs: most writes of a status say nothing new to a gate.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            uid_hash: _,
            created,
            version: _,
            expires,
            held,
            text,
            ends,
            suspended,
            compromised,
            tombstone,
        } = self;
        (created, expires, held, text, ends)
            == (&other.created, &other.expires, &other.held, &other.text, &other.ends)
            && (suspended, compromised, tombstone) == (&other.suspended, &other.compromised, &other.tombstone)
    }

    /// A tombstone whose ids could not all be read also denies those that were last known.
    pub(super) fn with_last_known(mut self, last: &Self) -> Self {
        if self.tombstone == Some(Tombstone::SomeIds) {
            let ids = self.held.iter().chain(&*last.held).map(|held| held.id);
            self.held = sorted(ids.map(unreadable).collect());
        }
        self
    }
}

fn understand(metadata: &ObjectMeta, object: &Value) -> Option<Record> {
    let spec: Spec = part(object, "spec")?;
    let status: Status = part(object, "status")?;
    let joined = |words: &[String]| words.iter().all(|word| is_word(word)).then(|| words.join(" "));
    let created = metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |created| created.0);
    let expires = match spec.expiry.as_ref().map(|expiry| expires(expiry, created)) {
        None => NEVER,
        Some(Some(at)) => at,
        // What the controller understood before still stands in the status; an expiry that nobody understands is no "never".
        Some(None) => status.expires_at.as_ref()?.0.as_second(),
    };
    let asked = metadata.annotations.as_ref().and_then(|all| all.get(keys::COMPROMISED_AT));
    let handled = status.last_handled.as_ref().and_then(|handled| handled.compromised_at.as_deref());
    let ended = status.ended.iter().filter_map(|ended| {
        Some(Held {
            id: CredentialId::parse(&ended.id)?,
            digest: digest_bytes(&ended.digest)?,
            issued_at: 0,
            not_after: NEVER,
            standing: Standing::Ended(ended.state),
        })
    });
    let living = status.credentials.iter().map(|living| {
        Some(Held {
            id: CredentialId::parse(&living.id)?,
            digest: digest_bytes(&living.digest)?,
            issued_at: living.issued_at.0.as_second(),
            not_after: living.not_after.as_ref().map_or(NEVER, |at| at.0.as_second()),
            standing: Standing::Living,
        })
    });
    // Ended first: an id in both lists is refused.
    let held = ended.map(Some).chain(living).collect::<Option<Vec<_>>>()?;
    let owner = status.owner.map(|owner| printable(&owner.name)).unwrap_or_default();
    let (scopes, audiences) = (joined(&spec.scopes)?, joined(&spec.audiences)?);
    let (text, ends) = pack(metadata, &owner, &scopes, &audiences)?;
    (held.len() <= MAX_HELD).then_some(())?;
    Some(Record {
        uid_hash: uid_hash(metadata),
        created: created.as_second(),
        version: version(metadata),
        expires,
        held: sorted(held),
        text,
        ends,
        suspended: spec.suspend,
        compromised: requests::is_unhandled(asked.map(String::as_str), handled),
        tombstone: None,
    })
}

fn expires(expiry: &Value, created: Timestamp) -> Option<i64> {
    let spec = ExpirySpec::deserialize(expiry).ok()?;
    Some(Expiry::parse(Some(&spec), created).ok()??.at.as_second())
}

/// Of an object that cannot be understood, its name and whatever ids can be found.
fn tombstone(metadata: &ObjectMeta, object: &Value) -> Record {
    let mut all = true;
    let mut held = Vec::new();
    for list in ["/status/credentials", "/status/ended"] {
        match object.pointer(list) {
            None | Some(Value::Null) => {}
            Some(Value::Array(entries)) => {
                for entry in entries {
                    match entry.get("id").and_then(Value::as_str).and_then(CredentialId::parse) {
                        Some(id) if held.len() < MAX_HELD => held.push(unreadable(id)),
                        _ => all = false,
                    }
                }
            }
            Some(_) => all = false,
        }
    }
    all &= matches!(object.get("status"), Some(Value::Object(_)));
    let (text, ends) = pack(metadata, "", "", "").unwrap_or_default();
    Record {
        uid_hash: uid_hash(metadata),
        created: metadata.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second()),
        version: version(metadata),
        expires: NEVER,
        held: sorted(held),
        text,
        ends,
        suspended: false,
        compromised: false,
        tombstone: Some(if all { Tombstone::AllIds } else { Tombstone::SomeIds }),
    }
}

fn unreadable(id: CredentialId) -> Held {
    Held { id, digest: [0; 32], issued_at: 0, not_after: NEVER, standing: Standing::Unreadable }
}

/// A part of the object; the default if it is absent, `None` if it is not as expected.
fn part<'a, T: Deserialize<'a> + Default>(object: &'a Value, name: &str) -> Option<T> {
    match object.get(name) {
        None | Some(Value::Null) => Some(T::default()),
        Some(value) => T::deserialize(value).ok(),
    }
}

/// By id, each once; of several, the one that came first.
fn sorted(mut held: Vec<Held>) -> Box<[Held]> {
    held.sort_by_key(|held| held.id);
    held.dedup_by_key(|held| held.id);
    held.into_boxed_slice()
}

/// Whether `word` is among the words that spaces separate.
fn holds(words: &str, word: &str) -> bool {
    !word.is_empty() && words.as_bytes().split(|byte| *byte == b' ').any(|own| own == word.as_bytes())
}

/// What the definition allows in scopes and audiences: no spaces, which separate them here, and nothing that would have to
/// be escaped in a header.
pub(super) fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/*-".contains(&byte))
}

fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.trim().bytes() {
        if byte == b' ' || byte.is_ascii_graphic() {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    safe
}

fn pack(metadata: &ObjectMeta, owner: &str, scopes: &str, audiences: &str) -> Option<(Box<str>, [u16; 5])> {
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let mut text = String::new();
    let mut ends = [0; 5];
    let token = format!("{namespace}/{name}");
    let parts = [metadata.uid.as_deref().unwrap_or_default(), &token, owner, scopes, audiences];
    for (end, part) in ends.iter_mut().zip(parts) {
        text.push_str(part);
        *end = u16::try_from(text.len()).ok()?;
    }
    (text.len() <= MAX_TEXT).then(|| (text.into_boxed_str(), ends))
}

/// The same for as long as the process lives, and not to be foreseen.
fn uid_hash(metadata: &ObjectMeta) -> u64 {
    static RANDOM: std::sync::LazyLock<ahash::RandomState> =
        std::sync::LazyLock::new(ahash::RandomState::new);
    RANDOM.hash_one(metadata.uid.as_deref().unwrap_or_default())
}

fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
