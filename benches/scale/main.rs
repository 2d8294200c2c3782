//! The operator at scale against a real API server, each figure beside its ceiling from the same run.
//!
//! `TOKENWARD_BENCH_KUBECONFIG` names the cluster (tools/bench.sh starts one). `TOKENWARD_BENCH_SIZES` (default
//! `1000,10000`) sets the numbers of tokens, `TOKENWARD_BENCH_QUIET` (default 300) the seconds of the quiescent phase.
//!
//! The ceiling is a plain client that makes the writes of one issue per token — publish the digest, apply the Secret,
//! confirm — with the verbs that the operator uses, at the concurrency that turns out best. Two ratios are printed:
//! `backlog` (the tokens exist; from the operator's first write to all Healthy) and `live` (the tokens are created while
//! the operator runs; from the first create to all Healthy, against a client that creates them too).

// The figures are what this program is for.
#![allow(clippy::print_stdout)]

mod ceiling;
#[path = "../common/mod.rs"]
mod common;
mod operator;

use std::time::{Duration, Instant};

use kube::Client;

use self::ceiling::{Sample, StatusVerb};
use self::common::{Result, cluster, machine, variable};
use self::operator::Operator;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Ok(path) = std::env::var("TOKENWARD_BENCH_KUBECONFIG") else {
        println!("scale: skipped, TOKENWARD_BENCH_KUBECONFIG is not set; run: make bench");
        return Ok(());
    };
    let client = cluster::connect(&path).await?;
    let sizes: Vec<usize> = variable("TOKENWARD_BENCH_SIZES", "1000,10000".to_owned())
        .split(',')
        .filter_map(|n| n.parse().ok())
        .collect();
    let quiet = Duration::from_secs(variable("TOKENWARD_BENCH_QUIET", 300));

    println!("{}", machine::describe());
    cluster::install_crds(&client).await?;

    let sample = sample(&client, &path).await?;
    let verb = status_verbs(&client, &sample).await?;
    println!("the operator uses PUT; the cheapest here was {verb:?}");

    println!(
        "\n{:>7} {:<8} {:>10} {:>10} {:>7}  writes/token  reads/token",
        "tokens", "mode", "ceiling/s", "operator/s", "ratio"
    );
    for &size in &sizes {
        let concurrency = best_concurrency(&client, &sample, size.min(1000)).await?;
        for mode in [Mode::Backlog, Mode::Live] {
            compare(&client, &path, &sample, size, concurrency, mode).await?;
        }
    }
    let largest = sizes.last().copied().unwrap_or(1000);
    restart_and_rest(&client, &path, largest, quiet).await
}

/// One token issued by the operator: the objects that the ceiling writes copies of.
async fn sample(client: &Client, kubeconfig: &str) -> Result<Sample> {
    let operator = Operator::start(kubeconfig).await?;
    println!("resident memory with 0 tokens: {:.1} MiB", operator.resident_mib()?);
    let sample = ceiling::take_sample(client).await?;
    operator.stop().await?;
    Ok(sample)
}

async fn status_verbs(client: &Client, sample: &Sample) -> Result<StatusVerb> {
    const TOKENS: usize = 1000;
    println!("\nstatus writes of {TOKENS} tokens, objects per second, by requests in flight");
    println!("{:<12} {:>8} {:>8} {:>8}", "verb", 1, 8, 32);
    let namespace = cluster::fresh_namespace(client).await?;
    cluster::create_tokens(client, &namespace, TOKENS, 16).await?;
    let mut best = (0.0, StatusVerb::Put);
    for verb in [StatusVerb::Put, StatusVerb::Merge, StatusVerb::Apply] {
        let mut rates = Vec::new();
        for in_flight in [1, 8, 32] {
            let tokens = ceiling::list(client, &namespace).await?;
            let started = Instant::now();
            ceiling::write_status_of(client, &tokens, sample, verb, in_flight).await?;
            rates.push(TOKENS as f64 / started.elapsed().as_secs_f64());
        }
        println!("{:<12} {:>8.0} {:>8.0} {:>8.0}", format!("{verb:?}"), rates[0], rates[1], rates[2]);
        best = if rates[2] > best.0 { (rates[2], verb) } else { best };
    }
    cluster::drop_namespace(client, &namespace).await?;
    Ok(best.1)
}

async fn best_concurrency(client: &Client, sample: &Sample, tokens: usize) -> Result<usize> {
    let mut best = (0.0, 16);
    for concurrency in [8, 16, 32, 64] {
        let namespace = cluster::fresh_namespace(client).await?;
        cluster::create_tokens(client, &namespace, tokens, 16).await?;
        let listed = ceiling::list(client, &namespace).await?;
        let started = Instant::now();
        ceiling::issue_all(client, listed, sample, concurrency).await?;
        let rate = tokens as f64 / started.elapsed().as_secs_f64();
        best = if rate > best.0 { (rate, concurrency) } else { best };
        cluster::drop_namespace(client, &namespace).await?;
    }
    Ok(best.1)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Backlog,
    Live,
}

