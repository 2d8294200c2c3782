//! Pages of lists that fit into memory, whatever their authors wrote.
//!
//! An object may be as large as 1.5 MB, most of it in labels and annotations that nobody here reads, and whoever may write
//! objects may write many of them. A page is asked for by number of objects, so that it may be larger than the process can
//! take. One that grows beyond [`MOST`] bytes is given up and asked for again with fewer objects; the next ones begin with as
//! few, and go up again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Bytes};
use kube::client::{Body, DynBody};
use parking_lot::Mutex;
use tower::{BoxError, Layer, Service};

use super::Answer;
use crate::runtime::client_metrics::is_stream;

/// Bytes of a page. Taken apart it takes ten times as much for a moment.
const MOST: usize = 4 << 20;
/// Lists that are remembered: three for each namespace that is watched by itself.
const MAX_LISTS: usize = 1_024;

/// Keeps pages small.
pub struct PagesLayer;

impl<S> Layer<S> for PagesLayer {
    type Service = Pages<S>;

    fn layer(&self, inner: S) -> Pages<S> {
        Pages { inner: Arc::new(tokio::sync::Mutex::new(inner)), learned: Arc::default() }
    }
}

/// See [`PagesLayer`].
pub struct Pages<S> {
    inner: Arc<tokio::sync::Mutex<S>>,
    learned: Arc<Learned>,
}

/// How many objects made a page of each list, by its path, while that is fewer than was asked for.
#[derive(Default)]
struct Learned(Mutex<BTreeMap<String, u32>>);

impl Learned {
    /// How many to ask for.
    fn begin(&self, path: &str, asked: u32) -> u32 {
        self.0.lock().get(path).map_or(asked, |fitted| fitted.saturating_mul(2).min(asked))
    }

    /// So many made a page.
    fn fitted(&self, path: &str, limit: u32, asked: u32) {
        let mut learned = self.0.lock();
        if limit >= asked {
            learned.remove(path);
        } else if learned.len() < MAX_LISTS || learned.contains_key(path) {
            learned.insert(path.to_owned(), limit);
        }
    }
}

impl<S> Service<Request<Body>> for Pages<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError> + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, learned) = (self.inner.clone(), self.learned.clone());
        Box::pin(async move {
            let asked = limit_of(request.uri())
                .filter(|_| request.method() == http::Method::GET && !is_stream(&request));
            let Some(asked) = asked else { return send(&inner, request).await };
            let path = request.uri().path().to_owned();
            let (parts, _) = request.into_parts();
            let mut limit = learned.begin(&path, asked);
            loop {
                let mut request = Request::new(Body::empty());
                *request.uri_mut() = with_limit(&parts.uri, limit)?;
                request.headers_mut().clone_from(&parts.headers);
                request.extensions_mut().clone_from(&parts.extensions);
                let (head, body) = send(&inner, request).await?.into_parts();
                // A single object is as large as the API server lets it be.
                let most = if limit > 1 { MOST } else { usize::MAX };
                if let Some(body) = up_to(most, body).await? {
                    learned.fitted(&path, limit, asked);
                    let body: Box<DynBody> = Box::new(Full::new(body).map_err(|never| match never {}));
                    return Ok(Response::from_parts(head, body));
                }
                limit = (limit / 4).max(1);
                tracing::debug!(path, limit, "a page is too large; asking for fewer objects");
            }
        })
    }
}

async fn send<S>(inner: &tokio::sync::Mutex<S>, request: Request<Body>) -> Result<Answer, BoxError>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
{
    let answer = {
        let mut inner = inner.lock().await;
        poll_fn(|context| inner.poll_ready(context)).await?;
        inner.call(request)
    };
    answer.await
}

/// The whole body, unless it is longer than that.
async fn up_to(most: usize, mut body: Box<DynBody>) -> Result<Option<Bytes>, BoxError> {
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            if data.len() > most - whole.len() {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.into()))
}

/// The number of objects that a list is asked for.
fn limit_of(uri: &Uri) -> Option<u32> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok())
}

fn with_limit(uri: &Uri, limit: u32) -> Result<Uri, BoxError> {
    let query = uri.query().unwrap_or_default().split('&');
    let query: Vec<_> = query
        .map(|pair| match pair.starts_with("limit=") {
            true => format!("limit={limit}"),
            false => pair.to_owned(),
        })
        .collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), query.join("&")).parse()?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API server with objects of these sizes, of which the continue token is the number of the next.
    async fn listed(sizes: &'static [usize], asked: u32) -> (Vec<usize>, Vec<(usize, u32)>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let from = query.split('&').find_map(|pair| pair.strip_prefix("continue=")?.parse().ok());
            let (from, limit) = (from.unwrap_or(0), limit_of(request.uri()).unwrap());
            log.lock().push((from, limit));
            let page = sizes.iter().skip(from).take(limit as usize);
            let body = vec![b'x'; page.sum()];
            let body: Box<DynBody> = Box::new(Full::new(Bytes::from(body)).map_err(|never| match never {}));
            std::future::ready(Ok::<_, BoxError>(Response::new(body)))
        });
        let mut pages = PagesLayer.layer(server);
        let (mut from, mut got) = (0, Vec::new());
        while from < sizes.len() {
            let uri = format!("http://api/apis/x?&limit={asked}&continue={from}");
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let body = pages.call(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            let (last, limit) = *seen.lock().last().unwrap();
            assert_eq!(last, from);
            from += limit as usize;
            got.push(body.len());
        }
        let seen = seen.lock().clone();
        (got, seen)
    }

    #[tokio::test]
    async fn what_fits_is_asked_for_once() {
        let (got, seen) = listed(&[2_000; 120], 50).await;
        assert_eq!(got, [100_000, 100_000, 40_000]);
        assert_eq!(seen, [(0, 50), (50, 50), (100, 50)]);
    }

    #[tokio::test]
    async fn no_page_is_larger_than_fits_and_few_are_asked_for_in_vain() {
        const LARGE: usize = 1_150_000;
        let (got, seen) = listed(&[LARGE; 125], 50).await;
        assert!(got.iter().all(|bytes| *bytes <= MOST), "{got:?}");
        assert_eq!(got.iter().sum::<usize>(), 125 * LARGE);
        // Each page that fits doubles the next try, so about every second one is too large.
        assert!(seen.len() <= got.len() * 3, "{} requests for {} pages", seen.len(), got.len());
        // And back to fifty where the large ones end.
        static MIXED: [usize; 200] = {
            let mut sizes = [2_000; 200];
            let mut at = 0;
            while at < 10 {
                sizes[at] = LARGE;
                at += 1;
            }
            sizes
        };
        let (_, seen) = listed(&MIXED, 50).await;
        assert_eq!(seen.last().map(|(_, limit)| *limit), Some(50), "{seen:?}");
    }

    #[tokio::test]
    async fn one_object_is_taken_whatever_its_size() {
        static SIZES: [usize; 2] = [MOST + 1, MOST * 2];
        let (got, seen) = listed(&SIZES, 500).await;
        assert_eq!(got, [MOST + 1, MOST * 2], "{seen:?}");
    }
}
