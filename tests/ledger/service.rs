//! Who may report, and what the API server is asked about it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Value, json};
use tokenward::api::report::{METHOD, Receipt, Report};
use tokenward::ledger::service::Service;
use tokenward::platform::reviews::{ReviewError, Reviews};
use tonic::Code;

use crate::support::{Cluster, Process, seconds};

pub const GATE: &str = "system:serviceaccount:tokenward-system:tokenward-gate";

/// An API server that answers TokenReviews.
#[derive(Clone, Default)]
pub struct Authority(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    asked: Vec<Value>,
    answer: Value,
    code: u16,
    silent: bool,
    /// How many are asked at this moment, and at most.
    open: (usize, usize),
}

impl Authority {
    fn answering(answer: Value) -> Self {
        let authority = Self::default();
        *authority.0.lock() = Inner { answer, code: 201, ..Inner::default() };
        authority
    }

    /// That the token is this user's, for this audience.
    pub fn knowing(user: &str, audience: &str) -> Self {
        Self::answering(json!({"authenticated": true, "user": {"username": user}, "audiences": [audience]}))
    }

    fn client(&self) -> Client {
        let inner = self.0.clone();
        Client::new(
            tower::service_fn(move |request: http::Request<Body>| {
                let inner = inner.clone();
                async move {
                    assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut review: Value = serde_json::from_slice(&body).unwrap();
                    let silent = {
                        let mut inner = inner.lock();
                        inner.asked.push(review["spec"].clone());
                        inner.open.0 += 1;
                        inner.open.1 = inner.open.1.max(inner.open.0);
                        inner.silent
                    };
                    if silent {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let mut inner = inner.lock();
                    inner.open.0 -= 1;
                    review["status"] = inner.answer.clone();
                    if inner.code >= 400 {
                        review = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "no", "reason": "Forbidden", "code": inner.code});
                    }
                    let mut response = http::Response::new(Body::from(serde_json::to_vec(&review).unwrap()));
                    *response.status_mut() = http::StatusCode::from_u16(inner.code).unwrap();
                    Ok::<_, Infallible>(response)
                }
            }),
            "default",
        )
    }

    fn asked(&self) -> usize {
        self.0.lock().asked.len()
    }

    fn reviews(&self) -> Reviews {
        Reviews::new(self.client(), "tokenward-ledger", Duration::from_secs(5))
            .allowing([("tokenward-system", "tokenward-gate")])
    }
}

pub fn service(process: &Process, authority: &Authority) -> Service {
    Service::new(process.ledger.clone(), authority.reviews())
}

