//! The program `oci-cache`: the library's commands, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    oci_cache_cli::main()
}
