//! The way to the API server: where it is, how long a call may take, how calls are counted.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::time::{Instant, Sleep};
use tower::{BoxError, Layer, Service};

pub use self::outage::Outage;
use self::pages::PagesLayer;
use super::client_metrics::{code, is_stream, verb};
use crate::platform::process::ProcessMetrics;

mod outage;
mod pages;
#[cfg(test)]
mod tests;

/// A stream begins when the API server is ready to serve it, which may take longer than a call: the first watch after
/// its start waits for its cache. But an API server that accepts and never answers must not stall a watch for ever.
const STREAM_OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The named file cannot be used.
    #[error("--kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// No file was named, and none of the usual places leads to a cluster.
    #[error("no cluster: give --kubeconfig, set KUBECONFIG, or run in a pod with a service account")]
    Infer(#[source] Box<InferConfigError>),
    /// Certificates or credentials in the configuration cannot be used.
    #[error("the cluster's configuration cannot be used")]
    Build(#[source] Box<kube::Error>),
}

impl ClientError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Kubeconfig { .. } => "Kubeconfig",
            Self::Infer(_) => "Infer",
            Self::Build(_) => "Build",
        }
    }
}

/// A client for `kubeconfig`, or for what the environment offers. Nothing is sent yet. Clients that share `outage` tell of one
/// together.
pub async fn connect(
    kubeconfig: Option<&Path>,
    request_timeout: Duration,
    metrics: ProcessMetrics,
    outage: &Outage,
) -> Result<kube::Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(|error| ClientError::Infer(Box::new(error)))?,
    };
    config.connect_timeout = Some(request_timeout);
    // Off: it would cut quiet watches. `Calls` bounds everything that is not one.
    config.read_timeout = None;
    // Off: the client would answer 429, 503 and 504 with up to 15 more attempts of any call, creates included, with
    // waits of minutes, unseen by whoever waits. Here a call ends within its time, and whoever made it decides: a
    // reconcile backs off for its object, a watch for itself, an election tries again within its deadline.
    config.default_retry = false;
    let agent = HeaderValue::from_static(concat!("tokenward/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let outage = outage.of(&config.cluster_url);
    let builder = ClientBuilder::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))?;
    Ok(builder.with_layer(&CallsLayer { request_timeout, metrics, outage }).with_layer(&PagesLayer).build())
}

/// Bounds and counts calls.
struct CallsLayer {
    request_timeout: Duration,
    metrics: ProcessMetrics,
    outage: Outage,
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls {
            inner,
            request_timeout: self.request_timeout,
            metrics: self.metrics.clone(),
            outage: self.outage.clone(),
        }
    }
}

struct Calls<S> {
    inner: S,
    request_timeout: Duration,
    metrics: ProcessMetrics,
    outage: Outage,
}

/// The API server did not answer in time. The call may have had effect all the same.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {}", crate::domain::duration::format(*.0))]
pub struct NoAnswer(Duration);

type Answer = Response<Box<DynBody>>;

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stream = is_stream(&request);
        let limit = if stream { STREAM_OPEN_TIMEOUT.max(self.request_timeout) } else { self.request_timeout };
        let mut count = Count::new(verb(&request), self.metrics.clone());
        let answer = self.inner.call(request);
        let deadline = Instant::now() + limit;
        let outage = self.outage.clone();
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => {
                    count.end(code(answer.status().as_u16()));
                    outage.over();
                    // The body of a call belongs to its time, too: a list that stalls half-way has no answer.
                    Ok(if stream { answer } else { answer.map(|body| Bounded::boxed(body, deadline, limit)) })
                }
                Ok(Err(error)) => {
                    count.end("error");
                    Err(outage.failed(&*error).into())
                }
                Err(_) => {
                    count.end("timeout");
                    let error = NoAnswer(limit);
                    outage.failed(&error);
                    Err(error.into())
                }
            }
        })
    }
}

/// Counts one call, also if its caller gives it up.
struct Count {
    verb: &'static str,
    code: &'static str,
    started: Instant,
    metrics: ProcessMetrics,
}

impl Count {
    fn new(verb: &'static str, metrics: ProcessMetrics) -> Self {
        Self { verb, code: "dropped", started: Instant::now(), metrics }
    }

    fn end(&mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.api_requests.inc([self.verb, self.code]);
        self.metrics.api_request_duration.observe([self.verb], self.started.elapsed());
    }
}

/// A body that has to be complete by a deadline.
struct Bounded {
    body: Box<DynBody>,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
}

impl Bounded {
    fn boxed(body: Box<DynBody>, deadline: Instant, limit: Duration) -> Box<DynBody> {
        Box::new(Self { body, deadline: Box::pin(tokio::time::sleep_until(deadline)), limit })
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(context));
                Poll::Ready(Some(Err(NoAnswer(self.limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
