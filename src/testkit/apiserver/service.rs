//! The `tower::Service` that a `kube::Client` talks to.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use kube::client::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::faults::{Crash, Fault, Link, When};
use super::request::{self, Call, RequestInfo, Verb};
use super::server::Inner;
use super::status::ApiError;
use super::store::partial;
use super::watch::WatchBody;
use super::write::{Answer, Target};

/// One client's connection to the server. Clones are the same client.
#[derive(Clone)]
pub struct ClientService {
    inner: Arc<Inner>,
    client: Arc<str>,
    /// Cleared when a planned crash strikes: nothing this client still does has any effect.
    alive: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

/// A response body: all at once, or a watch.
pub struct ReplyBody(Reply);

enum Reply {
    Whole(Option<Bytes>),
    Watch(Box<WatchBody>),
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Reply::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Reply::Watch(watch) => watch.poll_line(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Reply::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Reply::Watch(_) => SizeHint::default(),
        }
    }
}

impl tower::Service<Request<Body>> for ClientService {
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<ReplyBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.serve(request).await })
    }
}

/// What the server did with a request.
enum Done {
    Answer(Answer),
    Watch(Box<WatchBody>),
}

fn reset(what: &'static str) -> BoxError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, what).into()
}

fn reply(
    code: u16,
    kind: &str,
    retry_after: Option<u64>,
    body: Reply,
) -> Result<Response<ReplyBody>, BoxError> {
    let mut response = Response::builder().status(code).header(http::header::CONTENT_TYPE, kind);
    if let Some(seconds) = retry_after {
        response = response.header(http::header::RETRY_AFTER, seconds);
    }
    Ok(response.body(ReplyBody(body))?)
}

impl ClientService {
    pub(super) fn new(inner: Arc<Inner>, client: &str) -> Self {
        Self {
            inner,
            client: client.into(),
            alive: Arc::new(AtomicBool::new(true)),
            writes: Arc::new(AtomicU64::new(0)),
        }
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<ReplyBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let mut call = match request::parse(&parts, &body, self.client.clone()) {
            Ok(call) => call,
            Err(error) => return self.answer(Err(error), false),
        };
        call.info.id = self.inner.next_id();
        if call.info.verb.is_write() {
            call.info.write = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        }
        let (code, response) = self.fate(&call).await;
        self.inner.log(call.info, code);
        response
    }

    /// Waits until the request can pass, or fails as a refused connection.
    async fn reach(&self) -> Result<(), BoxError> {
        if !self.alive.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        loop {
            let changed = self.inner.links_changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.inner.link(&self.client) {
                Link::Up => return Ok(()),
                Link::Refused => return Err(reset("connection refused")),
                Link::Silent => changed.await,
            }
        }
    }

