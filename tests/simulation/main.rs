//! The real controller in a seeded world of virtual time: see `tokenward::testkit::world`.

// Helpers of tests stop the test where they stand, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bad_days;
mod crashes;
mod gates;
mod mutations;
mod news;
mod quiet;
mod replicas;
mod seeds;
mod support;
mod tenants;
