//! What a process remembers about a token between two looks at it: only what saves work or carries a plaintext to its
//! Secret. Losing all of it loses nothing but time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::index::{Progress, SecretEntry};
use crate::api::{ApiToken, Reason};
use crate::domain::plan::SecretView;
use crate::domain::token::Token;

/// A Secret that no watch shows is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// All such Secrets together, at most.
const LOOKS_PER_SECOND: usize = 10;
/// A write that an admission webhook undid is not repeated sooner, unless something changes.
const WRITE_AGAIN: Duration = Duration::from_secs(120);

/// A Secret at a version that was read, or answered to our own write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resourceVersion.
    pub resource_version: String,
    /// How far the watch had come then.
    pub seen: Progress,
    /// It lacked the label that the watch selects by: when it was looked at.
    pub unwatched: Option<Instant>,
}

/// What the API server stored at our last write.
#[derive(Debug)]
struct Answer {
    uid: Option<String>,
    resource_version: Option<String>,
    /// Of the ApiToken: another declaration is written at once.
    generation: Option<i64>,
    credential: String,
    at: Instant,
}

/// One token's entry.
#[derive(Debug, Default)]
struct Entry {
    namespace: Box<str>,
    /// resourceVersion of the ApiToken as we last wrote it: an older one from the watch is out of date.
    written: u64,
    verified: Option<Verified>,
    in_hand: Option<InHand>,
    answer: Option<Answer>,
    failures: u32,
}

/// An undelivered credential.
#[derive(Debug)]
struct InHand {
    token: Token,
    /// resourceVersion of the ApiToken that it was to be published in.
    minted_at: Option<String>,
}

/// Entries by the ApiToken's uid. Only tokens that are in the middle of something have one.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Entry>>);

impl Memory {
    /// Whether the watch has yet to report our own last write of this object.
    pub fn is_stale(&self, token: &ApiToken) -> bool {
        let version = numeric(token.metadata.resource_version.as_deref());
        self.0.lock().get(token.uid()).is_some_and(|entry| version < entry.written)
    }

    /// Remembers the answer to a status write.
    pub fn wrote(&self, token: &ApiToken) {
        let version = numeric(token.metadata.resource_version.as_deref());
        self.with(token.namespace(), token.uid(), |entry| entry.written = version);
    }

    /// Remembers a Secret that was read or written.
    pub fn verified(&self, token: &ApiToken, verified: Verified) {
        self.with(token.namespace(), token.uid(), |entry| entry.verified = Some(verified));
    }

    /// Remembers what our write of a credential was answered with.
    pub fn answered(&self, token: &ApiToken, credential: &str, stored: &Secret) {
        let answer = Answer {
            uid: stored.metadata.uid.clone(),
            resource_version: stored.metadata.resource_version.clone(),
            generation: token.metadata.generation,
            credential: credential.to_owned(),
            at: Instant::now(),
        };
        self.with(token.namespace(), token.uid(), |entry| entry.answer = Some(answer));
    }

    /// The credential whose recent write was answered with exactly this Secret.
    pub fn answer(&self, token: &ApiToken, secret: &Secret) -> Option<String> {
        let entries = self.0.lock();
        let answer = entries.get(token.uid())?.answer.as_ref()?;
        let same = answer.uid == secret.metadata.uid
            && answer.resource_version == secret.metadata.resource_version
            && answer.generation == token.metadata.generation
            && answer.at.elapsed() < WRITE_AGAIN;
        same.then(|| answer.credential.clone())
    }

    /// When this token's Secret has to be looked at next, because no watch shows it. Counted from the last look, not from
    /// now: whoever has the token reconciled again and again does not put it off. To be asked at the end of a look. One that
    /// was due and did not read the Secret, as of a suspended token, had no need to.
    pub fn look_in(&self, uid: &str) -> Option<Duration> {
        let entries = self.0.lock();
        let looked = entries.get(uid)?.unwatched()?;
        let every = look_every(&entries);
        Some(every.checked_sub(looked.elapsed()).filter(|left| !left.is_zero()).unwrap_or(every))
    }

    /// Keeps the plaintext of a credential that is about to be published in `token`.
    pub fn hold(&self, token: &ApiToken, minted: Token) {
        let minted_at = token.metadata.resource_version.clone();
        self.with(token.namespace(), token.uid(), |entry| {
            entry.in_hand = Some(InHand { token: minted, minted_at })
        });
    }

    /// The plaintext of an undelivered credential.
    pub fn in_hand(&self, uid: &str) -> Option<Token> {
        self.0.lock().get(uid).and_then(|entry| entry.in_hand.as_ref().map(|held| held.token.clone()))
    }

    /// The credential that was to be published in exactly this ApiToken: nobody answered, or the write failed. It may
    /// still arrive, and then a second one would have been minted for nothing.
    pub fn unpublished(&self, token: &ApiToken) -> Option<Token> {
        let entries = self.0.lock();
        let held = entries.get(token.uid())?.in_hand.as_ref()?;
        (held.minted_at == token.metadata.resource_version).then(|| held.token.clone())
    }

