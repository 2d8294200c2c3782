//! Waiting for what should come true. The bounds are generous: they are for a busy machine, and no assertion.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longest time that anything is waited for, unless a case says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Asks until there is an answer, and returns it.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, POLL, what, ask).await
}

/// As [`until`], with other times.
pub async fn until_within<T>(
    bound: Duration,
    poll: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < bound, "not so within {bound:?}: {what}");
        sleep(poll).await;
    }
}
