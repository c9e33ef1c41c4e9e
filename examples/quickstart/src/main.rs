//! An order through three handlers, drawn as a waterfall.

fn main() {}
