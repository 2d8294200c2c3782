//! What users, other controllers and the clock do to the world. Each act that calls for a new credential says so in
//! `allowed_mints`, by its own reckoning.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use kube::api::ObjectMeta;

use super::World;
use crate::api::*;
use crate::domain::directory::{Claimant, Directory, Published, print_of};
use crate::domain::token::CredentialId;

impl World {
    pub fn advance(&mut self, by: &str) {
        let by = crate::domain::duration::parse(by).unwrap();
        self.now = self.now.checked_add(SignedDuration::try_from(by).unwrap()).unwrap();
    }

    /// The clock steps back, as after a correction by NTP.
    pub fn step_back(&mut self, by: &str) {
        let by = crate::domain::duration::parse(by).unwrap();
        self.now = self.now.checked_sub(SignedDuration::try_from(by).unwrap()).unwrap();
        // A deadline that was over may lie ahead again.
        self.allowed_mints += 1;
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut ApiTokenSpec)) {
        let before = self.token.spec.clone();
        change(&mut self.token.spec);
        if self.token.spec != before {
            *self.token.metadata.generation.as_mut().unwrap() += 1;
        }
    }

    pub fn edit_secret_spec(&mut self, change: impl FnOnce(&mut SecretSpec)) {
        self.edit(|spec| change(spec.secret.get_or_insert_default()));
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        let annotations = self.token.metadata.annotations.get_or_insert_default();
        let before = annotations.insert(key.to_owned(), value.to_owned());
        let asks_to_mint = [keys::ROTATE_REQUESTED_AT, keys::COMPROMISED_AT].contains(&key);
        self.allowed_mints += usize::from(asks_to_mint && before.as_deref() != Some(value));
    }

    pub fn label(&mut self, key: &str, value: &str) {
        self.token.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    /// Somebody changes the Secret.
    pub fn tamper(&mut self, change: impl FnOnce(&mut Secret)) {
        let version = self.version();
        let Some(secret) = &mut self.secret else { return };
        let before = secret.data.clone();
        change(secret);
        secret.metadata.resource_version = Some(version);
        self.allowed_mints += usize::from(secret.data != before);
    }

    pub fn delete_secret(&mut self) {
        self.allowed_mints += usize::from(self.secret.take().is_some());
    }

    /// Somebody else's Secret of the same name, in place of ours if there is one.
    pub fn put_foreign_secret(&mut self) -> Secret {
        let version = self.version();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.token.secret_name().to_owned()),
                uid: Some(format!("foreign-{version}")),
                resource_version: Some(version),
                ..Default::default()
            },
            data: Some(BTreeMap::from([("token".to_owned(), ByteString(b"theirs".to_vec()))])),
            ..Default::default()
        };
        self.secret = Some(secret.clone());
        self.allowed_mints += 1;
        secret
    }

    /// The ApiToken and its Secret as a backup brings them back: new objects, without status and owner references.
    pub fn restore(&mut self) {
        self.restart();
        let version = self.version();
        self.token.metadata.uid = Some(format!("uid-restored-{version}"));
        self.token.metadata.creation_timestamp = Some(Time(self.now));
        self.token.metadata.generation = Some(1);
        self.token.status = None;
        self.directory = Directory::default();
        self.follow();
        let Some(secret) = &mut self.secret else { return };
        let metadata = &mut secret.metadata;
        metadata.uid = Some(format!("secret-restored-{version}"));
        metadata.creation_timestamp = Some(Time(self.now));
        metadata.resource_version = Some(version);
        metadata.owner_references = None;
    }

    /// Asks for the Secret that is there to be taken over.
    pub fn adopt(&mut self) {
        let uid = self.secret.as_ref().unwrap().metadata.uid.clone().unwrap();
        self.annotate(keys::ADOPT, &uid);
    }

    pub fn wipe_status(&mut self) {
        // What was undelivered, and which requests were honoured, is forgotten with it.
        let pending = self.status().newest(CredentialState::Pending).is_some();
        let request = |key| usize::from(self.token.annotation(key).is_some());
        self.allowed_mints +=
            usize::from(pending) + request(keys::ROTATE_REQUESTED_AT) + request(keys::COMPROMISED_AT);
        self.token.status = None;
        self.follow();
    }

    /// The watch shows the ApiToken to the directory.
    pub fn follow(&mut self) {
        let status = self.status();
        let living = status
            .credentials
            .iter()
            .map(|living| (&living.id, &living.digest, living.state != CredentialState::Retiring));
        let ended = status.ended.iter().map(|ended| (&ended.id, &ended.digest, false));
        let published = living.chain(ended).filter_map(|(id, digest, current)| {
            Some(Published { id: CredentialId::parse(id)?, print: print_of(digest), current, shown: None })
        });
        let claimant = Claimant {
            created: 0,
            uid: self.token.uid().to_owned(),
            namespace: self.token.namespace().to_owned(),
            name: self.token.name().to_owned(),
        };
        self.directory.apply(&claimant, &published.collect::<Vec<_>>());
    }

    pub fn event_reasons(&mut self) -> Vec<Reason> {
        std::mem::take(&mut self.notices).into_iter().map(|notice| notice.reason).collect()
    }
}
