//! Pure decisions. No tokio, client, clock, randomness or log: all of these are arguments.

pub mod conditions;
pub mod coverage;
pub mod delivery;
pub mod directory;
pub mod duration;
pub mod health;
pub mod lease;
pub mod lifecycle;
pub mod mutation;
pub mod news;
pub mod notice;
pub mod ownership;
pub mod plan;
pub mod ports;
pub mod requests;
pub mod schedule;
pub mod status;
pub mod template;
pub mod token;
pub mod usage;
