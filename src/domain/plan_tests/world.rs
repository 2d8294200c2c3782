//! One ApiToken, its Secret and a controller that may die at any write, without a clock, a client or a thread.
//!
//! Every write is checked against the invariants as it happens, so that each test and each random run checks them all.

use std::collections::BTreeSet;
use std::sync::Mutex;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::api::meaning::Allowed;
use crate::api::*;
use crate::domain::delivery::{self, DesiredSecret};
use crate::domain::directory::Directory;
use crate::domain::lifecycle;
use crate::domain::news::is_news;
use crate::domain::notice::{Notice, notices};
use crate::domain::ownership::OwnershipRules;
use crate::domain::plan::*;
use crate::domain::ports::{Entropy, EntropyError};
use crate::domain::status::Problem;
use crate::domain::token::{Prefix, Token};
use crate::domain::usage::Observation;

#[path = "checks.rs"]
mod checks;
pub use self::checks::kstatus;
#[path = "seen.rs"]
mod seen;
#[path = "user.rs"]
mod user;

/// More steps than any sound reconcile takes.
const MAX_STEPS: usize = 10;
/// The whole status as the API server stores it.
const MAX_STATUS_BYTES: usize = 10_000;

/// Random-looking bytes, the same in every run.
struct Seeded(Mutex<u64>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (*state >> 33) as u8;
        }
        Ok(())
    }
}

/// How the controller's process ends, or a call's answer gets lost, in the middle of a reconcile.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// The process dies right after its n-th write.
    Crash(usize),
    /// The answer to the n-th write is lost; the process goes on, and remembers.
    LostAnswer(usize),
}

pub struct World {
    pub now: Timestamp,
    pub settings: Settings,
    pub namespace: ObjectMeta,
    pub token: ApiToken,
    pub secret: Option<Secret>,
    /// Why the API server refuses reads and writes of the Secret.
    pub refuse_reads: Option<Problem>,
    pub refuse_writes: Option<Problem>,
    /// What admission makes of each write of the Secret.
    pub mutator: Option<fn(&mut Secret)>,
    /// Where the next reconcile breaks.
    pub break_at: Option<Break>,
    /// Reason and digest of every credential ever minted.
    pub minted: Vec<(Reason, String)>,
    pub reads: usize,
    pub secret_writes: usize,
    pub status_writes: usize,
    pub notices: Vec<Notice>,
    /// What gates reported.
    pub usage: Observation,
    /// What the controller's process knows of all ApiTokens.
    pub directory: Directory,
    /// Most credentials that may have been minted by now, counted from causes.
    pub allowed_mints: usize,
    /// Whether the first step of the last reconcile was one that nobody waits for.
    pub began_with_news: bool,
    /// When the last reconcile asked to be called again.
    pub wake: Option<Timestamp>,
    in_hand: Option<Token>,
    verified: Option<(String, String)>,
    /// `spec.secret` as it was when the Secret was last written.
    pub applied_spec: Option<Option<SecretSpec>>,
    /// What server-side apply knows to be ours: it goes when the next apply leaves it out.
    applied: BTreeSet<(&'static str, String)>,
    versions: u64,
    entropy: Seeded,
}

impl World {
    /// A fresh ApiToken `shop/orders` with this spec.
    pub fn new(spec: Value) -> Self {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut token = ApiToken::new("orders", serde_json::from_value(spec).unwrap());
        token.metadata.namespace = Some("shop".into());
        token.metadata.uid = Some("uid-orders".into());
        token.metadata.generation = Some(1);
        token.metadata.creation_timestamp = Some(Time(now));
        Self {
            now,
            settings: Settings {
                prefix: Prefix::new("twd").unwrap(),
                ownership: OwnershipRules::default(),
                allowed: Allowed::default(),
            },
            namespace: ObjectMeta::default(),
            token,
            secret: None,
            refuse_reads: None,
            refuse_writes: None,
            mutator: None,
            break_at: None,
            minted: Vec::new(),
            reads: 0,
            secret_writes: 0,
            status_writes: 0,
            notices: Vec::new(),
            usage: Observation::unasked(),
            directory: Directory::default(),
            allowed_mints: 1,
            began_with_news: false,
            wake: None,
            in_hand: None,
            verified: None,
            applied_spec: None,
            applied: BTreeSet::new(),
            versions: 1,
            entropy: Seeded(Mutex::new(7)),
        }
    }

    /// The same, with its first credential delivered.
    pub fn issued(spec: Value) -> Self {
        let mut world = Self::new(spec);
        assert_eq!(world.reconcile(), "mint(Issued) deliver status wait");
        world
    }

    // ---- The controller ---------------------------------------------------------------------------------------------

