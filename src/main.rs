//! The binary: every verb, without handlers of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    solewriter::cli::main(solewriter::worker::Worker::new())
}
