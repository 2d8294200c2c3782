//! What a listener grants, and what it does to clients that want more.

use super::*;
use crate::platform::families::{Descriptor, Kind, counters};
use crate::platform::pinned;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::time::Instant;

const REFUSED: Descriptor = Descriptor {
    name: "refused_total",
    kind: Kind::Counter,
    labels: &["listener", "reason"],
    per_token: false,
    help: "Test",
};

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &[u8] = b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";

fn server(limits: Limits) -> (Arc<Server>, Meter) {
    let refused = counters(&mut Registry::default(), &REFUSED);
    let meter = Meter { listener: "test", open: Gauge::default(), refused: Some(refused) };
    (Arc::new(Server::new(limits, meter.clone())), meter)
}

fn refused(meter: &Meter, reason: &'static str) -> u64 {
    meter.refused.as_ref().map_or(0, |refused| refused.get(["test", reason]))
}

/// Answers with the path once the body is read. `/slow` is answered when `gate` is notified.
fn echo(gate: Arc<Notify>) -> impl Serves<Full<Bytes>> + Sync {
    service_fn(move |request: Request<Incoming>| {
        let gate = gate.clone();
        async move {
            let path = request.uri().path().to_owned();
            let _ = request.into_body().collect().await;
            if path == "/slow" {
                gate.notified().await;
            }
            Ok::<_, Infallible>(Response::new(Full::from(path)))
        }
    })
}

/// A connection in memory; the server's side is a task.
fn connected(server: &Arc<Server>, shutdown: &CancellationToken) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (server, shutdown) = (server.clone(), shutdown.clone());
    tokio::spawn(async move {
        let newcomer = Arc::new(server.crowd.enter());
        server.attend(theirs, echo(Arc::default()), shutdown, newcomer).await
    });
    ours
}

/// One answer, and the connection stays open.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> String {
    stream.write_all(request).await.expect("sent");
    let mut text = Vec::new();
    while !text.ends_with(b"/hello") && !text.ends_with(b"/slow") {
        assert_ne!(stream.read_buf(&mut text).await.expect("read"), 0, "{}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).expect("UTF-8")
}

/// What comes until the server closes, and how long that takes.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> (Duration, String) {
    let (begin, mut text) = (Instant::now(), Vec::new());
    let _ = stream.read_to_end(&mut text).await;
    (begin.elapsed(), String::from_utf8_lossy(&text).into_owned())
}

