//! What one look at a token costs: the decision alone, for the states that matter; and to take the token from the store.
//!
//! `quiescent` is the one that runs ten thousand times after a restart; the others once per rotation.

// A bench that cannot set its scene has nothing to measure.
#![allow(clippy::unwrap_used, clippy::panic)]

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::hint::black_box;
use tokenward::api::ApiToken;
use tokenward::controller::kept::Guarded;
use tokenward::domain::directory::Directory;
use tokenward::domain::lifecycle;
use tokenward::domain::plan::{Observed, SecretView, Settings, Step, plan};
use tokenward::domain::ports::{Entropy, EntropyError};
use tokenward::domain::token::{self, Prefix, Token};
use tokenward::domain::usage::Observation;

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.iter_mut().zip(0_u8..).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

fn settings() -> Settings {
    Settings {
        prefix: Prefix::new("twd").unwrap(),
        ownership: Default::default(),
        allowed: Default::default(),
    }
}

fn token(spec: serde_json::Value) -> ApiToken {
    serde_json::from_value(json!({
        "apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "0a1b2c", "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"team": "payments"}},
        "spec": spec,
    }))
    .unwrap()
}

/// A token as it is after its first delivery.
fn settled(spec: serde_json::Value, now: Timestamp) -> (ApiToken, SecretView) {
    let mut token = token(spec);
    let step = |token: &ApiToken, secret: &SecretView| {
        plan(
            now,
            &settings(),
            &Observed {
                token,
                namespace: None,
                secret,
                in_hand: None,
                refusal: None,
                usage: &Observation::unasked(),
                world: &Directory::default(),
            },
        )
    };
    let Step::Mint { mut status, reason, expiry } = step(&token, &SecretView::Unseen) else {
        panic!("mints first")
    };
    lifecycle::publish(&mut status, &Token::mint(&settings().prefix, &Fixed).unwrap(), reason, expiry, now);
    let id = status.credentials[0].id.clone();
    lifecycle::confirm(&mut status, &id, Default::default(), expiry, now);
    status.delivery = Some(tokenward::api::Delivery {
        uid: "secret-uid".into(),
        resource_version: "77".into(),
        content_hash: tokenward::domain::delivery::content_hash(
            &token,
            status.owner.as_ref(),
            status.credentials.first(),
        ),
    });
    token.status = Some(*status);
    let view = SecretView::Verified { uid: "secret-uid".into(), resource_version: "77".into() };
    if let Step::WriteStatus(status) = step(&token, &view) {
        token.status = Some(*status);
    }
    assert!(matches!(step(&token, &view), Step::Wait { .. }), "settled");
    (token, view)
}

fn benches(criterion: &mut Criterion) {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let settings = settings();
    let mut group = criterion.benchmark_group("plan");
    for (name, spec) in [
        ("quiescent/no rotation", json!({})),
        ("quiescent/every", json!({"rotation": {"every": "720h", "overlap": "24h"}})),
        ("quiescent/cron", json!({"rotation": {"schedule": "0 3 * * SUN", "timeZone": "Europe/Berlin"}})),
    ] {
        let (token, secret) = settled(spec, now);
        let observed = Observed {
            token: &token,
            namespace: None,
            secret: &secret,
            in_hand: None,
            refusal: None,
            usage: &Observation::unasked(),
            world: &Directory::default(),
        };
        group.bench_function(name, |bencher| bencher.iter(|| plan(now, &settings, black_box(&observed))));
    }
    let fresh = token(json!({"rotation": {"every": "720h"}}));
    let first = Observed {
        token: &fresh,
        namespace: None,
        secret: &SecretView::Unseen,
        in_hand: None,
        refusal: None,
        usage: &Observation::unasked(),
        world: &Directory::default(),
    };
    group.bench_function("first issue", |bencher| bencher.iter(|| plan(now, &settings, black_box(&first))));
    group.finish();

    let mut group = criterion.benchmark_group("store");
    let (kept, _) = settled(json!({"rotation": {"every": "720h", "overlap": "24h"}}), now);
    let Guarded { kept, .. } = serde_json::from_value(serde_json::to_value(&kept).unwrap()).unwrap();
    group.bench_function("read", |bencher| bencher.iter(|| black_box(&kept).read::<ApiToken>()));
    group.finish();

    let mut group = criterion.benchmark_group("token");
    let minted = Token::mint(&settings.prefix, &Fixed).unwrap();
    group.bench_function("mint", |bencher| bencher.iter(|| Token::mint(&settings.prefix, &Fixed)));
    group.bench_function("check", |bencher| bencher.iter(|| token::check(black_box(minted.expose()))));
    group.bench_function("digest", |bencher| bencher.iter(|| black_box(&minted).digest()));
    group.finish();
}

criterion_group!(plan_benches, benches);
criterion_main!(plan_benches);
