//! The program `throughline`, and the receiver that its viewer has.
//!
//! `throughline view` draws traces for whoever looks at a terminal. A program that shows traces by itself takes a [`Receiver`]: services send
//! to it over OTLP, and at the end it returns their traces. [`screen`] is where the program draws them.

mod arguments;
mod program;
mod view;

pub use self::program::run;
pub use self::view::{Receiver, screen};
