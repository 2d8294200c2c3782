//! The plan against a world of one ApiToken and one Secret, stepped by hand and at random.

// Tables of named acts read best as they stand.
#![allow(clippy::type_complexity)]

#[path = "plan_tests/adoption.rs"]
mod adoption;
#[path = "plan_tests/ends.rs"]
mod ends;
#[path = "plan_tests/issue.rs"]
mod issue;
#[path = "plan_tests/mutations.rs"]
mod mutations;
#[path = "plan_tests/obstacles.rs"]
mod obstacles;
#[path = "plan_tests/properties.rs"]
mod properties;
#[path = "plan_tests/repair.rs"]
mod repair;
#[path = "plan_tests/telling.rs"]
mod telling;
#[path = "plan_tests/truth.rs"]
mod truth;
#[path = "plan_tests/using.rs"]
mod using;
#[path = "plan_tests/world.rs"]
mod world;
