//! Gates, as the chart runs them.

use serde_json::json;

use crate::harness::{Content, own};

#[test]
fn the_gate_has_an_account_of_its_own_and_a_token_for_the_ledger() {
    own("gatelaunch", async |space| {
        let values = json!({"gate": {"tls": {"secretName": "gate-tls"}}});
        let release = space.release_for(&[&space.name], values).await;
        let controller = release.launch().await;
        let gate = release.launch_gate().await;
        assert_ne!(gate.account, controller.account);
        let gates = format!("--ledger-gates={}/{}", release.name, gate.account);
        assert!(controller.args.contains(&gates), "{gates}: {:?}", controller.args);
        assert_eq!(controller.mounts, [], "the controller needs nothing but its account");
        let ledger = Content::Token {
            file: "token".to_owned(),
            audience: "tokenward-ledger".to_owned(),
            seconds: 3600,
        };
        let files = ["tls.crt", "tls.key"].map(|file| (file.to_owned(), file.to_owned()));
        let tls = Content::Secret { name: "gate-tls".to_owned(), files: files.to_vec() };
        assert_eq!(
            gate.mounts,
            [
                ("/var/run/secrets/tokenward/ledger".to_owned(), vec![ledger]),
                ("/etc/tokenward/tls".to_owned(), vec![tls])
            ]
        );
    });
}
