//! An API server that cannot be reached is told once for the process, not once for each of its watches, leases and tokens.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::platform::words;

/// The first pause between two lines; it doubles.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LAST: Duration = Duration::from_secs(60);

/// A call that came back without an answer of the API server. It was told already when it was made.
#[derive(Debug, thiserror::Error)]
#[error("{server} gave no answer: {why}")]
pub struct Unreachable {
    server: String,
    why: String,
}

/// What is known of the way to the API server. Clones know the same, those of another client too.
#[derive(Clone, Default)]
pub struct Outage {
    server: String,
    told: Arc<Mutex<Option<Told>>>,
}

/// A trouble that was told.
struct Told {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Outage {
    /// For a client of this API server.
    #[must_use]
    pub fn of(&self, server: &Uri) -> Self {
        Self { server: server.to_string().trim_end_matches('/').to_owned(), told: self.told.clone() }
    }

    /// The API server answered, whatever it said.
    pub fn over(&self) {
        if let Some(told) = self.told.lock().take() {
            let seconds = told.since.elapsed().as_secs();
            tracing::info!(server = self.server, seconds, "the API server answers again");
        }
    }

    /// A call failed on its way. What to tell its caller.
    pub fn failed(&self, error: &(dyn Error + 'static)) -> Unreachable {
        let why = root(error);
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.as_ref().is_none_or(|told| now >= told.next) {
            let (since, pause) =
                told.as_ref().map_or((now, FIRST), |told| (told.since, (told.pause * 2).min(LAST)));
            *told = Some(Told { since, next: now + pause, pause });
            drop(told);
            tracing::warn!(
                server = self.server,
                error = why,
                "the API server cannot be reached; trying again: check that it runs, that this address is right \
                 (kubeconfig), and what lies between (DNS, proxies, network policies)"
            );
        }
        Unreachable { server: self.server.clone(), why }
    }
}

/// The innermost cause, which says what happened; those around it say in which library.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source().filter(|cause| !cause.to_string().is_empty()) {
        innermost = cause;
    }
    words::chain(innermost)
}
