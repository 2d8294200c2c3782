//! The search for plaintext: every token that ever stood in a Secret must stand nowhere else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokenward::domain::token::Token;

/// Length of the part of a token that is secret, as the format has it.
const SECRET_LEN: usize = 43;
/// Length of the checksum behind it.
const CRC_LEN: usize = 6;

/// The secret parts of all tokens seen so far.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<HashSet<String>>>);

impl Seen {
    /// Collects from every Secret of the cluster, for as long as the process lives.
    pub fn watch(client: Client) -> Self {
        let seen = Self::default();
        let collector = seen.clone();
        tokio::spawn(async move {
            let secrets = Api::<Secret>::all(client);
            let mut events = std::pin::pin!(watch(secrets, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(secret) | Event::InitApply(secret)) = event {
                    collector.note(&secret);
                }
            }
        });
        seen
    }

    /// Notes every token in a Secret.
    pub fn note(&self, secret: &Secret) {
        for value in secret.data.iter().flatten().map(|(_, value)| value) {
            if let Some(token) = std::str::from_utf8(&value.0).ok().and_then(|text| Token::parse(text).ok()) {
                let text = token.expose();
                let part = &text[text.len() - SECRET_LEN - CRC_LEN..text.len() - CRC_LEN];
                self.0.lock().unwrap().insert(part.to_owned());
            }
        }
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The ids of nothing: where in `text` the secret part of a token stands, plain or in base64, with a little of what
    /// stands before it.
    pub fn find(&self, text: &str) -> Option<String> {
        let seen = self.0.lock().unwrap();
        let known = |run: &str| {
            run.as_bytes()
                .windows(SECRET_LEN)
                .any(|window| std::str::from_utf8(window).is_ok_and(|window| seen.contains(window)))
        };
        for (start, run) in runs(text, |byte| byte.is_ascii_alphanumeric()) {
            if known(run) {
                return Some(before(text, start));
            }
        }
        for (start, run) in runs(text, |byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/') {
            for offset in 0..4 {
                let part = &run[offset..];
                let whole = &part[..part.len() / 4 * 4];
                let decoded = STANDARD_NO_PAD.decode(whole).unwrap_or_default();
                let hit = |(_, run): (usize, &str)| known(run);
                if runs(&String::from_utf8_lossy(&decoded), |byte| byte.is_ascii_alphanumeric()).any(hit) {
                    return Some(before(text, start));
                }
            }
        }
        None
    }
}

/// The longest stretches of such bytes that are long enough to hold a secret.
fn runs(text: &str, of: impl Fn(u8) -> bool + Copy) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at + bytes[at..].iter().position(|byte| of(*byte))?;
            let len = bytes[start..].iter().position(|byte| !of(*byte)).unwrap_or(bytes.len() - start);
            at = start + len;
            if len >= SECRET_LEN {
                return Some((start, &text[start..at]));
            }
        }
        None
    })
}

fn before(text: &str, at: usize) -> String {
    let from = (0..=at.saturating_sub(200)).rev().find(|from| text.is_char_boundary(*from)).unwrap_or(0);
    format!("…{}…", &text[from..at])
}

#[test]
fn a_planted_token_is_found_plain_and_in_base64() {
    let secret_part = "Abcdefghij".repeat(5)[..SECRET_LEN].to_owned();
    let seen = Seen::default();
    seen.0.lock().unwrap().insert(secret_part.clone());
    let token = format!("twd_0123456789_{secret_part}abcdef");
    let encoded = STANDARD_NO_PAD.encode(format!("user:{token}"));
    for text in
        [format!("token={token}\n"), format!("x\n{{\"data\":\"{encoded}==\"}}"), format!("é {encoded}")]
    {
        assert!(seen.find(&text).is_some(), "{text}");
    }
    let clean = format!("twd_0123456789 {} sha256:{}", &secret_part[1..], "0a".repeat(32));
    assert_eq!(seen.find(&clean), None);
}
