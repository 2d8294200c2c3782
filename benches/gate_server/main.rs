//! What a whole answer costs, over HTTP and over gRPC: the gate beside a server that says the same without looking, in turn,
//! in one run. Each server has one thread; the client has another, with 16 requests in flight.
//!
//! Two ratios are printed. That of requests per second flatters whoever is slower than the client; that of the server
//! thread's own processor time per request does not depend on the client, and is the one that counts.
//!
//! Then what reporting to a ledger does to those who ask meanwhile: `cargo bench --bench gate_server -- stalls` for that alone.

// A bench that cannot set its scene has nothing to measure.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod client;
#[path = "../common/machine.rs"]
mod machine;
mod noop;
mod scene;
mod stalls;

use std::net::SocketAddr;
use std::time::Duration;

use tokenward::gate::dialect::Desk;
use tokenward::gate::dialect::envoy;
use tokenward::gate::dialect::ext_authz::{CheckRequest, CheckResponse, METHOD};
use tokenward::gate::dialect::http::HttpGate;
use tokenward::gate::dialect::introspect::Introspection;
use tokenward::platform::grpc;
use tokenward::runtime::serve::{Limits, Meter, Server, Serves};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::scene::{Scene, Traffic};

/// Rounds, of which the middle one counts: two cores are shared with whatever else runs.
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_millis(1500);

/// A server on a thread of its own, until it is dropped.
pub struct Running {
    address: SocketAddr,
    /// Where Linux says how much processor time the thread has had.
    schedule: std::path::PathBuf,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start<F>(serve: impl FnOnce(TcpListener, CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let (tell, told) = std::sync::mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let own = std::fs::read_link("/proc/thread-self").unwrap();
                let schedule = std::path::Path::new("/proc").join(own).join("schedstat");
                tell.send((listener.local_addr().unwrap(), schedule)).unwrap();
                serve(listener, stopped).await;
            });
        });
        let (address, schedule) = told.recv().unwrap();
        Self { address, schedule, stop, thread: Some(thread) }
    }

    /// Processor time of the server's thread so far.
    fn spent(&self) -> Duration {
        let text = std::fs::read_to_string(&self.schedule).unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How one server did.
#[derive(Clone, Copy)]
struct Figure {
    per_second: f64,
    /// Microseconds of the server's thread for each request.
    cost: f64,
}

fn measure(server: &Running, ask: &impl Fn(SocketAddr, Duration) -> u64) -> Figure {
    ask(server.address, WARM_UP);
    let (before, begin) = (server.spent(), std::time::Instant::now());
    let count = ask(server.address, MEASURE) as f64;
    let (took, spent) = (begin.elapsed(), server.spent() - before);
    Figure { per_second: count / took.as_secs_f64(), cost: spent.as_secs_f64() * 1e6 / count }
}

fn middle(figures: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = figures.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Measures both in turn, and prints the middle of the rounds.
fn compare(
    what: &str,
    noop: &Running,
    gate: &Running,
    ask_noop: &impl Fn(SocketAddr, Duration) -> u64,
    ask_gate: &impl Fn(SocketAddr, Duration) -> u64,
) {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (measure(noop, ask_noop), measure(gate, ask_gate))).collect();
    let of = |figure: &dyn Fn(&(Figure, Figure)) -> f64| middle(rounds.iter().map(figure));
    println!(
        "{what:<28} no-op {:>7.0}/s {:>5.1} us, gate {:>7.0}/s {:>5.1} us: {:>3.0} % of its requests, {:>3.0} % by processor time",
        of(&|(noop, _)| noop.per_second),
        of(&|(noop, _)| noop.cost),
        of(&|(_, gate)| gate.per_second),
        of(&|(_, gate)| gate.cost),
        of(&|(noop, gate)| gate.per_second / noop.per_second * 100.0),
        of(&|(noop, gate)| noop.cost / gate.cost * 100.0),
    );
}

/// Envoy's checks, as a service.
fn checks(desk: Desk) -> impl Serves<tonic::body::Body> + Sync {
    grpc::unary(METHOD, envoy::MAX_CHECK, move |request: tonic::Request<CheckRequest>| -> Checked {
        std::future::ready(Ok(tonic::Response::new(envoy::check(&desk, request.get_ref()))))
    })
}

type Checked = std::future::Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;

fn main() {
    // `cargo bench` passes `--bench`, and a name to filter by; `cargo test --benches` passes nothing of the kind.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("{}", machine::describe());
    if std::env::args().any(|argument| argument == "stalls") {
        stalls::run_over_grpc();
        return stalls::run();
    }
    let scene = Scene::new(10_000);
    let server = |meter| Server::new(Limits::default(), Meter::none(meter));
    let http = Running::start({
        let service = HttpGate::new(scene.desk(), Introspection::by_scope());
        let server = server("http");
        move |listener, stop| server.serve(listener, service, stop)
    });
    let grpc = Running::start({
        let service = checks(scene.desk());
        let server = server("grpc").http2_only();
        move |listener, stop| server.serve(listener, service, stop)
    });
    let yes = scene.answer();
    let noop_http = Running::start(noop::http);
    let noop_grpc = Running::start(move |listener, stop| noop::grpc(listener, stop, yes));
    println!("10,000 tokens, 16 in flight, one thread for each server; the middle of {ROUNDS} rounds");
    for traffic in [Traffic::Hits, Traffic::Unknown, Traffic::Ended] {
        let requests = scene.http(traffic);
        let ask = |address: SocketAddr, time| client::http(address, &requests, time);
        compare(&format!("HTTP, {}", traffic.name()), &noop_http, &http, &ask, &ask);
    }
    for traffic in [Traffic::Hits, Traffic::Unknown, Traffic::Ended] {
        let requests = scene.grpc(traffic);
        let ask = |address: SocketAddr, time| client::grpc(address, &requests, time);
        compare(&format!("gRPC, {}", traffic.name()), &noop_grpc, &grpc, &ask, &ask);
    }
    let answers = scene.answered();
    println!("the gate answered {} accepted, {} denied", answers.0, answers.1);
    stalls::run_over_grpc();
    stalls::run();
}