    /// Counts a failure; returns how many there were in a row.
    pub fn failed(&self, namespace: &str, uid: &str) -> u32 {
        self.with(namespace, uid, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    /// Failures in a row so far.
    pub fn failures(&self, uid: &str) -> u32 {
        self.0.lock().get(uid).map_or(0, |entry| entry.failures)
    }

    /// The declared state is reached: wipes the plaintext, ends the row of failures.
    pub fn settled(&self, uid: &str) {
        if let Some(entry) = self.0.lock().get_mut(uid) {
            entry.in_hand = None;
            entry.answer = None;
            entry.failures = 0;
        }
    }

    /// Drops the entry once both watches report all that it says. `token` is as its watch reported it.
    pub fn tidy(&self, token: &ApiToken, found: Option<&SecretEntry>) {
        let mut entries = self.0.lock();
        let Some(entry) = entries.get(token.uid()) else { return };
        let delivery = token.status.as_ref().and_then(|status| status.delivery.as_ref());
        let reported = entry.verified.as_ref().is_none_or(|verified| {
            delivery.is_some_and(|delivery| {
                (&delivery.uid, &delivery.resource_version) == (&verified.uid, &verified.resource_version)
            }) && found.is_some_and(|found| *found.resource_version == *verified.resource_version)
        });
        if reported && entry.in_hand.is_none() && entry.failures == 0 {
            entries.remove(token.uid());
        }
    }

    /// The ApiToken is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// A complete list of a scope holds these uids: what else is remembered of that scope is gone.
    pub fn listed(&self, namespace: Option<&str>, uids: &HashSet<String>) {
        let of_scope = |entry: &Entry| namespace.is_none_or(|namespace| *entry.namespace == *namespace);
        self.0.lock().retain(|uid, entry| uids.contains(uid) || !of_scope(entry));
    }

    /// What is known about the token's Secret without asking anybody.
    pub fn view(&self, token: &ApiToken, found: Option<&SecretEntry>, progress: Progress) -> SecretView {
        let (own, fresh) = {
            let entries = self.0.lock();
            let entry = entries.get(token.uid());
            let looked = entry.and_then(Entry::unwatched);
            let fresh = looked.is_some_and(|looked| looked.elapsed() < look_every(&entries));
            (entry.and_then(|entry| entry.verified.clone()), fresh)
        };
        let status = token.status.as_ref();
        let written_here = own.is_some();
        let known = own.or_else(|| {
            let delivery = status?.delivery.as_ref()?;
            Some(Verified {
                uid: delivery.uid.clone(),
                resource_version: delivery.resource_version.clone(),
                seen: Progress::default(),
                unwatched: None,
            })
        });
        let verified = |known: Verified| SecretView::Verified {
            uid: known.uid,
            resource_version: known.resource_version,
        };
        match (known, found) {
            (Some(known), Some(found)) if *found.uid == *known.uid => {
                let (is, was) =
                    (numeric(Some(&found.resource_version)), numeric(Some(&known.resource_version)));
                // Older than what we saw ourselves: the watch lags.
                if *found.resource_version == *known.resource_version || (written_here && is != 0 && is < was)
                {
                    verified(known)
                } else {
                    SecretView::Unread
                }
            }
            // No watch will report it: it was looked at a moment ago.
            (Some(known), None) if fresh => verified(known),
            // Not reported yet, unless a list has begun since, or the watch has passed the version and it is gone.
            (Some(known), None)
                if written_here
                    && known.unwatched.is_none()
                    && known.seen.lists == progress.lists
                    && progress.highest < numeric(Some(&known.resource_version)) =>
            {
                verified(known)
            }
            (None, None)
                if status.is_none_or(|status| status.ready_reason() != Some(Reason::SecretConflict)) =>
            {
                SecretView::Unseen
            }
            _ => SecretView::Unread,
        }
    }

    fn with<T>(&self, namespace: &str, uid: &str, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.0.lock();
        let entry = entries
            .entry(uid.to_owned())
            .or_insert_with(|| Entry { namespace: namespace.into(), ..Entry::default() });
        change(entry)
    }
}

impl Entry {
    fn unwatched(&self) -> Option<Instant> {
        self.verified.as_ref().and_then(|verified| verified.unwatched)
    }
}

/// The more Secrets there are that no watch shows, the longer the pause between two looks at each: together they take
/// no more than [`LOOKS_PER_SECOND`].
fn look_every(entries: &HashMap<String, Entry>) -> Duration {
    let unwatched = entries.values().filter(|entry| entry.unwatched().is_some()).count();
    LOOK_EVERY.max(Duration::from_secs((unwatched / LOOKS_PER_SECOND) as u64))
}

/// Versions of one resource may be compared as numbers since Kubernetes 1.35 (KEP-5504), and on every etcd-backed server
/// before. What is not a number counts as 0: older than everything, so that it leads to a read, never to an assumption.
fn numeric(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hidden_secret_that_need_not_be_read_makes_no_loop() {
        let memory = Memory::default();
        let token: ApiToken = serde_json::from_value(json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
            "metadata": {"name": "t", "namespace": "shop", "uid": "u"}, "spec": {"suspend": true}
        }))
        .unwrap();
        let unwatched = Some(Instant::now());
        let seen = Progress::default();
        memory.verified(&token, Verified { uid: "s".into(), resource_version: "1".into(), seen, unwatched });
        advance(LOOK_EVERY / 2).await;
        assert_eq!(memory.look_in("u"), Some(LOOK_EVERY / 2));
        advance(LOOK_EVERY).await;
        assert_eq!(memory.look_in("u"), Some(LOOK_EVERY), "it was due, and had no need to");
    }
}
