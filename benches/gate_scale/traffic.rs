//! Clients that go on asking, at a steady rate, on a thread of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Result;
use super::line::{Line, question};

/// Connections that are kept.
const LINES: usize = 8;

/// Traffic until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Seen>>,
}

/// What was asked and answered.
pub struct Seen {
    /// Answers that were not 200.
    pub refused: usize,
    /// Questions a second.
    pub rate: f64,
}

impl Traffic {
    /// Asks about these tokens in turn, `rate` times a second.
    pub fn start(gate: SocketAddr, tokens: &[String], rate: f64) -> Self {
        let questions: Vec<_> = tokens.iter().map(|token| question(token)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let lines: std::io::Result<Vec<_>> = (0..LINES).map(|_| Line::connect(gate)).collect();
            let mut lines = lines?;
            let started = Instant::now();
            let (mut asked, mut refused) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = started + Duration::from_secs_f64(asked as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let code = lines[asked % LINES].ask(&questions[asked % questions.len()])?;
                asked += 1;
                refused += usize::from(code != 200);
            }
            Ok(Seen { refused, rate: asked as f64 / started.elapsed().as_secs_f64() })
        });
        Self { stop, thread }
    }

    /// Stops, and says what was seen.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the traffic broke down")??)
    }
}

/// Asks once about each token, as fast as one connection carries it; how many were let through.
pub fn once(gate: SocketAddr, tokens: &[String]) -> Result<usize> {
    let mut line = Line::connect(gate)?;
    let mut accepted = 0;
    for token in tokens {
        accepted += usize::from(line.ask(&question(token))? == 200);
    }
    Ok(accepted)
}
