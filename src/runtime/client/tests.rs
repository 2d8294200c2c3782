//! The client against small servers on the loopback interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body as ServerBody;
use axum::extract::Request as ServerRequest;
use axum::response::IntoResponse;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, WatchParams};
use prometheus_client::registry::Registry;

use super::*;

/// For calls that nobody answers.
const TIMEOUT: Duration = Duration::from_millis(300);
/// For calls that are answered, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    api: Api<ConfigMap>,
    metrics: ProcessMetrics,
    calls: Arc<AtomicU32>,
    _folder: Folder,
}

/// A folder that goes away with its test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kubeconfig(server: &str) -> Folder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("tokenward-client-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: {server:?}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: c, namespace: shop}}}}]\n\
         users: [{{name: c, user: {{token: t}}}}]\n"
    );
    std::fs::write(folder.0.join("config"), text).expect("written");
    folder
}

/// A client, whose calls have `limit`, for a server that answers everything with `answer`.
async fn fixture(limit: Duration, answer: fn(&ServerRequest) -> axum::response::Response) -> Fixture {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let app = Router::new().fallback(move |request: ServerRequest| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { answer(&request) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let folder = kubeconfig(&format!("http://{address}"));
    let metrics = ProcessMetrics::new(&mut Registry::default());
    let client = connect(Some(&folder.0.join("config")), limit, metrics.clone(), &Outage::default())
        .await
        .expect("a client");
    assert_eq!(client.default_namespace(), "shop");
    Fixture { api: Api::default_namespaced(client), metrics, calls, _folder: folder }
}

fn json(body: &'static str) -> axum::response::Response {
    ([("content-type", "application/json")], body).into_response()
}

/// The beginning of a body that never ends.
fn stalled(beginning: &'static str) -> axum::response::Response {
    let first = futures::stream::once(async move { Ok::<_, std::io::Error>(beginning) });
    ServerBody::from_stream(first.chain(futures::stream::pending())).into_response()
}

#[tokio::test]
async fn calls_name_the_program_and_are_counted() {
    let fixture = fixture(PATIENCE, |request| {
        let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok());
        assert_eq!(agent, Some(concat!("tokenward/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(request.headers()["authorization"], "Bearer t");
        json(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"}}"#)
    })
    .await;
    fixture.api.get("x").await.expect("answered");
    assert_eq!(fixture.metrics.api_requests.get(["get", "200"]), 1);
}

#[tokio::test]
async fn an_overloaded_server_is_not_asked_again_behind_our_back() {
    let fixture = fixture(PATIENCE, |_| (http::StatusCode::SERVICE_UNAVAILABLE, "").into_response()).await;
    fixture.api.get("x").await.expect_err("refused");
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 1);
    assert_eq!(fixture.metrics.api_requests.get(["get", "503"]), 1);
}

#[tokio::test]
async fn an_answer_that_stalls_half_way_is_none() {
    // The head of the answer has to come within it.
    let limit = Duration::from_secs(2);
    let fixture = fixture(limit, |_| stalled(r#"{"kind":"ConfigMapList","items":["#)).await;
    let params = ListParams::default();
    let list = tokio::time::timeout(PATIENCE, fixture.api.list(&params)).await;
    let error = list.expect("not for ever").expect_err("cut");
    assert!(super::super::chain(&error).contains("no answer within 2s"), "{error}");
    assert_eq!(fixture.metrics.api_requests.get(["list", "200"]), 1);
}

/// One call through the layer alone, in virtual time, to a server whose body never ends.
async fn body_of(uri: &str) -> Box<DynBody> {
    let endless = tower::service_fn(|_: Request<Body>| async {
        let body =
            http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
        Ok::<_, BoxError>(Response::new(Box::new(body) as Box<DynBody>))
    });
    let metrics = ProcessMetrics::new(&mut Registry::default());
    let service = CallsLayer { request_timeout: TIMEOUT, metrics, outage: Outage::default() }.layer(endless);
    let request = Request::builder().uri(uri).body(Body::empty()).expect("a request");
    tower::ServiceExt::oneshot(service, request).await.expect("answered").into_body()
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_not_cut_and_everything_else_is() {
    let hour = Duration::from_secs(3600);
    for (uri, open) in [("/api/v1/configmaps?watch=true", true), ("/api/v1/configmaps", false)] {
        let mut body = body_of(uri).await;
        let frame = tokio::time::timeout(hour, http_body_util::BodyExt::frame(&mut body)).await;
        assert_eq!(frame.is_err(), open, "{uri}");
    }
}

#[tokio::test]
async fn a_watch_is_counted_and_read() {
    let fixture = fixture(PATIENCE, |_| {
        stalled("{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}}}\n")
    })
    .await;
    let mut events = Box::pin(fixture.api.watch(&WatchParams::default(), "0").await.expect("opened"));
    assert!(events.next().await.expect("an event").is_ok());
    assert_eq!(fixture.metrics.api_requests.get(["watch", "200"]), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let folder = kubeconfig(&format!("http://{}", listener.local_addr().expect("bound")));
    let metrics = ProcessMetrics::new(&mut Registry::default());
    let config = folder.0.join("config");
    let api = async |limit| {
        let client =
            connect(Some(&config), limit, metrics.clone(), &Outage::default()).await.expect("a client");
        Api::<ConfigMap>::default_namespaced(client)
    };
    let error = api(TIMEOUT).await.get("x").await.expect_err("no answer");
    assert!(super::super::chain(&error).contains("no answer within 300ms"), "{error}");
    assert_eq!(metrics.api_requests.get(["get", "timeout"]), 1);
    // Given up by whoever called, long before its time is over.
    let patient = api(PATIENCE).await;
    let given_up = tokio::time::timeout(TIMEOUT, patient.get("x")).await;
    assert!(given_up.is_err());
    let counted = async {
        while metrics.api_requests.get(["get", "dropped"]) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("counted");
    assert_eq!(metrics.api_requests.get(["get", "dropped"]), 1);
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named() {
    let metrics = ProcessMetrics::new(&mut Registry::default());
    let error = connect(Some(Path::new("/nowhere/config")), TIMEOUT, metrics, &Outage::default())
        .await
        .err()
        .expect("fails");
    let message = super::super::chain(&error);
    assert!(message.starts_with("--kubeconfig /nowhere/config: "), "{message}");
    assert_eq!(error.category(), "Kubeconfig");
}
