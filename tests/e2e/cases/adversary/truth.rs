//! What a pipeline believes: nothing that cannot be carried out looks as if it were.

use serde_json::{Value, json};
use tokenward::api::{ApiToken, ConditionType, keys};

use crate::harness::{Space, is_ready, reason, shared, sole_active};

/// Specs that the API server takes and nobody can carry out, with the reason that is given for it.
fn impossible() -> Vec<(&'static str, Value, &'static str)> {
    let cron = |text: &str| json!({"rotation": {"schedule": text}});
    let zone = |zone: &str| json!({"rotation": {"schedule": "0 3 * * *", "timeZone": zone}});
    let template = |text: &str| json!({"secret": {"template": {"file": text}}});
    vec![
        ("minute", cron("99 3 * * *"), "RotationInvalid"),
        ("month", cron("0 3 * 13 *"), "RotationInvalid"),
        ("never", cron("0 0 31 2 *"), "RotationInvalid"),
        ("words", cron("at three in the morning"), "RotationInvalid"),
        ("zone", zone("Mars/Olympus"), "RotationInvalid"),
        ("abbreviation", zone("Europe/Berlin/Mitte"), "RotationInvalid"),
        ("name", template("{{ tokn }}"), "TemplateInvalid"),
        ("brace", template("{{ token"), "TemplateInvalid"),
        ("helm", template("{{ .token }}"), "TemplateInvalid"),
    ]
}

/// What kstatus makes of it, as Flux and Argo CD do (cli-utils, `pkg/kstatus/status/generic.go`).
fn kstatus(token: &ApiToken) -> &'static str {
    let Some(status) = &token.status else { return "Current" };
    if status.observed_generation != token.metadata.generation {
        return "InProgress";
    }
    let is = |kind| status.condition(kind).map(|condition| condition.status.as_str());
    match (is(ConditionType::Reconciling), is(ConditionType::Stalled), is(ConditionType::Ready)) {
        (Some("True"), _, _) => "InProgress",
        (_, Some("True"), _) => "Failed",
        (_, _, Some("True")) | (_, _, None) => "Current",
        _ => "InProgress",
    }
}

/// What `kubectl wait` makes of it.
async fn waits(space: &Space, name: &str, condition: &str, timeout: &str) -> bool {
    let (token, condition) = (format!("apitoken/{name}"), format!("--for=condition={condition}"));
    let timeout = format!("--timeout={timeout}");
    space.kubectl(&["wait", &token, &condition, &timeout]).await.code == 0
}

#[test]
fn a_pipeline_that_waits_for_ready_does_not_go_green_for_what_cannot_be_carried_out() {
    shared("impossible", async |space| {
        let tenant = space.tenant().await;
        for (name, spec, wanted) in impossible() {
            // Declared so from the beginning.
            tenant.declare(name, json!({}), spec.clone()).await.unwrap();
            space.until_stalled(name, wanted).await;
            assert!(!waits(space, name, "Ready", "1s").await, "{name}");
            assert!(waits(space, name, "Stalled", "30s").await, "{name}");
            assert_eq!(kstatus(&space.get(name).await), "Failed", "{name}");

            // Edited to be so, what works goes on working; and back.
            let edited = format!("{name}-edited");
            tenant.declare(&edited, json!({}), json!({})).await.unwrap();
            let held = space.holds_active(&space.ready(&edited).await).await;
            space.patch(&edited, json!({"spec": spec})).await;
            space.until_stalled(&edited, wanted).await;
            assert!(!waits(space, &edited, "Ready", "1s").await, "{name}");
            assert!(waits(space, &edited, "Delivered", "30s").await, "{name}");
            let token = space.get(&edited).await;
            assert_eq!(
                (kstatus(&token), reason(&token, ConditionType::Ready).as_deref()),
                ("Failed", Some(wanted))
            );
            assert_eq!(space.holds_active(&token).await.expose(), held.expose());
            space.patch(&edited, json!({"spec": {"rotation": null, "secret": null}})).await;
            assert!(waits(space, &edited, "Ready", "60s").await, "{name}");
            let token = space.ready(&edited).await;
            assert_eq!(kstatus(&token), "Current");
            assert_eq!(space.holds_active(&token).await.expose(), held.expose());
        }
    });
}

#[test]
fn a_mistyped_request_is_told_and_asks_for_nothing() {
    shared("mistyped", async |space| {
        let tenant = space.tenant().await;
        tenant.declare("asked", json!({}), json!({})).await.unwrap();
        let held = space.holds_active(&space.ready("asked").await).await;
        let annotate = async |annotation: &str| {
            space.kubectl(&["annotate", "apitoken", "asked", "--overwrite", annotation]).await.ok();
        };
        let ignored = |token: &ApiToken| {
            let status = token.status.as_ref()?;
            Some(status.condition(ConditionType::UnknownAnnotation)?.message.clone())
        };
        for key in ["tokenward.dev/rotate", "tokenward.dev/rotate-requested", "rotate-requested-at"] {
            annotate(&format!("{key}=for-nobody-to-read")).await;
            let named = |token: &ApiToken| {
                ignored(token).is_some_and(|said| said.contains(&format!("annotation {key}")))
            };
            let token = space.until("asked", "told", named).await;
            let said = ignored(&token).unwrap();
            assert!(said.contains(keys::ROTATE_REQUESTED_AT) && !said.contains("for-nobody"), "{said}");
            assert_eq!(space.holds_active(&token).await.expose(), held.expose());
            annotate(&format!("{key}-")).await;
            space.until("asked", "over", |token| ignored(token).is_none()).await;
        }
        let note = space.event("asked", "UnknownAnnotation").await;
        assert!(note.contains(keys::COMPROMISED_AT), "{note}");

        // A value counts once: the first time it is said that there will be no second.
        annotate(&format!("{}=now", keys::ROTATE_REQUESTED_AT)).await;
        let note = space.event("asked", "ValueUsedUp").await;
        assert!(note.contains("\"now\"") && note.contains("asks for nothing again"), "{note}");
        let rotated = |token: &ApiToken| is_ready(token) && sole_active(token).id != held.id();
        space.until("asked", "rotated", rotated).await;
    });
}
