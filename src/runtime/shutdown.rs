//! Signals: the first asks the process to leave in order, the second ends it, and so does a time that is over.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::telemetry;

/// As a shell reports a process that ended by SIGINT; distinguishable from an orderly end.
const EXIT_FORCED: i32 = 130;

/// A token that SIGTERM or SIGINT cancels. After that, either signal exits at once, and so does a process that is still
/// there after `limit`, whatever keeps it: nothing is released then, and the Lease runs out by itself.
///
/// Signals are listened to on `overseer`, which no work of the process can block.
pub fn on_signals(overseer: &Handle, limit: Duration) -> std::io::Result<CancellationToken> {
    let _context = overseer.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    overseer.spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        // First of all, and on a thread of its own: this has to come true.
        let timer = std::thread::Builder::new().name("deadline".to_owned());
        let timer = timer.spawn(move || {
            std::thread::sleep(limit);
            exit("not everything has ended in time: exiting");
        });
        if let Err(error) = timer {
            tracing::error!(%error, "no thread for the deadline");
        }
        tracing::info!(signal = name, "shutting down; a second signal exits at once");
        token.cancel();
        next(&mut terminate, &mut interrupt).await;
        exit("a second signal: exiting at once");
    });
    Ok(shutdown)
}

fn exit(why: &str) -> ! {
    tracing::warn!("{why}");
    telemetry::flush();
    std::process::exit(EXIT_FORCED);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
