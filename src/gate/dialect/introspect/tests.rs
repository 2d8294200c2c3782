//! RFC 7662, and who may ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::http::HttpGate;
use super::super::testing::Scene;
use super::*;
use hyper::service::Service as _;
use kube::client::Body as KubeBody;
use serde_json::{Value, json};

const JWT: &str = "eyJh.eyJz.c2ln";

/// Status, challenge, body.
type Told = (u16, String, String);

/// A request to `/introspect` that can be bent.
struct Question {
    authorization: Option<String>,
    kind: &'static str,
    body: String,
}

impl Question {
    /// By a token with the scope.
    fn about(scene: &Scene, token: &str) -> Self {
        let authorization = Some(format!("Bearer {}", scene.asker.expose()));
        Self { authorization, kind: FORM, body: format!("token={token}&token_type_hint=whatever") }
    }

    fn by(self, authorization: &str) -> Self {
        Self { authorization: Some(authorization.to_owned()), ..self }
    }

    async fn ask(self, scene: &Scene, introspection: Introspection) -> Told {
        let mut request = Request::post("/introspect").header(CONTENT_TYPE, self.kind);
        if let Some(authorization) = self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.header(USER_AGENT, "orders-api/1").body(Full::<Bytes>::from(self.body));
        let gate = HttpGate::new(scene.desk.clone(), introspection);
        let answer = gate.call(request.expect("a request")).await.expect("infallible");
        let challenge =
            answer.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().expect("text").to_owned());
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, challenge.unwrap_or_default(), String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    async fn status(self, scene: &Scene) -> u16 {
        self.ask(scene, Introspection::by_scope()).await.0
    }
}

fn issued() -> i64 {
    crate::gate::fixtures::at("2026-02-01T00:00:00Z").as_second()
}

#[tokio::test]
async fn an_active_token_is_described_and_counted_as_used() {
    let scene = Scene::new();
    let (status, _, body) =
        Question::about(&scene, scene.orders.expose()).ask(&scene, Introspection::by_scope()).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({
            "active": true,
            "scope": "orders:read orders:write",
            "client_id": "shop/orders",
            "token_type": "Bearer",
            "iat": issued(),
            "sub": "shop/orders",
            "aud": ["orders"],
            "jti": scene.orders.id(),
        })
    );
    let drained = scene.gate.recorder().drain();
    let used = drained.iter().find(|drained| drained.token == "shop/orders").expect("used");
    assert_eq!(used.credentials[0].callers[0].user_agent, "orders-api/1");
    assert!(drained.iter().any(|drained| drained.token == "shop/asker"), "so is the asker's own");

    let (_, _, body) =
        Question::about(&scene, scene.plain.expose()).ask(&scene, Introspection::by_scope()).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&body["active"], &body["scope"], &body["aud"]),
        (&json!(true), &json!(""), &json!([])),
        "{body}"
    );
}

#[tokio::test]
async fn of_any_other_token_nothing_is_said() {
    let scene = Scene::new();
    let unknown = crate::gate::fixtures::minted("twd", 99);
    let overlong = "x".repeat(4000);
    for token in [scene.former.expose(), unknown.expose(), "nonsense", "%C3%A9", JWT, overlong.as_str()] {
        let told = Question::about(&scene, token).ask(&scene, Introspection::by_scope()).await;
        assert_eq!(told, (200, String::new(), INACTIVE.to_owned()), "{token}");
    }
    assert_eq!(scene.count(Dialect::Introspect, Outcome::Ended), 1);
    assert_eq!(scene.count(Dialect::Introspect, Outcome::UnknownCredential), 1);
}

#[tokio::test]
async fn who_may_not_ask_learns_only_that() {
    let scene = Scene::new();
    let ask = |authorization: Option<&str>| {
        let question = Question::about(&scene, scene.orders.expose());
        let authorization = authorization.map(str::to_owned);
        Question { authorization, ..question }.ask(&scene, Introspection::by_scope())
    };
    let orders = format!("Bearer {}", scene.orders.expose());
    let former = format!("Bearer {}", scene.former.expose());
    let jwt = format!("Bearer {JWT}");
    assert_eq!(ask(None).await, (401, BEARER.to_owned(), String::new()));
    for invalid in [former.as_str(), "Bearer x", "Bearer", "Basic eDp5", &jwt] {
        assert_eq!(ask(Some(invalid)).await, (401, INVALID.to_owned(), String::new()), "{invalid}");
    }
    let scope = "Bearer realm=\"tokenward\", error=\"insufficient_scope\", scope=\"tokenward:introspect\"";
    assert_eq!(ask(Some(&orders)).await, (403, scope.to_owned(), String::new()));
}

