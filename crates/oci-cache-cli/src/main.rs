//! The program `oci-cache`: it offers the library's commands and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    oci_cache_cli::main()
}
