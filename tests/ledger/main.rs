//! The ledger against the in-process API server, in virtual time.

// Helpers of tests stop the test where they stand, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod leaders;
mod network;
mod persistence;
mod service;
mod support;
