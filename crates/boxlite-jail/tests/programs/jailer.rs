//! The jailer by itself, for the tests: in the product it is `boxlite-shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    boxlite_jail::jailer(std::env::args_os().skip(1)).unwrap_or(ExitCode::FAILURE)
}
