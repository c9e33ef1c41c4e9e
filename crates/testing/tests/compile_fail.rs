//! What a user reads who got a handler wrong: every text names what is wrong and how to mend it (design, section 4).
//!
//! The programs and the texts expected of them are in `tests/compile_fail/`. To accept changed texts, run
//! `TRYBUILD=overwrite cargo test -p throughline-testing --test compile_fail` and read the difference as a user would.

use std::env;
use std::process::Command;

/// The compiler whose words the expected texts hold: that of CI. With a new one, change this and accept the texts anew.
const COMPILER: &str = "rustc 1.95.";

/// Compares only on [`COMPILER`], since every release words its errors anew. In CI another compiler is a failure, so that the
/// comparison cannot be lost unnoticed; a user with another compiler is told and not bothered.
#[test]
fn a_wrong_handler_is_told_how_to_mend_it() {
    let compiler = compiler();
    if compiler.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
        return;
    }
    let advice = format!(
        "the expected texts are those of {COMPILER}x and this is {compiler}: name it in `COMPILER` in {} and run \
         `TRYBUILD=overwrite cargo test -p throughline-testing --test compile_fail`",
        file!()
    );
    assert!(env::var_os("CI").is_none(), "{advice}");
    println!("not compared: {advice}");
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    match Command::new(rustc).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => panic!("there is no rustc to ask for its version: {error}"),
    }
}
