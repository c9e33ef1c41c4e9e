//! The program of the demo, where it cannot do what it is told.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn orders(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orders"))
        .args(arguments)
        .env_remove("CARGO")
        .env("THROUGHLINE_KAFKA_URL", "no address of a broker")
        .output()
        .unwrap()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_that_is_taken_is_an_error_before_anything_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = error(&orders(&["demo", "--listen", &address]));
    assert!(error.contains(&format!("error: {address} cannot be listened on")), "{error}");
    assert!(error.contains("--listen"), "{error}");
}

#[test]
fn a_broker_that_cannot_be_had_is_an_error_with_its_reason() {
    let error = error(&orders(&["demo", "--listen", "127.0.0.1:0"]));
    assert!(error.contains("error: the brokers cannot be had") && error.contains("THROUGHLINE_KAFKA_URL"), "{error}");
}

#[test]
fn a_command_line_that_is_wrong_has_an_exit_code_of_its_own() {
    for arguments in [&["demo", "--rate", "0"][..], &["sell"], &[]] {
        assert_eq!(orders(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