    /// Carries a request through everything that may befall it.
    async fn fate(&self, call: &Call) -> (u16, Result<Response<ReplyBody>, BoxError>) {
        if let Err(error) = self.reach().await {
            return (0, Err(error));
        }
        let crash = self.inner.crash(&call.info);
        if let Some(Crash { when: When::Before, .. }) = &crash {
            return self.die(call, crash).await;
        }
        let fault = self.inner.decide(&call.info);
        match fault {
            Fault::Status { code, retry_after } => {
                return self.logged(Err(ApiError::fault(code, retry_after)), call);
            }
            Fault::FailBefore => return (0, Err(reset("connection reset before the request"))),
            Fault::Hang => return self.never(&call.info).await,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                if let Err(error) = self.reach().await {
                    return (0, Err(error));
                }
            }
            Fault::Late(delay) => {
                let (this, late) = (self.clone(), call.clone());
                let late = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    this.reach().await?;
                    Ok::<_, BoxError>(this.execute(&late, None))
                });
                return match late.await {
                    Ok(Ok(done)) => self.logged(done, call),
                    Ok(Err(error)) => (0, Err(error)),
                    Err(error) => (0, Err(error.into())),
                };
            }
            _ => {}
        }
        let breaks = match fault {
            Fault::DropWatch(after) => Some(Instant::now() + after),
            _ => None,
        };
        let done = self.execute(call, breaks);
        if crash.is_some() {
            return self.die(call, crash).await;
        }
        match fault {
            Fault::FailAfter => return (0, Err(reset("connection reset before the answer"))),
            Fault::HangAfter => return self.never(&call.info).await,
            Fault::DelayAfter(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        if let Err(error) = self.reach().await {
            return (0, Err(error));
        }
        self.logged(done, call)
    }

    async fn die(&self, call: &Call, crash: Option<Crash>) -> (u16, Result<Response<ReplyBody>, BoxError>) {
        self.alive.store(false, Ordering::Relaxed);
        if let Some(tell) = crash.and_then(|crash| crash.tell) {
            // Nobody may be listening any more; the crash happens all the same.
            let _ = tell.send(call.info.clone());
        }
        self.never(&call.info).await
    }

    async fn never(&self, info: &RequestInfo) -> (u16, Result<Response<ReplyBody>, BoxError>) {
        self.inner.log(info.clone(), 0);
        std::future::pending().await
    }

    fn logged(
        &self,
        done: Result<Done, ApiError>,
        call: &Call,
    ) -> (u16, Result<Response<ReplyBody>, BoxError>) {
        let code = match &done {
            Ok(Done::Answer(answer)) => answer.code,
            Ok(Done::Watch(_)) => 200,
            Err(error) => error.code,
        };
        (code, self.answer(done, call.metadata_only))
    }

    fn answer(
        &self,
        done: Result<Done, ApiError>,
        metadata_only: bool,
    ) -> Result<Response<ReplyBody>, BoxError> {
        const JSON: &str = "application/json";
        match done {
            Ok(Done::Watch(watch)) => reply(200, JSON, None, Reply::Watch(watch)),
            Ok(Done::Answer(Answer { code, body })) => {
                let object = metadata_only && body.get("items").is_none() && body["kind"] != "Status";
                let text =
                    if object { serde_json::to_vec(&partial(&body))? } else { serde_json::to_vec(&*body)? };
                reply(code, JSON, None, Reply::Whole(Some(text.into())))
            }
            Err(error) if error.plain => {
                reply(error.code, "text/plain", None, Reply::Whole(Some(error.message.into())))
            }
            Err(error) => {
                let text = serde_json::to_vec(&error.to_value())?;
                reply(error.code, JSON, error.retry_after, Reply::Whole(Some(text.into())))
            }
        }
    }

    /// Does what is asked, at once.
    fn execute(&self, call: &Call, breaks: Option<Instant>) -> Result<Done, ApiError> {
        let epoch = self.inner.epoch(&self.client);
        self.inner.with(|state| {
            state.run_due();
            let info = &call.info;
            let table = state
                .table(&info.group, &info.version, &info.resource)
                .ok_or_else(|| ApiError::no_resource(&info.group))?;
            let res = state.tables[table].res.clone();
            if !res.namespaced && info.namespace.is_some() {
                return Err(ApiError::no_route());
            }
            let status = match info.subresource.as_deref() {
                None => false,
                Some("status") if res.has_status => true,
                Some(_) => return Err(ApiError::no_route()),
            };
            let target = Target { call, table, res: res.clone(), status };
            state.authorize(info, &res)?;
            let answer = match info.verb {
                Verb::Watch => {
                    let watch = WatchBody::open(&self.inner, state, &target, epoch, breaks)?;
                    return Ok(Done::Watch(Box::new(watch)));
                }
                Verb::Get => state.get(&target),
                Verb::List => state.list(&target),
                Verb::Create if status => Err(ApiError::method_not_allowed()),
                Verb::Create => state.create(&target),
                Verb::Update => state.replace(&target),
                Verb::Patch => state.patch(&target),
                Verb::Delete if status => Err(ApiError::method_not_allowed()),
                Verb::Delete => state.delete(&target),
                Verb::DeleteCollection => state.delete_collection(&target),
            };
            answer.map(Done::Answer)
        })
    }
}