    /// One reconcile, carried out as the executor does. What happened, in words.
    pub fn reconcile(&mut self) -> String {
        let mut view = self.view();
        // One that reached its end calls for another, should the expiry be extended.
        let over = |credential: &Credential| {
            credential.state != CredentialState::Retiring
                && credential
                    .not_after
                    .iter()
                    .map(|at| at.0)
                    .chain(self.expires_at())
                    .any(|at| at <= self.now)
        };
        self.allowed_mints += usize::from(self.status().credentials.iter().any(over));
        // Without its label the Secret is in no watch: with the status gone too, nothing tells that it is there.
        self.allowed_mints += usize::from(matches!(view, SecretView::Unseen) && self.secret.is_some());
        let mut refusal: Option<Problem> = None;
        let mut trace = Vec::new();
        let mut writes = 0;
        for _ in 0..MAX_STEPS {
            let observed = Observed {
                token: &self.token,
                namespace: Some(&self.namespace),
                secret: &view,
                in_hand: self.in_hand.as_ref(),
                refusal: refusal.as_ref(),
                usage: &self.usage,
                world: &self.directory,
            };
            let mut wrote = true;
            let step = plan(self.now, &self.settings, &observed);
            if trace.is_empty() {
                self.began_with_news = is_news(&self.token, &view, &step);
            }
            match step {
                Step::Wait { blocked, wake } => {
                    let lies_ahead = |at: Timestamp| at > self.now && at.subsec_nanosecond() == 0;
                    assert!(wake.is_none_or(lies_ahead), "to be called again at {wake:?}, now {}", self.now);
                    self.wake = wake;
                    if let SecretView::Read(read) = &view
                        && delivery::holds_active(&read.secret, &self.token)
                    {
                        self.verified = Some(identity(&read.secret));
                    }
                    if blocked.is_none() && refusal.is_none() {
                        self.drop_in_hand();
                    }
                    trace.push(blocked.map_or("wait".to_owned(), |reason| format!("blocked({reason})")));
                    return trace.join(" ");
                }
                Step::ReadSecret => {
                    wrote = false;
                    self.reads += 1;
                    if let Some(problem) = self.refuse_reads.clone() {
                        refusal = Some(problem);
                        trace.push("refused".to_owned());
                    } else {
                        trace.push("read".to_owned());
                        view = self.secret.clone().map_or(SecretView::Absent, |secret| {
                            SecretView::Read(Box::new(ReadSecret { secret, written: false, answered: None }))
                        });
                    }
                }
                Step::Mint { mut status, reason, expiry } => {
                    let minted = Token::mint(&self.settings.prefix, &self.entropy).unwrap();
                    self.drop_in_hand();
                    let first_try = self.in_state(CredentialState::Pending).is_empty();
                    let due = reason == Reason::Due && first_try && self.rotation_due();
                    self.allowed_mints += usize::from(due);
                    lifecycle::publish(&mut status, &minted, reason, expiry, self.now);
                    self.minted.push((reason, minted.digest()));
                    self.in_hand = Some(minted);
                    self.write_status(*status, self.refuse_reads.is_some());
                    trace.push(format!("mint({reason})"));
                    assert!(
                        self.minted.len() <= self.allowed_mints,
                        "I2: {} credentials for {} causes: {:?}",
                        self.minted.len(),
                        self.allowed_mints,
                        self.minted
                    );
                }
                Step::Deliver { desired, precondition } => {
                    if let Some(problem) = self.refuse_writes.clone() {
                        refusal = Some(problem);
                        trace.push("refused".to_owned());
                    } else if let Some(secret) = self.apply(&desired, &precondition) {
                        let answered = Some(desired.credential().to_owned());
                        view = SecretView::Read(Box::new(ReadSecret { secret, written: true, answered }));
                        trace.push("deliver".to_owned());
                    } else {
                        view = SecretView::Unread;
                        trace.push("conflict".to_owned());
                    }
                }
                Step::WriteStatus(status) => {
                    self.write_status(*status, refusal.is_some());
                    trace.push("status".to_owned());
                }
            }
            writes += usize::from(wrote);
            match self.break_at {
                Some(Break::Crash(at)) if at == writes => {
                    self.break_at = None;
                    self.restart();
                    trace.push("crash".to_owned());
                    return trace.join(" ");
                }
                Some(Break::LostAnswer(at)) if at == writes => {
                    self.break_at = None;
                    trace.push("lost".to_owned());
                    return trace.join(" ");
                }
                _ => {}
            }
        }
        panic!("no end of steps: {}", trace.join(" "));
    }

    /// A new process: all memory is gone.
    pub fn restart(&mut self) {
        self.drop_in_hand();
        self.verified = None;
        self.directory.remove(self.token.uid());
        self.follow();
        // What a status said that was wiped while nobody looked, nobody knows.
        self.allowed_mints += usize::from(self.token.status.is_none() && self.secret.is_some());
    }

    /// A plaintext that is lost while its digest is published has to be minted again: a legitimate cause.
    fn drop_in_hand(&mut self) {
        let Some(token) = self.in_hand.take() else { return };
        let digest = token.digest();
        let published =
            self.status().credentials.into_iter().any(|credential| {
                credential.digest == digest && credential.state == CredentialState::Pending
            });
        self.allowed_mints += usize::from(published);
    }

