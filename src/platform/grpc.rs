//! Unary gRPC without generated code: the messages are prost structs, the method is a path.
//!
//! Only what two small services need: Envoy's authorization check, and the reports between gates and the ledger.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

/// First size of a message's buffer; it grows. The default of 8 KiB would be allocated and zeroed for every answer of
/// some hundred bytes.
const BUFFER: usize = 1024;
/// Bytes that are collected before a frame is sent. Unary calls have one message, so it is never reached.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// How long a connection that is being used may stay silent before it is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long that sign is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes `E` and reads `D` as protocol buffers.
#[derive(Debug)]
pub struct Protobuf<E, D>(PhantomData<fn() -> (E, D)>);

impl<E, D> Default for Protobuf<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// One direction of [`Protobuf`].
#[derive(Debug)]
pub struct Half<M>(PhantomData<fn() -> M>);

impl<E, D> Codec for Protobuf<E, D>
where
    E: Message + 'static,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Half<E>;
    type Decoder = Half<D>;

    fn encoder(&mut self) -> Half<E> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<D> {
        Half(PhantomData)
    }
}

impl<M: Message> Encoder for Half<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, item: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD_THRESHOLD)
    }
}

impl<M: Message + Default> Decoder for Half<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        // The peer's mistake, not ours: said as such. prost's message names fields, never their values.
        M::decode(buffer).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD_THRESHOLD)
    }
}

/// Turns a closure into what tonic calls.
struct Handler<'a, H>(&'a H);

impl<Req, Res, H, F> UnaryService<Req> for Handler<'_, H>
where
    H: Fn(Request<Req>) -> F,
    F: Future<Output = Result<Response<Res>, Status>>,
{
    type Response = Res;
    type Future = F;

    fn call(&mut self, request: Request<Req>) -> F {
        (self.0)(request)
    }
}

/// Answers one request: that to `path` by `handler`, any other as unimplemented. Messages longer than `max_bytes` are
/// refused before they are read.
pub async fn answer<Req, Res, H, F, B>(
    path: &str,
    max_bytes: usize,
    handler: &H,
    request: http::Request<B>,
) -> http::Response<Body>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    H: Fn(Request<Req>) -> F,
    F: Future<Output = Result<Response<Res>, Status>>,
    B: HttpBody + Send + 'static,
    B::Error: Into<tower::BoxError> + Send,
{
    if request.uri().path() != path {
        return Status::unimplemented("there is no such method here").into_http();
    }
    tonic::server::Grpc::new(Protobuf::<Res, Req>::default())
        .max_decoding_message_size(max_bytes)
        .unary(Handler(handler), request)
        .await
}

/// A server of one method, for `runtime::serve`. Messages longer than `max_bytes` are refused.
pub fn unary<Req, Res, H, F>(
    path: &'static str,
    max_bytes: usize,
    handler: H,
) -> impl Service<
    http::Request<Incoming>,
    Response = http::Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<http::Response<Body>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    H: Fn(Request<Req>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
{
    let handler = Arc::new(handler);
    hyper::service::service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok(answer(path, max_bytes, &*handler, request).await) }
    })
}

/// Why there is no connection to a gRPC server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It does not answer in time.
    #[error("no connection to {address} within {}", crate::domain::duration::format(*limit))]
    Timeout {
        /// Where to.
        address: String,
        /// How long it was tried.
        limit: Duration,
    },
    /// It cannot be reached, or the TLS handshake failed: a certificate with another fingerprint, for example.
    #[error("no connection to {address}")]
    Io {
        /// Where to.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It does not speak HTTP/2.
    #[error("no HTTP/2 with {address}")]
    Http {
        /// Where to.
        address: String,
        /// Why.
        source: hyper::Error,
    },
}

impl ConnectError {
    /// A bounded name for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "Timeout",
            Self::Io { .. } => "Connect",
            Self::Http { .. } => "Http",
        }
    }
}

/// A connection to a gRPC server. Clones share it. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
}

