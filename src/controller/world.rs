//! Feeds the [`Directory`]: which ApiTokens there are, with the credentials of each. Every replica keeps it, so that a standby
//! knows the world when it takes over.

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use serde::Deserialize;

use super::kept::{Guarded, Kept};
use crate::domain::directory::{Claimant, Directory, Published, print_of};
use crate::domain::token::CredentialId;

/// As much of an ApiToken as the directory takes.
#[derive(Deserialize)]
struct Glance {
    metadata: Metadata,
    #[serde(default)]
    status: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// Texts where a time is expected: one that nobody can read frees no digest.
    creation_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Credentials {
    credentials: Vec<Credential>,
    ended: Vec<Credential>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    id: String,
    digest: String,
    state: String,
    last_used_at: Option<String>,
}

/// Unix seconds.
fn seconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

impl Credential {
    fn published(&self) -> Option<Published> {
        Some(Published {
            id: CredentialId::parse(&self.id)?,
            print: print_of(&self.digest),
            current: matches!(self.state.as_str(), "Pending" | "Active"),
            shown: self.last_used_at.as_deref().and_then(seconds),
        })
    }
}

/// Takes in what the watch says of one ApiToken.
pub fn follow(world: &RwLock<Directory>, event: &Event<Guarded>) {
    match event {
        Event::Apply(Guarded { kept, .. }) | Event::InitApply(Guarded { kept, .. }) => {
            // What it published before stays its own where not even its status can be read.
            if let Ok(glance) = kept.read::<Glance>() {
                apply(world, kept, &glance);
            }
        }
        Event::Delete(token) => world.write().remove(token.kept.uid()),
        Event::Init | Event::InitDone => {}
    }
}

/// A complete list of a scope holds these uids: what else is known of that scope is gone.
pub fn listed(world: &RwLock<Directory>, namespace: Option<&str>, uids: &HashSet<String>) {
    let gone: Vec<String> = {
        let world = world.read();
        let is_gone = |uid: &&str| {
            let known = world.token(uid);
            !uids.contains(*uid)
                && known
                    .is_some_and(|(claimant, _)| namespace.is_none_or(|scope| scope == claimant.namespace))
        };
        world.uids().filter(is_gone).map(str::to_owned).collect()
    };
    let mut world = world.write();
    gone.iter().for_each(|uid| world.remove(uid));
}

fn apply(world: &RwLock<Directory>, token: &Kept, glance: &Glance) {
    let claimant = Claimant {
        created: glance.metadata.creation_timestamp.as_deref().and_then(seconds).unwrap_or(0),
        uid: token.uid().to_owned(),
        namespace: token.namespace().to_owned(),
        name: token.name().to_owned(),
    };
    let all = glance.status.credentials.iter().chain(&glance.status.ended);
    let published: Vec<_> = all.filter_map(Credential::published).collect();
    world.write().apply(&claimant, &published);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(namespace: &str, name: &str, ids: &[&str]) -> Guarded {
        let credential = |id: &&str| {
            json!({"id": id, "digest": "sha256:0", "state": "Active", "issuedAt": "2026-01-01T00:00:00Z",
                "lastUsedAt": "2026-01-02T00:00:00Z"})
        };
        serde_json::from_value(json!({
            "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
            "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {},
            "status": {
                "credentials": ids.iter().map(credential).collect::<Vec<_>>(),
                "ended": [{"id": "zzzzzzzzzz", "digest": "sha256:0", "state": "Retired",
                    "endedAt": "2026-01-01T00:00:00Z"}],
            },
        }))
        .unwrap()
    }

    fn id(text: &str) -> CredentialId {
        CredentialId::parse(text).unwrap()
    }

    #[test]
    fn living_and_ended_credentials_are_known_with_their_use() {
        let world = RwLock::default();
        follow(&world, &Event::Apply(token("shop", "orders", &["aaaaaaaaaa", "forged"])));
        let world = world.read();
        let (claimant, published) = world.token("uid-orders").unwrap();
        assert_eq!((claimant.namespace.as_str(), claimant.created), ("shop", 1_767_225_600));
        let known: Vec<_> = published.iter().map(|one| (one.id, one.current, one.shown)).collect();
        let used = (id("aaaaaaaaaa"), true, Some(1_767_312_000));
        assert_eq!(known, [used, (id("zzzzzzzzzz"), false, None)]);
    }

    #[test]
    fn one_that_cannot_be_understood_keeps_its_digests() {
        let world = RwLock::default();
        let sound = token("shop", "orders", &["aaaaaaaaaa"]);
        follow(&world, &Event::Apply(sound.clone()));
        let mut object: serde_json::Value = sound.kept.read().unwrap();
        object["spec"] = json!("not what the definition says");
        object["status"]["credentials"][0]["lastUsedAt"] = json!("-0001-12-31T10:00:00Z");
        let flawed: Guarded = serde_json::from_value(object).unwrap();
        assert!(flawed.flaw.is_some());
        follow(&world, &Event::Apply(flawed));
        let world = world.read();
        assert_eq!(world.token("uid-orders").map(|(_, published)| published.len()), Some(2));
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold_from_its_own_scope_only() {
        let world = RwLock::default();
        for (namespace, name) in [("shop", "a"), ("shop", "b"), ("billing", "c")] {
            follow(&world, &Event::InitApply(token(namespace, name, &["aaaaaaaaaa"])));
        }
        listed(&world, Some("shop"), &["uid-a".to_owned()].into());
        assert!(world.read().token("uid-b").is_none() && world.read().token("uid-c").is_some());
        follow(&world, &Event::Delete(token("shop", "a", &[])));
        listed(&world, None, &HashSet::new());
        assert!(world.read().is_empty());
    }
}
