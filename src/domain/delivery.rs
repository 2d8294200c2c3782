//! What the Secret should hold, and what it holds.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::mutation;
use super::template::{self, Names, TemplateError};
use super::token::Token;
use crate::api::meaning::{Allowed, Refusal};
use crate::api::{ApiToken, Credential, CredentialState, DEFAULT_SECRET_KEY, Owner, SecretSpec, keys};

/// Bumped when the way a Secret is put together changes, so that an upgrade writes every Secret anew, with the same token.
const LAYOUT: u8 = 1;

/// A Secret as this ApiToken wants it. Wiped on drop.
#[derive(Debug)]
pub struct DesiredSecret {
    /// The Secret's type.
    pub type_: String,
    /// Labels, ours and the user's.
    pub labels: BTreeMap<String, String>,
    /// Annotations, ours and the user's.
    pub annotations: BTreeMap<String, String>,
    /// Plaintext by key.
    pub data: BTreeMap<String, Zeroizing<String>>,
}

/// Whether the Secret that is asked for means nothing to others, or what the installation allows. The definition says the
/// same, but an object may be older than its rules.
pub fn check_meaning(token: &ApiToken, allowed: &Allowed) -> Result<(), Refusal> {
    let fallback = SecretSpec::default();
    let spec = token.spec.secret.as_ref().unwrap_or(&fallback);
    allowed.check_type(spec.secret_type())?;
    allowed.check_name(token.secret_name())?;
    allowed.check_keys("labels", &spec.labels)?;
    allowed.check_keys("annotations", &spec.annotations)
}

/// Puts the Secret together around one credential.
pub fn desired(
    token: &ApiToken,
    owner: Option<&Owner>,
    value: &Token,
    issued_at: Timestamp,
) -> Result<DesiredSecret, TemplateError> {
    let fallback = SecretSpec::default();
    let spec = token.spec.secret.as_ref().unwrap_or(&fallback);
    let names = Names {
        token: value.expose(),
        id: value.id(),
        name: token.name(),
        namespace: token.namespace(),
        owner: owner.map_or("", |owner| owner.name.as_str()),
        contact: owner.and_then(|owner| owner.contact.as_deref()).unwrap_or_default(),
    };
    let mut data = template::render_all(&spec.template, &names)?;
    data.insert(spec.key().to_owned(), Zeroizing::new(value.expose().to_owned()));

    let mut labels = spec.labels.clone();
    labels.insert(keys::MANAGED_BY.to_owned(), keys::FIELD_MANAGER.to_owned());
    labels.insert(keys::TOKEN.to_owned(), token.name().to_owned());

    let mut annotations = spec.annotations.clone();
    annotations.insert(keys::TOKEN.to_owned(), token.name().to_owned());
    annotations.insert(keys::CREDENTIAL.to_owned(), value.id().to_owned());
    annotations.insert(keys::ISSUED_AT.to_owned(), issued_at.to_string());
    if let Some(owner) = owner {
        annotations.insert(keys::OWNER.to_owned(), owner.name.clone());
        if let Some(contact) = &owner.contact {
            annotations.insert(keys::CONTACT.to_owned(), contact.clone());
        }
    }
    Ok(DesiredSecret { type_: spec.secret_type().to_owned(), labels, annotations, data })
}

impl DesiredSecret {
    /// Id of the credential that it is put together around.
    pub fn credential(&self) -> &str {
        self.annotations.get(keys::CREDENTIAL).map_or("", String::as_str)
    }

    /// Whether `actual` says all that is wanted. What others added is theirs and does not count.
    pub fn is_met_by(&self, actual: &Secret) -> bool {
        mutation::mutations(self, actual).is_empty()
    }
}

