//! The `tokenward` binary.

use std::process::ExitCode;

/// Gives memory back when a burst is over: glibc's keeps what five thousand connections took.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tokenward::runtime::main()
}