    /// What the controller knows about the Secret without reading it: the watch selects on the label and shows uid and
    /// resourceVersion.
    fn view(&self) -> SecretView {
        let seen = self.seen();
        let status = self.status();
        let noted = status.delivery.clone().map(|delivery| (delivery.uid, delivery.resource_version));
        let known = self.verified.clone().or(noted);
        match (known, seen) {
            (Some(known), Some(secret)) if known == identity(secret) => {
                SecretView::Verified { uid: known.0, resource_version: known.1 }
            }
            (None, None) if status.ready_reason() != Some(Reason::SecretConflict) => SecretView::Unseen,
            _ => SecretView::Unread,
        }
    }

    /// The Secret as the watch shows it.
    fn seen(&self) -> Option<&Secret> {
        self.secret.as_ref().filter(|secret| {
            let labels = secret.metadata.labels.as_ref();
            labels.is_some_and(|labels| labels.contains_key(keys::TOKEN))
        })
    }

    fn version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    fn write_status(&mut self, status: ApiTokenStatus, blind: bool) {
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.len() < MAX_STATUS_BYTES, "status of {} bytes: {text}", text.len());
        // As it comes back from the API server: times in whole seconds, empty lists left out.
        let after: ApiTokenStatus = serde_json::from_str(&text).unwrap();
        let before = self.status();
        assert_ne!(before, after, "I5: a write that says nothing new");
        self.notices.extend(notices(&before, &after));
        self.token.status = Some(after);
        self.token.metadata.resource_version = Some(self.version());
        self.status_writes += 1;
        self.follow();
        self.check_status();
        self.check_in_force();
        if !blind {
            self.check_delivered();
        }
    }

    /// Server-side apply by one field manager, forced; `None` where the precondition does not hold.
    fn apply(&mut self, desired: &DesiredSecret, precondition: &Precondition) -> Option<Secret> {
        let allowed = match (precondition, &self.secret) {
            (Precondition::Create, existing) => existing.is_none(),
            (Precondition::Unchanged { uid, resource_version }, Some(secret)) => {
                identity(secret) == (uid.clone(), resource_version.clone())
            }
            (Precondition::Unchanged { .. }, None) => false,
        };
        if !allowed {
            return None;
        }
        if let Some(secret) = &self.secret {
            assert!(self.may_write(secret), "I4: a foreign Secret");
        } else {
            self.applied.clear();
        }
        let key = self.key();
        let value = Token::parse(desired.data.get(&key).unwrap()).unwrap();
        let digest = value.digest();
        let published = self.status().credentials.iter().any(|credential| credential.digest == digest);
        assert!(published, "I3: a token in the Secret before its digest is in the status");

        let version = self.version();
        let mut secret = self.secret.clone().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(self.token.secret_name().to_owned()),
                uid: Some(format!("secret-{version}")),
                creation_timestamp: Some(Time(self.now)),
                ..Default::default()
            },
            type_: Some(desired.type_.clone()),
            ..Default::default()
        });
        let labels = secret.metadata.labels.get_or_insert_default();
        let annotations = secret.metadata.annotations.get_or_insert_default();
        let data = secret.data.get_or_insert_default();
        for (map, key) in std::mem::take(&mut self.applied) {
            match map {
                "labels" => drop(labels.remove(&key)),
                "annotations" => drop(annotations.remove(&key)),
                _ => drop(data.remove(&key)),
            }
        }
        self.applied.extend(desired.labels.keys().map(|key| ("labels", key.clone())));
        self.applied.extend(desired.annotations.keys().map(|key| ("annotations", key.clone())));
        self.applied.extend(desired.data.keys().map(|key| ("data", key.clone())));
        labels.extend(desired.labels.clone());
        annotations.extend(desired.annotations.clone());
        data.extend(
            desired.data.iter().map(|(key, value)| (key.clone(), ByteString(value.as_bytes().to_vec()))),
        );
        secret.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "tokenward.dev/v1alpha1".into(),
            kind: "ApiToken".into(),
            name: self.token.name().into(),
            uid: self.token.uid().into(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        if let Some(mutate) = self.mutator {
            mutate(&mut secret);
        }
        // An apply that changes nothing does not move the resourceVersion.
        if self.secret.as_ref() != Some(&secret) {
            secret.metadata.resource_version = Some(version);
        }
        self.secret_writes += 1;
        self.applied_spec = Some(self.token.spec.secret.clone());
        self.secret = Some(secret.clone());
        // Whoever changes what is written can break anything; it has to be told afterwards.
        if self.mutator.is_none() {
            self.check_delivered();
        }
        Some(secret)
    }
}

fn identity(secret: &Secret) -> (String, String) {
    let meta = &secret.metadata;
    (meta.uid.clone().unwrap_or_default(), meta.resource_version.clone().unwrap_or_default())
}

/// A token of the right form that nobody here minted.
pub fn somebody_elses_token() -> Token {
    Token::mint(&Prefix::new("twd").unwrap(), &Seeded(Mutex::new(4711))).unwrap()
}

/// `rotation.every` with an overlap.
pub fn every(every: &str, overlap: &str) -> Value {
    json!({"rotation": {"every": every, "overlap": overlap}})
}
