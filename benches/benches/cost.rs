//! The cases under criterion.
fn main() {}
