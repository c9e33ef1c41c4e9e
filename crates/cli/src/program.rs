//! The program, from its arguments to its exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::view;

/// Runs the program `throughline` with the arguments of this process, and returns its exit code.
///
/// A wrong command line ends the process, with a message and the exit code 2.
#[must_use]
pub fn run() -> ExitCode {
    let Command::View(options) = Arguments::parse().command;
    match view::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
