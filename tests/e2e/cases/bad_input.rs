//! What is declared wrongly is refused at once or said in the status, with what to write instead.

use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType};

use crate::harness::{Space, reason, shared};

fn manifest(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "tokenward.dev/v1alpha1", "kind": "ApiToken", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[test]
fn the_api_server_refuses_with_a_message() {
    shared("refused", async |space| {
        let long = "a".repeat(64);
        let cases = [
            ("every-short", json!({"rotation": {"every": "10s"}}), "from 1m to 876000h"),
            ("every-words", json!({"rotation": {"every": "monthly"}}), "hours, minutes and seconds"),
            (
                "both",
                json!({"rotation": {"every": "1h", "schedule": "0 3 * * *"}}),
                "exactly one of rotation.every",
            ),
            (
                "overlap",
                json!({"rotation": {"every": "1h", "overlap": "2h"}}),
                "must be shorter than rotation.every",
            ),
            ("cron", json!({"rotation": {"schedule": "at dawn"}}), "five cron fields"),
            ("zone", json!({"rotation": {"every": "1h", "timeZone": "UTC"}}), "goes with rotation.schedule"),
            (
                "expiry",
                json!({"expiry": {"after": "1h", "at": "2030-01-01T00:00:00Z"}}),
                "exactly one of expiry.after",
            ),
            ("date", json!({"expiry": {"at": "soon"}}), "date-time"),
            ("scope", json!({"scopes": ["orders read"]}), "a scope may hold"),
            ("audience", json!({"audiences": ["a b"]}), "an audience may hold"),
            (
                "label",
                json!({"secret": {"labels": {"app.kubernetes.io/instance": "x"}}}),
                "label app.kubernetes.io/instance gives the Secret a meaning",
            ),
            ("key", json!({"secret": {"template": {"token": "x"}}}), "must not name the key"),
            (long.as_str(), json!({}), "at most 63 characters"),
        ];
        for (name, spec, said) in cases {
            let refused =
                space.kubectl_with(&["apply", "--filename", "-"], &manifest(name, &spec)).await.refused();
            assert!(refused.contains(said), "{name}: {said:?} is not in\n{refused}");
        }
        let none = space.kubectl(&["get", "apitokens", "--output", "name"]).await.ok();
        assert_eq!(none, "");
    });
}

/// What CEL lets through is said by the status; and nothing was issued, or what was issued stays.
async fn stalled(space: &Space, name: &str, spec: Value, wanted: &str, said: &str) {
    space.kubectl_with(&["apply", "--filename", "-"], &manifest(name, &spec)).await.ok();
    let message = space.until_stalled(name, wanted).await;
    assert!(message.contains(said), "{name}: {said:?} is not in {message:?}");
    let described = space.kubectl(&["describe", "apitoken", name]).await.ok();
    assert!(described.contains(wanted) && described.contains(said), "{described}");
}

#[test]
fn templates_that_do_not_render_are_reported() {
    shared("templates", async |space| {
        let template = |text: &str| json!({"secret": {"template": {"file": text}}});
        let full: serde_json::Map<_, _> =
            (0..16).map(|n| (format!("k{n}"), json!("{{ token }}".repeat(700)))).collect();
        stalled(space, "unknown", template("{{ pasword }}"), "TemplateInvalid", "names are token, id").await;
        stalled(space, "open", template("{{ token"), "TemplateInvalid", "spec.secret.template").await;
        stalled(space, "statement", template("{% for x in y %}"), "TemplateInvalid", "expressions such as")
            .await;
        stalled(
            space,
            "large",
            json!({"secret": {"template": full}}),
            "TemplateInvalid",
            "larger than 256 KiB",
        )
        .await;
        for name in ["unknown", "open", "statement", "large"] {
            assert!(
                space.get(name).await.status.unwrap().credentials.is_empty(),
                "{name}: nothing was minted"
            );
            assert!(space.secrets().get_opt(name).await.unwrap().is_none());
        }

        // Corrected, it works; broken again, the delivered token stays.
        space.patch("unknown", json!({"spec": {"secret": {"template": {"file": "{{ token }}"}}}})).await;
        let token = space.ready("unknown").await;
        let held = space.holds_active(&token).await;
        space.patch("unknown", json!({"spec": {"secret": {"template": {"file": "{{ nobody }}"}}}})).await;
        space.until_stalled("unknown", "TemplateInvalid").await;
        let token = space.get("unknown").await;
        let status = token.status.as_ref().unwrap();
        assert!(!status.is_true(ConditionType::Ready), "what is declared is not in force");
        assert!(status.is_true(ConditionType::Delivered), "the Secret still holds a valid token");
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
    });
}

#[test]
fn schedules_that_cannot_be_followed_are_reported() {
    shared("schedules", async |space| {
        let cron = |text: &str| json!({"rotation": {"schedule": text}});
        let zone = json!({"rotation": {"schedule": "0 3 * * *", "timeZone": "Mars/Olympus"}});
        stalled(space, "minute", cron("61 3 * * *"), "RotationInvalid", "five cron fields").await;
        stalled(space, "never", cron("0 0 31 2 *"), "RotationInvalid", "spec.rotation.schedule").await;
        stalled(space, "zone", zone, "RotationInvalid", "Mars/Olympus").await;
        // Without a rhythm the token itself is as good as any.
        for name in ["minute", "never", "zone"] {
            let delivered =
                |token: &ApiToken| reason(token, ConditionType::Delivered).as_deref() == Some("Delivered");
            let token = space.until(name, "delivered", delivered).await;
            assert_eq!(reason(&token, ConditionType::Ready).as_deref(), Some("RotationInvalid"));
            space.holds_active(&token).await;
        }
        let held = space.held("zone", "token").await;
        space.patch("zone", json!({"spec": {"rotation": {"timeZone": "Europe/Berlin"}}})).await;
        let token = space
            .until("zone", "no longer stalled", |token| reason(token, ConditionType::Stalled).is_none())
            .await;
        assert!(token.status.as_ref().unwrap().next_rotation_time.is_some());
        assert_eq!(space.holds_active(&token).await.expose(), held.expose());
    });
}

#[test]
fn a_secret_that_the_api_server_refuses_is_reported() {
    shared("rejected", async |space| {
        let spec = json!({"secret": {"type": "kubernetes.io/dockerconfigjson", "template": {".dockerconfigjson": "no JSON"}}});
        stalled(space, "pull", spec, "SecretRejected", "The API server refuses the Secret").await;
        let right = r#"{"auths": {"registry.example.com": {"password": "{{ token }}"}}}"#;
        space.patch("pull", json!({"spec": {"secret": {"template": {".dockerconfigjson": right}}}})).await;
        let token = space.ready("pull").await;
        space.holds_active(&token).await;
        assert_eq!(reason(&token, ConditionType::Stalled), None);
    });
}
