//! An in-process Kubernetes API server, as a `tower::Service` under a real `kube::Client`.
//!
//! It runs in virtual time, does no IO, and is deterministic from its seed. What it serves it serves as the real one
//! does: the scenarios in [`super::scenarios`] are run against both. Between the clients and the server sits a
//! network that tests can disturb: see [`Fault`], [`Link`] and [`ApiServer::crash_at_write`].
//!
//! | module | job |
//! |---|---|
//! | `request`, `service` | HTTP in and out, faults on the way |
//! | `store` | objects, history, resourceVersion |
//! | `read`, `watch`, `selector` | get, list, pages, watches |
//! | `write`, `delete`, `admission`, `secret` | the road of a write |
//! | `managers`, `shape`, `fieldset` | server-side apply |
//! | `gc` | owner references and namespaces |

mod admission;
mod config;
mod delete;
mod faults;
mod fieldset;
mod gc;
mod managers;
mod observe;
mod read;
mod request;
mod resource;
mod secret;
mod selector;
mod server;
mod service;
mod shape;
mod status;
mod store;
mod watch;
mod write;

pub use admission::{Authorizer, Mutator, Validator};
pub use config::Config;
pub use faults::{Fault, Faults, Link, When};
pub use observe::{Commit, Counts, Request};
pub use request::{RequestInfo, Verb};
pub use resource::{ListKind, ResourceType, apitokens, events, leases, namespaces, secrets, tokenusages};
pub use server::{ApiServer, Builder};
pub use service::{ClientService, ReplyBody};
