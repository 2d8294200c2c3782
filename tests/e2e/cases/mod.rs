//! The cases, by topic.

mod adversary;
mod bad_input;
mod crash;
mod delivery;
mod evidence;
mod examples;
mod expiry;
mod gate;
mod leaders;
mod ownership;
mod process;
mod proxies;
mod quiet;
mod recipes;
mod recipes_grpc;
mod removal;
mod repair;
mod restore;
mod rights;
mod rotation;
mod trouble;
mod upgrade;
mod withdrawal;
