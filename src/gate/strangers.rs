//! Tells who sends tokens that no ApiToken knows: no TokenUsage can name them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::metrics::GateMetrics;
use super::recorder::Strangers;
use crate::api::report::CallerUse;

/// One line in the log at most, and how long the gauges look back.
const EVERY: Duration = Duration::from_secs(60);
/// Callers that are named.
const NAMED: usize = 3;

/// Logs and shows them, once a minute at most, for as long as it is polled.
pub async fn run(gate: Arc<Gate>, metrics: GateMetrics) -> Infallible {
    loop {
        tokio::time::sleep(EVERY).await;
        tell(gate.recorder().strangers().as_ref(), &metrics);
    }
}

fn tell(strangers: Option<&Strangers>, metrics: &GateMetrics) {
    let callers = strangers.map_or(0, |strangers| strangers.callers.len());
    metrics.strangers.set(i64::try_from(callers).unwrap_or(i64::MAX));
    let Some(strangers) = strangers else { return };
    let last = strangers.callers.iter().map(|caller| caller.last_seen).max().unwrap_or(0);
    metrics.strangers_seen.set(last);
    tracing::warn!(
        credential = %strangers.credential,
        callers = %describe(&strangers.callers),
        "tokens that no ApiToken knows are being tried: of ApiTokens that are gone, or made up"
    );
}

/// The busiest, for people. What they say of themselves cannot break out of the line.
fn describe(callers: &[CallerUse]) -> String {
    let one = |caller: &CallerUse| {
        let known = [&caller.principal, &caller.address].into_iter().filter(|part| !part.is_empty());
        let mut who = known.cloned().collect::<Vec<_>>().join(" at ");
        if who.is_empty() {
            who.push_str("an unnamed caller");
        }
        if !caller.user_agent.is_empty() {
            who.push_str(&format!(" ({})", caller.user_agent));
        }
        format!("{} {} times", who.escape_debug(), caller.count)
    };
    let mut all: Vec<&CallerUse> = callers.iter().collect();
    all.sort_by_key(|caller| std::cmp::Reverse(caller.count));
    let mut named: Vec<String> = all.iter().take(NAMED).map(|caller| one(caller)).collect();
    if all.len() > NAMED {
        named.push(format!("{} more at least", all.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str, user_agent: &str, count: u64) -> CallerUse {
        CallerUse { address: address.into(), user_agent: user_agent.into(), count, ..CallerUse::default() }
    }

    #[test]
    fn the_busiest_are_named_and_keep_to_their_line() {
        let callers = [
            caller("203.0.113.7", "curl/8\nWARN forged", 2),
            caller("203.0.113.8", "", 30),
            caller("", "", 1),
            caller("203.0.113.9", "x", 1),
        ];
        let said = describe(&callers);
        assert_eq!(
            said,
            "203.0.113.8 30 times, 203.0.113.7 (curl/8\\nWARN forged) 2 times, an unnamed caller 1 times, 1 more at least"
        );
    }
}
