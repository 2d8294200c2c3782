//! The texts of a record: words, what may stand in a header, and all of them one after the other.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Most bytes of all texts of one ApiToken together; the definition allows a sixth of it.
const MAX_TEXT: usize = 60_000;

/// Whether `word` is among the words that spaces separate.
pub(super) fn holds(words: &[u8], word: &str) -> bool {
    !word.is_empty() && words.split(|byte| *byte == b' ').any(|own| own == word.as_bytes())
}

/// What the definition allows in scopes and audiences: no spaces, which separate them here, and nothing that would have to
/// be escaped in a header.
pub(in crate::gate) fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/*-".contains(&byte))
}

pub(super) fn printable(text: &str) -> String {
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

pub(super) fn pack(
    metadata: &ObjectMeta,
    owner: &str,
    scopes: &str,
    audiences: &str,
) -> Option<(String, [u16; 5])> {
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let mut text = String::new();
    let mut ends = [0; 5];
    let token = format!("{namespace}/{name}");
    let parts = [audiences, scopes, owner, &token, metadata.uid.as_deref().unwrap_or_default()];
    for (end, part) in ends.iter_mut().zip(parts) {
        text.push_str(part);
        *end = u16::try_from(text.len()).ok()?;
    }
    (text.len() <= MAX_TEXT).then_some((text, ends))
}