/// What a token claims, unsigned.
fn claiming(claims: &Value, signature: &str) -> String {
    format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn claims() -> Value {
    json!({"iss": "https://cluster.example", "sub": GATE, "aud": ["tokenward-ledger"], "exp": 4_102_444_800_u64})
}

/// One that is worth a question.
pub fn token(signature: &str) -> String {
    claiming(&claims(), signature)
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame.into()
}

async fn call(
    service: &Service,
    path: &str,
    authorization: Option<&str>,
    body: Bytes,
) -> (Code, Option<Receipt>) {
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let response = service.answer(request.body(Full::new(body)).unwrap()).await;
    let code =
        |headers: &http::HeaderMap| headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    let early = code(response.headers());
    let collected = response.into_body().collect().await.unwrap();
    let late = collected.trailers().and_then(code);
    let bytes = collected.to_bytes();
    let receipt = (bytes.len() >= 5).then(|| Receipt::decode(&bytes[5..]).unwrap());
    (early.or(late).expect("a status"), receipt)
}

fn report(cluster: &Cluster) -> Bytes {
    framed(&cluster.gate("gate-a").report(vec![]).encode_to_vec())
}

#[tokio::test(start_paused = true)]
async fn only_a_gates_own_token_is_let_in() {
    let cluster = Cluster::new();
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let other = "system:serviceaccount:shop:tokenward-gate";
    let yes = || Authority::knowing(GATE, "tokenward-ledger");
    let no = Authority::answering(json!({"authenticated": false, "error": "expired"}));
    let unaware = Authority::answering(json!({"authenticated": true, "user": {"username": GATE}}));
    let refusing = yes();
    refusing.0.lock().code = 403;
    let bearer = format!("Bearer {}", token("ccc"));
    let (bearer, another) = (bearer.as_str(), format!("Basic {}", token("ccc")));
    let table: [(&str, Authority, Option<&str>, Code); 11] = [
        ("a gate", yes(), Some(bearer), Code::Ok),
        ("no token", yes(), None, Code::Unauthenticated),
        ("another scheme", yes(), Some(&another), Code::Unauthenticated),
        ("no token's shape", yes(), Some("Bearer aaa"), Code::Unauthenticated),
        ("an expired one", no, Some(bearer), Code::Unauthenticated),
        ("another audience", Authority::knowing(GATE, "https://api"), Some(bearer), Code::Unauthenticated),
        ("no audience", unaware, Some(bearer), Code::Unauthenticated),
        (
            "another account",
            Authority::knowing(other, "tokenward-ledger"),
            Some(bearer),
            Code::PermissionDenied,
        ),
        ("a person", Authority::knowing("jane", "tokenward-ledger"), Some(bearer), Code::PermissionDenied),
        ("no name", Authority::knowing("", "tokenward-ledger"), Some(bearer), Code::Unauthenticated),
        ("no right to ask", refusing, Some(bearer), Code::Unavailable),
    ];
    for (who, authority, authorization, expected) in table {
        let service = service(&process, &authority);
        let (code, receipt) = call(&service, METHOD, authorization, report(&cluster)).await;
        assert_eq!(code, expected, "{who}");
        assert_eq!(receipt.is_some(), expected == Code::Ok, "{who}");
    }
    let counted = |result| process.ledger.metrics().reports.get([result]);
    assert_eq!([counted("ok"), counted("Forbidden"), counted("Unauthenticated")], [1, 2, 7]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_names_the_audience_and_what_was_answered_is_remembered_for_a_while() {
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    let reviews = authority.reviews();
    for _ in 0..100 {
        assert_eq!(reviews.user(&token("ccc")).await.as_deref(), Ok(GATE));
    }
    let spec = authority.0.lock().asked[0].clone();
    assert_eq!(spec, json!({"token": token("ccc"), "audiences": ["tokenward-ledger"]}));
    assert_eq!(authority.asked(), 1);
    authority.0.lock().answer = json!({"authenticated": false});
    seconds(59.0).await;
    assert!(reviews.user(&token("ccc")).await.is_ok());
    seconds(2.0).await;
    assert_eq!(reviews.user(&token("ccc")).await, Err(ReviewError::Refused));
    assert_eq!(reviews.user(&token("ccc")).await, Err(ReviewError::Refused));
    assert_eq!(authority.asked(), 2, "a refusal is remembered too");
    authority.0.lock().answer = json!({"authenticated": true, "user": {"username": GATE},
        "audiences": ["tokenward-ledger"]});
    seconds(11.0).await;
    assert!(reviews.user(&token("ccc")).await.is_ok(), "but not for long");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_asks_little_at_a_time_and_pushes_no_gate_out() {
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    let reviews = Arc::new(authority.reviews());
    assert!(reviews.user(&token("gate")).await.is_ok());
    authority.0.lock().answer = json!({"authenticated": false});
    for garbage in ["", "a.b", "a.b.c.d", "a b.c.d", &"x.".repeat(5_000), "a..b"] {
        assert_eq!(reviews.user(garbage).await, Err(ReviewError::Refused), "{garbage:.20}");
    }
    assert_eq!(authority.asked(), 1, "nobody is asked about garbage");
    let flood = (0..800).map(|number| {
        let reviews = reviews.clone();
        tokio::spawn(async move { reviews.user(&token(&number.to_string())).await })
    });
    let told: Vec<_> = futures::future::join_all(flood).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(authority.0.lock().open.1, 4);
    assert!(told.contains(&Err(ReviewError::Refused)) && told.contains(&Err(ReviewError::Busy)));
    assert!(authority.asked() <= 1 + 25, "so many in a second: {}", authority.asked());
    assert!(reviews.user(&token("gate")).await.is_ok(), "still remembered");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_claim_to_be_acceptable_is_not_asked_about() {
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    let reviews = authority.reviews().issued_by(Some("https://cluster.example".to_owned()));
    let other = "system:serviceaccount:shop:other";
    for (claim, value, expected) in [
        ("aud", json!(["https://kubernetes.default.svc"]), ReviewError::Refused),
        ("aud", json!("tokenward-introspect"), ReviewError::Refused),
        ("aud", json!([]), ReviewError::Refused),
        ("aud", Value::Null, ReviewError::Refused),
        ("exp", json!(1_700_000_000), ReviewError::Refused),
        ("exp", json!("never"), ReviewError::Refused),
        ("exp", json!(-1), ReviewError::Refused),
        ("iss", Value::Null, ReviewError::Refused),
        ("sub", json!(other), ReviewError::Stranger),
        ("sub", json!("jane"), ReviewError::Stranger),
    ] {
        let mut changed = claims();
        changed[claim] = value.clone();
        assert_eq!(reviews.user(&claiming(&changed, "s")).await, Err(expected), "{claim}: {value}");
    }
    assert_eq!(authority.asked(), 0);
    let mut one = claims();
    one["aud"] = json!("tokenward-ledger");
    assert!(reviews.user(&claiming(&one, "s")).await.is_ok());
    // Of another issuer: one in a second, and some at first; it may be the next one of this API server.
    authority.0.lock().answer = json!({"authenticated": false});
    let mut foreign = claims();
    foreign["iss"] = json!("https://evil.example");
    for number in 0..1_000 {
        let _ = reviews.user(&claiming(&foreign, &number.to_string())).await;
    }
    assert!((1..=6).contains(&(authority.asked() - 1)), "{}", authority.asked());
}

/// However many strangers claim to be it: a gate that was known is asked about, out of a budget of its own.
#[tokio::test(start_paused = true)]
async fn a_flood_takes_nothing_from_who_is_known() {
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    let reviews = authority.reviews();
    assert!(reviews.user(&token("gate")).await.is_ok());
    seconds(61.0).await;
    authority.0.lock().answer = json!({"authenticated": false});
    let mut busy = false;
    for number in 0..2_000 {
        busy |= reviews.user(&token(&number.to_string())).await == Err(ReviewError::Busy);
    }
    assert!(busy);
    authority.0.lock().answer = Authority::knowing(GATE, "tokenward-ledger").0.lock().answer.clone();
    assert!(reviews.user(&token("gate")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_not_waited_for_long() {
    let cluster = Cluster::new();
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    authority.0.lock().silent = true;
    let service = service(&process, &authority);
    let before = tokio::time::Instant::now();
    let (code, _) = call(&service, METHOD, Some(&format!("Bearer {}", token("ccc"))), report(&cluster)).await;
    assert_eq!(code, Code::Unavailable);
    assert!(before.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_and_so_is_what_is_too_long() {
    let cluster = Cluster::new();
    let process = cluster.ledger("ledger");
    seconds(0.1).await;
    let authority = Authority::knowing(GATE, "tokenward-ledger");
    let service = service(&process, &authority);
    let bearer = format!("Bearer {}", token("ccc"));
    let bearer = Some(bearer.as_str());
    let nameless = framed(&Report::default().encode_to_vec());
    assert_eq!(call(&service, METHOD, bearer, nameless).await.0, Code::InvalidArgument);
    assert_eq!(call(&service, METHOD, bearer, framed(&[0xff; 20])).await.0, Code::InvalidArgument);
    assert_eq!(call(&service, METHOD, bearer, framed(&vec![0; 5 << 20])).await.0, Code::OutOfRange);
    assert_eq!(call(&service, "/another", bearer, report(&cluster)).await.0, Code::Unimplemented);
    for number in 0..64 {
        cluster.gate(&format!("gate-{number}")).send(&process, vec![]).unwrap();
    }
    assert_eq!(call(&service, METHOD, bearer, report(&cluster)).await.0, Code::ResourceExhausted);
    // Who does not lead asks nobody.
    process.stop.cancel();
    seconds(0.1).await;
    let asked = authority.asked();
    let stranger = format!("Bearer {}", token("fff"));
    let stranger = Some(stranger.as_str());
    assert_eq!(call(&service, METHOD, stranger, report(&cluster)).await.0, Code::FailedPrecondition);
    assert_eq!(authority.asked(), asked);
}