/// Virtual time, to the second.
fn about(found: Duration, wanted: Duration) {
    assert!(found >= wanted && found < wanted + SECOND, "{found:?}, wanted {wanted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_however_it_trickles() {
    let (server, meter) = server(Limits::default());
    let stop = CancellationToken::new();
    // Nothing at all, and a byte a second: ten seconds each, from the begin.
    let mut silent = connected(&server, &stop);
    about(until_closed(&mut silent).await.0, SECOND * 10);
    let (mut read, mut write) = tokio::io::split(connected(&server, &stop));
    let trickle = tokio::spawn(async move {
        for byte in GET.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(SECOND).await;
        }
    });
    about(until_closed(&mut read).await.0, SECOND * 10);
    trickle.abort();
    // On a connection that has served before: from the first byte.
    let mut stream = connected(&server, &stop);
    ask(&mut stream, GET).await;
    tokio::time::sleep(SECOND * 30).await;
    stream.write_all(b"GET /hel").await.expect("sent");
    about(until_closed(&mut stream).await.0, SECOND * 10);
    // Half the preface of HTTP/2 is no request either.
    let mut stream = connected(&server, &stop);
    stream.write_all(b"PRI * HTTP").await.expect("sent");
    about(until_closed(&mut stream).await.0, SECOND * 10);
    assert_eq!(refused(&meter, "slow"), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_stays_for_a_while() {
    let (server, meter) = server(Limits::default());
    let stop = CancellationToken::new();
    let mut stream = connected(&server, &stop);
    for request in [GET.to_vec(), [POST, b"body"].concat(), GET.to_vec()] {
        ask(&mut stream, &request).await;
        tokio::time::sleep(SECOND * 70).await;
    }
    // A body that comes later than its head is no begin of another head.
    stream.write_all(POST).await.expect("sent");
    tokio::time::sleep(SECOND * 2).await;
    ask(&mut stream, b"body").await;
    about(until_closed(&mut stream).await.0, SECOND * 75);
    assert_eq!(refused(&meter, "slow") + refused(&meter, "overdue"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unused_http2_connection_is_told_to_go() {
    let (server, _) = server(Limits::default());
    let stream = connected(&server, &CancellationToken::new());
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let driver = tokio::spawn(driver);
    let request = || Request::get("http://x/hello").body(Empty::<Bytes>::new()).expect("a request");
    for _ in 0..3 {
        let answer = sender.send_request(request()).await.expect("answered");
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "/hello");
        // Pings go to and fro meanwhile: they are bytes, but no head.
        tokio::time::sleep(SECOND * 70).await;
    }
    let begin = Instant::now();
    driver.await.expect("no panic").expect("an orderly end");
    about(begin.elapsed(), SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_answered_in_time_ends_its_connection() {
    let (server, meter) = server(Limits::default());
    let stop = CancellationToken::new();
    let mut stream = connected(&server, &stop);
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let (took, answer) = until_closed(&mut stream).await;
    about(took, SECOND * 5);
    assert_eq!(answer, "");
    // Nor is a body that never comes waited for.
    let mut stream = connected(&server, &stop);
    stream.write_all(POST).await.expect("sent");
    about(until_closed(&mut stream).await.0, SECOND * 5);
    assert_eq!(refused(&meter, "overdue"), 2);
}

#[tokio::test]
async fn heads_that_are_too_long_and_garbage_get_an_error_and_the_door() {
    let (server, meter) = server(Limits::default());
    let stop = CancellationToken::new();
    let mut stream = connected(&server, &stop);
    let long = format!("GET /hello HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let sent = stream.write_all(long.as_bytes()).await;
    let (_, answer) = until_closed(&mut stream).await;
    assert!(sent.is_ok() && answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut stream = connected(&server, &stop);
    stream
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n")
        .await
        .expect("sent");
    let (_, answer) = until_closed(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!((refused(&meter, "oversize"), refused(&meter, "garbled")), (1, 1));
    // Many short lines, as behind a proxy that passes on everything: as many as may be, and one more.
    for (lines, wanted) in [(MAX_HEADERS, "HTTP/1.1 200"), (MAX_HEADERS + 1, "HTTP/1.1 431")] {
        let mut stream = connected(&server, &stop);
        let lines: String = (0..lines).map(|number| format!("x-{number}: y\r\n")).collect();
        stream.write_all(format!("GET /hello HTTP/1.1\r\n{lines}\r\n").as_bytes()).await.expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("answered");
        assert_eq!(String::from_utf8_lossy(&answer), wanted);
    }
    assert_eq!((refused(&meter, "oversize"), refused(&meter, "garbled")), (2, 1));
    let mut stream = connected(&server, &stop);
    assert!(ask(&mut stream, GET).await.starts_with("HTTP/1.1 200"), "others are served");
}

/// A client of HTTP/2 by hand: the preface, then this frame for as long as the server reads. How many it took, at least.
async fn flood(server: &Arc<Server>, frame: &[u8]) -> usize {
    let mut stream = connected(server, &CancellationToken::new());
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let (mut read, mut write) = tokio::io::split(stream);
    let answers = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let mut sent = 0;
    while sent < 20_000 && write.write_all(frame).await.is_ok() {
        sent += 1;
    }
    answers.abort();
    sent
}

#[tokio::test]
async fn a_flood_of_frames_ends_its_connection_and_no_other() {
    let (server, meter) = server(Limits::default());
    let other = connected(&server, &CancellationToken::new());
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(other))
            .await
            .expect("HTTP/2");
    tokio::spawn(driver);
    let frames: [&[u8]; 5] = [
        b"\0\0\x08\x06\0\0\0\0\0pingping",
        b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
        b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10",
        b"\0\0\0\xbe\0\0\0\0\0",
    ];
    for frame in frames {
        let sent = flood(&server, frame).await;
        assert!(sent < 20_000, "type {} is never cut off", frame[3]);
        let request = Request::get("http://x/hello").body(Empty::<Bytes>::new()).expect("a request");
        assert_eq!(sender.send_request(request).await.expect("answered").status(), 200);
    }
    assert_eq!(refused(&meter, "flood"), 5);
}

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    gate: Arc<Notify>,
    meter: Meter,
}

async fn running(limits: Limits, tls: Option<Arc<ArcSwap<ServerConfig>>>) -> Running {
    let listener = listen("--test-listen", ([127, 0, 0, 1], 0).into()).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (shutdown, gate) = (CancellationToken::new(), Arc::<Notify>::default());
    let (server, meter) = server(limits);
    let server = Arc::into_inner(server).expect("one").with_tls(tls);
    let server = tokio::spawn(server.serve(listener, echo(gate.clone()), shutdown.clone()));
    Running { address, shutdown, server, gate, meter }
}

#[tokio::test]
async fn a_shutdown_answers_what_is_under_way_and_takes_nothing_new() {
    let running = running(Limits::default(), None).await;
    let mut unused = TcpStream::connect(running.address).await.expect("connected");
    ask(&mut unused, GET).await;
    let mut busy = TcpStream::connect(running.address).await.expect("connected");
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    while running.meter.open.get() < 2 {
        tokio::task::yield_now().await;
    }
    // A whole request and its answer on the second connection's thread of time: its `/slow` has begun.
    ask(&mut unused, GET).await;
    running.shutdown.cancel();
    assert_eq!(until_closed(&mut unused).await.1, "", "an unused connection ends at once");
    while TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!running.server.is_finished(), "one is still under way");
    running.gate.notify_one();
    let (_, answer) = until_closed(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/slow"), "{answer}");
    running.server.await.expect("no panic");
    assert_eq!(running.meter.open.get(), 0);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let limits = Limits { drain: Duration::from_millis(50), request: SECOND * 3600, ..Limits::default() };
    let running = running(limits, None).await;
    let mut stuck = TcpStream::connect(running.address).await.expect("connected");
    stuck.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    while running.meter.open.get() == 0 {
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    running.server.await.expect("no panic");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let running = running(Limits { connections: 1, ..Limits::default() }, None).await;
    let mut first = TcpStream::connect(running.address).await.expect("connected");
    ask(&mut first, GET).await;
    let mut second = TcpStream::connect(running.address).await.expect("in the backlog");
    second.write_all(GET).await.expect("sent");
    ask(&mut first, GET).await;
    assert_eq!(running.meter.open.get(), 1, "the second is not accepted yet");
    drop(first);
    assert!(ask(&mut second, b"").await.starts_with("HTTP/1.1 200"));
}

/// All places are taken by half a head each, and by nothing at all: who sends a whole one is answered at once.
#[tokio::test]
async fn who_has_sent_nothing_makes_room() {
    let limits = Limits { connections: 64, head: SECOND * 3_600, ..Limits::default() };
    let running = running(limits, None).await;
    let mut settled = TcpStream::connect(running.address).await.expect("connected");
    ask(&mut settled, GET).await;
    let mut half_open = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(running.address).await.expect("connected");
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /hel").await;
        }
        half_open.push(stream);
    }
    for _ in 0..10 {
        let mut stream = TcpStream::connect(running.address).await.expect("connected");
        assert!(ask(&mut stream, GET).await.starts_with("HTTP/1.1 200"));
    }
    assert!(ask(&mut settled, GET).await.starts_with("HTTP/1.1 200"), "who has sent one stays");
    assert!(running.meter.open.get() <= 64);
    assert!(refused(&running.meter, "crowded") >= 137);
}

/// All places are taken by connections that have sent one request each, and send no more.
#[tokio::test]
async fn who_idles_makes_room_for_who_waits() {
    let running = running(Limits { connections: 8, ..Limits::default() }, None).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(running.address).await.expect("connected");
        ask(&mut stream, GET).await;
        idle.push(stream);
    }
    for _ in 0..4 {
        let mut stream = TcpStream::connect(running.address).await.expect("connected");
        assert!(ask(&mut stream, GET).await.starts_with("HTTP/1.1 200"));
        idle.push(stream);
    }
    assert_eq!(refused(&running.meter, "crowded"), 4);
}

#[tokio::test]
async fn ten_thousand_connections_are_served() {
    // Both ends of each are in this process.
    let files = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let files = files.lines().find(|line| line.starts_with("Max open files")).expect("there");
    let files: usize = files.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(1 << 20);
    let count = 10_000.min(files.saturating_sub(512) / 2);
    println!("{count} connections; {files} open files are allowed");
    assert!(count >= 100, "raise the limit of open files: {files}");
    let running = running(Limits::default(), None).await;
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect(running.address).await.expect("connected"));
    }
    for stream in &mut open {
        ask(stream, GET).await;
    }
    assert_eq!(running.meter.open.get(), count as i64);
    drop(open);
    while running.meter.open.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tls_offers_both_protocols_and_takes_up_a_new_certificate() {
    let identity = || pinned::Identity::generate().expect("a certificate");
    let (first, second) = (identity(), identity());
    let tls = Arc::new(ArcSwap::from(first.server_config().expect("a configuration")));
    let running = running(Limits::default(), Some(tls.clone())).await;
    let ask = |identity: &pinned::Identity| {
        let config = pinned::client_config(identity.fingerprint()).expect("a configuration");
        let address = running.address;
        async move {
            let stream = TcpStream::connect(address).await.expect("connected");
            let name = "x".try_into().expect("a name");
            let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
            let mut settings = [0; 9];
            stream.read_exact(&mut settings).await?;
            Ok::<u8, std::io::Error>(settings[3])
        }
    };
    assert_eq!(ask(&first).await.expect("trusted"), 4, "a SETTINGS frame of HTTP/2");
    assert!(ask(&second).await.is_err());
    tls.store(second.server_config().expect("a configuration"));
    assert_eq!(ask(&second).await.expect("trusted"), 4);
    let mut plain = TcpStream::connect(running.address).await.expect("connected");
    plain.write_all(GET).await.expect("sent");
    let (_, answer) = until_closed(&mut plain).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    assert!(refused(&running.meter, "tls") >= 1);
}

#[tokio::test]
async fn an_address_in_use_names_its_flag() {
    let first = listen("--http-listen", ([127, 0, 0, 1], 0).into()).await.expect("a port");
    let address = first.local_addr().expect("bound");
    let error = listen("--http-listen", address).await.expect_err("taken");
    assert_eq!(error.to_string(), format!("--http-listen {address} cannot be listened on"));
    assert_eq!(error.category(), "Listen");
}

#[tokio::test]
async fn a_reserved_port_is_taken_but_not_open() {
    let free = || listen("--free", ([127, 0, 0, 1], 0).into());
    let address = free().await.expect("a port").local_addr().expect("bound");
    let reserved = reserve("--http-listen", address).expect("free");
    let refused = TcpStream::connect(address).await.expect_err("not open");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let _open = reserved.open().expect("opens");
    TcpStream::connect(address).await.expect("open");
    let error = reserve("--grpc-listen", address).expect_err("taken");
    assert_eq!(error.to_string(), format!("--grpc-listen {address} cannot be listened on"));
}
