//! Accepts connections and serves HTTP/1.1, HTTP/2 or both on them, in the clear or over TLS, for every listener there is.
//!
//! Nothing a client does holds anything for ever: connections are counted, heads and idle connections have deadlines,
//! requests have a time to be answered in, and a shutdown waits for what is under way, but not longer than it may.

mod crowd;
mod frames;
mod pace;

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::BoxError;

use self::crowd::{Crowd, Newcomer};
use self::pace::{End, Pace, Paced, Watch};

use crate::platform::families::CounterVec;
use crate::platform::reminder::Reminder;
use crate::platform::target::Targets;

/// Most bytes of a request's head, and of a header list in HTTP/2: as much as nginx takes from a client.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most lines of a request's head in HTTP/1.1. Some proxies pass on all that a client sends, and browsers of today send fifty.
pub const MAX_HEADERS: usize = 256;
/// Bytes of bodies that may be on their way unread: of one HTTP/2 stream, and of a connection.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;
/// How often a silent HTTP/2 connection is asked for a sign of life, and how long that is waited for.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 4096;
/// Pause after a connection could not be accepted: out of file descriptors, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener grants.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait in the backlog.
    pub connections: usize,
    /// For the first byte on a new connection, for the TLS handshake, and for each request's head from its first byte.
    pub head: Duration,
    /// For a connection to stay without a request.
    pub idle: Duration,
    /// For a request to be answered, its body included.
    pub request: Duration,
    /// For what is under way to end once its connection shall close.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            head: Duration::from_secs(10),
            // Longer than nginx keeps a connection to an upstream (60 s): who closes first never loses a request.
            idle: Duration::from_secs(75),
            request: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// What is counted of a listener's connections.
#[derive(Debug, Clone)]
pub struct Meter {
    /// In logs, and as a label.
    pub listener: &'static str,
    /// Open connections.
    pub open: Gauge,
    /// Connections that were closed without an answer, by listener and reason (`tls`, `slow`, `oversize`, `garbled`,
    /// `overdue`, `flood`, `crowded`).
    pub refused: Option<CounterVec<2>>,
}

impl Meter {
    /// Counts nothing.
    pub fn none(listener: &'static str) -> Self {
        Self { listener, open: Gauge::default(), refused: None }
    }

    fn refused(&self, reason: &'static str) {
        if let Some(refused) = &self.refused {
            refused.inc([self.listener, reason]);
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("{flag} {address} cannot be listened on")]
    Bind {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl ListenError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "Listen",
        }
    }
}

/// Opens the port that `flag` names, so that a wrong address ends the process before it does anything else.
pub async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Bind { flag, address, source })
}

/// A port that is taken and not open yet: whoever connects is refused.
#[derive(Debug)]
pub struct Reserved {
    socket: TcpSocket,
    flag: &'static str,
    address: SocketAddr,
}

/// Takes the port that `flag` names without opening it.
pub fn reserve(flag: &'static str, address: SocketAddr) -> Result<Reserved, ListenError> {
    let socket = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As `TcpListener::bind` has it: a port with connections of a process before is free.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    let socket = socket().map_err(|source| ListenError::Bind { flag, address, source })?;
    Ok(Reserved { socket, flag, address })
}

impl Reserved {
    /// Opens it.
    pub fn open(self) -> Result<TcpListener, ListenError> {
        let Self { socket, flag, address } = self;
        socket.listen(BACKLOG).map_err(|source| ListenError::Bind { flag, address, source })
    }
}

/// How a listener serves.
#[derive(Clone)]
pub struct Server {
    limits: Limits,
    meter: Meter,
    crowd: Arc<Crowd>,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    http1_only: bool,
    http: auto::Builder<TokioExecutor>,
}

/// What a service must be: never failing, and cheap to clone, once for each connection.
pub trait Serves<B>:
    Service<
        Request<Incoming>,
        Response = Response<B>,
        Error = Infallible,
        Future: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<B, S> Serves<B> for S where
    S: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