/// Hash of everything that shapes the Secret, in hex. Of the token it holds the digest: a status in which somebody put
/// another digest for the active credential does not fit it any more, and the Secret is read.
pub fn content_hash(token: &ApiToken, owner: Option<&Owner>, active: Option<&Credential>) -> String {
    #[derive(Serialize)]
    struct Shape<'a> {
        layout: u8,
        name: &'a str,
        secret: Option<&'a SecretSpec>,
        owner: Option<&'a str>,
        contact: Option<&'a str>,
        digest: Option<&'a str>,
    }
    let shape = Shape {
        layout: LAYOUT,
        name: token.name(),
        secret: token.spec.secret.as_ref(),
        owner: owner.map(|owner| owner.name.as_str()),
        contact: owner.and_then(|owner| owner.contact.as_deref()),
        digest: active.map(|active| active.digest.as_str()),
    };
    // Maps are ordered and the types are plain, so the text is canonical and cannot fail to serialize.
    let text = serde_json::to_vec(&shape).unwrap_or_default();
    let digest = Sha256::digest(text);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether this ApiToken controls the object: an owner reference with `controller: true` and its uid.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    let references = meta.owner_references.as_deref().unwrap_or_default();
    references.iter().any(|reference| reference.controller == Some(true) && reference.uid == uid)
}

/// Whether the Secret, as it was read, may be remembered as verified: the ApiToken controls it, and it holds the one active
/// credential under its key. Anything less has to be read again, or an altered Secret would be taken for a good one.
pub fn holds_active(secret: &Secret, token: &ApiToken) -> bool {
    let credentials = token.status.as_ref().map_or(&[][..], |status| &status.credentials);
    let key = token.spec.secret.as_ref().map_or(DEFAULT_SECRET_KEY, SecretSpec::key);
    let mut active = credentials.iter().filter(|credential| credential.state == CredentialState::Active);
    let (first, second) = (active.next(), active.next());
    is_controlled_by(&secret.metadata, token.uid())
        && second.is_none()
        && first.is_some_and(|first| holds_under(secret, key, &first.digest))
}

/// Whether the token with this digest stands where workloads look for it.
pub fn holds_under(secret: &Secret, key: &str, digest: &str) -> bool {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(token_in).is_some_and(|held| held.digest() == digest)
}

/// The token that the Secret's annotation names as delivered, under whichever key.
pub fn noted_token(secret: &Secret) -> Option<Token> {
    let id = secret.metadata.annotations.as_ref()?.get(keys::CREDENTIAL)?;
    tokens(secret).find(|token| token.id() == id)
}

/// When that was issued, by the Secret's annotation, in whole seconds. Whoever may write the Secret writes what they like.
pub fn noted_issue(secret: &Secret) -> Option<Timestamp> {
    let noted: Timestamp = secret.metadata.annotations.as_ref()?.get(keys::ISSUED_AT)?.parse().ok()?;
    Timestamp::from_second(noted.as_second()).ok()
}

/// Every token in the Secret, under whichever key.
pub fn tokens(secret: &Secret) -> impl Iterator<Item = Token> {
    secret.data.iter().flat_map(|data| data.values()).filter_map(token_in)
}

/// The token under this key.
pub fn token_under(secret: &Secret, key: &str) -> Option<Token> {
    secret.data.as_ref()?.get(key).and_then(token_in)
}

fn token_in(value: &ByteString) -> Option<Token> {
    Token::parse(std::str::from_utf8(&value.0).ok()?).ok()
}

/// The token that the Secret holds: under its key, or — after the key was changed — under any key, as long as it is one
/// of `credentials`. `None` when the value is gone or is not a token.
pub fn held_token(secret: &Secret, key: &str, credentials: &[Credential]) -> Option<Token> {
    let data = secret.data.as_ref()?;
    let known = |token: &Token| {
        let digest = token.digest();
        credentials.iter().any(|credential| credential.digest == digest)
    };
    let under_key = data.get(key).and_then(token_in);
    if under_key.as_ref().is_some_and(known) {
        return under_key;
    }
    data.values().filter_map(token_in).find(known).or(under_key)
}
