//! `cargo xtask`: the project's own commands. `cargo xtask help` lists them.

mod ahead;
mod args;
mod bench;
mod check;
mod end;
mod failures;
mod fuzz;
mod report;
mod server;
mod step;
mod tally;
mod test;

use std::env;
use std::process::ExitCode;

use xtask::interrupt;

use self::args::Request;
use self::end::End;

fn main() -> ExitCode {
    let request = match args::parse(env::args().skip(1)) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("error: {error}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    if let Err(error) = interrupt::install() {
        eprintln!("error: Ctrl-C cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    let end = match request {
        Request::Bench(options) => bench::run(&options),
        Request::Check => check::run(),
        Request::Fuzz(seconds) => fuzz::run(seconds),
        Request::Help => {
            println!("{}", args::USAGE);
            Ok(End::Succeeded)
        }
        Request::Interop(options) => test::interop(&options),
        Request::Server(broker) => server::run(broker),
        Request::Test(options) => test::run(&options),
    };
    match end {
        Ok(End::Succeeded) => ExitCode::SUCCESS,
        Ok(End::Failed) => ExitCode::FAILURE,
        Ok(End::Interrupted) => {
            eprintln!("xtask: interrupted; everything that was started is stopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
