//! The command line `attestore`: reads arguments, calls the library, prints, and exits as INTERFACE.md says.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
