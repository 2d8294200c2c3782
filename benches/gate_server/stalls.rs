//! What a reporter does to those who ask meanwhile: 10,000 tokens in use, a flush every second, and one core for the server and
//! all that its process does besides. Three gates in turn: one that reports to nobody, one whose reporter is a task of the thread
//! that answers, and one as it is, whose reporter has a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokenward::api::report::{Receipt, Report, Settled};
use tokenward::domain::ports::Clock;
use tokenward::gate::dialect::http::HttpGate;
use tokenward::gate::dialect::introspect::Introspection;
use tokenward::gate::locate::Ledger;
use tokenward::gate::metrics::GateMetrics;
use tokenward::gate::reporter::core::Identity;
use tokenward::gate::reporter::{self, Connect, LedgerLink, LinkError};
use tokenward::platform::apart;
use tokenward::runtime::serve::{Limits, Meter, Server};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::scene::{Scene, System};
use super::{Running, client, middle};

const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURE: Duration = Duration::from_secs(4);
const FLUSH: Duration = Duration::from_secs(1);
/// The thread's name.
const REPORTER: &str = "reporter";

/// Where the reporter runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reports {
    Not,
    Beside,
    Apart,
}

/// A ledger that persists everything at once: no gate is ever asked to say more.
struct Eager;

impl Connect for Eager {
    type Link = Self;

    fn connect(&self, _: &Ledger) -> Self {
        Self
    }
}

impl LedgerLink for Eager {
    async fn report(&self, report: Report) -> Result<Receipt, LinkError> {
        // What the wire costs.
        std::hint::black_box(report.encode_to_vec());
        tokio::time::sleep(Duration::from_millis(2)).await;
        let settled = report.sealed.into_iter();
        let settled =
            settled.map(|set| Settled { token: set.token, sequence: set.sequence, refused: String::new() });
        Ok(Receipt { settled: settled.collect() })
    }
}

/// Keeps this thread, and those that it starts, on one core.
fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).unwrap();
}

/// Processor time of this process's reporter so far.
fn spent_on_reports() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path());
    let is_reporter = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == REPORTER)
    };
    let spent = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
    };
    threads.filter(is_reporter).filter_map(spent).sum()
}

fn start(
    scene: &Scene,
    reports: Reports,
    over_grpc: bool,
    stop: &CancellationToken,
) -> (Running, watch::Sender<Option<Ledger>>) {
    let found = Ledger { address: "ledger:1".into(), sha256: String::new(), holder: "bench".into() };
    let (place, found) = watch::channel(Some(found));
    let gate = scene.gate();
    let metrics = GateMetrics::new(&mut prometheus_client::registry::Registry::default(), &gate, || 0);
    let setup = reporter::Setup {
        gate,
        clock: Arc::new(System) as Arc<dyn Clock>,
        metrics,
        identity: Identity { gate: "bench".into(), epoch: 1 },
        flush: FLUSH,
        grace: Duration::ZERO,
    };
    let service = HttpGate::new(scene.desk(), Introspection::by_scope());
    let checks = super::checks(scene.desk());
    let server = |name| Server::new(Limits::default(), Meter::none(name));
    let (http, grpc) = (server("http"), server("grpc").http2_only());
    let stop = stop.clone();
    let running = Running::start(move |listener, stopped| async move {
        pin(0);
        let work = reporter::run(setup, found, Eager, stop);
        match reports {
            Reports::Not => drop(work),
            Reports::Beside => drop(tokio::spawn(work)),
            Reports::Apart => drop(apart::spawn(REPORTER, work).unwrap()),
        }
        match over_grpc {
            true => grpc.serve(listener, checks, stopped).await,
            false => http.serve(listener, service, stopped).await,
        }
    });
    (running, place)
}

/// Median and p99 in milliseconds, requests a second, and microseconds of the server's thread for each.
fn measure(reports: Reports) -> [f64; 4] {
    let (scene, stop) = (Scene::new(10_000), CancellationToken::new());
    let (server, _place) = start(&scene, reports, false, &stop);
    let requests = scene.http_all();
    client::latencies(server.address, &requests, WARM_UP);
    let before = server.spent();
    let mut times = client::latencies(server.address, &requests, MEASURE);
    let spent = server.spent() - before;
    stop.cancel();
    times.sort();
    let share = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    let count = times.len() as f64;
    [share(0.5), share(0.99), count / MEASURE.as_secs_f64(), spent.as_secs_f64() * 1e6 / count]
}

pub fn run() {
    pin(1);
    println!(
        "HTTP hits on 10,000 tokens, a flush every second, one core for the whole gate; the middle of {ROUNDS} rounds"
    );
    let kinds = [
        (Reports::Not, "no reporter"),
        (Reports::Beside, "reporter as a task"),
        (Reports::Apart, "reporter on a thread"),
    ];
    let rounds: Vec<_> = (0..ROUNDS).map(|_| kinds.map(|(reports, _)| measure(reports))).collect();
    let of = |kind: usize, figure: usize| middle(rounds.iter().map(|round| round[kind][figure]));
    for (kind, (_, name)) in kinds.iter().enumerate() {
        println!(
            "{name:<22} p50 {:>6.2} ms, p99 {:>6.2} ms, {:>4.1} times that of none; {:>6.0} requests/s, {:>4.1} us each on the thread that answers",
            of(kind, 0),
            of(kind, 1),
            middle(rounds.iter().map(|round| round[kind][1] / round[0][1])),
            of(kind, 2),
            of(kind, 3),
        );
    }
}

/// Microseconds for each gRPC hit: of the thread that answers, and of the reporter.
fn cost_over_grpc(reports: Reports) -> [f64; 2] {
    let (scene, stop) = (Scene::new(10_000), CancellationToken::new());
    let (server, _place) = start(&scene, reports, true, &stop);
    let requests = scene.grpc_all();
    client::grpc(server.address, &requests, WARM_UP);
    let before = (server.spent(), spent_on_reports());
    let count = client::grpc(server.address, &requests, MEASURE) as f64;
    let after = (server.spent(), spent_on_reports());
    stop.cancel();
    [after.0 - before.0, after.1.saturating_sub(before.1)].map(|spent| spent.as_secs_f64() * 1e6 / count)
}

/// Where the processor time of a gRPC hit goes once a ledger is told of it.
pub fn run_over_grpc() {
    println!("gRPC hits on 10,000 tokens, a flush every second; the middle of {ROUNDS} rounds");
    let kinds = [(Reports::Not, "no reporter"), (Reports::Apart, "reporter on a thread")];
    let rounds: Vec<_> = (0..ROUNDS).map(|_| kinds.map(|(reports, _)| cost_over_grpc(reports))).collect();
    for (kind, (_, name)) in kinds.iter().enumerate() {
        let of = |figure: usize| middle(rounds.iter().map(|round| round[kind][figure]));
        println!(
            "{name:<22} {:>5.1} us on the thread that answers, {:>5.1} us on the reporter's",
            of(0),
            of(1)
        );
    }
}
