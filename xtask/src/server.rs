//! `cargo xtask server NAME`: one broker, until Ctrl-C.

use std::error::Error;
use std::thread;
use std::time::Duration;

use xtask::interrupt;
use xtask::servers::{Broker, Origin, ServerErrorKind};

use crate::end::End;
use crate::report::say;

const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(broker: &Broker) -> Result<End, Box<dyn Error>> {
    let Some(pass) = broker.passes.first() else {
        return Ok(End::Failed);
    };
    let mut server = match (pass.start)() {
        Ok(server) => server,
        Err(error) if error.kind() == ServerErrorKind::Interrupted => return Ok(End::Interrupted),
        Err(error) => return Err(error.into()),
    };
    say(format_args!("{server}\n"));
    say(format_args!("Use it from another terminal:"));
    say(format_args!("  {}={} cargo run -p quickstart -- --broker {}", broker.url_variable, server.url(), broker.name));
    if server.origin() == Origin::Environment {
        say(format_args!("\nIt runs already, and is not ours to stop."));
        return Ok(End::Succeeded);
    }
    say(format_args!("\nCtrl-C stops it and removes its data."));
    while !interrupt::requested() {
        if !server.is_running() && !interrupt::requested() {
            return Err("the server ended by itself".into());
        }
        thread::sleep(POLL);
    }
    Ok(End::Interrupted)
}
