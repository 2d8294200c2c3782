use super::*;

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::controller::leader::{Elector, Handle as Leadership};
use crate::controller::metrics::Metrics;
use crate::domain::lease::Config;
use crate::platform::readiness::Readiness;
use crate::runtime::{admin, clock::SystemClock, serve};
use crate::testkit::apiserver::ApiServer;

const LIMITS: Limits =
    Limits { held: Duration::from_secs(10), silent: Duration::from_secs(30), stuck: Duration::from_secs(40) };

/// Looks once a second with what `signs` says at each; when it was found to hang.
fn found(seconds: u64, signs: impl Fn(u64) -> ((u64, u64), bool)) -> Option<u64> {
    let begin = Instant::now();
    let mut watch = Watch::new(LIMITS, begin);
    (1..=seconds).find(|&second| {
        let (counts, waiting) = signs(second);
        watch.look(begin + Duration::from_secs(second), counts, waiting).is_some()
    })
}

#[test]
fn a_process_hangs_when_its_work_does_not_come_round_or_does_not_get_on() {
    assert_eq!(found(1_000, |second| ((second, 0), false)), None, "a quiet world");
    assert_eq!(found(1_000, |second| ((second, second), true)), None, "a busy one");
    // An API server that is away: what waits for it gets on at every timeout.
    assert_eq!(found(1_000, |second| ((second, second / 30), true)), None, "a slow one");
    assert_eq!(found(1_000, |second| ((second, 7), second % 35 != 0)), None, "the queue runs empty");
    assert_eq!(found(1_000, |_| ((7, 0), false)), Some(31), "nothing comes round");
    assert_eq!(found(1_000, |second| ((second.min(100), 0), false)), Some(130), "it did for a while");
    assert_eq!(found(1_000, |second| ((second, 7), true)), Some(41), "nothing gets on");
}

#[test]
fn time_in_which_the_whole_process_stood_still_does_not_count() {
    let begin = Instant::now();
    let mut watch = Watch::new(LIMITS, begin);
    for hour in 1..=9 {
        assert_eq!(watch.look(begin + Duration::from_secs(3_600 * hour), (7, 0), true), None);
    }
}

/// A thread that ends when it is told to, and work that keeps every worker of a runtime until then.
fn block(runtime: &Runtime, workers: usize, until: &Arc<AtomicBool>) {
    for _ in 0..workers {
        let until = until.clone();
        runtime.spawn(async move {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }
}

/// GET of `/healthz` over a connection of its own.
async fn healthz(address: std::net::SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn with_every_worker_blocked_healthz_says_so_and_a_standby_takes_over() {
    let server = ApiServer::new(Arc::new(SystemClock));
    let elector = |name: &str| {
        let seconds = Duration::from_secs;
        let config = Config::new(name, seconds(15), seconds(10), seconds(1)).unwrap();
        let api = Api::<Lease>::namespaced(server.client(name), "default");
        let metrics = Metrics::new(&mut Registry::default());
        Elector::new(api, "tokenward", config, Arc::new(SystemClock), metrics)
    };
    async fn leads(mut handle: Leadership) {
        handle.leadership.wait_for(|now| now.leading).await.unwrap();
    }

    let overseer = Overseer::start().unwrap();
    let main = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let vitals = Arc::new(Vitals::default());
    let limits = Limits { silent: Duration::from_secs(3), stuck: Duration::from_secs(3), ..LIMITS };
    let subject = Subject::without_queue(vitals.clone(), limits, &metrics.process);
    let (stalled, done) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let (_readiness, ready) = Readiness::channel([]);
    let admin =
        admin::Admin { registry: Arc::new(Mutex::new(registry)), readiness: ready, vitals: vitals.clone() };

    let (first, held) = overseer.handle().block_on(async {
        let listener = serve::listen(admin::FLAG, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(admin::serve(listener, admin, CancellationToken::new()));
        let (elector, handle) = elector("first");
        tokio::spawn(elector.run(stalled.clone()));
        tokio::spawn(watch(subject, stalled.clone()));
        leads(handle.clone()).await;
        (address, handle)
    });
    main.spawn({
        let vitals = vitals.clone();
        async move { vitals.beating(std::future::pending::<()>()).await }
    });
    overseer.handle().block_on(async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(healthz(first).await.starts_with("HTTP/1.1 200"), "it beats");
    });
    assert!(held.fence.check().is_ok());

    block(&main, 2, &done);
    overseer.handle().block_on(async {
        let (standby, handle) = elector("standby");
        tokio::spawn(standby.run(CancellationToken::new()));
        tokio::time::timeout(Duration::from_secs(60), leads(handle)).await.expect("a standby takes over");
        let answer = healthz(first).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("has not come round for 3 s"),
            "{answer}"
        );
        assert_eq!(metrics.process.stalled.get(), 1);
    });
    assert!(held.fence.check().is_err(), "nothing passes the fence any more");
    done.store(true, Ordering::Relaxed);
}
