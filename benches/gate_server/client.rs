//! Asks as fast as it can, on a thread of its own: 16 requests in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokenward::gate::dialect::ext_authz::METHOD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const IN_FLIGHT: usize = 16;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Each asks in turn from `requests`, beginning elsewhere, until the time is over; how often anybody was answered.
async fn all<F: Future<Output = ()> + 'static>(
    ask: impl Fn(usize, Instant, Arc<AtomicU64>) -> F,
    time: Duration,
) -> u64 {
    let (count, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + time);
    let tasks = tokio::task::LocalSet::new();
    for number in 0..IN_FLIGHT {
        tasks.spawn_local(ask(number, end, count.clone()));
    }
    tasks.await;
    count.load(Ordering::Relaxed)
}

/// HTTP/1.1, 16 connections that are kept; written and read by hand, so that the client costs little.
pub fn http(address: SocketAddr, requests: &Arc<Vec<Vec<u8>>>, time: Duration) -> u64 {
    runtime().block_on(all(
        |number, end, count| {
            let requests = requests.clone();
            async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 4096];
                let mut next = number * requests.len() / IN_FLIGHT;
                while Instant::now() < end {
                    stream.write_all(&requests[next % requests.len()]).await.unwrap();
                    next += 1;
                    let mut length = 0;
                    // Answers have no body.
                    while !buffer[..length].ends_with(b"\r\n\r\n") {
                        let read = stream.read(&mut buffer[length..]).await.unwrap();
                        assert!(read > 0, "closed");
                        length += read;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        },
        time,
    ))
}

/// HTTP/1.1, four connections that are kept: how long each answer took.
pub fn latencies(address: SocketAddr, requests: &Arc<Vec<Vec<u8>>>, time: Duration) -> Vec<Duration> {
    const CONNECTIONS: usize = 4;
    runtime().block_on(async {
        let end = Instant::now() + time;
        let asks = (0..CONNECTIONS).map(|number| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut buffer, mut times) = (vec![0; 4096], Vec::new());
            let mut next = number * requests.len() / CONNECTIONS;
            while Instant::now() < end {
                let sent = Instant::now();
                stream.write_all(&requests[next % requests.len()]).await.unwrap();
                next += 1;
                let mut length = 0;
                while !buffer[..length].ends_with(b"\r\n\r\n") {
                    let read = stream.read(&mut buffer[length..]).await.unwrap();
                    assert!(read > 0, "closed");
                    length += read;
                }
                times.push(sent.elapsed());
            }
            times
        });
        futures::future::join_all(asks).await.concat()
    })
}

/// gRPC, 16 calls at once on one connection. The messages are encoded already and the answers are not decoded.
pub fn grpc(address: SocketAddr, requests: &Arc<Vec<Bytes>>, time: Duration) -> u64 {
    runtime().block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) =
            http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri: http::Uri = format!("http://gate{METHOD}").parse().unwrap();
        all(
            |number, end, count| {
                let (requests, mut sender, uri) = (requests.clone(), sender.clone(), uri.clone());
                async move {
                    let mut next = number * requests.len() / IN_FLIGHT;
                    while Instant::now() < end {
                        let body = Full::new(requests[next % requests.len()].clone());
                        next += 1;
                        let mut request = Request::new(body);
                        *request.method_mut() = http::Method::POST;
                        *request.uri_mut() = uri.clone();
                        request
                            .headers_mut()
                            .insert("content-type", http::HeaderValue::from_static("application/grpc"));
                        request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
                        let answer = sender.send_request(request).await.unwrap();
                        let mut body = std::pin::pin!(answer.into_body());
                        while let Some(frame) =
                            std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await
                        {
                            if let Ok(trailers) = frame.unwrap().into_trailers() {
                                assert_eq!(trailers["grpc-status"], "0");
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            },
            time,
        )
        .await
    })
}
