//! What the benches against real processes share. Each of them uses all of it.

pub mod cluster;
pub mod machine;
pub mod process;

/// Whatever goes wrong ends the bench with a line.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A setting from the environment.
pub fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
