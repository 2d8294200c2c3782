//! How long it takes until `kubectl get` shows that a token is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokenward::api::ApiToken;
use tokio::task::JoinHandle;
use tokio::time::{Instant as Clock, sleep, sleep_until};

use super::common::Result;
use super::figures::{Times, aim};
use super::line::{Line, question};
use super::town::{BUSY, Town};
use super::traffic::Traffic;
use super::{Progress, Settings};

/// First uses a second: each costs three writes, of the ten a second that the ledger may make by default.
const PER_SECOND: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(600);

/// When the last use of each token was first seen in the API.
struct Watch {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(api: Api<ApiToken>) -> Self {
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                let mut events = std::pin::pin!(watcher(api, watcher::Config::default().streaming_lists()));
                while let Some(event) = events.next().await {
                    let Ok(Event::InitApply(token) | Event::Apply(token)) = event else { continue };
                    let usage = token.status.as_ref().and_then(|status| status.usage.as_ref());
                    if usage.is_some_and(|usage| usage.last_used_at.is_some()) {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.entry(token.name_any()).or_insert_with(Instant::now);
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// When each of these was seen, once all were.
    async fn all(&self, names: &[String]) -> Result<Vec<Instant>> {
        let started = Instant::now();
        loop {
            let seen: Option<Vec<Instant>> = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                names.iter().map(|name| seen.get(name).copied()).collect()
            };
            if let Some(seen) = seen {
                return Ok(seen);
            }
            if started.elapsed() > PATIENCE {
                return Err("a use did not come back in time; see gate-scale-controller.log".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn names(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("t-{number}")).collect()
}

/// One token after another, then many at once.
pub async fn run(town: &mut Town, settings: &Settings, progress: &Progress) -> Result<()> {
    let traffic = Traffic::start(town.http, town.busy(), settings.rate);
    let watch = Watch::start(town.api());
    watch.all(&names(0..BUSY.min(settings.tokens))).await?;

    progress.step(&format!("{} first uses, {PER_SECOND} a second", settings.first_uses));
    let mut line = Line::connect(town.http)?;
    let numbers = town.untouched(settings.first_uses)?;
    let (started, mut used) = (Clock::now(), Vec::new());
    for (count, number) in numbers.clone().enumerate() {
        sleep_until(started + Duration::from_secs_f64(count as f64 / PER_SECOND)).await;
        used.push(accepted(&mut line, &town.tokens[number])?);
    }
    let seen = watch.all(&names(numbers)).await?;
    let delays = seen.iter().zip(&used).map(|(seen, used)| seen.duration_since(*used));
    let delays = Times::new(delays.collect());
    let worst = delays.share(0.99);
    println!(
        "first use visible, {} of {} tokens, {PER_SECOND} a second: p50 {:.2} s, p99 {worst:.2} s ({}), max {:.2} s",
        delays.count(),
        settings.tokens,
        delays.share(0.5),
        aim(worst, 5.0, "s"),
        delays.share(1.0),
    );

    let numbers = town.untouched(settings.burst)?;
    let started = Instant::now();
    for number in numbers.clone() {
        accepted(&mut line, &town.tokens[number])?;
    }
    let seen = watch.all(&names(numbers)).await?;
    let delays = Times::new(seen.iter().map(|seen| seen.duration_since(started)).collect());
    println!(
        "first uses of {} tokens at once: p50 {:.1} s, last {:.1} s (three writes each, of 10 a second)",
        delays.count(),
        delays.share(0.5),
        delays.share(1.0),
    );
    let seen = traffic.stop()?;
    println!("meanwhile {:.0} requests/s on {BUSY} other tokens, {} denied", seen.rate, seen.refused);
    Ok(())
}

/// Uses a token; when it was answered.
fn accepted(line: &mut Line, token: &str) -> Result<Instant> {
    match line.ask(&question(token))? {
        200 => Ok(Instant::now()),
        code => Err(format!("a token that was issued is answered {code}").into()),
    }
}
