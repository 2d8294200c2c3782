//! One ApiToken as the gate keeps it: what a verdict needs, packed into one allocation. With a million tokens nearly
//! everything that a verdict looks at comes from memory, not from a cache; side by side it comes in one go.
//!
//! An ApiToken that cannot be understood becomes a *tombstone*: its credentials are denied as `Unreadable`. It is never
//! served from the last version that could be understood, because what changed since may have been a revocation.

mod text;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use triomphe::ThinArc;

pub(super) use self::text::is_word;
use self::text::{holds, pack, printable};
use crate::api::keys::{EVERY, OWN_SCOPES};
use crate::api::{ApiToken, Credential, EndState, EndedCredential, ExpirySpec, LastHandled, Reason, keys};
use crate::domain::requests;
use crate::domain::schedule::Expiry;
use crate::domain::token::{CredentialId, digest_bytes};

/// A time that never comes.
const NEVER: i64 = i64::MAX;
/// Most credentials of one ApiToken, living and ended; the definition allows 26.
const MAX_HELD: usize = 64;

/// The order of the texts: first what every verdict looks at.
const AUDIENCES: usize = 0;
const SCOPES: usize = 1;
const OWNER: usize = 2;
const TOKEN: usize = 3;
const UID: usize = 4;

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
    /// The operator found it in a Secret; of every other it knows, because it minted it.
    adopted: bool,
}

impl Held {
    /// The credential id.
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// SHA-256 of the whole token. All zeros where a tombstone does not say it.
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

    /// How good its claim is where another ApiToken names the same id: the smallest is the best. What was minted goes ahead
    /// of what was found in a Secret, so that nobody who may write Secrets takes a credential from whom it was issued to,
    /// and what has ended lives on for nobody who brings it again.
    pub(super) fn rank(&self) -> u8 {
        match self.standing {
            Standing::Living if self.adopted => 2,
            Standing::Ended(_) => 1,
            Standing::Living | Standing::Unreadable => 0,
        }
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

/// What of an ApiToken a verdict, an answer and the recorder need. Cheap to clone.
#[derive(Clone)]
pub struct Record(ThinArc<Head, u8>);

/// The texts follow: audiences, scopes, owner, `namespace/name` and uid, one after the other; `ends` says where each ends.
#[derive(Clone, PartialEq, Eq)]
struct Head {
    /// The credential that is presented most: the newest living one, if there is any. Meaningless in an `empty` record.
    first: Held,
    more: Box<[Held]>,
    empty: bool,
    expires: i64,
    created: i64,
    version: u64,
    uid_hash: u64,
    ends: [u16; 5],
    suspended: bool,
    compromised: bool,
    deleted: bool,
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
#[derive(Deserialize)]
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

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.0.slice == other.0.slice
    }
}

impl Eq for Record {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {:?})", self.token(), self.held().collect::<Vec<_>>())
    }
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

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn bytes(&self, index: usize) -> &[u8] {
        let ends = &self.head().ends;
        let begin = index.checked_sub(1).map_or(0, |before| usize::from(ends[before]));
        self.0.slice.get(begin..usize::from(ends[index])).unwrap_or_default()
    }

    fn part(&self, index: usize) -> &str {
        std::str::from_utf8(self.bytes(index)).unwrap_or_default()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.part(UID)
    }

    /// A hash of the uid: to count by, not to find by.
    pub(super) fn uid_hash(&self) -> u64 {
        self.head().uid_hash
    }

    /// `namespace/name`.
    pub fn token(&self) -> &str {
        self.part(TOKEN)
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
        self.part(OWNER)
    }

    /// All scopes, separated by single spaces; empty if the token has none.
    pub fn scopes(&self) -> &str {
        self.part(SCOPES)
    }

    /// All audiences, separated by single spaces; empty if the token is for none.
    pub fn audiences(&self) -> &str {
        self.part(AUDIENCES)
    }

    /// `metadata.creationTimestamp`, Unix seconds.
    pub fn created(&self) -> i64 {
        self.head().created
    }

    /// `metadata.resourceVersion` as a number; 0 if it is none.
    pub fn version(&self) -> u64 {
        self.head().version
    }

    /// When the token ends for good, Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        Some(self.head().expires).filter(|expires| *expires != NEVER)
    }

    /// Whether the token has ended for good.
    pub fn is_expired(&self, now: i64) -> bool {
        now >= self.head().expires
    }

    /// `spec.suspend`.
    pub fn is_suspended(&self) -> bool {
        self.head().suspended
    }

    /// Whether it was declared compromised and nobody has honoured that yet.
    pub fn is_compromised(&self) -> bool {
        self.head().compromised
    }

    /// Whether it was deleted and only waits for finalizers. That cannot be undone.
    pub fn is_deleted(&self) -> bool {
        self.head().deleted
    }

    /// Whether it could not be understood.
    pub fn is_tombstone(&self) -> bool {
        self.head().tombstone.is_some()
    }

    /// Its credentials, living and ended, each id once.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        let head = self.head();
        std::iter::once(&head.first).filter(|_| !head.empty).chain(&head.more)
    }

    /// The credential at this place of [`Record::held`], which must not be beyond its end.
    pub(super) fn at(&self, place: usize) -> &Held {
        place.checked_sub(1).map_or(&self.head().first, |place| &self.head().more[place])
    }

    /// The credential of this id.
    pub fn credential(&self, id: CredentialId) -> Option<&Held> {
        self.held().find(|held| held.id == id)
    }

    /// Whether both are one and the same, not only equal.
    pub(super) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.heap_ptr(), other.0.heap_ptr())
    }

    /// Whether the token is for this audience. One without audiences is for none; one for [`EVERY`] is for each.
    pub fn is_for(&self, audience: &str) -> bool {
        self.bytes(AUDIENCES) == EVERY.as_bytes() || holds(self.bytes(AUDIENCES), audience)
    }

    /// Whether the token has this scope. [`EVERY`] stands for each scope of your APIs; those of Tokenward itself have to be
    /// named, because they give rights on the gate.
    pub fn has_scope(&self, scope: &str) -> bool {
        let every = self.bytes(SCOPES) == EVERY.as_bytes() && !scope.starts_with(OWN_SCOPES);
        every || holds(self.bytes(SCOPES), scope)
    }

    /// Whether nothing but the version differs: most writes of a status say nothing new to a gate.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let of = |record: &Self| Head { version: 0, ..record.head().clone() };
        self.0.slice == other.0.slice && of(self) == of(other)
    }

    /// A tombstone whose ids could not all be read also denies those that were last known.
    pub(super) fn with_last_known(self, last: &Self) -> Self {
        if self.head().tombstone != Some(Tombstone::SomeIds) {
            return self;
        }
        let all = self.held().chain(last.held());
        let (first, more, empty) = arranged(all.map(|held| unreadable(held.id, held.digest)).collect());
        Self(ThinArc::from_header_and_slice(
            Head { first, more, empty, ..self.head().clone() },
            &self.0.slice,
        ))
    }
}

