//! How long a gate accepts a token after the API server has taken its suspension.

use std::time::{Duration, Instant};

use futures::{TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::common::Result;
use super::figures::{Times, aim};
use super::line::{Line, question};
use super::town::{BUSY, Town};
use super::traffic::Traffic;
use super::{Progress, Settings};

/// Between two questions: whoever asks without a pause takes the time from those who are measured.
const PAUSE: Duration = Duration::from_micros(50);
const PATIENCE: Duration = Duration::from_secs(10);

/// Suspends one token after another, each as soon as the one before is denied.
pub async fn run(town: &mut Town, settings: &Settings, progress: &Progress) -> Result<()> {
    let numbers = town.untouched(settings.revocations)?;
    let api = town.api();
    let suspend = async |number: usize, suspend: bool| {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        api.patch(&format!("t-{number}"), &PatchParams::default(), &patch).await
    };
    let traffic = Traffic::start(town.http, town.busy(), settings.rate);
    tokio::time::sleep(Duration::from_secs(2)).await;

    progress.step(&format!("{} revocations", settings.revocations));
    let mut line = Line::connect(town.http)?;
    let (mut delays, mut patches, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = 0;
    for number in numbers.clone() {
        let question = question(&town.tokens[number]);
        if line.ask(&question)? != 200 {
            return Err(format!("t-{number} is denied before it is revoked").into());
        }
        let sent = Instant::now();
        suspend(number, true).await?;
        let taken = Instant::now();
        let mut last = taken;
        for asked in 0.. {
            let code = line.ask(&question)?;
            let now = Instant::now();
            steps.push(now - last);
            last = now;
            if code == 401 {
                before += usize::from(asked == 0);
                delays.push(now - taken);
                break;
            }
            if now - taken > PATIENCE {
                return Err(format!("t-{number} is revoked and still answered {code}").into());
            }
            std::thread::sleep(PAUSE);
        }
        patches.push(taken - sent);
    }
    let seen = traffic.stop()?;
    let (delays, patches, steps) = (Times::new(delays), Times::new(patches), Times::new(steps));
    let milliseconds = |times: &Times, share| times.share(share) * 1000.0;
    let (half, most) = (milliseconds(&delays, 0.5), milliseconds(&delays, 0.99));
    println!(
        "revocation, {} of {} tokens: p50 {half:.2} ms ({}), p99 {most:.2} ms ({}), max {:.2} ms",
        delays.count(),
        settings.tokens,
        aim(half, 10.0, "ms"),
        aim(most, 50.0, "ms"),
        milliseconds(&delays, 1.0),
    );
    println!(
        "the gate was asked every {:.2} ms (p99 {:.2} ms); {before} were denied at the first question; a PATCH took {:.2} ms (p99 {:.2} ms)",
        milliseconds(&steps, 0.5),
        milliseconds(&steps, 0.99),
        milliseconds(&patches, 0.5),
        milliseconds(&patches, 0.99),
    );
    println!("meanwhile {:.0} requests/s on {BUSY} other tokens, {} denied", seen.rate, seen.refused);

    let suspend = &suspend;
    let all = stream::iter(numbers.map(Ok::<_, kube::Error>));
    all.try_for_each_concurrent(16, |number| async move { suspend(number, false).await.map(drop) }).await?;
    Ok(())
}
