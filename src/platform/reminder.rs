//! Keeps a log readable while a trouble lasts.

use std::time::Duration;

use tokio::time::Instant;

/// How often the same trouble is said.
const EVERY: Duration = Duration::from_secs(60);

/// Says when a trouble that goes on is to be said again: at once, then once a minute.
#[derive(Debug, Default)]
pub struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it is time. To be asked whenever the trouble occurs.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now.duration_since(last) >= EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_once_and_then_once_a_minute() {
        let mut reminder = Reminder::default();
        let mut said = Vec::new();
        for second in 0..130 {
            if reminder.is_due() {
                said.push(second);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [0, 60, 120]);
    }
}