fn understand(metadata: &ObjectMeta, object: &Value) -> Option<Record> {
    // Fails closed: without a `spec` there is nothing that says "not suspended".
    let spec = Spec::deserialize(object.get("spec")?).ok()?;
    let status = match object.get("status") {
        None | Some(Value::Null) => Status::default(),
        Some(status) => Status::deserialize(status).ok()?,
    };
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
            adopted: false,
        })
    });
    let living = status.credentials.iter().map(|living| {
        Some(Held {
            id: CredentialId::parse(&living.id)?,
            digest: digest_bytes(&living.digest)?,
            issued_at: living.issued_at.0.as_second(),
            not_after: living.not_after.as_ref().map_or(NEVER, |at| at.0.as_second()),
            standing: Standing::Living,
            adopted: living.reason.as_deref() == Some(Reason::Adopted.as_str()),
        })
    });
    // Ended first: an id in both lists is refused.
    let held = ended.map(Some).chain(living).collect::<Option<Vec<_>>>()?;
    let owner = status.owner.map(|owner| printable(&owner.name)).unwrap_or_default();
    let (scopes, audiences) = (joined(&spec.scopes)?, joined(&spec.audiences)?);
    let (text, ends) = pack(metadata, &owner, &scopes, &audiences)?;
    (held.len() <= MAX_HELD).then_some(())?;
    let (first, more, empty) = arranged(held);
    let head = Head {
        first,
        more,
        empty,
        expires,
        created: created.as_second(),
        version: version(metadata),
        uid_hash: uid_hash(metadata),
        ends,
        suspended: spec.suspend,
        compromised: requests::is_unhandled(asked.map(String::as_str), handled),
        deleted: metadata.deletion_timestamp.is_some(),
        tombstone: None,
    };
    Some(Record(ThinArc::from_header_and_slice(head, text.as_bytes())))
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
                    let text = |key| entry.get(key).and_then(Value::as_str);
                    // Known, it keeps others from claiming the same credential.
                    let digest = text("digest").and_then(digest_bytes).unwrap_or_default();
                    match text("id").and_then(CredentialId::parse) {
                        Some(id) if held.len() < MAX_HELD => held.push(unreadable(id, digest)),
                        _ => all = false,
                    }
                }
            }
            Some(_) => all = false,
        }
    }
    all &= matches!(object.get("status"), Some(Value::Object(_)));
    let (text, ends) = pack(metadata, "", "", "").unwrap_or_default();
    let (first, more, empty) = arranged(held);
    let head = Head {
        first,
        more,
        empty,
        expires: NEVER,
        created: metadata.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second()),
        version: version(metadata),
        uid_hash: uid_hash(metadata),
        ends,
        suspended: false,
        compromised: false,
        deleted: false,
        tombstone: Some(if all { Tombstone::AllIds } else { Tombstone::SomeIds }),
    };
    Record(ThinArc::from_header_and_slice(head, text.as_bytes()))
}

fn unreadable(id: CredentialId, digest: [u8; 32]) -> Held {
    Held { id, digest, issued_at: 0, not_after: NEVER, standing: Standing::Unreadable, adopted: false }
}

/// Each id once: of several, the one that came first. The newest living one goes ahead of all.
fn arranged(mut held: Vec<Held>) -> (Held, Box<[Held]>, bool) {
    held.sort_by_key(|held| held.id);
    held.dedup_by_key(|held| held.id);
    let rank = |held: &Held| (held.standing == Standing::Living, held.issued_at);
    let newest = held.iter().enumerate().max_by_key(|(_, held)| rank(held)).map(|(at, _)| at);
    let first = newest.map(|at| held.remove(at));
    let empty = first.is_none();
    (first.unwrap_or_else(|| unreadable(CredentialId::default(), [0; 32])), held.into_boxed_slice(), empty)
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
