//! The `tokenward` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tokenward::runtime::main()
}
