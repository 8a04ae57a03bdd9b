//! The `verlet` program: arguments in, one command, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    verlet::cli::main()
}
