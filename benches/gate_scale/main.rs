//! Gate and ledger at scale: real processes against a real API server, each figure beside its aim.
//!
//! `TOKENWARD_BENCH_KUBECONFIG` names the cluster (tools/bench.sh starts one). A name as argument runs one part alone:
//! `tools/bench.sh --bench gate_scale -- revocation`. The rest is for quick trials:
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `TOKENWARD_BENCH_TOKENS` | 10000 | tokens on the API server |
//! | `TOKENWARD_BENCH_RATE` | 1000 | requests a second that clients send to the gate meanwhile |
//! | `TOKENWARD_BENCH_REVOCATIONS` | 1000 | tokens that are suspended, one after another |
//! | `TOKENWARD_BENCH_FIRST_USES` | 200 | tokens that are used for the first time, two a second |
//! | `TOKENWARD_BENCH_BURST` | 100 | and so many at once |
//! | `TOKENWARD_BENCH_MINUTES` | 4 | for how long the ledger's writes are counted |
//! | `TOKENWARD_BENCH_MEMORY_TOKENS` | 100000 | tokens on the in-process API server |
//!
//! | part | what it measures |
//! |---|---|
//! | `first-use` | from the gate's answer until `status.usage.lastUsedAt` is in the API |
//! | `revocation` | from the API server's answer to `suspend: true` until the gate denies |
//! | `storm` | the same, while a controller starts where no gate reports and has something to tell about every token |
//! | `writes` | what the ledger writes while every token is in use |
//! | `memory` | the gate's memory, and how long it takes to start |

// The figures are what this program is for.
#![allow(clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;
mod figures;
mod first_use;
mod inprocess;
mod line;
mod memory;
mod revocation;
mod storm;
mod town;
mod traffic;
mod writes;

use std::time::Instant;

use self::common::{Result, cluster, machine, variable};
use self::town::Town;

/// How much of everything.
pub struct Settings {
    /// Tokens on the API server.
    pub tokens: usize,
    /// Requests a second meanwhile.
    pub rate: f64,
    /// Tokens that are suspended.
    pub revocations: usize,
    /// Tokens that are used for the first time, in turn.
    pub first_uses: usize,
    /// And at once.
    pub burst: usize,
    /// How long writes are counted.
    pub minutes: f64,
    /// Tokens on the in-process API server.
    pub memory_tokens: usize,
}

/// Says what happens, and when: some steps take minutes.
pub struct Progress(Instant);

impl Progress {
    /// One line.
    pub fn step(&self, what: &str) {
        println!("[{:>4.0} s] {what}", self.0.elapsed().as_secs_f64());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Ok(kubeconfig) = std::env::var("TOKENWARD_BENCH_KUBECONFIG") else {
        println!("gate_scale: skipped, TOKENWARD_BENCH_KUBECONFIG is not set; run: make bench");
        return Ok(());
    };
    let settings = Settings {
        tokens: variable("TOKENWARD_BENCH_TOKENS", 10_000),
        rate: variable("TOKENWARD_BENCH_RATE", 1000.0),
        revocations: variable("TOKENWARD_BENCH_REVOCATIONS", 1000),
        first_uses: variable("TOKENWARD_BENCH_FIRST_USES", 200),
        burst: variable("TOKENWARD_BENCH_BURST", 100),
        minutes: variable("TOKENWARD_BENCH_MINUTES", 4.0),
        memory_tokens: variable("TOKENWARD_BENCH_MEMORY_TOKENS", 100_000),
    };
    let parts: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| word == part);
    let progress = Progress(Instant::now());

    println!("{}", machine::describe());
    let client = cluster::connect(&kubeconfig).await?;
    cluster::install_crds(&client).await?;
    let mut town = Town::build(client, &kubeconfig, &settings, &progress).await?;
    // First uses come first: every part after it uses tokens.
    if wanted("first-use") {
        first_use::run(&mut town, &settings, &progress).await?;
    }
    if wanted("revocation") {
        revocation::run(&mut town, &settings, &progress).await?;
    }
    if wanted("storm") {
        storm::run(&mut town, &settings, &progress).await?;
        town.start_gate().await?;
    }
    if wanted("writes") {
        writes::run(&mut town, &settings, &progress).await?;
    }
    if wanted("memory") {
        memory::real(&mut town, &settings, &progress).await?;
    }
    town.stop().await?;
    if wanted("memory") {
        memory::in_process(&settings, &progress).await?;
    }
    if parts.is_empty() {
        progress.step("clearing up for the next bench");
        cluster::drop_namespace(&town.client, &town.namespace).await?;
    }
    Ok(())
}
