//! The operator against a real API server, under the rights that the chart gives it.
//!
//! Every operator here is a process of the release binary, started with exactly the arguments and environment of the
//! chart's Deployment and a token of its ServiceAccount: a missing verb in the chart's roles fails a test.
//!
//! - `TOKENWARD_BIN`: the binary (default `target/release/tokenward`, built if it is absent).
//! - `TOKENWARD_TEST_KUBECONFIG`: an existing, empty cluster for the cases that share one. The cases that stop API
//!   servers and remove definitions always start a control plane of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a helper that fails ends its test, and says why there"
)]

mod cases;
mod harness;
