//! Revocations while there is something to tell about every token: a controller starts beside tokens that were issued long ago, and
//! no gate reports any more. All of them are to say so, and nobody waits for that.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::common::Result;
use super::common::process::Metrics;
use super::figures::aim;
use super::town::Town;
use super::{Progress, Settings, revocation};

/// Until nobody is taken to watch any more, after the last gate said goodbye.
const SILENCE: Duration = Duration::from_secs(75);
/// The default of `--usage-writes-per-second`.
const BUDGET: u32 = 10;

/// Starts the storm, and measures revocations in it.
pub async fn run(town: &mut Town, settings: &Settings, progress: &Progress) -> Result<()> {
    progress.step("the gate and the controller stop; nobody watches");
    town.stop_processes().await?;
    sleep(SILENCE).await;
    progress.step("a gate that may not report, and a controller that finds nobody");
    town.start_mute_gate().await?;
    town.start_controller(BUDGET).await?;
    // Each token is looked at before it is known to have something to tell.
    let half = settings.tokens as f64 / 2.0;
    let begun = |metrics: &Metrics| metrics.sum("tokenward_news_waiting", &[]) >= half;
    town.controller()?.wait(Duration::from_millis(500), begun).await?;
    progress.step("the storm has begun");
    let wrote = async |town: &Town| -> Result<f64> {
        Ok(town.controller()?.metrics().await?.sum("tokenward_status_writes_total", &[]))
    };
    let (started, before) = (Instant::now(), wrote(town).await?);
    let few = Settings { revocations: settings.revocations.min(300), ..*settings };
    revocation::run(town, &few, progress).await?;
    let minute = Duration::from_secs(60);
    sleep(minute.saturating_sub(started.elapsed())).await;
    let (took, written) = (started.elapsed().as_secs_f64(), wrote(town).await? - before);
    // Each revocation and its undoing is answered with one write of its own.
    let news = (written - 2.0 * few.revocations as f64) / took;
    println!(
        "in the first {took:.0} s: {written:.0} statuses written, {news:.1} a second of what nobody waits for ({})",
        aim(news, f64::from(BUDGET) + 1.0, "a second"),
    );
    let counted = town.controller()?.metrics().await?;
    println!(
        "{:.0} reconciles; {:.0} tokens still have news to tell",
        counted.sum("tokenward_reconciles_total", &[]),
        counted.sum("tokenward_news_waiting", &[]),
    );
    Ok(())
}
