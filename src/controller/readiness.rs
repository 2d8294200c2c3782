//! Whether the controller has seen enough of the cluster to be relied on.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// What is still waited for; ready when nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    pending: BTreeSet<&'static str>,
}

impl Readiness {
    /// A channel that starts with all of `names` pending, for example one for each watch.
    pub fn channel(
        names: impl IntoIterator<Item = &'static str>,
    ) -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self { pending: names.into_iter().collect() })
    }

    /// Strikes one off. Once synced stays synced: a watch that reconnects still serves what it knows.
    pub fn synced(sender: &watch::Sender<Self>, name: &'static str) {
        sender.send_if_modified(|readiness| readiness.pending.remove(name));
    }

    /// Whether nothing is waited for any more.
    pub fn is_ready(&self) -> bool {
        self.pending.is_empty()
    }

    /// The names still waited for, sorted.
    pub fn pending(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.pending.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_everything_was_struck_off() {
        let (sender, receiver) = Readiness::channel(["secrets", "apitokens"]);
        assert_eq!(receiver.borrow().pending().collect::<Vec<_>>(), ["apitokens", "secrets"]);
        Readiness::synced(&sender, "secrets");
        assert!(!receiver.borrow().is_ready());
        Readiness::synced(&sender, "apitokens");
        Readiness::synced(&sender, "apitokens");
        assert!(receiver.borrow().is_ready());
    }
}
