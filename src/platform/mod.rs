//! What the roles share below their own work: metric families, readiness, watches that are retried, who leads, who sends a
//! ServiceAccount token, gRPC, pinned TLS, what a request line may hold.

pub mod apart;
pub mod budget;
pub mod families;
pub mod grpc;
pub mod leadership;
pub mod pinned;
pub mod process;
pub mod readiness;
pub mod reminder;
pub mod reviews;
pub mod target;
pub mod vitals;
pub mod watching;
pub mod words;
