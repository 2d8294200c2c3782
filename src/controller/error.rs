//! Why a reconcile did not reach its end.

use std::time::Duration;

use super::leader::NotLeading;
use crate::api::Reason;
use crate::domain::ports::EntropyError;
use crate::domain::status::Problem;
use crate::platform::words;

/// A reconcile that has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or not at all.
    #[error("{call}: {}", words::of(source))]
    Api {
        /// What was attempted.
        call: Call,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time. The call may have taken effect all the same.
    #[error("{call}: no answer within {}", crate::domain::duration::format(*after))]
    Timeout {
        /// What was attempted.
        call: Call,
        /// How long it was waited for.
        after: Duration,
    },
    /// Somebody else changed the object first: look again.
    #[error("{0}: changed by somebody else meanwhile")]
    Conflict(Call),
    /// Another replica leads now.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// No randomness to mint with.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The declared state cannot be reached for now; the status says why.
    #[error("blocked: {0}")]
    Blocked(Reason),
    /// What the store keeps of the ApiToken cannot be read: a defect of ours.
    #[error("ApiToken in the store: {0}")]
    Store(#[from] serde_json::Error),
    /// A defect of ours; the log says where.
    #[error("the reconcile panicked")]
    Panicked,
    /// More steps than any sound sequence takes.
    #[error("no end after {0} steps")]
    Endless(usize),
}

/// The calls that a reconcile makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// GET of the Secret.
    ReadSecret,
    /// Server-side apply of the Secret.
    ApplySecret,
    /// PUT of the ApiToken's status.
    WriteStatus,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadSecret => "read Secret",
            Self::ApplySecret => "apply Secret",
            Self::WriteStatus => "write status",
        })
    }
}

impl Error {
    /// A bounded name for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "Api",
            Self::Timeout { .. } => "Timeout",
            Self::Conflict(_) => "Conflict",
            Self::NotLeading(_) => "NotLeading",
            Self::Entropy(_) => "Entropy",
            Self::Blocked(_) => "Blocked",
            Self::Store(_) => "Store",
            Self::Panicked => "Panicked",
            Self::Endless(_) => "Endless",
        }
    }

    /// The HTTP status, where there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// What this says about the Secret, for the user; `None` for what the user need not know.
    pub fn problem(&self, failures: u32) -> Option<Problem> {
        /// Failures in a row after which an unanswered call is more than a hiccup.
        const HICCUPS: u32 = 3;
        let Self::Api { call: Call::ReadSecret | Call::ApplySecret, source } = self else {
            let unanswered = matches!(self, Self::Timeout { .. }) && failures >= HICCUPS;
            return unanswered
                .then(|| Problem::passing(Reason::ApiUnavailable, format!("{self}; tried again")));
        };
        let kube::Error::Api(status) = source.as_ref() else {
            return (failures >= HICCUPS)
                .then(|| Problem::passing(Reason::ApiUnavailable, format!("{self}; tried again")));
        };
        let terminating = status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
        let said = &status.message;
        match status.code {
            403 if terminating => Some(Problem::passing(
                Reason::NamespaceTerminating,
                "The namespace is being deleted: no Secret can be created in it".to_owned(),
            )),
            403 if said.contains("exceeded quota") => Some(Problem::passing(
                Reason::QuotaExceeded,
                format!("The namespace's quota leaves no room for the Secret: {said}"),
            )),
            403 => Some(Problem::passing(
                Reason::SecretForbidden,
                format!(
                    "The operator may not do this: {said}; grant it, or take the namespace out of --namespaces"
                ),
            )),
            404 => {
                Some(Problem::passing(Reason::NamespaceTerminating, format!("The namespace is gone: {said}")))
            }
            400 | 413 | 422 => Some(Problem::terminal(
                Reason::SecretRejected,
                format!("The API server refuses the Secret: {said}"),
            )),
            _ => (failures >= HICCUPS).then(|| {
                Problem::passing(
                    Reason::ApiUnavailable,
                    format!("{call}: {said}; tried again", call = Call::ApplySecret),
                )
            }),
        }
    }
}
