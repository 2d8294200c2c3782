//! The wall clock of this machine.

use k8s_openapi::jiff::Timestamp;

use crate::domain::ports::Clock;

/// Reads the operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_later_than_this_file() {
        assert!(SystemClock.now().as_second() > 1_700_000_000);
    }
}
