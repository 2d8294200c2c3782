//! Killed at any moment, again and again, while tokens rotate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokenward::api::{ApiToken, CredentialState, keys};
use tokenward::domain::token::Token;

use crate::harness::{Space, credential, is_ready, own, sole_active};

const KILLS: u32 = 18;
const TOKENS: usize = 6;

/// Reads every Secret and then every status, for as long as the kills go on: the token in the Secret is one that the
/// status accepts, at every look (there is never a moment without a valid credential).
async fn observe(secrets: Api<Secret>, tokens: Api<ApiToken>, over: Arc<AtomicBool>) -> u32 {
    let mut looks = 0;
    while !over.load(Ordering::Relaxed) {
        let held = secrets.list(&ListParams::default()).await.unwrap();
        let declared = tokens.list(&ListParams::default()).await.unwrap();
        for token in &declared {
            let secret = held.iter().find(|secret| secret.metadata.name.as_deref() == Some(token.name()));
            let Some(value) =
                secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("token"))
            else {
                panic!("{}: no Secret", token.name());
            };
            let digest = Token::parse(std::str::from_utf8(&value.0).unwrap()).unwrap().digest();
            let accepted = &token.status.as_ref().unwrap().credentials;
            assert!(
                accepted.iter().any(|credential| credential.digest == digest),
                "{}: the token in the Secret is refused: {accepted:#?}",
                token.name()
            );
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    looks
}

/// Requests one rotation after the other, of one token after the other.
async fn rotate(space: Space, over: Arc<AtomicBool>, requests: Arc<AtomicU32>) {
    for number in (0..TOKENS).cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        space.request(&format!("t{number}"), keys::ROTATE_REQUESTED_AT).await;
        requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[test]
fn killed_in_the_middle_of_rotations() {
    own("kills", async |space| {
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let launch = release.launch().await;
        let mut operator = space.start(&launch, "operator").await;
        for number in 0..TOKENS {
            space
                .declare(&format!("t{number}"), json!({"rotation": {"every": "720h", "overlap": "1h"}}))
                .await;
        }
        for number in 0..TOKENS {
            space.ready(&format!("t{number}")).await;
        }

        let over = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicU32::new(0));
        let observer = tokio::spawn(observe(space.secrets(), space.tokens(), over.clone()));
        let user = tokio::spawn(rotate(space.within(&space.name), over.clone(), requests.clone()));
        let started = Instant::now();
        let mut in_the_middle = 0;
        for _ in 0..KILLS {
            // As a pod whose container restarts: the same name, so it goes on with its own Lease at once.
            operator.until_leading().await;
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..600))).await;
            operator.kill().await;
            let left = space.tokens().list(&ListParams::default()).await.unwrap();
            let pending = |token: &ApiToken| {
                let credentials = token.status.iter().flat_map(|status| &status.credentials);
                credentials.into_iter().any(|credential| credential.state == CredentialState::Pending)
            };
            in_the_middle += u32::from(left.iter().any(pending));
            operator = space.start(&launch, "operator").await;
        }
        over.store(true, Ordering::Relaxed);
        user.await.unwrap();
        let looks = observer.await.unwrap();
        for number in 0..TOKENS {
            let name = format!("t{number}");
            let asked = space.get(&name).await.annotation(keys::ROTATE_REQUESTED_AT).map(str::to_owned);
            let token = space
                .until(&name, "every request was honoured and it is Ready", |token| {
                    let handled = token.status.as_ref().and_then(|status| status.last_handled.as_ref());
                    is_ready(token)
                        && handled.and_then(|handled| handled.rotate_requested_at.clone()) == asked
                })
                .await;
            assert!(credential(&token, CredentialState::Pending).is_none());
            assert_eq!(space.holds_active(&token).await.id(), sole_active(&token).id);
        }
        println!(
            "{KILLS} kills in {:.0} s, {in_the_middle} of them with a credential on its way; {} requests, {looks} looks, \
             {} tokens seen",
            started.elapsed().as_secs_f64(),
            requests.load(Ordering::Relaxed),
            space.cluster.seen.count(),
        );
    });
}