impl Connection {
    /// Connects to `address` (`host:port`) over TLS. Name and address do not matter to a pinned certificate.
    pub async fn connect(
        address: &str,
        tls: Arc<ClientConfig>,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let connect = async {
            let failed = |source| ConnectError::Io { address: address.to_owned(), source };
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let name = ServerName::try_from("pinned.tokenward.dev")
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(failed)?;
            Self::over(stream)
                .await
                .map_err(|source| ConnectError::Http { address: address.to_owned(), source })
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout { address: address.to_owned(), limit }),
        }
    }

    /// Speaks HTTP/2 over a stream that is connected already.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, hyper::Error> {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends with the last sender; whoever waits for an answer is told of an error there.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(Self { sender })
    }

    /// Whether it has ended: connect anew.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One unary call. Answers longer than `max_bytes` are refused. Put `tokio::time::timeout` around it.
    pub async fn call<Req, Res>(
        &self,
        path: &'static str,
        max_bytes: usize,
        request: Request<Req>,
    ) -> Result<Response<Res>, Status>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        call(self.clone(), path, max_bytes, request).await
    }
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// One unary call over any service that carries gRPC: a [`Connection`], or a server in the same process.
pub async fn call<Req, Res, S>(
    service: S,
    path: &'static str,
    max_bytes: usize,
    request: Request<Req>,
) -> Result<Response<Res>, Status>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
    S: tonic::client::GrpcService<Body>,
    S::Error: std::fmt::Display,
    S::ResponseBody: HttpBody + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<tower::BoxError>,
{
    // HTTP/2 wants an authority; nobody looks at it.
    let origin = http::Uri::from_static("https://pinned.tokenward.dev");
    let mut client = tonic::client::Grpc::with_origin(service, origin).max_decoding_message_size(max_bytes);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    client.unary(request, PathAndQuery::from_static(path), Protobuf::<Req, Res>::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::pinned;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tonic::Code;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    const ECHO: &str = "/test.Echo/Echo";

    async fn echo(request: Request<Word>) -> Result<Response<Word>, Status> {
        let caller = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match caller {
            Some("Bearer let-me-in") => Ok(Response::new(request.into_inner())),
            _ => Err(Status::permission_denied("not you")),
        }
    }

    async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = unary::<Word, Word, _, _>(ECHO, 64, echo);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn connection() -> Connection {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(server));
        Connection::over(client).await.expect("a handshake")
    }

    fn asking(text: &str) -> Request<Word> {
        let mut request = Request::new(Word { text: text.to_owned() });
        request.metadata_mut().insert("authorization", "Bearer let-me-in".parse().expect("a value"));
        request
    }

    #[tokio::test]
    async fn a_call_carries_message_and_metadata_both_ways() {
        let connection = connection().await;
        let answer: Response<Word> = connection.call(ECHO, 64, asking("hello")).await.expect("answered");
        assert_eq!(answer.into_inner().text, "hello");
        let stranger = Request::new(Word { text: "hello".to_owned() });
        let refused = connection.call::<Word, Word>(ECHO, 64, stranger).await.expect_err("refused");
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "not you"));
    }

    #[tokio::test]
    async fn what_is_too_long_unknown_or_no_message_is_refused_with_a_reason() {
        let connection = connection().await;
        let long = connection.call::<Word, Word>(ECHO, 1024, asking(&"x".repeat(65))).await;
        assert_eq!(long.expect_err("too long").code(), Code::OutOfRange);
        let unknown = connection.call::<Word, Word>("/test.Echo/Other", 64, asking("x")).await;
        assert_eq!(unknown.expect_err("unknown").code(), Code::Unimplemented);

        #[derive(Clone, PartialEq, prost::Message)]
        struct Number {
            #[prost(uint64, tag = "1")]
            value: u64,
        }
        let garbage = connection.call::<Number, Word>(ECHO, 64, Request::new(Number { value: 7 })).await;
        assert_eq!(garbage.expect_err("not a word").code(), Code::InvalidArgument);
        let short = connection.call::<Word, Word>(ECHO, 4, asking("hello")).await;
        assert_eq!(short.expect_err("the answer is too long").code(), Code::OutOfRange);
    }

    #[tokio::test]
    async fn the_pinned_certificate_is_trusted_and_no_other() {
        let identity = pinned::Identity::generate().expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let acceptor = TlsAcceptor::from(identity.server_config().expect("a configuration"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        });
        let limit = Duration::from_secs(20);
        let tls = pinned::client_config(identity.fingerprint()).expect("a configuration");
        let connection = Connection::connect(&address, tls, limit).await.expect("trusted");
        let answer: Response<Word> = connection.call(ECHO, 64, asking("hello")).await.expect("answered");
        assert_eq!(answer.into_inner().text, "hello");

        let other = pinned::Identity::generate().expect("a certificate").fingerprint();
        let tls = pinned::client_config(other).expect("a configuration");
        let error = Connection::connect(&address, tls, limit).await.expect_err("another certificate");
        assert_eq!(error.category(), "Connect");
        assert!(
            std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("pinned"))
        );
    }
}
