//! Templates that are written to take time, memory or the stack.

use serde_json::json;
use tokenward::api::ConditionType;

use crate::harness::{shared, sole_active};

#[test]
fn no_template_holds_up_another_namespace() {
    shared("templates-of-others", async |space| {
        let tenant = space.tenant().await;
        let other = space.namespace(&format!("{}-victim", space.name), json!({})).await;
        other.declare("victim", json!({"rotation": {"every": "720h", "overlap": "24h"}})).await;
        other.ready("victim").await;

        let lists = |depth: usize, by: usize| {
            let (open, close) = ("[".repeat(depth), format!("]*{by}").repeat(depth));
            format!("{open}token{close}")
        };
        let filled = |head: &str, body: &str, tail: &str| {
            format!("{head}{}{tail}", body.repeat((8_192 - head.len() - tail.len()) / body.len()))
        };
        let attacks = [
            ("lists", "{{ ([([([token]*1000)]*1000)]*1000) ~ '' }}".to_owned(), "'[' is not understood"),
            (
                "compared",
                "{{ [[[[[1]*1000]*1000]*1000]*1000] == [[[[[1]*1000]*1000]*1000]*1000] }}".to_owned(),
                "'[' is not understood",
            ),
            ("minus", format!("{{{{ {}1 }}}}", "-".repeat(8_000)), "'-' is not understood"),
            // Neighbours.
            ("deep", format!("{{{{ {} == {} }}}}", lists(9, 99), lists(9, 99)), "'[' is not understood"),
            ("not", filled("{{ ", "not ", "token }}"), "\"not\" is not known"),
            ("open", filled("{{ ", "(", "}}"), "is missing here"),
            ("product", filled("{{ 'x'", "*99", " }}"), "'*' is not understood"),
            ("base64", filled("{{ token", "|b64encode", " }}"), "its filters have too much to do"),
            (
                "replaced",
                filled("{{ 'a'", "|replace('a','aaaaaaaa')", " }}"),
                "its filters have too much to do",
            ),
            (
                "scanned",
                format!("{{{{ '{}'{} }}}}", "a".repeat(4_000), "|trim".repeat(800)),
                "too much to do",
            ),
        ];
        for (name, template, _) in &attacks {
            let spec = json!({"secret": {"template": {"x": template}}});
            tenant.declare(name, json!({}), spec).await.unwrap();
            // All the while, what is asked of another namespace's token is done.
            let before = sole_active(&other.get("victim").await).id.clone();
            let rotated = other.rotate("victim").await;
            let status = rotated.status.as_ref().unwrap();
            assert!(status.is_true(ConditionType::Ready), "{name}");
            assert!(status.credentials.iter().any(|credential| credential.id != before), "{name}");
            other.request("victim", tokenward::api::keys::RETIRE_NOW_AT).await;
            other
                .until("victim", "one credential", |token| {
                    token.status.as_ref().unwrap().credentials.len() == 1
                })
                .await;
        }
        for (name, _, said) in &attacks {
            let message = space.until_stalled(name, "TemplateInvalid").await;
            assert!(message.contains(said), "{name}: {said:?} is not in {message:?}");
            assert!(
                space.get(name).await.status.unwrap().credentials.is_empty(),
                "{name}: nothing was minted"
            );
        }
        // Deep but sound: what is well-formed renders, however it is written.
        let deep = format!("{{{{ {}token{} }}}}", "(".repeat(4_000), ")".repeat(4_000));
        tenant.declare("sound", json!({}), json!({"secret": {"template": {"x": deep}}})).await.unwrap();
        let token = space.ready("sound").await;
        let held = space.holds_active(&token).await;
        assert_eq!(space.held("sound", "x").await.expose(), held.expose());
    });
}