impl Server {
    /// Speaks HTTP/1.1 and HTTP/2, whichever the client begins with.
    pub fn new(limits: Limits, meter: Meter) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // Without a timer of hyper's own: it would measure a request's head from the end of the one before.
        http.http1().max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        Self { limits, meter, crowd: Arc::default(), tls: None, http1_only: false, http }
    }

    /// Over TLS, with whatever configuration stands here when a connection begins.
    pub fn with_tls(mut self, tls: Option<Arc<ArcSwap<ServerConfig>>>) -> Self {
        self.tls = tls;
        self
    }

    /// HTTP/1.1 only, where what a target holds is not the client's: in HTTP/2 nobody sees that one was cut off.
    pub fn http1_only(mut self) -> Self {
        self.http = self.http.http1_only();
        self.http1_only = true;
        self
    }

    /// HTTP/2 only, as gRPC needs it.
    pub fn http2_only(mut self) -> Self {
        self.http = self.http.http2_only();
        self
    }

    /// Serves until `shutdown`, then lets what is under way end.
    pub async fn serve<S, B>(self, listener: TcpListener, service: S, shutdown: CancellationToken)
    where
        S: Serves<B>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let server = Arc::new(self);
        let places = Arc::new(Semaphore::new(server.limits.connections));
        let connections = TaskTracker::new();
        let mut reminder = Reminder::default();
        loop {
            let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await else { break };
            match accepted {
                Ok((stream, _)) => {
                    // Only now: before somebody has come, nobody has to make room.
                    let place = shutdown.run_until_cancelled(server.place(&places, &mut reminder)).await;
                    let Some(Some(place)) = place else { break };
                    let newcomer = Arc::new(server.crowd.enter());
                    let shutdown = shutdown.child_token();
                    let end = shutdown.clone();
                    let connection =
                        server.clone().connection(stream, service.clone(), shutdown, newcomer.clone());
                    connections.spawn(async move {
                        let mut connection = pin!(connection);
                        tokio::select! {
                            () = connection.as_mut() => {}
                            () = newcomer.pushed_out() => {
                                // A request may be on its way, an answer not yet read, and HTTP/2 says goodbye.
                                if newcomer.is_settled() {
                                    end.cancel();
                                    connection.await;
                                }
                            }
                        }
                        drop(place);
                    });
                }
                // Out of file descriptors, or a client that was gone before it was accepted: neither is ours to end by, and
                // the first would come again at once.
                Err(error) => {
                    if reminder.is_due() {
                        tracing::warn!(listener = server.meter.listener, %error, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Nobody may wait in the backlog of a listener that accepts no more.
        drop(listener);
        connections.close();
        // Each connection keeps to the same deadline; this one is for those within a handshake.
        let _ = tokio::time::timeout(server.limits.drain, connections.wait()).await;
    }

    async fn place(&self, places: &Arc<Semaphore>, reminder: &mut Reminder) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        if reminder.is_due() {
            let (listener, limit) = (self.meter.listener, self.limits.connections);
            tracing::warn!(listener, limit, "as many connections as allowed; more have to wait");
        }
        loop {
            // Who has sent nothing yet makes room for who may, and who idles for who waits.
            if self.crowd.push_out() {
                self.meter.refused("crowded");
            }
            if let Ok(place) = tokio::time::timeout(crowd::IDLE, places.clone().acquire_owned()).await {
                return place.ok();
            }
        }
    }

    async fn connection<S, B>(
        self: Arc<Self>,
        stream: TcpStream,
        service: S,
        shutdown: CancellationToken,
        newcomer: Arc<Newcomer>,
    ) where
        S: Serves<B>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let _open = Open::new(&self.meter.open);
        // Answers are small and complete: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        // Nothing is set up for who sends nothing: buffers, and the state of a protocol, are most of what a connection takes.
        let first = tokio::time::timeout(self.limits.head, stream.readable());
        match shutdown.run_until_cancelled(first).await {
            Some(Ok(Ok(()))) => {}
            Some(Err(_)) => return self.meter.refused("slow"),
            Some(Ok(Err(_))) | None => return,
        }
        Box::pin(self.speak(stream, service, shutdown, newcomer)).await;
    }

    /// Serves a connection on which something came.
    async fn speak<S, B>(
        &self,
        stream: TcpStream,
        service: S,
        shutdown: CancellationToken,
        newcomer: Arc<Newcomer>,
    ) where
        S: Serves<B>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let Some(tls) = &self.tls else { return self.attend(stream, service, shutdown, newcomer).await };
        let handshake = TlsAcceptor::from(self.offered(tls.load_full())).accept(stream);
        let handshake = tokio::time::timeout(self.limits.head, handshake);
        match shutdown.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.attend(stream, service, shutdown, newcomer).await,
            Some(Ok(Err(error))) => {
                tracing::debug!(listener = self.meter.listener, %error, "no TLS with a client");
                self.meter.refused("tls");
            }
            Some(Err(_)) => self.meter.refused("slow"),
            None => {}
        }
    }

    /// What is offered to a client over TLS: nothing that is not spoken.
    fn offered(&self, config: Arc<ServerConfig>) -> Arc<ServerConfig> {
        if !self.http1_only {
            return config;
        }
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Serves one connection to its end.
    async fn attend<S, B, T>(
        &self,
        stream: T,
        service: S,
        shutdown: CancellationToken,
        newcomer: Arc<Newcomer>,
    ) where
        S: Serves<B>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pace = Arc::new(Pace::default());
        let limit = self.limits.request;
        let timed = service_fn({
            let pace = pace.clone();
            move |request: Request<Incoming>| {
                let busy = (newcomer.request(), pace.begin(request.version()));
                let answer = service.call(request);
                async move {
                    let mut answer = pin!(answer);
                    // Most answers are there at once, and need no timer.
                    let result = match futures::poll!(answer.as_mut()) {
                        Poll::Ready(result) => Ok(result),
                        Poll::Pending => tokio::time::timeout(limit, answer).await,
                    };
                    drop(busy);
                    match result {
                        Ok(Ok(response)) => Ok(response),
                        // Fails closed: no answer is none that lets through.
                        Err(_) => Err(Overdue),
                    }
                }
            }
        });
        let stream = TokioIo::new(Paced::new(stream, pace.clone(), self.http1_only.then(Targets::default)));
        let mut connection = pin!(self.http.serve_connection(stream, timed));
        let mut watch = pin!(Watch::new(pace.clone(), self.limits));
        let served = poll_fn(|context| match connection.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(End::Closed(result)),
            Poll::Pending => watch.as_mut().poll(context).map(End::Expired),
        });
        match shutdown.run_until_cancelled(served).await {
            // Whatever is said of the end: it was ours.
            Some(End::Closed(_)) if pace.is_flooded() => return self.meter.refused("flood"),
            Some(End::Closed(Ok(()))) => return,
            Some(End::Closed(Err(error))) => return self.broke(&*error),
            // Not a whole head in its time. Nothing is under way that could be let end.
            Some(End::Expired(pace::Expired::Slow)) => return self.meter.refused("slow"),
            Some(End::Expired(pace::Expired::Idle)) | None => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(self.limits.drain, connection).await;
    }

    /// A connection that ended with an error. Said to nobody by default: any client can do that at any rate.
    fn broke(&self, error: &(dyn Error + 'static)) {
        tracing::debug!(listener = self.meter.listener, error = super::chain(error), "a connection broke");
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Overdue>() {
                return self.meter.refused("overdue");
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                // Answered with 431, of which nginx makes a 500: whoever looks for its cause finds it here.
                if error.is_parse_too_large() {
                    return self.meter.refused("oversize");
                }
                if error.is_parse() {
                    return self.meter.refused("garbled");
                }
            }
            cause = error.source();
        }
    }
}

/// A request was not answered in its time. HTTP/1.1 closes the connection, HTTP/2 resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("not answered in time")]
struct Overdue;

/// Counts a connection while it lives.
struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
