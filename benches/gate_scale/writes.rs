//! What showing the use of very many busy tokens costs the API server.

use std::time::{Duration, Instant};

use http::Request;
use kube::Client;
use kube::api::{Api, ListParams};
use tokenward::api::TokenUsage;
use tokio::time::sleep;

use super::common::Result;
use super::common::process::Metrics;
use super::figures::aim;
use super::town::Town;
use super::traffic::Traffic;
use super::{Progress, Settings};

/// The default of `--usage-writes-per-second`.
const BUDGET: u32 = 10;
/// Until the bucket of the budget has run out and the restart is over.
const SETTLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(900);

/// Writes by who counted them.
struct Writes {
    at: Instant,
    usages: f64,
    statuses: f64,
    server: f64,
}

async fn count(town: &Town) -> Result<Writes> {
    let own = town.controller()?.metrics().await?;
    Ok(Writes {
        at: Instant::now(),
        usages: own.sum("tokenward_ledger_usage_writes_total", &[]),
        statuses: own.sum("tokenward_status_writes_total", &[]),
        server: by_the_server(&town.client).await?,
    })
}

/// Writes of both kinds that the API server has counted.
async fn by_the_server(client: &Client) -> Result<f64> {
    let metrics = Metrics(client.request_text(Request::get("/metrics").body(Vec::new())?).await?);
    let mut sum = 0.0;
    for resource in ["apitokens", "tokenusages"] {
        for verb in ["POST", "PUT", "PATCH", "APPLY"] {
            let labels = [format!("resource=\"{resource}\""), format!("verb=\"{verb}\"")];
            sum += metrics.sum("apiserver_request_total", &labels.each_ref().map(String::as_str));
        }
    }
    Ok(sum)
}

/// How many TokenUsages there are.
async fn usages(town: &Town) -> Result<usize> {
    let api = Api::<TokenUsage>::namespaced(town.client.clone(), &town.namespace);
    let page = api.list_metadata(&ListParams::default().limit(1)).await?;
    let rest = page.metadata.remaining_item_count.unwrap_or_default();
    Ok(page.items.len() + usize::try_from(rest)?)
}

/// Uses every token again and again and counts what is written.
pub async fn run(town: &mut Town, settings: &Settings, progress: &Progress) -> Result<()> {
    progress.step("every token is used for the first time, with a budget that does not bind");
    town.start_controller(1000).await?;
    let traffic = Traffic::start(town.http, &town.tokens, settings.rate);
    let started = Instant::now();
    while usages(town).await? < settings.tokens {
        if started.elapsed() > PATIENCE {
            return Err("uses did not come back in time; see gate-scale-controller.log".into());
        }
        sleep(Duration::from_secs(2)).await;
    }
    progress.step(&format!("all are shown; now {BUDGET} writes a second, for {} minutes", settings.minutes));
    town.start_controller(BUDGET).await?;
    sleep(SETTLE).await;
    let before = count(town).await?;
    sleep(Duration::from_secs_f64(settings.minutes * 60.0)).await;
    let after = count(town).await?;
    let seen = traffic.stop()?;

    let per_hour = |count: f64| count / (after.at - before.at).as_secs_f64() * 3600.0;
    let (usages, statuses) = (after.usages - before.usages, after.statuses - before.statuses);
    let all = per_hour(usages + statuses);
    println!(
        "writes for {} active tokens: {all:.0} an hour ({}), of TokenUsages {:.0}, of ApiTokens {:.0}; the API server counted {:.0}",
        settings.tokens,
        aim(all, f64::from(BUDGET) * 3600.0, "an hour, the budget"),
        per_hour(usages),
        per_hour(statuses),
        per_hour(after.server - before.server),
    );
    println!(
        "meanwhile {:.0} requests/s on all tokens, {} denied; the gate's memory {:.1} MB, the controller's {:.1} MB",
        seen.rate,
        seen.refused,
        town.gate()?.resident()? / 1e6,
        town.controller()?.resident()? / 1e6,
    );
    Ok(())
}
