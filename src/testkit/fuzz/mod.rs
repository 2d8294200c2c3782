//! What fuzzers run: one function for each kind of bytes that come from outside, with what must hold whatever they are.
//!
//! `fuzz/` holds the targets for libFuzzer, `tests/fuzz/` replays the committed seeds and mutates them in every test run.
//! All inputs are shown to one gate ([`scene`]). What it answers is compared with [`reference`](mod@reference), which says
//! the same in the plainest way that could be found, and shares no code with the gate.
//!
//! A fuzzer does not guess a checksum. So an input names tokens instead of spelling them out: see [`scene::Scene::expand`].

mod grpc;
mod http;
mod object;
mod reference;
mod scene;
mod template;
mod token;

pub use grpc::{check_request, headers};
pub use http::{forward_auth, introspection};
pub use object::object;
pub use scene::placeholders;
pub use template::template;
pub use token::token;

/// A body: runs one input, and says whether it came as far as being accepted. Panics if something does not hold.
pub type Body = fn(&[u8]) -> bool;

/// Every body by the name of its target.
pub const TARGETS: [(&str, Body); 7] = [
    ("check_request", check_request),
    ("forward_auth", forward_auth),
    ("headers", headers),
    ("introspection", introspection),
    ("object", object),
    ("template", template),
    ("token", token),
];
