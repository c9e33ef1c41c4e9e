//! The Enter key.

use std::io::stdin;
use std::sync::mpsc::Sender;
use std::thread;

use super::drawer::Order;

/// Has the metrics drawn with each line that comes in, on a thread of its own.
pub(super) fn listen(orders: Sender<Order>) {
    if !is_ours() {
        return;
    }
    // Without the thread, the metrics are drawn at the end.
    let _ = thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
        for line in stdin().lines() {
            if line.is_err() || orders.send(Order::Metrics).is_err() {
                return;
            }
        }
    });
}

/// Whether reading is allowed: a program in the background that reads from its terminal is stopped.
#[cfg(unix)]
fn is_ours() -> bool {
    match rustix::termios::tcgetpgrp(stdin()) {
        Ok(foreground) => foreground == rustix::process::getpgrp(),
        // It is no terminal.
        Err(_) => true,
    }
}

#[cfg(not(unix))]
fn is_ours() -> bool {
    true
}