#[tokio::test]
async fn a_form_has_to_be_one_and_small_with_one_token() {
    let scene = Scene::new();
    let question = || Question::about(&scene, scene.orders.expose());
    let token = format!("token={}", scene.orders.expose());
    for (body, status) in [
        (token.clone(), 200),
        (format!("{token}&audience=x&x"), 200),
        (format!("{token}&token=x"), 400),
        (format!("{token}&{token}"), 400),
        ("token=".to_owned(), 400),
        ("tokens=x".to_owned(), 400),
        (String::new(), 400),
        (format!("{token}&pad={}", "x".repeat(MAX_FORM)), 413),
    ] {
        assert_eq!(Question { body, ..question() }.status(&scene).await, status);
    }
    for (kind, status) in [
        ("application/x-www-form-urlencoded; charset=utf-8", 200),
        ("APPLICATION/X-WWW-Form-Urlencoded", 200),
        ("application/json", 415),
        ("", 415),
    ] {
        assert_eq!(Question { kind, ..question() }.status(&scene).await, status, "{kind}");
    }
    let wrong = Question { body: "x".to_owned(), ..question() }.ask(&scene, Introspection::by_scope()).await;
    assert_eq!(wrong.2, "{\"error\":\"invalid_request\"}");
}

#[tokio::test]
async fn before_the_index_is_loaded_nobody_is_answered() {
    let scene = Scene::closed();
    assert_eq!(Question::about(&scene, scene.orders.expose()).status(&scene).await, 503);
}

/// An API server that knows `shop/api` and `shop/other` by their tokens, and how often it was asked.
fn reviews(asked: Arc<AtomicUsize>) -> Reviews {
    let service = tower::service_fn(move |request: Request<KubeBody>| {
        let asked = asked.clone();
        async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let review = request.into_body().collect_bytes().await.expect("a body");
            let review: Value = serde_json::from_slice(&review).expect("JSON");
            let token = review["spec"]["token"].as_str().expect("a token");
            let status = match token.rsplit('.').next().expect("a signature") {
                "broken" => return Ok(answer(500, &json!({"kind": "Status", "code": 500}))),
                "api" => json!({"authenticated": true, "audiences": review["spec"]["audiences"],
                    "user": {"username": "system:serviceaccount:shop:api"}}),
                "other" => json!({"authenticated": true, "audiences": review["spec"]["audiences"],
                    "user": {"username": "system:serviceaccount:shop:other"}}),
                _ => json!({"authenticated": false}),
            };
            let kind = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "metadata": {}, "spec": review["spec"], "status": status});
            Ok::<_, tower::BoxError>(answer(201, &kind))
        }
    });
    Reviews::new(kube::Client::new(service, "default"), "tokenward-introspect", Duration::from_secs(3))
        .allowing([("shop", "api")])
}

/// A token of `shop/api`, by its own account.
fn claiming(signature: &str) -> String {
    use base64::Engine as _;
    let claims = json!({"iss": "https://cluster.example", "sub": "system:serviceaccount:shop:api",
        "aud": ["tokenward-introspect"], "exp": 4_102_444_800_u64});
    format!("e30.{}.{signature}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn answer(status: u16, body: &Value) -> ::http::Response<KubeBody> {
    let mut answer = ::http::Response::new(KubeBody::from(body.to_string().into_bytes()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

#[tokio::test]
async fn allowed_service_accounts_may_ask_and_garbage_never_reaches_the_api_server() {
    let scene = Scene::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let bearer = |signature| format!("Bearer {}", claiming(signature));
    let (api, other, nobody, broken) = (bearer("api"), bearer("other"), bearer("nobody"), bearer("broken"));
    let (lower, basic) = (api.replace("Bearer", "bearer"), api.replace("Bearer", "Basic"));
    for (authorization, status, questions) in [
        (api.as_str(), 200, 1),
        (&lower, 200, 1),
        (&other, 403, 1),
        (&nobody, 401, 1),
        (&broken, 503, 1),
        ("Bearer a.b.api", 401, 0),
        ("Bearer a.b", 401, 0),
        ("Bearer a.b.c.d", 401, 0),
        ("Bearer a..c", 401, 0),
        ("Bearer a.b.c d", 401, 0),
        (&basic, 401, 0),
        (&api["Bearer ".len()..], 401, 0),
    ] {
        let before = asked.load(Ordering::Relaxed);
        let introspection = Introspection::with_accounts(reviews(asked.clone()));
        let question = Question::about(&scene, scene.orders.expose()).by(authorization);
        let told = question.ask(&scene, introspection).await;
        assert_eq!(told.0, status, "{authorization}: {told:?}");
        assert_eq!(asked.load(Ordering::Relaxed) - before, questions, "{authorization}");
    }
    // A token with the scope needs no review.
    let introspection = Introspection::with_accounts(reviews(asked.clone()));
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(Question::about(&scene, scene.orders.expose()).ask(&scene, introspection).await.0, 200);
    assert_eq!(asked.load(Ordering::Relaxed), before);
}
