//! Objects as large as the API server lets them be.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;
use tokenward::api::{ApiToken, ApiTokenSpec, keys};

use crate::harness::own;

const EACH: usize = 30;
/// Half of what the chart lets a controller have.
const MOST_MIB: u64 = 128;

/// Half a megabyte of labels, which the API server notes twice.
fn large(name: String, labels: &[(&str, &str)]) -> ObjectMeta {
    let domain = ["d".repeat(60), "e".repeat(60), "f".repeat(60), "g".repeat(60)].join(".");
    let own = (0..1_300).map(|number| (format!("{domain}/{number:0>63}"), "v".repeat(63)));
    let more = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let labels: BTreeMap<_, _> = own.chain(more).collect();
    ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() }
}

#[test]
fn large_objects_fit_into_the_memory_of_a_controller() {
    own("large", async |space| {
        let (tokens, secrets) = (space.tokens(), space.secrets());
        let params = PostParams::default();
        stream::iter(0..EACH)
            .for_each_concurrent(8, |number| {
                let (tokens, secrets, params) = (&tokens, &secrets, &params);
                async move {
                    let mut token = ApiToken::new("", ApiTokenSpec::default());
                    token.metadata = large(format!("large-{number}"), &[]);
                    tokens.create(params, &token).await.unwrap();
                    let metadata = large(format!("other-{number}"), &[(keys::TOKEN, "nothing")]);
                    secrets.create(params, &Secret { metadata, ..Secret::default() }).await.unwrap();
                }
            })
            .await;
        let release = space.release_for(&[&space.name], json!({"controller": {"replicas": 1}})).await;
        let operator = space.start(&release.launch().await, "operator").await;
        operator.until_ready().await;
        for number in 0..EACH {
            space.ready(&format!("large-{number}")).await;
        }
        let most = operator.most_memory();
        println!("{EACH} ApiTokens and {EACH} Secrets of a megabyte each: {most} MiB at most");
        assert!(most <= MOST_MIB, "{most} MiB");
    });
}
