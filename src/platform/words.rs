//! Errors of the client to the API server, in words for people. As the client itself writes them, each says the same twice, the
//! second time in Rust.

use std::error::Error;
use std::fmt::Write as _;

use kube::core::Status;
use kube::runtime::watcher;

/// What the API server said, or what was in the way.
pub fn of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => said(status),
        // What follows names itself.
        kube::Error::Service(error) => chain(&**error),
        other => chain(other),
    }
}

/// What became of a watch.
pub fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of(error),
        watcher::Error::WatchError(status) => said(status),
        watcher::Error::NoResourceVersion => "the answer has no resourceVersion".to_owned(),
    }
}

/// The API server's answer, with its code.
pub fn said(status: &Status) -> String {
    match (status.message.as_str(), status.reason.as_str()) {
        ("", "") => format!("the API server answered {}", status.code),
        ("", reason) => format!("{reason} ({})", status.code),
        (message, _) => format!("{message} ({})", status.code),
    }
}

/// An error and its causes on one line. Causes that their effect quotes already are not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_words_are_said_once_and_not_in_rust() {
        let status = Status {
            code: 403,
            message: "secrets is forbidden: no".to_owned(),
            reason: "Forbidden".to_owned(),
            ..Status::default()
        };
        let error = kube::Error::Api(status.clone().boxed());
        assert_eq!(of(&error), "secrets is forbidden: no (403)");
        assert_eq!(of_watch(&watcher::Error::InitialListFailed(error)), "secrets is forbidden: no (403)");
        assert_eq!(of_watch(&watcher::Error::WatchError(status.boxed())), "secrets is forbidden: no (403)");
        assert_eq!(said(&Status { code: 500, ..Status::default() }), "the API server answered 500");
    }

    #[test]
    fn an_error_is_one_line_with_every_cause_once() {
        /// As kube's errors do it: the effect quotes its cause already.
        #[derive(Debug, thiserror::Error)]
        #[error("HyperError: {0}")]
        struct Quoting(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen")]
        struct Plain(#[source] std::io::Error);
        assert_eq!(chain(&Quoting(std::io::Error::other("reset"))), "HyperError: reset");
        let inner = std::io::Error::other("connection\n  refused");
        assert_eq!(chain(&Plain(inner)), "cannot listen: connection refused");
        let service = kube::Error::Service(Box::new(Plain(std::io::Error::other("reset"))));
        assert_eq!(of(&service), "cannot listen: reset");
    }
}
