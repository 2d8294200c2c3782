//! What tests stand on: an in-process Kubernetes API server in virtual time, the scenarios that hold it to the
//! behaviour of the real one, a seeded world around the controller, and what fuzzers run against the gate.
//!
//! Never part of the shipped binary (feature `testkit`).

// Test code by another name: a broken invariant here must stop the test at once, with a backtrace, rather than be
// carried along as an error value that a scenario could mistake for an answer of the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod apiserver;
pub mod clock;
pub mod forge;
pub mod fuzz;
pub mod scenarios;
pub mod world;
