//! Servers that say yes without looking: what the libraries cost by themselves. Nothing of the gate's own server is in them.

use std::convert::Infallible;

use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokenward::gate::dialect::ext_authz::{CheckRequest, CheckResponse};
use tokenward::platform::grpc::Protobuf;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::server::UnaryService;

/// hyper alone: 200 with the same headers as the gate.
pub async fn http(listener: TcpListener, stop: CancellationToken) {
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        stream.set_nodelay(true).unwrap();
        let service = service_fn(async |_: Request<Incoming>| {
            let mut response = Response::new(Full::<Bytes>::default());
            let headers = response.headers_mut();
            headers.insert("x-tokenward-token", HeaderValue::from_static("team-7/client-1234"));
            headers.insert("x-tokenward-credential", HeaderValue::from_static("7Hq2vXk9Zp"));
            headers.insert("x-tokenward-owner", HeaderValue::from_static("team-7"));
            headers.insert("x-tokenward-scopes", HeaderValue::from_static("orders:read orders:write"));
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

#[derive(Clone)]
struct Yes(CheckResponse);

impl UnaryService<CheckRequest> for Yes {
    type Response = CheckResponse;
    type Future = std::future::Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<CheckRequest>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

/// tonic alone: reads the same messages and gives the same answer each time.
pub async fn grpc(listener: TcpListener, stop: CancellationToken, yes: CheckResponse) {
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        stream.set_nodelay(true).unwrap();
        let yes = Yes(yes.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let yes = yes.clone();
            async move {
                let codec = Protobuf::<CheckResponse, CheckRequest>::default();
                Ok::<_, Infallible>(tonic::server::Grpc::new(codec).unary(yes, request).await)
            }
        });
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
