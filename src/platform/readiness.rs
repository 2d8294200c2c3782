//! Whether a process has seen enough of the cluster to be relied on.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// What is still waited for; ready when nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    pending: BTreeMap<&'static str, usize>,
    leaving: bool,
}

impl Readiness {
    /// A channel that starts with all of `names` pending, for example one for each watch: each as often as it is given.
    pub fn channel(
        names: impl IntoIterator<Item = &'static str>,
    ) -> (watch::Sender<Self>, watch::Receiver<Self>) {
        let mut pending = BTreeMap::new();
        names.into_iter().for_each(|name| *pending.entry(name).or_default() += 1);
        watch::channel(Self { pending, leaving: false })
    }

    /// Strikes one off. Once synced stays synced: a watch that reconnects still serves what it knows.
    pub fn synced(sender: &watch::Sender<Self>, name: &'static str) {
        sender.send_if_modified(|readiness| match readiness.pending.get_mut(name) {
            Some(left) if *left > 1 => {
                *left -= 1;
                true
            }
            _ => readiness.pending.remove(name).is_some(),
        });
    }

    /// The process is about to leave: it is not ready from now on, whatever else happens.
    pub fn leave(sender: &watch::Sender<Self>) {
        sender.send_modify(|readiness| readiness.leaving = true);
    }

    /// Whether nothing is waited for any more, and the process stays.
    pub fn is_ready(&self) -> bool {
        self.pending.is_empty() && !self.leaving
    }

    /// Whether the process is about to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The names still waited for, sorted.
    pub fn pending(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.pending.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_everything_was_struck_off() {
        let (sender, receiver) = Readiness::channel(["secrets", "apitokens", "secrets"]);
        assert_eq!(receiver.borrow().pending().collect::<Vec<_>>(), ["apitokens", "secrets"]);
        Readiness::synced(&sender, "secrets");
        Readiness::synced(&sender, "apitokens");
        assert!(!receiver.borrow().is_ready(), "one of two");
        Readiness::synced(&sender, "secrets");
        Readiness::synced(&sender, "secrets");
        assert!(receiver.borrow().is_ready());
        Readiness::leave(&sender);
        assert!(receiver.borrow().is_leaving() && !receiver.borrow().is_ready());
    }
}
