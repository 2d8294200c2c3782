//! What a gate takes: time to start, and memory before and after every token was used.

use std::time::Duration;

use tokio::time::sleep;

use super::common::Result;
use super::common::process::Process;
use super::figures::aim;
use super::inprocess::Cluster;
use super::town::{self, Town};
use super::traffic;
use super::{Progress, Settings};

/// Some flushes: what was counted is with the reporter then.
const FLUSHES: Duration = Duration::from_secs(5);

/// With the tokens on the real API server.
pub async fn real(town: &mut Town, settings: &Settings, progress: &Progress) -> Result<()> {
    progress.step("a gate starts");
    town.start_gate().await?;
    report("the real API server", settings.tokens, town.gate()?, None, || {
        traffic::once(town.http, &town.tokens)
    })
    .await
}

/// With more tokens than a real API server is given in a bench, on an in-process one. No ledger listens there.
pub async fn in_process(settings: &Settings, progress: &Progress) -> Result<()> {
    progress.step(&format!("filling an in-process API server with {} tokens", settings.memory_tokens));
    let cluster = Cluster::start(settings.memory_tokens).await?;
    progress.step("a gate starts");
    let (gate, http) = town::gate(cluster.kubeconfig(), "default", "/nowhere").await?;
    let ask = || traffic::once(http, &cluster.tokens);
    report("an in-process API server, no ledger", settings.memory_tokens, &gate, Some(100.0), ask).await?;
    gate.stop().await
}

async fn report(
    place: &str,
    tokens: usize,
    gate: &Process,
    most: Option<f64>,
    use_all: impl FnOnce() -> Result<usize>,
) -> Result<()> {
    let beside = |figure: f64| most.map(|most| format!(" ({})", aim(figure, most, "MB"))).unwrap_or_default();
    let loaded = gate.resident()? / 1e6;
    println!(
        "gate with {tokens} tokens of {place}: ready {:.2} s after its start; memory {loaded:.1} MB{}",
        gate.ready_after.as_secs_f64(),
        beside(loaded),
    );
    let accepted = use_all()?;
    sleep(FLUSHES).await;
    let used = gate.resident()? / 1e6;
    println!("after {accepted} of them were used once: memory {used:.1} MB{}", beside(used));
    Ok(())
}
