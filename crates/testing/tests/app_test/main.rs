//! What the testing crate promises to the tests of users: the app's own settings, retry topics, paused time, failures on purpose, and
//! panics that say what is going on.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

mod connection;
mod faults;
mod places;
mod reports;
mod settings;
mod support;
mod time;