/// Times a few thousand tokens take are short enough for chance to show: the round with the middle ratio counts.
const fn rounds(size: usize) -> usize {
    if size <= 2000 { 3 } else { 1 }
}

/// One row of the table.
struct Row {
    ceiling: f64,
    rate: f64,
    writes: f64,
    reads: f64,
    resident_mib: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.rate / self.ceiling
    }
}

async fn compare(
    client: &Client,
    kubeconfig: &str,
    sample: &Sample,
    size: usize,
    concurrency: usize,
    mode: Mode,
) -> Result<()> {
    let mut rows = Vec::new();
    for _ in 0..rounds(size) {
        rows.push(round(client, kubeconfig, sample, size, concurrency, mode).await?);
    }
    rows.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let (least, most) = (rows[0].ratio(), rows[rows.len() - 1].ratio());
    let row = &rows[rows.len() / 2];
    let mode_name = if mode == Mode::Backlog { "backlog" } else { "live" };
    println!(
        "{size:>7} {mode_name:<8} {:>10.0} {:>10.0} {:>6.0}%  {:>12.2}  {:>11.2}   resident {:.1} MiB; {} rounds, {:.0}..{:.0}%",
        row.ceiling,
        row.rate,
        100.0 * row.ratio(),
        row.writes,
        row.reads,
        row.resident_mib,
        rows.len(),
        100.0 * least,
        100.0 * most,
    );
    Ok(())
}

async fn round(
    client: &Client,
    kubeconfig: &str,
    sample: &Sample,
    size: usize,
    concurrency: usize,
    mode: Mode,
) -> Result<Row> {
    let namespace = cluster::fresh_namespace(client).await?;
    let started = match mode {
        Mode::Backlog => {
            cluster::create_tokens(client, &namespace, size, 16).await?;
            let listed = ceiling::list(client, &namespace).await?;
            let started = Instant::now();
            ceiling::issue_all(client, listed, sample, concurrency).await?;
            started
        }
        Mode::Live => {
            let started = Instant::now();
            ceiling::create_and_issue_all(client, &namespace, sample, size, concurrency).await?;
            started
        }
    };
    let ceiling = size as f64 / started.elapsed().as_secs_f64();
    cluster::drop_namespace(client, &namespace).await?;

    let namespace = cluster::fresh_namespace(client).await?;
    let (operator, started) = match mode {
        Mode::Backlog => {
            cluster::create_tokens(client, &namespace, size, 16).await?;
            let operator = Operator::start(kubeconfig).await?;
            (operator, Instant::now())
        }
        Mode::Live => {
            let operator = Operator::start(kubeconfig).await?;
            let started = Instant::now();
            cluster::create_tokens(client, &namespace, size, 16).await?;
            (operator, started)
        }
    };
    operator.wait_healthy(size).await?;
    let rate = size as f64 / started.elapsed().as_secs_f64();
    let counts = operator.counts().await?;
    let row = Row {
        ceiling,
        rate,
        writes: counts.writes as f64 / size as f64,
        reads: counts.reads as f64 / size as f64,
        resident_mib: operator.resident_mib()?,
    };
    operator.stop().await?;
    cluster::drop_namespace(client, &namespace).await?;
    Ok(row)
}

/// A restart with every token issued: what it reads and writes, and what it does while nothing is due.
async fn restart_and_rest(client: &Client, kubeconfig: &str, size: usize, quiet: Duration) -> Result<()> {
    let namespace = cluster::fresh_namespace(client).await?;
    let operator = Operator::start(kubeconfig).await?;
    cluster::create_tokens(client, &namespace, size, 16).await?;
    operator.wait_healthy(size).await?;
    operator.stop().await?;

    let started = Instant::now();
    let operator = Operator::start(kubeconfig).await?;
    operator.wait_reconciled(size).await?;
    let synced = started.elapsed();
    let counts = operator.counts().await?;
    println!(
        "\nrestart with {size} tokens: every token looked at {:.1} s after start; writes {}, GETs {}, lists {}, minted {}; resident {:.1} MiB",
        synced.as_secs_f64(),
        counts.writes,
        counts.reads,
        counts.lists,
        counts.rotations,
        operator.resident_mib()?,
    );
    tokio::time::sleep(quiet).await;
    let after = operator.counts().await?;
    println!(
        "quiescent for {} s: writes {}, GETs {}; resident {:.1} MiB",
        quiet.as_secs(),
        after.writes - counts.writes,
        after.reads - counts.reads,
        operator.resident_mib()?,
    );
    operator.stop().await?;
    cluster::drop_namespace(client, &namespace).await
}
